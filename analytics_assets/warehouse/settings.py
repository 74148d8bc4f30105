"""Where the tables go: the dlt destination, and who may write to it when.

DuckDB lets one process open a database file for writing, and a merge of the same table by two runs
at once goes wrong on any database. So a run holds one lock while it works on a group, and one for
the short times in which it has the database open. DuckDB uses lock files beside the database,
PostgreSQL advisory locks; for other servers a Dagster pool has to do (see the README).
"""

from __future__ import annotations

import importlib.util
import re
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import dlt
import filelock
from dlt.common.configuration import resolve_configuration
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.destination import Destination
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.errors import (
    AnalyticsError,
    DestinationBusy,
    SettingError,
    root_message,
)
from analytics_assets.segment.settings import Log

POLL_SECONDS: Final = 0.2
REMIND_SECONDS: Final = 30.0
_DATASET: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
"""Names that dlt leaves as they are: it would shorten ``a__b`` and lengthen ``a_``."""
DUCKDB_MEMORY: Final = "160MB"
"""What a merge may use before DuckDB goes on on disk; its default is 80% of the machine."""
DUCKDB_THREADS: Final = 1
"""Each thread holds the rows it is to write; two with wide rows need more memory than that."""


@dataclass(frozen=True)
class WarehouseSettings:
    """Where to load.

    Attributes:
        destination: name of a dlt destination; its credentials come from dlt's configuration.
        dataset: schema (or folder) of the tables.
        duckdb_path: database file, for the DuckDB destination only.
        table_format: ``delta`` for Delta tables on the filesystem destination, else ``None``.
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

    @property
    def merges(self) -> bool:
        """Whether rows can be merged by key; plain Parquet files cannot be changed."""
        return self.destination != "filesystem" or self.table_format == "delta"

    @property
    def marks_deletions(self) -> bool:
        """Whether rows can be updated in place, as ``deleted_at`` needs."""
        return self.destination not in ("filesystem", "clickhouse")

    def check(self) -> None:
        """Refuse settings that cannot work.

        Raises:
            SettingError: the text names the setting and what to do.
        """
        if not _DATASET.fullmatch(self.dataset):
            raise SettingError(
                f"ANALYTICS_DATASET is {self.dataset!r}; use lower-case letters, digits and single"
                " underscores between them, beginning with a letter."
            )
        if self.table_format not in (None, "delta") or (
            self.table_format and self.destination != "filesystem"
        ):
            raise SettingError(
                f"ANALYTICS_TABLE_FORMAT is {self.table_format!r}; leave it out, or set it to delta"
                " together with ANALYTICS_DESTINATION=filesystem."
            )
        if self.is_duckdb:
            self._check_duckdb()
        else:
            _reference(self.destination)
            _check_driver(self)

    def _check_duckdb(self) -> None:
        path = self.duckdb_path
        if path.stem.lower() == self.dataset.lower():
            raise SettingError(
                f"ANALYTICS_DUCKDB_PATH {path.name!r} has the same name as the dataset"
                f" {self.dataset!r}, which DuckDB cannot tell apart; rename one of the two."
            )
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise SettingError(
                f"ANALYTICS_DUCKDB_PATH {str(path)!r} is not a file in an existing folder; create"
                " the folder, or name a file in another one."
            )
        if not _may_be_duckdb(path):
            raise SettingError(
                f"ANALYTICS_DUCKDB_PATH {str(path)!r} cannot be opened as a DuckDB database,"
                " because it is a file of another kind; name another file."
            )

    def dlt_destination(self) -> Any:
        """Return the dlt destination object.

        Raises:
            SettingError: dlt has no destination of that name.
        """
        if self.is_duckdb:
            return dlt.destinations.duckdb(
                _duckdb_credentials(self.duckdb_path.absolute()),
                # without this a merge whose insert fails has already deleted the rows it replaces
                supports_transactions=True,
            )
        return _reference(self.destination)

    def check_reachable(self, pipeline: Pipeline) -> None:
        """Refuse a destination that lacks credentials or does not answer.

        Raises:
            SettingError: one sentence that names the destination and what to set.
        """
        if not self.is_duckdb:  # a file: opening it tells
            _check_credentials(self.destination, pipeline)

    def restore(self, pipeline: Pipeline) -> None:
        """Bring state and schema back from the destination, which the caller has open.

        Raises:
            AnalyticsError: that failed; the text holds the destination's own reason.
        """
        try:
            pipeline.sync_destination()
        except PipelineStepFailed as error:
            raise AnalyticsError(
                f"The destination {self.destination!r} cannot be reached: {root_message(error)}"
            ) from None

    def has_locks(self, pipeline: Pipeline) -> bool:
        """Tell whether :meth:`exclusive` itself holds off other runs, without a Dagster pool."""
        return (
            self.is_duckdb
            or self.destination == "postgres"
            or _local_folder(self.destination, pipeline) is not None
        )

    @contextmanager
    def exclusive(self, group: str, pipeline: Pipeline, log: Log) -> Iterator[None]:
        """Hold off other runs of the same group into the same dataset.

        Raises:
            SettingError: the destination's credentials are missing or it cannot be reached.
            DestinationBusy: another run did not end in time.
        """
        self.check_reachable(pipeline)
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
            with _file_lock(path.with_name(f".{path.name}.{name}.lock"), what, self, log):
                yield
        elif self.destination == "postgres":
            with _advisory_lock(name, what, pipeline, self, log):
                yield
        elif folder := _local_folder(self.destination, pipeline):
            folder.mkdir(parents=True, exist_ok=True)
            with _file_lock(folder / f".analytics_assets.{name}.lock", what, self, log):
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
                connection = duckdb.connect(str(self.duckdb_path.absolute()))
                connection.execute(
                    f"SET memory_limit = '{DUCKDB_MEMORY}'; SET threads = {DUCKDB_THREADS}"
                )
                return connection
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


def pipeline_name(group: str) -> str:
    """Return the dlt pipeline of a group; the name keys the state in the destination."""
    return f"analytics_assets_{group}"


def new_pipeline(group: str, warehouse: WarehouseSettings, folder: Path | str) -> Pipeline:
    """Return a fresh pipeline in ``folder``; its state comes back from the destination.

    Two processes that share a working folder corrupt each other, so each execution has its own.
    """
    return dlt.pipeline(
        pipeline_name(group),
        destination=warehouse.dlt_destination(),
        dataset_name=warehouse.dataset,
        pipelines_dir=str(folder),
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
    with pipeline.sql_client() as sql:
        while not _first_value(sql.execute_sql("SELECT pg_try_advisory_lock(%s)", key)):
            waiting.once_more(f"another run is loading {what}")
        try:
            yield
        finally:
            sql.execute_sql("SELECT pg_advisory_unlock(%s)", key)


def _first_value(rows: Any) -> Any:
    return rows[0][0] if rows else None


def _duckdb_credentials(path: Path) -> DuckDbCredentials:
    """Resolve the credentials once: dlt asks for them some fifty times in a load."""
    return resolve_configuration(
        DuckDbCredentials(),
        sections=("destination", "duckdb", "credentials"),
        explicit_value=str(path),
    )


def _local_folder(destination: str, pipeline: Pipeline) -> Path | None:
    """Return the folder of a filesystem destination on this machine, where a lock file works."""
    if destination != "filesystem":
        return None
    with pipeline.destination_client() as client:
        url = str(getattr(client.config, "bucket_url", ""))
    if "://" in url and not url.startswith("file://"):
        return None
    return Path(url.removeprefix("file://"))


def _check_credentials(destination: str, pipeline: Pipeline) -> None:
    """Refuse a destination that lacks credentials or does not answer, in one sentence."""
    try:
        with pipeline.destination_client():
            pass
    except ConfigFieldMissingException as error:
        raise SettingError(
            f"The destination {destination!r} lacks the setting"
            f" {', '.join(sorted(error.fields))!r}; set"
            f" DESTINATION__{destination.upper()}__CREDENTIALS, or dlt's secrets.toml."
        ) from None
    except Exception as error:  # noqa: BLE001 - every driver has its own kind of error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingError(
            f"The destination {destination!r} cannot be reached ({reason}); check its credentials"
            " in dlt's configuration."
        ) from None


def _holder(message: str) -> str:
    """Pick the process out of DuckDB's message about a conflicting lock."""
    _, found, rest = message.partition("held in ")
    return rest.split(". ")[0].splitlines()[0] if found else "another program"


