"""Who may load a group, and who may have the database open.

DuckDB lets one process open a database file for writing, and a merge of the same table by two runs
at once goes wrong on any database. So a run holds one lock while it works on a group, and one for
the short times in which it has the database open. DuckDB uses lock files beside the database,
PostgreSQL advisory locks; for other servers a Dagster pool has to do (see the README).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import filelock
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.settings import Log
from analytics_assets.warehouse import duckdb_file
from analytics_assets.warehouse.destination import local_folder
from analytics_assets.warehouse.preflight import check_reachable
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.waiting import Waiting


@contextmanager
def exclusive(
    group: str, settings: WarehouseSettings, pipeline: Pipeline, log: Log
) -> Iterator[None]:
    """Hold off other runs of the same group into the same dataset.

    Raises:
        SettingError: the destination's credentials are missing or it cannot be reached.
        DestinationBusy: another run did not end in time.
    """
    check_reachable(settings, pipeline)
    with _lock(f"{settings.dataset}.{group}", f"the {group} group", settings, pipeline, log):
        yield


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
        with closing(duckdb_file.connect(settings, log)):
            yield


@contextmanager
def _lock(
    name: str, what: str, settings: WarehouseSettings, pipeline: Pipeline, log: Log
) -> Iterator[None]:
    """Hold the lock of that name where the destination has one, waiting for whoever holds it."""
    waiting = Waiting(settings.lock_timeout, log)
    why = f"another run is loading {what}"
    if settings.destination == "postgres":
        with _advisory_lock(name, pipeline, waiting, why):
            yield
    elif path := _lock_file(name, settings, pipeline):
        with _file_lock(path, waiting, why):
            yield
    else:
        yield


def _lock_file(name: str, settings: WarehouseSettings, pipeline: Pipeline) -> Path | None:
    """Return the file to lock, for destinations on this machine."""
    if settings.is_duckdb:
        path = settings.duckdb_path.absolute()
        return path.with_name(f".{path.name}.{name}.lock")
    folder = local_folder(settings, pipeline)
    return folder / f".analytics_assets.{name}.lock" if folder else None


@contextmanager
def _file_lock(path: Path, waiting: Waiting, why: str) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(path)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            waiting.once_more(why)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _advisory_lock(name: str, pipeline: Pipeline, waiting: Waiting, why: str) -> Iterator[None]:
    """Hold a PostgreSQL advisory lock on a connection of its own; it ends with the connection."""
    key = zlib.crc32(f"analytics_assets.{name}".encode())
    with pipeline.sql_client() as sql:
        while not _first_value(sql.execute_sql("SELECT pg_try_advisory_lock(%s)", key)):
            waiting.once_more(why)
        try:
            yield
        finally:
            sql.execute_sql("SELECT pg_advisory_unlock(%s)", key)


def _first_value(rows: Any) -> Any:
    return rows[0][0] if rows else None
