"""What is remembered of each resource, in dlt's state in the destination.

A load moves it in the same package as the rows it describes.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final, cast

import dlt
from dlt.common.schema import Schema
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment import windows
from analytics_assets.segment.model import ColumnType, Endpoint, Table
from analytics_assets.segment.months import FIRST_YEAR, Loaded, after_load
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.undeclared import Stored
from analytics_assets.segment.windows import LoadedDays

FIELD: Final = "x-field"
"""Hint of a column in dlt's schema: the undeclared field that it was made for."""
PEAK_DAYS: Final = timedelta(days=30)
"""How long the largest number of rows of a list is remembered, to compare with."""


AHEAD: Final = timedelta(days=1)
"""How far clocks of machines that take turns may be apart."""


@dataclass(frozen=True)
class Peak:
    """The largest number of rows that loads of a list have brought lately, and when."""

    rows: int
    day: date

    def after(self, rows: int, today: date) -> Peak:
        """Return the peak after a further load."""
        old = today - self.day > PEAK_DAYS
        return Peak(rows, today) if old or rows >= self.rows else self


def stored_schema(pipeline: Pipeline) -> Schema:
    """Return the schema of the destination's tables, without any if nothing has been loaded.

    dlt reads it from a file whenever it is asked for it, so ask once for all tables.
    """
    known = pipeline.default_schema_name is not None
    return pipeline.default_schema if known else Schema(pipeline.pipeline_name)


def stored_columns(schema: Schema, table: Table) -> Mapping[str, Stored]:
    """Return the columns that the destination's table has; none without a table."""
    known = schema.tables.get(table.name)
    columns = cast(Mapping[str, Mapping[str, Any]], known["columns"] if known else {})
    return {
        name: Stored(column["data_type"], column.get(FIELD))
        for name, column in columns.items()
        if "data_type" in column
    }


def stored_types(schema: Schema, table: Table) -> Mapping[str, ColumnType]:
    """Return the types of the columns that the destination's table has; none without a table."""
    stored = stored_columns(schema, table)
    return {name: cast(ColumnType, column.type) for name, column in stored.items()}


def declared_types(table: Table) -> Mapping[str, ColumnType]:
    """Return the types of the columns that are known beforehand."""
    return {column.name: column.type for column in table.table_columns}


def is_sound(pipeline: Pipeline, endpoint: Endpoint) -> bool:
    """Tell whether the state of a resource can be read, as it is not if somebody has edited it.

    Nor is one that claims days to come: what is written until then would be taken for loaded.
    """
    today = datetime.now(timezone.utc).date()
    try:
        months, days = loaded_months(pipeline, endpoint), loaded_days(pipeline, endpoint)
        followed = _resource_state(pipeline, endpoint).get("incremental", {})
        newest = followed.get(endpoint.cursor_column, {}).get("last_value")
        position(pipeline, endpoint)
        top = _peak(_resource_state(pipeline, endpoint))
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return False
    reached = [loaded.newest for loaded in (months, days) if loaded]
    reached += [*(months.due if months else ()), *([top.day] if top else ())]
    if any(day > today + AHEAD for day in reached):
        return False
    return newest is None or isinstance(newest, datetime)


def drop_misshapen(pipeline: Pipeline) -> bool:
    """Drop parts of the state that have not the shape of any state; tell whether there were any.

    Without that, they would end every run where they are looked into.
    """
    with pipeline.managed_state() as state:
        whole = cast(dict[str, Any], state)
        odd = _drop_what_is_no_object(whole, ["sources"])
        sources = whole.get("sources", {})
        odd += _drop_what_is_no_object(sources, list(sources))
        for source in sources.values():
            odd += _drop_what_is_no_object(source, ["resources"])
            resources = source.get("resources", {})
            odd += _drop_what_is_no_object(resources, list(resources))
    return odd > 0


def _drop_what_is_no_object(holder: dict[str, Any], names: Sequence[str]) -> int:
    odd = [name for name in names if not isinstance(holder.get(name, {}), dict)]
    for name in odd:
        del holder[name]
    return len(odd)


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
    """Return up to when a list that follows a cursor has been read; ``None`` before the first load.

    Also if a time to come is noted: what was written since may not have been read.

    """
    state = _resource_state(pipeline, endpoint)
    now = datetime.now(timezone.utc)
    if "position" in state:
        noted_at = datetime.fromisoformat(state["position"]).astimezone(timezone.utc)
        return noted_at if noted_at.year >= FIRST_YEAR and noted_at <= now + AHEAD else None
    followed = state.get("incremental", {}).get(endpoint.cursor_column, {}).get("last_value")
    noted = isinstance(followed, datetime) and followed <= now
    return followed if noted else None


