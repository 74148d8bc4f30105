"""Histories whose rows somebody has removed: a load adds to them, so the rows would stay away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import date

from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.errors import UnreadableFiles
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.months import Loaded, month_of, month_range, shift
from analytics_assets.warehouse.checks.values import utc_day
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import Sql, open_sql
from analytics_assets.warehouse.state import claims_rows


def emptied(
    pipeline: Pipeline, endpoints: Sequence[Endpoint], warehouse: WarehouseSettings
) -> frozenset[str]:
    """Return the histories of which the state says that there are rows, and whose tables have none.

    Of plain files only a whole file can go: a table without any is not there. Usage is looked at
    month by month, see :func:`lacking_months`.

    Args:
        pipeline: in step with the destination, which the caller has open.
        endpoints: whose tables are there.
        warehouse: the destination.
    """
    if not warehouse.merges:
        return frozenset()
    histories = [e for e in endpoints if not e.full_list and not e.monthly]
    claimed = [e for e in histories if claims_rows(pipeline, e)]
    return without_rows(pipeline, claimed, warehouse)


def lacking_months(sql: Sql, endpoint: Endpoint, loaded: Loaded | None) -> frozenset[date]:
    """Return the months that are over and of which a table of usage lacks days, or has none.

    A workspace may have begun in the midst of the first month that has any.

    Args:
        sql: the destination, open.
        endpoint: the row of ``endpoints.py``.
        loaded: what the state says that there is.
    """
    if loaded is None:
        return frozenset()
    column = sql.column(str(endpoint.cursor_column))
    try:
        found = sql.rows(f"SELECT DISTINCT {column} FROM {sql.table(endpoint.name)}")
    except (DatabaseUndefinedRelation, UnreadableFiles):
        return frozenset()
    days = {utc_day(when) for (when,) in found if when}
    there = Counter(map(month_of, days))
    first = min(there, default=loaded.newest)
    over = month_range(loaded.first, shift(month_of(loaded.newest), -1))
    return frozenset(m for m in over if m != first and there[m] < (shift(m, 1) - m).days)


def without_rows(
    pipeline: Pipeline, endpoints: Sequence[Endpoint], warehouse: WarehouseSettings
) -> frozenset[str]:
    """Return the names of those whose tables hold nothing, or are not there."""
    if not endpoints:
        return frozenset()
    with open_sql(pipeline.destination_client(), warehouse.table_format) as sql:
        return frozenset(e.name for e in endpoints if _holds_nothing(sql, e.name))


def _holds_nothing(sql: Sql, name: str) -> bool:
    try:
        return not sql.rows(f"SELECT 1 FROM {sql.table(name)} LIMIT 1")
    except DatabaseUndefinedRelation:
        return True
    except UnreadableFiles:
        return False
