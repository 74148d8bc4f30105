"""The tables of the dataset as they stand in the destination, for the checks.

Pure dlt, no Dagster. The SQL is plain ANSI and names come qualified and quoted, so the same queries
run on every SQL destination, and on files.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.libs.pyarrow import (
    UnsupportedArrowTypeException,
    py_arrow_to_table_schema_columns,
)
from dlt.common.schema import Schema
from dlt.destinations.exceptions import DatabaseException, DatabaseTransientException
from dlt.pipeline.pipeline import Pipeline
from duckdb import DuckDBPyConnection

from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.errors import UnreadableFiles
from analytics_assets.segment.model import DELETED_AT, Endpoint, Table
from analytics_assets.warehouse.faults import waited_in_vain
from analytics_assets.warehouse.file_tables import FileTables
from analytics_assets.warehouse.own_tables import READABLE, RECORD_CHANGES
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import Row, Sql, open_sql


class Tables:
    """The tables that the endpoints of one group need: their own and those they refer to.

    Args:
        sql: the destination, open.
        columns: the columns of each table that the destination has.
        loaded: those of them that loads have made, by table.
        warehouse: where loads do not replace rows by key, the newest row of a key is the one.
    """

    def __init__(
        self,
        sql: Sql,
        columns: Mapping[str, Mapping[str, Any]],
        loaded: Mapping[str, Collection[str]],
        warehouse: WarehouseSettings,
    ) -> None:
        self._sql = sql
        self._columns = columns
        self._loaded = loaded
        self._warehouse = warehouse
        self._down: DatabaseException | None = None
        self._values: dict[tuple[str, str, bool], frozenset[Any]] = {}

    def columns(self, table: str) -> Mapping[str, str]:
        """Return the type of each column the table has in the destination; none if there is none.

        dlt's own columns are left out.
        """
        found = self._found(table)
        return {
            name: str(column.get("data_type") or "")
            for name, column in found.items()
            if not name.startswith("_dlt")
        }

    def loaded_columns(self, table: str) -> Collection[str]:
        """Return the columns that loads have made; others were added by hand."""
        if isinstance(self._sql, FileTables):  # nobody adds a column to a file
            return self._found(table)
        return self._loaded.get(table, ())

    def _found(self, table: str) -> Mapping[str, Any]:
        """Return the columns of a table; of files also those that the stored schema lacks.

        The schema that seems newest is an old one after a clock was set back.
        """
        stored = self._columns.get(table, {})
        if table not in self._columns or not isinstance(self._sql, FileTables):
            return stored
        if stored.keys() >= {column.name for column in READABLE[table].table_columns}:
            return stored
        try:
            return {**py_arrow_to_table_schema_columns(self._sql.fields(table)), **stored}
        except UnsupportedArrowTypeException:  # no load writes such
            return stored

    def exists(self, table: str) -> bool:
        """Tell whether the destination has the table."""
        return table in self._columns

    def source(self, table: Table) -> str:
        """Return what to select from, for SQL: the table, or the newest row of each key in it.

        Plain Parquet files cannot be changed, so there a history keeps every version of a row.
        """
        place = self._sql.table(table.name)
        if self._warehouse.merges or getattr(table, "full_list", True):
            return place
        keys = ", ".join(map(self.column, table.key_columns))
        return (
            f"(SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY"
            f" {self.column('_dlt_load_id')} DESC) AS version FROM {place}) AS v WHERE version = 1)"
            " AS newest"
        )

    def column(self, name: str) -> str:
        """Return the quoted name of a column, for SQL."""
        return self._sql.column(name)

    def live(self, endpoint: Endpoint) -> str:
        """Return the SQL condition that is true for rows that are not marked as deleted."""
        marked = endpoint.full_list and DELETED_AT in self.columns(endpoint.name)
        return f"{self.column(DELETED_AT)} IS NULL" if marked else "1 = 1"

    def unreadable(self, names: Collection[str]) -> UnreadableFiles | None:
        """Return what is wrong with the files of tables that were read, if they are files."""
        return self._sql.unreadable(names)

    @property
    def duckdb(self) -> DuckDBPyConnection | None:
        """The DuckDB that answers, ``None`` if it is another engine."""
        return self._sql.duckdb

    def batches(self, sql: str, size: int) -> Iterator[Sequence[Row]]:
        """Yield the rows of a query, ``size`` at a time."""
        yield from self._sql.batches(sql, size)

    def rows(self, sql: str, limit: int | None = None) -> Sequence[Row]:
        """Return the rows of a query, at most ``limit`` of them."""
        # Not dlt's dataset(sql): that resolves every column of every table once a query, and up to
        # 1.31 it calls sqlglot with an argument that sqlglot has dropped in 30.22.
        if self._down:
            raise self._down
        try:
            return self._sql.rows(sql, limit)
        except DatabaseException as error:
            if isinstance(error, DatabaseTransientException) or waited_in_vain(error):
                self._down = error  # it would be so for every query, each after its own time-out
            raise

    def values(self, table: str, column: str, *, live: bool) -> frozenset[Any]:
        """Return the distinct values of a column, of live rows only or of all; asked for once."""
        key = (table, column, live)
        if key not in self._values:
            endpoint = BY_NAME[table]
            where = self.live(endpoint) if live else "1 = 1"
            source = f"FROM {self.source(endpoint)} WHERE {where}"
            found = self.rows(f"SELECT DISTINCT {self.column(column)} {source}")
            self._values[key] = frozenset(value for (value,) in found)
        return self._values[key]


@contextmanager
def open_tables(
    pipeline: Pipeline, warehouse: WarehouseSettings, also: Collection[str] = ()
) -> Iterator[Tables]:
    """Open the tables of a group; one connection serves all queries.

    Args:
        pipeline: the pipeline of a group, its schema in step with the destination.
        warehouse: the destination.
        also: further groups whose tables to open, besides those that it refers to.
    """
    own = [pipeline.schemas[name] for name in pipeline.schema_names]
    groups = {schema.name for schema in own}
    others = _groups_referred_to(groups) | set(also)
    schemas = [*own, *(_stored_schema(pipeline, name) for name in sorted(others - groups))]
    client = dlt.dataset(
        pipeline.destination, pipeline.dataset_name, schemas or [Schema(pipeline.pipeline_name)]
    ).destination_client
    names = [endpoint.name for endpoint in ENDPOINTS if endpoint.group in groups | others]
    names.append(RECORD_CHANGES.name)
    with open_sql(client, warehouse.table_format) as sql:
        loaded = {name: columns for s in schemas for name, columns in _columns_of(s).items()}
        yield Tables(sql, _standing(client, sql, names, schemas), loaded, warehouse)


def _columns_of(schema: Schema) -> Mapping[str, Collection[str]]:
    return {name: table["columns"] for name, table in schema.tables.items()}


def _standing(
    client: Any, sql: Sql, names: Sequence[str], schemas: Sequence[Schema]
) -> Mapping[str, Mapping[str, Any]]:
    """Return the columns of the tables that are there.

    dlt would take any file in its folder for a table, and knows the columns of one group's only.
    """
    if not isinstance(sql, FileTables):
        return {name: columns for name, columns in client.get_storage_tables(names) if columns}
    stored = {name: schema.get_table_columns(name) for schema in schemas for name in schema.tables}
    return {name: stored.get(name, {}) for name in names if sql.exists(name)}


def _groups_referred_to(groups: Collection[str]) -> set[str]:
    return {
        BY_NAME[reference.table].group
        for endpoint in ENDPOINTS
        if endpoint.group in groups
        for reference in endpoint.references
    }


def _stored_schema(pipeline: Pipeline, name: str) -> Schema:
    """Return the schema another group has stored in the destination, an empty one if none."""
    try:
        return dlt.dataset(pipeline.destination, pipeline.dataset_name, name).schema
    except DestinationUndefinedEntity:
        return Schema(name)
