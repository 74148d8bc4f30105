"""The DuckDB file: how much memory it may take, and how to get it open beside readers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from dlt.common.configuration import resolve_configuration
from dlt.destinations.impl.duckdb.configuration import DuckDbCredentials

from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.settings import Log
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.waiting import Waiting

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY: Final = "160MB"
"""What a merge may use before DuckDB goes on on disk; its default is 80% of the machine."""
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
            connection = duckdb.connect(str(path.absolute()))
            connection.execute(f"SET memory_limit = '{MEMORY}'; SET threads = {THREADS}")
            return connection
        except duckdb.IOException as error:
            if "lock" not in str(error).lower():
                raise SettingError(
                    f"ANALYTICS_DUCKDB_PATH {str(path)!r} cannot be opened as a DuckDB database:"
                    f" {foreign_text(str(error))}"
                ) from None
            waiting.once_more(
                f"{_holder(str(error))} holds {path.name} open; close it there, or open it for"
                " reading only while no run is under way"
            )


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
