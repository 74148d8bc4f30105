"""Where the tables go: the dlt destination, and who may write to it when.

DuckDB lets one process open a database file for writing, and a merge of the same table by two runs
at once goes wrong on any database. So a run holds one lock while it works on a group, and one for
the short times in which it has the database open. DuckDB uses lock files beside the database,
PostgreSQL advisory locks; for other servers a Dagster pool has to do (see the README).
"""

from __future__ import annotations

import importlib.util
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dlt
import filelock
from dlt.common.destination import Destination
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.errors import DestinationBusy, SettingError
from analytics_assets.transport import Log

POLL_SECONDS: Final = 0.2
REMIND_SECONDS: Final = 30.0


@dataclass(frozen=True)
class WarehouseSettings:
    """Where to load.

    Attributes:
        destination: name of a dlt destination; its credentials come from dlt's configuration.
        dataset: schema (or folder) of the tables.
        duckdb_path: database file, for the DuckDB destination only.
        table_format: ``delta`` for the filesystem destination, else ``None``.
        lock_timeout: seconds to wait for another run.
        reader_timeout: seconds to wait for a reader that holds the DuckDB file open.
    """

    destination: str = "duckdb"
    dataset: str = "analytics"
    duckdb_path: Path = Path("analytics_assets.duckdb")
    table_format: str | None = None
    lock_timeout: float = 3600.0
    reader_timeout: float = 120.0

    @property
    def is_duckdb(self) -> bool:
        """Whether the destination is a DuckDB file."""
        return self.destination == "duckdb"

    def check(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            SettingError: the text names the setting and what to do.
        """
        if not self.dataset.isidentifier() or self.dataset != self.dataset.lower():
            raise SettingError(
                f"ANALYTICS_DATASET is {self.dataset!r}; use lower-case letters, digits and"
                " underscores, beginning with a letter."
            )
        if self.is_duckdb:
            self._check_duckdb()
        else:
            _reference(self.destination)

    def _check_duckdb(self) -> None:
        path = self.duckdb_path
        if path.stem.lower() == self.dataset.lower():
            raise SettingError(
                f"ANALYTICS_DUCKDB_PATH {path.name!r} has the same name as the dataset"
                f" {self.dataset!r}, which DuckDB cannot tell apart; rename one of the two."
            )
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise SettingError(
                f"ANALYTICS_DUCKDB_PATH {str(path)!r} is not a file in an existing folder."
            )

    def dlt_destination(self) -> Any:
        """Return the dlt destination object.

        Raises:
            SettingError: dlt has no destination of that name.
        """
        if self.is_duckdb:
            return dlt.destinations.duckdb(str(self.duckdb_path.absolute()))
        return _reference(self.destination)

    @contextmanager
    def exclusive(self, group: str, pipeline: Pipeline, log: Log) -> Iterator[None]:
        """Hold off other runs of the same group into the same dataset."""
        with self._lock(f"{self.dataset}.{group}", f"the {group} group", pipeline, log):
            yield

    @contextmanager
    def open(self, pipeline: Pipeline, log: Log) -> Iterator[None]:
        """Hold the right to use the database; inside, dlt can open it without a conflict."""
        with self._lock(self.dataset, f"the dataset {self.dataset!r}", pipeline, log):
            if not self.is_duckdb:
                yield
                return
            connection = self._connect(log)
            try:
                yield
            finally:
                connection.close()

    @contextmanager
    def _lock(self, name: str, what: str, pipeline: Pipeline, log: Log) -> Iterator[None]:
        if self.is_duckdb:
            path = self.duckdb_path.absolute()
            with _file_lock(path.with_name(f"{path.name}.{name}.lock"), what, self, log):
                yield
        elif self.destination == "postgres":
            with _advisory_lock(name, what, pipeline, self, log):
                yield
        else:
            yield

    def _connect(self, log: Log) -> Any:
        """Open the DuckDB file, waiting a while for a reader to let go of it.

        As long as this connection is open, dlt's own share its database instance.
        """
        import duckdb

        waiting = _Waiting(self.reader_timeout, log)
        while True:
            try:
                return duckdb.connect(str(self.duckdb_path.absolute()))
            except duckdb.IOException as error:
                if "lock" not in str(error).lower():
                    raise SettingError(
                        f"ANALYTICS_DUCKDB_PATH {str(self.duckdb_path)!r} cannot be opened as a"
                        f" DuckDB database: {str(error).splitlines()[0]}"
                    ) from None
                holder = _holder(str(error))
                waiting.once_more(
                    f"{holder} holds {self.duckdb_path.name} open; close it there, or open it for"
                    " reading only while no run is under way"
                )


class _Waiting:
    """Bounded waiting that says what it waits for, at first and from time to time."""

    def __init__(self, timeout: float, log: Log) -> None:
        self._end = time.monotonic() + timeout
        self._timeout = timeout
        self._log = log
        self._remind_at = 0.0

    def once_more(self, why: str) -> None:
        now = time.monotonic()
        if now >= self._end:
            raise DestinationBusy(f"Gave up after {self._timeout:.0f} s of waiting: {why}.")
        if now >= self._remind_at:
            self._log.info(f"Waiting: {why}.")
            self._remind_at = now + REMIND_SECONDS
        time.sleep(POLL_SECONDS)


@contextmanager
def _file_lock(path: Path, what: str, settings: WarehouseSettings, log: Log) -> Iterator[None]:
    waiting = _Waiting(settings.lock_timeout, log)
    lock = filelock.FileLock(path)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            waiting.once_more(f"another run is loading {what}")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _advisory_lock(
    name: str, what: str, pipeline: Pipeline, settings: WarehouseSettings, log: Log
) -> Iterator[None]:
    """Hold a PostgreSQL advisory lock on a connection of its own; it ends with the connection."""
    key = zlib.crc32(f"analytics_assets.{name}".encode())
    waiting = _Waiting(settings.lock_timeout, log)
    with pipeline.destination_client() as client, client.sql_client as sql:  # type: ignore[attr-defined]
        while not sql.execute_sql("SELECT pg_try_advisory_lock(%s)", key)[0][0]:
            waiting.once_more(f"another run is loading {what}")
        try:
            yield
        finally:
            sql.execute_sql("SELECT pg_advisory_unlock(%s)", key)


def _holder(message: str) -> str:
    """Pick the process out of DuckDB's message about a conflicting lock."""
    _, found, rest = message.partition("held in ")
    return rest.split(". ")[0].splitlines()[0] if found else "another program"


def _reference(name: str) -> Any:
    try:
        return Destination.from_reference(name)
    except UnknownDestinationModule:
        raise SettingError(
            f"ANALYTICS_DESTINATION is {name!r}, which is no dlt destination; use duckdb, postgres,"
            " snowflake, bigquery or another that dlt lists."
        ) from None


def missing_extra(destination: str) -> str | None:
    """Name the extra of this package to install when the driver of ``destination`` is missing."""
    drivers = {
        "postgres": "psycopg2",
        "snowflake": "snowflake.connector",
        "bigquery": "google.cloud.bigquery",
        "databricks": "databricks.sql",
        "clickhouse": "clickhouse_driver",
    }
    driver = drivers.get(destination)
    if driver is None:
        return None
    try:
        found = importlib.util.find_spec(driver) is not None
    except ModuleNotFoundError:
        found = False
    return None if found else destination
