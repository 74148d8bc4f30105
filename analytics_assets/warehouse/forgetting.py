"""Personal data of what is gone, kept no longer than the team wants (``ANALYTICS_FORGET_DAYS``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone

from dlt.common.schema import Schema
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.model import DELETED_AT, Endpoint
from analytics_assets.warehouse.own_tables import RECORD_CHANGES
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import Sql
from analytics_assets.warehouse.state import stored_columns, stored_schema


def forget(
    sql: Sql,
    pipeline: Pipeline,
    names: Sequence[str],
    warehouse: WarehouseSettings,
    *,
    recorded: bool,
) -> Mapping[str, int]:
    """Blank personal columns of rows marked as deleted, and of events, that are older than is kept.

    Where the personal value is the key, as with invitations, the whole row goes; so it does of what
    was recorded of changes. Columns that
    ``endpoints.py`` does not declare are blanked too: nobody has said that they are not personal.

    Args:
        sql: the destination, opened.
        pipeline: knows which columns the tables have.
        names: the tables that have been loaded.
        warehouse: says how many days are kept; its destination updates rows in place.
        recorded: whether changes are recorded: else the table of that name is somebody else's.

    Returns:
        The rows that lost something, by table.
    """
    if warehouse.forget_days is None or not warehouse.marks_deletions:
        return {}
    before = datetime.now(timezone.utc) - timedelta(days=warehouse.forget_days)
    forgotten: dict[str, int] = {}
    schema = stored_schema(pipeline)
    for endpoint in (BY_NAME[name] for name in names):
        if columns := _personal_columns(endpoint, schema):
            forgotten[endpoint.name] = _forget(sql, endpoint, columns, before)
    if recorded:
        _forget_changes(sql, names, before)
    return forgotten


def _personal_columns(endpoint: Endpoint, schema: Schema) -> Sequence[str]:
    """Return the columns to blank; none of a table that holds nothing personal."""
    personal = [column.name for column in endpoint.table_columns if column.personal]
    if not personal or _moment(endpoint) is None:
        return []
    declared = {column.name for column in endpoint.table_columns}
    stored = stored_columns(schema, endpoint)
    return personal + [n for n in stored if n not in declared and not n.startswith("_dlt_")]


def _moment(endpoint: Endpoint) -> str | None:
    """Return the column that tells since when a row is history."""
    return DELETED_AT if endpoint.full_list else endpoint.cursor_column


def _forget(sql: Sql, endpoint: Endpoint, columns: Sequence[str], before: datetime) -> int:
    table = sql.table(endpoint.name)
    quoted = [sql.column(name) for name in columns]
    where = f"{sql.column(str(_moment(endpoint)))} < '{before.isoformat()}'"
    statement = f"DELETE FROM {table}"
    if not set(columns) & set(endpoint.key_columns):
        where += f" AND ({' OR '.join(f'{name} IS NOT NULL' for name in quoted)})"
        statement = f"UPDATE {table} SET {', '.join(f'{name} = NULL' for name in quoted)}"
    [(count,)] = sql.rows(f"SELECT count(*) FROM {table} WHERE {where}")
    if count:
        sql.rows(f"{statement} WHERE {where}")
    return int(count)


def _forget_changes(sql: Sql, names: Sequence[str], before: datetime) -> None:
    """Drop what was recorded of personal columns of some tables."""
    of = ", ".join(f"'{name}'" for name in names)
    with suppress(DatabaseUndefinedRelation):  # nothing has ever changed
        sql.rows(
            f"DELETE FROM {sql.table(RECORD_CHANGES.name)} WHERE is_personal AND asset IN ({of})"
            f" AND moment < '{before.isoformat()}'"
        )
