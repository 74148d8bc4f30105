"""Parts of columns in rows that a version without these parts has loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dlt.pipeline.pipeline import Pipeline
from sqlglot import transpile

from analytics_assets.segment.model import Endpoint
from analytics_assets.warehouse.sql import Sql

_IN_SQL: Final[Mapping[str, str]] = {
    "kind": "CASE WHEN strpos({0}, '/') > 0 THEN substr({0}, 1, strpos({0}, '/') - 1) ELSE {0} END",
    "id": "substr({0}, strpos({0}, '/') + 1)",
}
"""DuckDB's SQL for each side; see ``segment/parts.py`` for what a load does."""


def fill_parts(sql: Sql, pipeline: Pipeline, endpoint: Endpoint) -> int:
    """Fill parts where the whole is there and they are not; return how many rows that was.

    Args:
        sql: the destination, opened; it updates rows in place.
        pipeline: knows its dialect.
        endpoint: whose table to look at.
    """
    if not endpoint.parts:
        return 0
    dialect = pipeline.destination.capabilities().sqlglot_dialect
    table = sql.table(endpoint.name)
    missing = [f"({p.of} IS NOT NULL AND {p.column.name} IS NULL)" for p in endpoint.parts]
    where = " OR ".join(missing)
    [(count,)] = sql.rows(f"SELECT count(*) FROM {table} WHERE {where}")
    if count:
        parts = [(p.column.name, _IN_SQL[p.side].format(p.of)) for p in endpoint.parts]
        values = [(name, transpile(cut, "duckdb", dialect)[0]) for name, cut in parts]
        new = ", ".join(f"{name} = {value}" for name, value in values)
        sql.rows(f"UPDATE {table} SET {new} WHERE {where}")
    return int(count)
