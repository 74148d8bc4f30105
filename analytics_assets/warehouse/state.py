"""How far each resource has been loaded, as dlt's state in the destination tells."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any, cast

from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.model import ColumnType, Endpoint
from analytics_assets.segment.months import Loaded
from analytics_assets.segment.windows import LoadedDays


def stored_types(pipeline: Pipeline, endpoint: Endpoint) -> Mapping[str, ColumnType]:
    """Return the types of the columns that the destination's table has; none without a table."""
    if pipeline.default_schema_name is None:
        return {}
    table = pipeline.default_schema.tables.get(endpoint.name)
    columns = table["columns"] if table else {}
    return {
        name: cast(ColumnType, column["data_type"])
        for name, column in columns.items()
        if "data_type" in column
    }


def loaded_months(pipeline: Pipeline, endpoint: Endpoint) -> Loaded | None:
    """Return the months of usage that have been loaded, ``None`` before the first load."""
    return Loaded.from_state(_resource_state(pipeline, endpoint))


def loaded_days(pipeline: Pipeline, endpoint: Endpoint) -> LoadedDays | None:
    """Return the days that have been asked for in windows, ``None`` before the first load."""
    return LoadedDays.from_state(_resource_state(pipeline, endpoint))


def position(pipeline: Pipeline, endpoint: Endpoint) -> datetime | None:
    """Return the time of the newest row loaded of a list that follows a cursor."""
    followed = _resource_state(pipeline, endpoint).get("incremental", {})
    newest = followed.get(endpoint.cursor_column, {}).get("last_value")
    return newest if isinstance(newest, datetime) else None


def start_of(newest: datetime | None, overlap: timedelta, again: date | None) -> datetime | None:
    """Return from when on a run asks for rows; ``None`` for all there are.

    Args:
        newest: time of the newest row loaded.
        overlap: how far before it to begin, as rows may come late.
        again: day from which rows are to be loaded again.
    """
    if newest is None:
        return None
    start = min(newest, datetime.now(timezone.utc)) - overlap
    if again is None:
        return start
    return min(start, datetime(again.year, again.month, again.day, tzinfo=timezone.utc))


def _resource_state(pipeline: Pipeline, endpoint: Endpoint) -> Mapping[str, Any]:
    sources = cast(Mapping[str, Any], pipeline.state).get("sources", {})
    state = sources.get(endpoint.group, {}).get("resources", {}).get(endpoint.name, {})
    return cast(Mapping[str, Any], state)