def claims_rows(pipeline: Pipeline, endpoint: Endpoint) -> bool:
    """Tell whether the state of a history that is not read by months says that it has rows."""
    return bool(loaded_days(pipeline, endpoint) or position(pipeline, endpoint))


def start_of(newest: datetime | None, overlap: timedelta, again: date | None) -> datetime | None:
    """Return from when on a run asks for rows; ``None`` for all there are.

    Args:
        newest: up to when rows have been read.
        overlap: how far before it to begin, as rows may come late.
        again: day from which rows are to be loaded again.
    """
    if newest is None:
        return None
    start = min(newest, datetime.now(timezone.utc)) - overlap
    if again is None:
        return start
    return min(start, datetime(again.year, again.month, again.day, tzinfo=timezone.utc))


def peak(pipeline: Pipeline, endpoint: Endpoint, today: date) -> int:
    """Return the largest number of rows that loads of the last weeks have brought, 0 if unknown."""
    found = _peak(_resource_state(pipeline, endpoint))
    return found.rows if found and today - found.day <= PEAK_DAYS else 0


def was_unavailable(pipeline: Pipeline, endpoint: Endpoint) -> bool:
    """Tell whether the table is there for a feature that has been missing so far."""
    return bool(_resource_state(pipeline, endpoint).get("unavailable"))


def is_known(pipeline: Pipeline, endpoint: Endpoint) -> bool:
    """Tell whether anything is remembered of a resource; not so if the state has been dropped."""
    return bool(_resource_state(pipeline, endpoint))


def note_load(
    state: MutableMapping[str, Any], reading: Reading, *, available: bool, fewer: bool
) -> None:
    """Note what a load brings; called while it is extracted.

    Args:
        state: of the resource.
        reading: what was read; it may be loaded.
        available: false if a missing feature is the reason that there is nothing.
        fewer: whether the list may have become shorter, so that earlier counts mean nothing.
    """
    endpoint, today = reading.endpoint, datetime.now(timezone.utc).date()
    if not available:
        state["unavailable"] = True
        return
    state.pop("unavailable", None)
    if endpoint.monthly:
        _note_months(state, reading, today)
    elif endpoint.window:
        _note_days(state, reading, today)
    elif endpoint.cursor:
        _note_position(state, reading)
    elif reading.staging:
        before = None if fewer else _peak(state)
        rows = reading.staging.rows
        now = before.after(rows, today) if before else Peak(rows, today)
        state["peak"] = {"rows": now.rows, "day": now.day.isoformat()}


def _note_months(state: MutableMapping[str, Any], reading: Reading, today: date) -> None:
    extraction, staging = reading.extraction, reading.staging
    newest = min(staging.newest.date(), today) if staging and staging.newest else None
    months = sorted(map(date.fromisoformat, extraction.chains))
    unproved = [*map(date.fromisoformat, extraction.unproved)]
    loaded = after_load(Loaded.from_state(state), months, newest, unproved)
    if loaded:
        state.update(loaded.to_state())


def _note_days(state: MutableMapping[str, Any], reading: Reading, today: date) -> None:
    extraction, staging = reading.extraction, reading.staging
    if extraction.doubts:
        return
    newest = min(staging.newest.date(), today) if staging and staging.newest else None
    before = LoadedDays.from_state(state)
    gone, empty = extraction.gone, extraction.unproved
    loaded = windows.after_load(before, extraction.chains, gone, newest, empty)
    if loaded:
        state.update(loaded.to_state())


def _note_position(state: MutableMapping[str, Any], reading: Reading) -> None:
    """Note the newest time that came, but at most that of the run: rows may be dated ahead."""
    newest = reading.staging.newest if reading.staging else None
    if newest is None or reading.extraction.doubts:
        return
    reached = min(newest, reading.as_of)
    before = reading.position
    state["position"] = max(filter(None, (before, reached))).isoformat()


def _peak(state: Mapping[str, Any]) -> Peak | None:
    found = state.get("peak")
    return Peak(int(found["rows"]), date.fromisoformat(found["day"])) if found else None


def _resource_state(pipeline: Pipeline, endpoint: Endpoint) -> Mapping[str, Any]:
    sources = cast(Mapping[str, Any], pipeline.state).get("sources", {})
    state = sources.get(endpoint.group, {}).get("resources", {}).get(endpoint.name, {})
    return cast(Mapping[str, Any], state)
