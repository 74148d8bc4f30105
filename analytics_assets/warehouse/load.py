"""A run: plan the groups, read them side by side, load them one after the other.

Pure dlt, no Dagster. While one group is loaded the others are still read, so that the API's latency
costs little.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.endpoints import BY_NAME, GROUPS
from analytics_assets.segment.reader import (
    REFUSALS,
    ReadingSession,
    aborted_by_signals,
    raise_if_refused,
    read_group,
)
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.settings import Log
from analytics_assets.segment.spans import span
from analytics_assets.warehouse.destination import new_pipeline
from analytics_assets.warehouse.dlt_config import configure_dlt
from analytics_assets.warehouse.locks import exclusive, open_database
from analytics_assets.warehouse.outcome import LoadRequest, Outcome
from analytics_assets.warehouse.package import load_group
from analytics_assets.warehouse.plan import GroupPlan, Period, plan_group
from analytics_assets.warehouse.preflight import check_settings

Look = Callable[[Pipeline, Sequence[Outcome]], None]


def load_groups(request: LoadRequest, look: Look, log: Log) -> Iterator[list[Outcome]]:
    """Load what is asked for; yield what became of each group as soon as that is known.

    From its plan to its load no other run loads a group; the locks are taken in one order.

    Args:
        request: what to load.
        look: called with each group after its load, while the destination is open.
        log: told about waits, progress and what does not go as usual.

    Raises:
        SettingError: a setting cannot work; nothing was asked for or changed.
        DestinationBusy: the destination stayed locked.
        TokenRejected: the API refused everything.
        AnalyticsError: the destination cannot be reached.
    """
    configure_dlt(request.api.parallel_requests)
    check_settings(request.warehouse)
    period = Period.of(request.options)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="analytics_assets_")))
        plans: dict[str, GroupPlan] = {}
        locks: dict[str, ExitStack] = {}
        with span("plan"):
            for group in _groups(request):
                locks[group] = stack.enter_context(ExitStack())
                plans[group] = _locked_plan(group, request, folder, period, locks[group], log)
        readings = [reading for plan in plans.values() for reading in plan.readings]
        session = stack.enter_context(ReadingSession(request.api, log, readings))
        readers = stack.enter_context(_reading_aside(session, plans))
        for group, plan in plans.items():
            _wait(session, readers[group])
            if all(_refused(reading) for reading in plan.readings):
                for reader in readers.values():
                    _wait(session, reader)
                raise_if_refused(session, readings)
            yield _load(plan, request, look, log)
            locks[group].close()


def _groups(request: LoadRequest) -> list[str]:
    asked = {BY_NAME[name].group for name in request.names}
    return [group for group in GROUPS if group in asked]


def _locked_plan(
    group: str, request: LoadRequest, folder: Path, period: Period, lock: ExitStack, log: Log
) -> GroupPlan:
    place = folder / group
    place.mkdir()
    pipeline = new_pipeline(group, request.warehouse, place)
    lock.enter_context(exclusive(group, request.warehouse, pipeline, log))
    return plan_group(group, request, pipeline, place, period, log)


@contextmanager
def _reading_aside(
    session: ReadingSession, plans: dict[str, GroupPlan]
) -> Iterator[dict[str, Future[None]]]:
    """Read each group in a thread of its own; end them all however the block ends."""
    with ThreadPoolExecutor(len(plans), thread_name_prefix="read") as pool:
        try:
            yield {
                group: pool.submit(read_group, session, group, plan.readings)
                for group, plan in plans.items()
            }
        finally:
            session.abort()


def _wait(session: ReadingSession, reader: Future[None]) -> None:
    with span("read"), aborted_by_signals(session):
        reader.result()


def _refused(reading: Reading) -> bool:
    return getattr(reading.failure, "status", None) in REFUSALS


def _load(plan: GroupPlan, request: LoadRequest, look: Look, log: Log) -> list[Outcome]:
    plan.pipeline.activate()  # the pipeline of another group was made after it
    outcomes = load_group(plan, request.warehouse, request.options, log)
    with span("check"), open_database(request.warehouse, plan.pipeline, log):
        look(plan.pipeline, outcomes)
    return outcomes
