"""Histories whose rows somebody has removed: a load adds to them, so the rows would stay away."""

from __future__ import annotations

from collections.abc import Sequence

from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.errors import UnreadableFiles
from analytics_assets.segment.model import Endpoint
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import Sql, open_sql
from analytics_assets.warehouse.state import claims_rows


def emptied(
    pipeline: Pipeline, endpoints: Sequence[Endpoint], warehouse: WarehouseSettings
) -> frozenset[str]:
    """Return the histories of which the state says that there are rows, and whose tables have none.

    Of plain files only a whole file can go: a table without any is not there.

    Args:
        pipeline: in step with the destination, which the caller has open.
        endpoints: whose tables are there.
        warehouse: the destination.
    """
    if not warehouse.merges:
        return frozenset()
    claimed = [e for e in endpoints if not e.full_list and claims_rows(pipeline, e)]
    return frozenset(without_rows(pipeline, claimed, warehouse) if claimed else ())


def without_rows(
    pipeline: Pipeline, endpoints: Sequence[Endpoint], warehouse: WarehouseSettings
) -> list[str]:
    """Return the names of those whose tables hold nothing, or are not there."""
    with open_sql(pipeline.destination_client(), warehouse.table_format) as sql:
        return [endpoint.name for endpoint in endpoints if _holds_nothing(sql, endpoint.name)]


def _holds_nothing(sql: Sql, name: str) -> bool:
    try:
        return not sql.rows(f"SELECT 1 FROM {sql.table(name)} LIMIT 1")
    except DatabaseUndefinedRelation:
        return True
    except UnreadableFiles:
        return False
