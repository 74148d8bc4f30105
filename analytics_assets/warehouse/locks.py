"""Who may load a group, and who may have the database open.

DuckDB lets one process open a database file for writing, and a merge of the same table by two runs
at once goes wrong on any database. So a run holds one lock while it works on a group, and one for
the short times in which it has the database open. DuckDB uses lock files beside the database,
PostgreSQL advisory locks; for other servers a Dagster pool has to do (see the README).
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import filelock
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.errors import PlaceUnusable
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.settings import Log
from analytics_assets.warehouse import duckdb_file
from analytics_assets.warehouse.destination import local_folder
from analytics_assets.warehouse.preflight import check_reachable
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.waiting import Waiting

Check = Callable[[], None]
"""Makes sure that a lock is still held."""


@contextmanager
def exclusive(
    group: str, settings: WarehouseSettings, pipeline: Pipeline, log: Log
) -> Iterator[Check]:
    """Hold off other runs of the same group into the same dataset.

    Yields:
        What makes sure, before a load, that the lock is held and nobody has loaded meanwhile; it
        raises ``DestinationBusy`` or ``DestinationUnreachable``.

    Raises:
        SettingError: the destination's credentials are missing or wrong.
        DestinationUnreachable: the destination is away.
        DestinationBusy: another run did not end in time.
    """
    check_reachable(settings, pipeline)
    name = f"{settings.dataset}.{group}"
    with _lock(name, f"the {group} group", settings, pipeline, log, group) as check:
        yield check


@contextmanager
def open_database(settings: WarehouseSettings, pipeline: Pipeline, log: Log) -> Iterator[None]:
    """Hold the right to use the database; inside, dlt can open it without a conflict.

    Raises:
        SettingError: the DuckDB file cannot be opened.
        DestinationBusy: another run, or a reader of the DuckDB file, did not end in time.
    """
    what = f"the dataset {settings.dataset!r}"
    # a file is one process's for writing, whatever datasets are in it
    name = "database" if settings.is_duckdb else settings.dataset
    with _lock(name, what, settings, pipeline, log):
        if not settings.is_duckdb:
            yield
            return
        with duckdb_file.for_owner_only(), closing(duckdb_file.connect(settings, log)):
            yield


@contextmanager
def _lock(
    name: str,
    what: str,
    settings: WarehouseSettings,
    pipeline: Pipeline,
    log: Log,
    group: str | None = None,
) -> Iterator[Check]:
    """Hold the lock of that name where the destination has one, waiting for whoever holds it."""
    waiting = Waiting(settings.lock_timeout, log)
    why = f"another run is loading {what}"
    if settings.destination == "postgres":
        from analytics_assets.warehouse.advisory_lock import AdvisoryLock
        from analytics_assets.warehouse.session import Server

        key = zlib.crc32(f"analytics_assets.{name}".encode())
        with closing(AdvisoryLock(Server.of(settings, pipeline), key, group)) as lock:
            lock.take(waiting, why)
            yield partial(lock.check, log)
        return
    if path := _lock_file(name, settings, pipeline):
        with _file_lock(path, waiting, why):
            yield _nothing_to_check
    else:
        yield _nothing_to_check


def _nothing_to_check() -> None:
    """The lock of a file is held for as long as the process is there."""


def _lock_file(name: str, settings: WarehouseSettings, pipeline: Pipeline) -> Path | None:
    """Return the file to lock, for destinations on this machine."""
    if settings.is_duckdb:
        path = settings.duckdb_path.absolute()
        return path.with_name(f".{path.name}.{name}.lock")
    folder = local_folder(settings, pipeline)
    return folder / f".analytics_assets.{name}.lock" if folder else None


@contextmanager
def _file_lock(path: Path, waiting: Waiting, why: str) -> Iterator[None]:
    lock = filelock.FileLock(path)
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # filelock takes a file that cannot be made for one that somebody else holds
            path.touch(mode=0o644)
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            waiting.once_more(why)
        # filelock's word of a file system without locks is NotImplementedError
        except (OSError, NotImplementedError) as error:
            raise PlaceUnusable(
                f"The lock file {str(path)!r} cannot be used ({foreign_text(str(error))}); let this"
                " user write to the file and its folder, or choose another folder for the tables."
            ) from None
    try:
        yield
    finally:
        lock.release()
