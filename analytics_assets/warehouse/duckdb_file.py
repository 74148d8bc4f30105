"""The DuckDB file: how much memory it may take, and how to get it open beside readers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from dlt.common.configuration import resolve_configuration
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

from analytics_assets.segment.errors import SettingError, causes
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.settings import Log
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.waiting import Waiting

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

    from analytics_assets.segment.staging import Staging

USUAL_MEMORY_MB: Final = 160.0
"""What a merge may use before DuckDB goes on on disk; its default is 80% of the machine."""
VECTOR_ROWS: Final = 2048
"""Rows that DuckDB has in memory at once, however wide they are."""
MORE: Final = 4
"""How many times the memory is tried after it was too little."""
_VECTORS: Final = 4
"""Vectors that a merge holds at the same time: 1,000 rows of 40 kB took up to 240 MB."""
THREADS: Final = 1
"""Each thread holds the rows it is to write; two with wide rows need more memory than that."""


def duckdb_credentials(path: Path) -> DuckDbCredentials:
    """Resolve the credentials once: dlt asks for them some fifty times in a load."""
    return resolve_configuration(
        DuckDbCredentials(),
        sections=("destination", "duckdb", "credentials"),
        explicit_value=str(path),
    )


def connect(settings: WarehouseSettings, log: Log) -> DuckDBPyConnection:
    """Open the file, waiting a while for a reader to let go of it.

    As long as this connection is open, dlt's own share its database instance.

    Raises:
        SettingError: the file is no database, or may not be opened.
        DestinationBusy: a reader held it open for too long.
    """
    import duckdb

    path = settings.duckdb_path
    waiting = Waiting(settings.reader_timeout, log)
    while True:
        try:
            return _bounded(settings)
        except duckdb.Error as error:
            if not isinstance(error, duckdb.IOException) or "lock" not in str(error).lower():
                raise SettingError(
                    f"ANALYTICS_DUCKDB_PATH {str(path)!r} cannot be opened as a DuckDB database"
                    f" ({foreign_text(str(error)).rstrip('.')}); name another file, or bring back"
                    " a copy of it."
                ) from None
            waiting.once_more(
                f"{_holder(str(error))} holds {path.name} open; close it there, or open it for"
                " reading only while no run is under way"
            )


def allow_memory(settings: WarehouseSettings) -> None:
    """Set anew how much memory the database may use, which the caller has open."""
    _bounded(settings).close()


def _bounded(settings: WarehouseSettings) -> DuckDBPyConnection:
    """Connect; the bounds are those of all connections of this process to the file."""
    import duckdb

    memory = settings.duckdb_memory_mb or USUAL_MEMORY_MB
    connection = duckdb.connect(str(settings.duckdb_path.absolute()))
    connection.execute(f"SET memory_limit = '{memory:.0f}MB'; SET threads = {THREADS}")
    return connection


def for_rows(
    settings: WarehouseSettings, tables: Iterable[Staging], times: float = 1
) -> WarehouseSettings:
    """Return the settings with the memory that a load needs, unless that is set.

    Args:
        settings: as configured.
        tables: what is loaded; the widest rows decide.
        times: how often the usual memory, after that was too little.
    """
    if not settings.is_duckdb or settings.duckdb_memory_mb is not None:
        return settings
    vector = max((staging.widest(VECTOR_ROWS) for staging in tables), default=0)
    needed = max(USUAL_MEMORY_MB, USUAL_MEMORY_MB / 2 + _VECTORS * vector / 1e6)
    return replace(settings, duckdb_memory_mb=times * needed)


def ran_out_of_memory(error: BaseException) -> bool:
    """Tell whether DuckDB, somewhere behind an error, had too little memory."""
    import duckdb

    return any(isinstance(each, duckdb.OutOfMemoryException) for each in causes(error))


@contextmanager
def for_owner_only() -> Iterator[None]:
    """Let DuckDB make its files, also those it spills rows to, for their owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


@lru_cache(maxsize=16)
def can_hold(name: str, dataset: str) -> bool:
    """Ask DuckDB whether a file of that name can hold the schemas of a dataset.

    It names the database after the file, by rules of its own, and then cannot tell a schema of the
    same name from it, nor one of the standard's.
    """
    if not any(schema in name.lower() for schema in (dataset, "information_schema")):
        return True  # the database's name is a part of the file's: no need to ask
    import duckdb

    with (
        TemporaryDirectory(prefix="analytics_assets_") as folder,
        duckdb.connect(str(Path(folder) / name)) as connection,
    ):
        try:
            for schema in (dataset, f"{dataset}_staging"):
                connection.execute(f'CREATE SCHEMA "{schema}"')
                connection.execute(f'CREATE TABLE "{schema}".t AS SELECT 1 AS one')
                connection.execute(f'SELECT * FROM "{schema}".t')
            connection.execute("SELECT * FROM information_schema.columns")
        except duckdb.BinderException:
            return False
    return True


def _holder(message: str) -> str:
    """Pick the process out of DuckDB's message about a conflicting lock."""
    _, found, rest = message.partition("held in ")
    return rest.split(". ")[0].splitlines()[0] if found else "another program"


def may_be_duckdb(path: Path) -> bool:
    """Tell by its first bytes whether a file is a DuckDB database, or free to become one.

    DuckDB itself would open a CSV file as a database, and look for an extension for other kinds.
    """
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return True  # not there yet, or not readable: opening it tells more
    return not head or head[8:] == b"DUCK"
