"""The tables of the dataset as they stand in the destination, for the checks.

Pure dlt, no Dagster. The SQL is plain ANSI and names come qualified and quoted, so the same queries
run on every SQL destination, and on files.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import date, datetime, timezone
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.schema import Schema
from dlt.destinations.exceptions import DatabaseTransientException
from dlt.pipeline.pipeline import Pipeline
from typing_extensions import Self

from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.model import DELETED_AT, Endpoint
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import Row, open_sql


class Tables:
    """The tables that the endpoints of one group need: their own and those they refer to.

    A context manager: inside it one connection serves all queries.

    Args:
        pipeline: the pipeline of a group, its schema in step with the destination.
        warehouse: the destination; where loads do not replace rows by key, the newest row of a key
            is the one.
    """

    def __init__(self, pipeline: Pipeline, warehouse: WarehouseSettings) -> None:
        self._warehouse = warehouse
        own = [pipeline.schemas[name] for name in pipeline.schema_names]
        groups = {schema.name for schema in own}
        others = {
            BY_NAME[reference.table].group
            for endpoint in ENDPOINTS
            if endpoint.group in groups
            for reference in endpoint.references
        }
        self._dataset = dlt.dataset(
            pipeline.destination,
            pipeline.dataset_name,
            [*own, *(_stored_schema(pipeline, name) for name in sorted(others - groups))]
            or [Schema(pipeline.pipeline_name)],
        )
        self._names = [e.name for e in ENDPOINTS if e.group in groups | others]
        self._down: DatabaseTransientException | None = None
        self._columns: dict[str, Mapping[str, Any]] = {}
        self._values: dict[tuple[str, str, bool], frozenset[Any]] = {}

    def __enter__(self) -> Self:
        client = self._dataset.destination_client
        with ExitStack() as on_error:
            self._sql = on_error.enter_context(open_sql(client, self._warehouse.table_format))
            found = client.get_storage_tables(self._names)  # type: ignore[attr-defined]
            self._columns = {name: columns for name, columns in found if columns}
            self._open = on_error.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def columns(self, table: str) -> Mapping[str, str]:
        """Return the type of each column the table has in the destination; none if there is none.

        dlt's own columns are left out.
        """
        found = self._columns.get(table, {})
        return {
            name: str(column.get("data_type") or "")
            for name, column in found.items()
            if not name.startswith("_dlt")
        }

    def exists(self, table: str) -> bool:
        """Tell whether the destination has the table."""
        return table in self._columns

    def source(self, endpoint: Endpoint) -> str:
        """Return what to select from, for SQL: the table, or the newest row of each key in it.

        Plain Parquet files cannot be changed, so there a history keeps every version of a row.
        """
        table = self._sql.table(endpoint.name)
        if self._warehouse.merges or endpoint.full_list:
            return table
        keys = sql_list(map(self.column, endpoint.column_keys))
        return (
            f"(SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY {keys} ORDER BY"
            f" {self.column('_dlt_load_id')} DESC) AS version FROM {table}) AS v WHERE version = 1)"
            " AS newest"
        )

    def column(self, name: str) -> str:
        """Return the quoted name of a column, for SQL."""
        return self._sql.column(name)

    def live(self, endpoint: Endpoint) -> str:
        """Return the SQL condition that is true for rows that are not marked as deleted."""
        marked = endpoint.full_list and DELETED_AT in self.columns(endpoint.name)
        return f"{self.column(DELETED_AT)} IS NULL" if marked else "1 = 1"

    def rows(self, sql: str, limit: int | None = None) -> Sequence[Row]:
        """Return the rows of a query, at most ``limit`` of them."""
        # Not dlt's dataset(sql): that resolves every column of every table once a query, and up to
        # 1.31 it calls sqlglot with an argument that sqlglot has dropped in 30.22.
        if self._down:
            raise self._down
        try:
            return self._sql.rows(sql, limit)
        except DatabaseTransientException as error:
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


def _stored_schema(pipeline: Pipeline, name: str) -> Schema:
    """Return the schema another group has stored in the destination, an empty one if none."""
    try:
        return dlt.dataset(pipeline.destination, pipeline.dataset_name, name).schema
    except DestinationUndefinedEntity:
        return Schema(name)


def daily_figures(
    tables: Tables, endpoint: Endpoint
) -> tuple[tuple[str, ...], list[tuple[date, tuple[int, ...]]]]:
    """Return the names of the daily columns and, for each day, their sums over all sources."""
    columns = tuple(column.name for column in endpoint.daily_columns)
    day = tables.column(str(endpoint.cursor_column))
    sums = ", ".join(f"sum({tables.column(column)})" for column in columns)
    found = tables.rows(f"SELECT {day}, {sums} FROM {tables.source(endpoint)} GROUP BY {day}")
    days = [
        (utc_day(when), tuple(int(figure or 0) for figure in figures)) for when, *figures in found
    ]
    return columns, sorted(days)


def utc_day(value: Any) -> date:
    """Return the UTC day of a time as a destination gives it: with a zone, without, or as text."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        return date(moment.year, moment.month, moment.day)
    return (moment.astimezone(timezone.utc) if moment.tzinfo else moment).date()


def sql_list(parts: Iterable[str]) -> str:
    """Join parts of SQL by commas."""
    return ", ".join(parts)
