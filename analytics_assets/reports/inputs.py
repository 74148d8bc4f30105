"""What reports read, as tables of DuckDB, wherever it is kept.

In a DuckDB file, and over Parquet files and Delta tables, each table is a view; of any other server
the columns that are needed are copied, by way of Arrow. Dates are in UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import duckdb
import orjson
import pyarrow as pa
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.reports.model import Report
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.model import Column, ColumnType, Endpoint
from analytics_assets.segment.records import ARROW_TYPES
from analytics_assets.warehouse.duckdb_file import USUAL_MEMORY_MB
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import Row
from analytics_assets.warehouse.tables import Tables, open_tables

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


@contextmanager
def open_inputs(
    pipeline: Pipeline, warehouse: WarehouseSettings, reports: Collection[Report], folder: Path
) -> Iterator[tuple[duckdb.DuckDBPyConnection, frozenset[str]]]:
    """Open what reports read while the caller has the destination open.

    Args:
        pipeline: the pipeline of the reports, its schema in step with the destination.
        warehouse: where the tables are.
        reports: whose tables and columns to open.
        folder: where DuckDB may put what its memory does not hold.

    Yields:
        A connection in which the tables have their plain names; a table or column that is not there
        holds nothing. And the names of the tables that are not there.
    """
    needed = columns_needed(reports)
    groups = {BY_NAME[table].group for table in needed}
    with open_tables(pipeline, warehouse, groups) as tables, _engine(tables, folder) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table, columns in needed.items():
            _provide(connection, tables, BY_NAME[table], columns, warehouse)
        yield connection, frozenset(table for table in needed if not tables.exists(table))


def columns_needed(reports: Collection[Report]) -> Mapping[str, Sequence[Column]]:
    """Return what some reports read together: the columns of each table."""
    names: dict[str, set[str]] = {}
    for report in reports:
        for table, columns in report.reads.items():
            names.setdefault(table, set()).update(columns)
    return {
        table: [column for column in BY_NAME[table].table_columns if column.name in found]
        for table, found in names.items()
    }


@contextmanager
def _engine(tables: Tables, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    if tables.duckdb is not None:
        yield tables.duckdb
        return
    with duckdb.connect() as connection:
        connection.execute(f"SET memory_limit = '{USUAL_MEMORY_MB:.0f}MB'; SET threads = 1")
        connection.execute("SET temp_directory = ?", [str(folder / "duckdb")])
        yield connection


def _provide(
    connection: duckdb.DuckDBPyConnection,
    tables: Tables,
    endpoint: Endpoint,
    columns: Sequence[Column],
    warehouse: WarehouseSettings,
) -> None:
    stored = tables.columns(endpoint.name)
    there = [column for column in columns if column.name in stored]
    if tables.duckdb is not None and tables.exists(endpoint.name):
        shown = ", ".join(_typed(column, there=column in there) for column in columns) or "1"
        source = tables.source(endpoint)
        connection.execute(f"CREATE TEMP VIEW {endpoint.name} AS SELECT {shown} FROM {source}")
        return
    shown = ", ".join(f'"{column.name}" {DUCKDB_TYPES[column.type]}' for column in columns)
    connection.execute(f"CREATE TEMP TABLE {endpoint.name} ({shown or 'nothing INTEGER'})")
    if there:
        _copy(connection, tables, endpoint, there, warehouse)


def _typed(column: Column, *, there: bool) -> str:
    """Return an expression for a column; files hold JSON as text."""
    name = f'"{column.name}"'
    if there and column.type != "json":
        return name
    return f"CAST({name if there else 'NULL'} AS {DUCKDB_TYPES[column.type]}) AS {name}"


def _copy(
    connection: duckdb.DuckDBPyConnection,
    tables: Tables,
    endpoint: Endpoint,
    columns: Sequence[Column],
    warehouse: WarehouseSettings,
) -> None:
    as_text = _JSON_AS_TEXT.get(warehouse.destination, "CAST({} AS VARCHAR)")
    asked = ", ".join(
        (as_text if column.type == "json" else "{}").format(tables.column(column.name))
        for column in columns
    )
    names = ", ".join(f'"{column.name}"' for column in columns)
    for rows in tables.batches(f"SELECT {asked} FROM {tables.source(endpoint)}", BATCH):
        connection.register("batch", _arrow(columns, rows))
        connection.execute(f"INSERT INTO {endpoint.name} ({names}) SELECT * FROM batch")
        connection.unregister("batch")


def _arrow(columns: Sequence[Column], rows: Sequence[Row]) -> pa.Table:
    arrays = [
        pa.array([_plain(column, row[number]) for row in rows], ARROW_TYPES[column.type])
        for number, column in enumerate(columns)
    ]
    return pa.Table.from_arrays(arrays, names=[column.name for column in columns])


def _plain(column: Column, value: Any) -> Any:
    """Undo what drivers make of a value: numbers as decimals, JSON that is parsed already."""
    if value is None:
        return None
    if column.type == "bigint":
        return int(value)
    if column.type == "json" and not isinstance(value, str):
        return orjson.dumps(value).decode()
    return value