def _may_be_duckdb(path: Path) -> bool:
    """Tell by its first bytes whether a file is a DuckDB database, or free to become one.

    DuckDB itself would open a CSV file as a database, and look for an extension for other kinds.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return True  # not there yet, or not readable: opening it tells more
    return not head or head[8:] == b"DUCK"


def _reference(name: str) -> Any:
    try:
        return Destination.from_reference(name)
    except UnknownDestinationModule:
        raise SettingError(
            f"ANALYTICS_DESTINATION is {name!r}, which is no dlt destination; use duckdb, postgres,"
            " snowflake, bigquery or another that dlt lists."
        ) from None


DRIVERS: Final = {
    "bigquery": ("google.cloud.bigquery", "bigquery"),
    "clickhouse": ("clickhouse_driver", "clickhouse"),
    "databricks": ("databricks.sql", "databricks"),
    "delta": ("deltalake", "delta"),
    "postgres": ("psycopg2", "postgres"),
    "snowflake": ("snowflake.connector", "snowflake"),
}
"""The module that a destination (or table format) needs, and the extra that brings it."""


def _check_driver(settings: WarehouseSettings) -> None:
    """Name the extra to install when the driver of the destination is missing."""
    name = settings.table_format or settings.destination
    module, extra = DRIVERS.get(name, ("dlt", ""))
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise SettingError(
            f"The destination {name!r} needs a driver that is not installed; install"
            f" analytics-assets[{extra}]."
        )
