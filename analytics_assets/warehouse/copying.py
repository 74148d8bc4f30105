"""Rows of any destination in DuckDB, by way of Arrow, for what is asked there in its dialect."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, Protocol

import duckdb
import orjson
import pyarrow as pa

from analytics_assets.segment.model import Column, ColumnType
from analytics_assets.segment.records import ARROW_TYPES
from analytics_assets.warehouse.duckdb_file import USUAL_MEMORY_MB
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import Row

DUCKDB_TYPES: Final[Mapping[ColumnType, str]] = {
    "text": "VARCHAR",
    "bool": "BOOLEAN",
    "bigint": "BIGINT",
    "double": "DOUBLE",
    "timestamp": "TIMESTAMPTZ",
    "json": "JSON",
}
BATCH: Final = 20_000
_JSON_AS_TEXT: Final = {"bigquery": "TO_JSON_STRING({})", "databricks": "{}"}
"""How a server that is not like the others writes JSON as text."""


class Origin(Protocol):
    """Where rows are copied from: a destination that is open."""

    def column(self, name: str) -> str:
        """Return the quoted name of a column."""

    def batches(self, query: str, size: int) -> Iterator[Sequence[Row]]:
        """Yield the rows of a query, ``size`` at a time."""


@contextmanager
def engine(
    native: duckdb.DuckDBPyConnection | None, folder: Path
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Yield the DuckDB that a destination is, or one in memory, with times in UTC.

    Args:
        native: the destination's own DuckDB, if it has one.
        folder: where another may put what its memory does not hold.
    """
    with nullcontext(native) if native is not None else duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        if native is None:
            connection.execute(f"SET memory_limit = '{USUAL_MEMORY_MB:.0f}MB'; SET threads = 1")
            connection.execute("SET temp_directory = ?", [str(folder / "duckdb")])
        yield connection


def make_table(connection: duckdb.DuckDBPyConnection, name: str, columns: Sequence[Column]) -> None:
    """Make a table, empty, for the length of the connection."""
    shown = ", ".join(f'"{column.name}" {DUCKDB_TYPES[column.type]}' for column in columns)
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} ({shown or 'nothing INTEGER'})")


def copy_rows(
    origin: Origin,
    source: str,
    columns: Sequence[Column],
    warehouse: WarehouseSettings,
    connection: duckdb.DuckDBPyConnection,
    into: str,
    respell: Callable[[str], str] = str,
) -> None:
    """Copy some columns of all rows.

    Args:
        origin: where they are.
        source: what to select from there.
        columns: the columns.
        warehouse: says how JSON is read as text there.
        connection: where they go.
        into: the table that takes them.
        respell: what to make of JSON.
    """
    as_text = _JSON_AS_TEXT.get(warehouse.destination, "CAST({} AS VARCHAR)")
    asked = ", ".join(
        (as_text if column.type == "json" else "{}").format(origin.column(column.name))
        for column in columns
    )
    names = ", ".join(f'"{column.name}"' for column in columns)
    for rows in origin.batches(f"SELECT {asked} FROM {source}", BATCH):
        connection.register("batch", _arrow(columns, rows, respell))
        connection.execute(f"INSERT INTO {into} ({names}) SELECT * FROM batch")
        connection.unregister("batch")


def _arrow(
    columns: Sequence[Column], rows: Sequence[Row], respell: Callable[[str], str]
) -> pa.Table:
    arrays = [
        pa.array([_plain(column, row[number], respell) for row in rows], ARROW_TYPES[column.type])
        for number, column in enumerate(columns)
    ]
    return pa.Table.from_arrays(arrays, names=[column.name for column in columns])


def _plain(column: Column, value: Any, respell: Callable[[str], str]) -> Any:
    """Undo what drivers make of a value: numbers as decimals, JSON that is parsed already."""
    if value is None:
        return None
    if column.type == "bigint":
        return int(value)
    if column.type == "json":
        return respell(value if isinstance(value, str) else orjson.dumps(value).decode())
    return value
