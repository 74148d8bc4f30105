"""What a run is going to ask for of a group, worked out from what the destination holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

from dlt.common.destination.exceptions import DestinationException
from dlt.common.schema import Schema
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.audit_trail import api_time
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.errors import AnalyticsError, UnreadableFiles
from analytics_assets.segment.extraction import Extraction
from analytics_assets.segment.model import Endpoint, Group
from analytics_assets.segment.months import (
    month_range,
    months_to_load,
    parse_day,
    reload_range,
    usage_start,
)
from analytics_assets.segment.reading import Reading, fault_of, static_chains
from analytics_assets.segment.records import RowTyper
from analytics_assets.segment.settings import LoadOptions, Log
from analytics_assets.segment.staging import Key, Staging
from analytics_assets.segment.undeclared import Stored
from analytics_assets.segment.windows import forgettable, windows_to_load
from analytics_assets.warehouse.counts import live_keys
from analytics_assets.warehouse.emptied import lacking_months, without_rows
from analytics_assets.warehouse.faults import question_error
from analytics_assets.warehouse.healing import Healed, restore_and_heal
from analytics_assets.warehouse.locks import open_database
from analytics_assets.warehouse.outcome import Baseline, LoadRequest
from analytics_assets.warehouse.own_tables import RECORD_CHANGES
from analytics_assets.warehouse.ownership import Owner, owner_of
from analytics_assets.warehouse.plain_files import tidy
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import open_sql
from analytics_assets.warehouse.state import (
    is_known,
    loaded_days,
    loaded_months,
    peak,
    position,
    start_of,
    stored_columns,
    stored_schema,
    was_unavailable,
)


@dataclass(frozen=True)
class Period:
    """The days that a run is about.

    Attributes:
        now: when the run began, UTC.
        usage_start: first month of usage to have.
        again: first and last month of usage and volume to load again, ``None`` for what is due.
        audit_start: day from which audit events are loaded again, ``None`` for those that are due.
    """

    now: datetime
    usage_start: date
    again: tuple[date, date] | None
    audit_start: date | None

    @classmethod
    def of(cls, options: LoadOptions) -> Period:
        """Check the options.

        Raises:
            SettingError: one of them is no day or month, or lies in the future.
        """
        now = datetime.now(timezone.utc)
        today = now.date()
        return cls(
            now,
            usage_start(options.usage_start, today),
            reload_range(options.start_month, options.end_month, today),
            parse_day(options.audit_start, "audit_start", today) if options.audit_start else None,
        )

    @property
    def today(self) -> date:
        """The current day, UTC."""
        return self.now.date()


@dataclass(frozen=True)
class GroupPlan:
    """What is read and loaded of one group.

    Attributes:
        group: its name; it keys locks, pipeline and state.
        pipeline: its pipeline, in step with the destination.
        folder: where what was read lies until it is loaded.
        readings: the resources to load, and the parents that are read for their sake.
        before: what full lists are compared with, by name.
        owner: the workspace that the dataset belongs to.
        unrecorded: why what changes cannot be recorded, ``None`` if it can.
    """

    group: Group
    pipeline: Pipeline
    folder: Path
    readings: Sequence[Reading]
    before: Mapping[str, Baseline]
    owner: Owner
    unrecorded: AnalyticsError | None


@dataclass(frozen=True)
class _Known:
    """What the destination holds of a resource.

    Attributes:
        columns: of its table.
        keys: of the rows that the load may mark as deleted, or drop.
        lacking: months of usage that were loaded and are not whole any more.
        filled: whether it was ever loaded, and not only made for a missing feature.
    """

    columns: Mapping[str, Stored]
    keys: frozenset[Key]
    lacking: frozenset[date]
    filled: bool


def plan_group(
    group: Group, request: LoadRequest, pipeline: Pipeline, folder: Path, period: Period, log: Log
) -> GroupPlan:
    """Bring state and schema back from the destination, and plan each resource.

    Raises:
        AnalyticsError: the destination cannot be reached.
    """
    endpoints = [BY_NAME[name] for name in request.names if BY_NAME[name].group == group]
    wanted = _with_parents(endpoints)
    try:
        with open_database(request.warehouse, pipeline, log):
            healed = restore_and_heal(pipeline, group, endpoints, request.warehouse, log)
            tidy(pipeline, request.warehouse, wanted)
            schema = stored_schema(pipeline)
            before = _baselines(pipeline, schema, wanted, healed, request.warehouse, period.today)
            lacking = _lacking(pipeline, endpoints, healed, request.warehouse, log)
            filled = _filled(pipeline, schema, wanted, healed, request.warehouse)
            owner = owner_of(group, pipeline, request.warehouse)
    except DestinationException as error:
        raise question_error(error, request.warehouse) from None
    readings: dict[str, Reading] = {}
    for endpoint in wanted:
        parent = readings.get(endpoint.parent.resource) if endpoint.parent else None
        file = folder / f"{endpoint.name}.arrows" if endpoint in endpoints else None
        keys = before[endpoint.name].live if endpoint.name in before else frozenset()
        known = _Known(
            _stored(schema, endpoint, healed),
            keys if request.warehouse.loses_rows else frozenset(),
            lacking.get(endpoint.name, frozenset()),
            endpoint.name in filled,
        )
        reading = _reading(endpoint, parent, pipeline, known, file, request, period)
        if file and (refusal := healed.refused.get(endpoint.name)):
            reading.extraction.fail(refusal)
        readings[endpoint.name] = reading
    unrecorded = healed.refused.get(RECORD_CHANGES.name)
    return GroupPlan(group, pipeline, folder, [*readings.values()], before, owner, unrecorded)


def _baselines(
    pipeline: Pipeline,
    schema: Schema,
    endpoints: Sequence[Endpoint],
    healed: Healed,
    warehouse: WarehouseSettings,
    today: date,
) -> Mapping[str, Baseline]:
    """See what full lists hold now; refuse those of which that cannot be seen."""
    full_lists = [e for e in endpoints if e.full_list and _stored(schema, e, healed)]
    found: dict[str, Baseline] = {}
    if not full_lists:
        return found
    with open_sql(pipeline.destination_client(), warehouse.table_format) as sql:
        for endpoint in full_lists:
            try:
                live = live_keys(sql, endpoint)
            except UnreadableFiles as error:
                healed.refused[endpoint.name] = error
                continue
            found[endpoint.name] = Baseline(live, peak(pipeline, endpoint, today))
    return found


def _stored(schema: Schema, endpoint: Endpoint, healed: Healed) -> Mapping[str, Stored]:
    """Return the columns of a table; none if there is none to load into."""
    if endpoint.name in healed.refused:
        return {}
    found = healed.types.get(endpoint.name, {})
    return stored_columns(schema, endpoint) or {name: Stored(kind) for name, kind in found.items()}


def _with_parents(endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """Return the endpoints and the lists they hang on, parents first."""
    names = {endpoint.name for endpoint in endpoints}
    names |= {endpoint.parent.resource for endpoint in endpoints if endpoint.parent}
    wanted = [*(e for e in BY_NAME.values() if e.name in names)]
    return sorted(wanted, key=lambda endpoint: endpoint.parent is not None)


def _reading(
    endpoint: Endpoint,
    parent: Reading | None,
    pipeline: Pipeline,
    known: _Known,
    file: Path | None,
    request: LoadRequest,
    period: Period,
) -> Reading:
    """Plan one resource.

    Args:
        endpoint: what to read.
        parent: the reading of the list it hangs on.
        pipeline: knows what was loaded before.
        known: what the destination holds of it.
        file: where to stage its rows; ``None`` if they are not loaded.
        request: how to reach the API, and where to load to.
        period: the days that the run is about.
    """
    api = request.api
    windows = _windows(endpoint, pipeline, period, api.overlap_days)
    months = [month.isoformat() for month in _months(endpoint, pipeline, period, known.lacking)]
    newest = position(pipeline, endpoint) if endpoint.cursor else None
    start = start_of(newest, timedelta(minutes=api.overlap_minutes), period.audit_start)
    extraction = Extraction(
        endpoint,
        static_chains(endpoint, months or windows),
        parent=parent.extraction if parent else None,
        start=api_time(start) if start else None,
        forgettable=forgettable(windows, period.now),
    )
    if fault := fault_of(endpoint, BY_NAME):
        extraction.fail(fault)
    return Reading(
        extraction,
        RowTyper(
            endpoint,
            known.columns,
            redact=api.redact,
            fingerprint_key=api.fingerprint_key,
            holds_nul=request.warehouse.holds_nul,
        ),
        Staging(endpoint, file) if file else None,
        as_of=period.now,
        position=newest,
        held=known.keys,
        loaded_before=known.filled,
    )


def _filled(
    pipeline: Pipeline,
    schema: Schema,
    endpoints: Sequence[Endpoint],
    healed: Healed,
    warehouse: WarehouseSettings,
) -> frozenset[str]:
    """Return the resources whose tables were ever filled, and not only made for want of a feature.

    Where the state does not tell, as it has been dropped, the rows do.
    """
    there = [e for e in endpoints if _stored(schema, e, healed)]
    noted = {e.name for e in there if is_known(pipeline, e) and not was_unavailable(pipeline, e)}
    untold = [e for e in there if not is_known(pipeline, e)]
    empty = without_rows(pipeline, untold, warehouse)
    return frozenset(noted | {e.name for e in untold} - empty)


def _lacking(
    pipeline: Pipeline,
    endpoints: Sequence[Endpoint],
    healed: Healed,
    warehouse: WarehouseSettings,
    log: Log,
) -> Mapping[str, frozenset[date]]:
    """Return the months of usage that were loaded and are not whole in their tables, by name."""
    usage = [e for e in endpoints if e.monthly and e.name not in healed.refused]
    loaded = {e.name: loaded_months(pipeline, e) for e in usage}
    if not any(loaded.values()):
        return {}
    with open_sql(pipeline.destination_client(), warehouse.table_format) as sql:
        found = {name: lacking_months(sql, BY_NAME[name], loaded[name]) for name in loaded}
    for name, months in found.items():
        known = loaded[name]
        if known and (lost := sorted(months - known.due)):
            told = ", ".join(f"{month:%Y-%m}" for month in lost)
            log.warning(f"{name}: rows are missing in its table for {told}; loading them again.")
    return found


def _months(
    endpoint: Endpoint, pipeline: Pipeline, period: Period, lacking: frozenset[date]
) -> list[date]:
    if not endpoint.monthly:
        return []
    if period.again:
        return month_range(*period.again)
    loaded = loaded_months(pipeline, endpoint)
    due = loaded and replace(loaded, due=loaded.due | lacking)
    return months_to_load(due, period.usage_start, period.now.date())


def _windows(endpoint: Endpoint, pipeline: Pipeline, period: Period, overlap: int) -> list[str]:
    if not endpoint.window:
        return []
    loaded = loaded_days(pipeline, endpoint)
    return windows_to_load(endpoint.window, loaded, overlap, period.again, period.now)
