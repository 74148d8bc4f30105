"""How far each resource has been loaded, as dlt's state in the destination tells."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final, cast

import dlt
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.model import ColumnType, Endpoint
from analytics_assets.segment.months import Loaded
from analytics_assets.segment.undeclared import Stored
from analytics_assets.segment.windows import LoadedDays

FIELD: Final = "x-field"
"""Hint of a column in dlt's schema: the undeclared field that it was made for."""


def stored_columns(pipeline: Pipeline, endpoint: Endpoint) -> Mapping[str, Stored]:
    """Return the columns that the destination's table has; none without a table."""
    if pipeline.default_schema_name is None:
        return {}
    table = pipeline.default_schema.tables.get(endpoint.name)
    columns = cast(Mapping[str, Mapping[str, Any]], table["columns"] if table else {})
    return {
        name: Stored(column["data_type"], column.get(FIELD))
        for name, column in columns.items()
        if "data_type" in column
    }


def stored_types(pipeline: Pipeline, endpoint: Endpoint) -> Mapping[str, ColumnType]:
    """Return the types of the columns that the destination's table has; none without a table."""
    stored = stored_columns(pipeline, endpoint)
    return {name: cast(ColumnType, column.type) for name, column in stored.items()}


def declared_types(endpoint: Endpoint) -> Mapping[str, ColumnType]:
    """Return the types of the columns that are known beforehand."""
    return {column.name: column.type for column in endpoint.table_columns}


def is_sound(pipeline: Pipeline, endpoint: Endpoint) -> bool:
    """Tell whether the state of a history can be read, as it is not if somebody has edited it."""
    try:
        loaded_months(pipeline, endpoint)
        loaded_days(pipeline, endpoint)
        followed = _resource_state(pipeline, endpoint).get("incremental", {})
        newest = followed.get(endpoint.cursor_column, {}).get("last_value")
    except (AttributeError, TypeError, ValueError):
        return False
    return newest is None or isinstance(newest, datetime)


def forget(pipeline: Pipeline, group: str, names: Collection[str]) -> None:
    """Drop the state of resources, here and in the destination, which the caller has open.

    Raises:
        PipelineStepFailed: it cannot be stored.
    """
    with pipeline.managed_state() as state:
        sources = cast(dict[str, Any], state).get("sources", {})
        resources = sources.get(group, {}).get("resources", {})
        dropped = [resources.pop(name) for name in names if name in resources]
    if dropped:
        pipeline.extract(dlt.source(lambda: [], name=group)())  # a package of nothing but the state
        pipeline.normalize()
        pipeline.load().raise_on_failed_jobs()


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
