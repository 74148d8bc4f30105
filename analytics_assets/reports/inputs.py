"""What reports read, as tables of DuckDB, wherever it is kept.

In a DuckDB file, and over Parquet files and Delta tables, each table is a view; of any other server
the columns that are needed are copied, by way of Arrow. Dates are in UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.reports.model import Report
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.errors import UnreadableFiles
from analytics_assets.segment.model import Column, Table
from analytics_assets.warehouse.copying import DUCKDB_TYPES, copy_rows, engine, make_table
from analytics_assets.warehouse.own_tables import READABLE, filled_by
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.tables import Tables, open_tables


@dataclass(frozen=True)
class Inputs:
    """What reports read, open.

    Attributes:
        connection: has the tables under their plain names; a table or column that is not there
            holds nothing.
        not_there: the tables that are not there.
        lost: the columns that a table which is there does not have, by its name.
        unreadable: why a table cannot be opened, by its name.
        broken: returns what is wrong with the files of some tables, once reading them has failed.
    """

    connection: duckdb.DuckDBPyConnection
    not_there: frozenset[str]
    lost: Mapping[str, frozenset[str]]
    unreadable: Mapping[str, UnreadableFiles]
    broken: Callable[[Collection[str]], UnreadableFiles | None]


@contextmanager
def open_inputs(
    pipeline: Pipeline, warehouse: WarehouseSettings, reports: Collection[Report], folder: Path
) -> Iterator[Inputs]:
    """Open what reports read while the caller has the destination open.

    Args:
        pipeline: the pipeline of the reports, its schema in step with the destination.
        warehouse: where the tables are.
        reports: whose tables and columns to open.
        folder: where DuckDB may put what its memory does not hold.
    """
    needed = columns_needed(reports)
    groups = {BY_NAME[name].group for table in needed for name in filled_by(table)}
    with (
        open_tables(pipeline, warehouse, groups) as tables,
        engine(tables.duckdb, folder) as connection,
    ):
        unreadable: dict[str, UnreadableFiles] = {}
        for table, columns in needed.items():
            try:
                _provide(connection, tables, READABLE[table], columns, warehouse)
            except UnreadableFiles as error:
                unreadable[table] = error
        there = {table: columns for table, columns in needed.items() if tables.exists(table)}
        lost = {
            table: frozenset(c.name for c in columns).difference(tables.columns(table))
            for table, columns in there.items()
        }
        not_there = frozenset(needed.keys() - there.keys())
        yield Inputs(connection, not_there, lost, unreadable, tables.unreadable)


def columns_needed(reports: Collection[Report]) -> Mapping[str, Sequence[Column]]:
    """Return what some reports read together: the columns of each table."""
    names: dict[str, set[str]] = {}
    for report in reports:
        for table, columns in report.reads.items():
            names.setdefault(table, set()).update(columns)
    return {
        table: [column for column in READABLE[table].table_columns if column.name in found]
        for table, found in names.items()
    }


def _provide(
    connection: duckdb.DuckDBPyConnection,
    tables: Tables,
    table: Table,
    columns: Sequence[Column],
    warehouse: WarehouseSettings,
) -> None:
    stored = tables.columns(table.name)
    there = [column for column in columns if column.name in stored]
    if tables.duckdb is not None and tables.exists(table.name):
        shown = ", ".join(_typed(column, there=column in there) for column in columns) or "1"
        source = tables.source(table)
        connection.execute(f"CREATE TEMP VIEW {table.name} AS SELECT {shown} FROM {source}")
        return
    make_table(connection, table.name, columns)
    if there:
        source = tables.source(table)
        copy_rows(tables, source, there, warehouse, connection, table.name)


def _typed(column: Column, *, there: bool) -> str:
    """Return an expression for a column; files hold JSON as text."""
    name = f'"{column.name}"'
    if there and column.type != "json":
        return name
    return f"CAST({name if there else 'NULL'} AS {DUCKDB_TYPES[column.type]}) AS {name}"
