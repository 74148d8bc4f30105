"""Rows that the API no longer serves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.model import DELETED_AT
from analytics_assets.warehouse.sql import Sql


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
        # a row that somebody has put there has no load id
        where = f"coalesce(_dlt_load_id, '') <> '{load_id}' AND {DELETED_AT} IS NULL"
        [(count,)] = sql.rows(f"SELECT count(*) FROM {table} WHERE {where}")
        marked[name] = int(count)
        if count:
            sql.rows(f"UPDATE {table} SET {DELETED_AT} = CURRENT_TIMESTAMP WHERE {where}")
    return marked
