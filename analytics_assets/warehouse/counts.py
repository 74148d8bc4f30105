"""Rows of tables: how many there are, and which of them the API no longer serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dlt.destinations.exceptions import DatabaseUndefinedRelation

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.model import DELETED_AT
from analytics_assets.warehouse.outcome import TableCounts
from analytics_assets.warehouse.sql import Row, Sql


def mark_deleted(sql: Sql, names: Sequence[str], load_id: str) -> Mapping[str, int]:
    """Give ``deleted_at`` to the rows of full lists that this load did not bring.

    The merge rewrites every row that came, load id included, and so clears the mark of one that
    has come back.
    """
    marked: dict[str, int] = {}
    for name in names:
        if not BY_NAME[name].full_list:
            continue
        table = sql.table(name)
        where = f"_dlt_load_id <> '{load_id}' AND {DELETED_AT} IS NULL"
        [(count,)] = sql.rows(f"SELECT count(*) FROM {table} WHERE {where}")
        marked[name] = int(count)
        if count:
            sql.rows(f"UPDATE {table} SET {DELETED_AT} = CURRENT_TIMESTAMP WHERE {where}")
    return marked


def count_rows(sql: Sql, names: Sequence[str]) -> dict[str, TableCounts]:
    """Count the rows of tables, in one query, and those of full lists marked as deleted."""
    try:
        rows = sql.rows(" UNION ALL ".join(_count(sql, name) for name in names))
    except DatabaseUndefinedRelation:  # dropped by hand: let the others be counted
        rows = [row for name in names for row in _count_if_there(sql, name)]
    return {name: TableCounts(int(total), int(deleted)) for name, total, deleted in rows}


def _count(sql: Sql, name: str) -> str:
    deleted = f"count({DELETED_AT})" if BY_NAME[name].full_list else "0"
    return f"SELECT '{name}', count(*), {deleted} FROM {sql.table(name)}"


def _count_if_there(sql: Sql, name: str) -> Sequence[Row]:
    try:
        return sql.rows(_count(sql, name))
    except DatabaseUndefinedRelation:
        return []
