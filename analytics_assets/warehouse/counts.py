"""How many rows tables have, and which of them live."""

from __future__ import annotations

from collections.abc import Sequence

from dlt.destinations.exceptions import DatabaseUndefinedRelation

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.errors import UnreadableFiles
from analytics_assets.segment.model import DELETED_AT, Endpoint
from analytics_assets.segment.staging import Key
from analytics_assets.warehouse.outcome import TableCounts
from analytics_assets.warehouse.sql import Row, Sql


def count_rows(sql: Sql, names: Sequence[str]) -> dict[str, TableCounts]:
    """Count the rows of tables, in one query, and those of full lists marked as deleted."""
    try:
        rows = sql.rows(" UNION ALL ".join(_count(sql, name) for name in names))
    except (DatabaseUndefinedRelation, UnreadableFiles):  # by hand: let the others be counted
        rows = [row for name in names for row in _count_if_there(sql, name)]
    return {name: TableCounts(int(total), int(deleted)) for name, total, deleted in rows}


def rows_of_load(sql: Sql, names: Sequence[str], load_id: str) -> dict[str, int]:
    """Count the rows of tables that a load has brought, in one query."""
    counts = (
        f"SELECT '{name}', count(*) FROM {sql.table(name)} WHERE _dlt_load_id = '{load_id}'"
        for name in names
    )
    return {name: int(count) for name, count in sql.rows(" UNION ALL ".join(counts))}


def live_keys(sql: Sql, endpoint: Endpoint) -> frozenset[Key]:
    """Return the keys of the rows of a full list that are not marked; none without a table."""
    keys = ", ".join(map(sql.column, endpoint.key_columns))
    try:
        rows = sql.rows(f"SELECT {keys} FROM {sql.table(endpoint.name)} WHERE {DELETED_AT} IS NULL")
    except DatabaseUndefinedRelation:  # dropped by hand
        return frozenset()
    return frozenset(map(tuple, rows))


def _count(sql: Sql, name: str) -> str:
    deleted = f"count({DELETED_AT})" if BY_NAME[name].full_list else "0"
    return f"SELECT '{name}', count(*), {deleted} FROM {sql.table(name)}"


def _count_if_there(sql: Sql, name: str) -> Sequence[Row]:
    try:
        return sql.rows(_count(sql, name))
    except (DatabaseUndefinedRelation, UnreadableFiles):
        return []
