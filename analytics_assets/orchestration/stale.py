"""Alerts that nothing happens: runs that do not end or do not begin, assets that are overdue.

``run_failure_sensor`` sees none of these, since nothing fails. If the daemon itself is away, no
sensor looks at all: its health check (``dagster-daemon liveness-check``) is for that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from dagster import (
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRecord,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from analytics_assets.orchestration.schedules import NOT_BEGUN

SECONDS: Final = 60
LONGEST_RUN: Final = 7200
LONGEST_WAIT: Final = 1800
UNDER_WAY: Final = (
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
)


@dataclass(frozen=True)
class Stale:
    """Something that has not happened for too long, or has happened at last.

    Attributes:
        kind: ``run`` (does not end), ``queue`` (does not begin) or ``asset`` (is not loaded).
        subject: id of the run, or key of the asset.
        stale: false if it is over.
        seconds: how long it has taken when this was found; 0 if it is over.
        description: one sentence for people.
    """

    kind: str
    subject: str
    stale: bool
    seconds: float
    description: str

    def __str__(self) -> str:
        """Say it in one line."""
        return self.description


def stale_sensor(
    on_stale: Callable[[Stale], None],
    *,
    name: str = "stale",
    longest_run_seconds: float = LONGEST_RUN,
    longest_wait_seconds: float = LONGEST_WAIT,
    minimum_interval_seconds: int = SECONDS,
) -> SensorDefinition:
    """Return a sensor that tells when something in the code location has not happened for too long.

    It tells once of a run that has been under way or in the queue for longer than is given, and of
    an asset that is older than its freshness policy's ``fail_window``; and once when that is over.
    An asset that has never been loaded is not overdue. What ``on_stale`` raises ends the look, and
    what was to be told is told again at the next.

    Args:
        on_stale: called with each change.
        name: name of the sensor.
        longest_run_seconds: how long a run may take.
        longest_wait_seconds: how long a run may be in the queue.
        minimum_interval_seconds: seconds between two looks.
    """

    @sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=DefaultSensorStatus.STOPPED,
        description="Tells once of runs that do not end or begin, and of assets that are overdue.",
    )
    def stale(context: SensorEvaluationContext) -> SensorResult:
        now = time.time()
        runs = [
            *_runs(context, "run", UNDER_WAY, now - longest_run_seconds, now),
            *_runs(context, "queue", NOT_BEGUN, now - longest_wait_seconds, now),
        ]
        found = {f"{s.kind} {s.subject}": s for s in (*runs, *_assets(context, now))}
        before: Mapping[str, str] = json.loads(context.cursor or "{}")
        new = [stale for what, stale in found.items() if what not in before]
        over = [_over(what, said) for what, said in before.items() if what not in found]
        for change in (*new, *over):
            on_stale(change)
        said = f"{len(new)} are new, {len(over)} are over, {len(found)} are stale."
        cursor = json.dumps({what: stale.description for what, stale in found.items()})
        return SensorResult(skip_reason=said, cursor=cursor)

    return stale


def _over(what: str, said: str) -> Stale:
    kind, _, subject = what.partition(" ")
    return Stale(kind, subject, False, 0, f"This is over: {said}")


def _runs(
    context: SensorEvaluationContext,
    kind: str,
    statuses: tuple[DagsterRunStatus, ...],
    limit: float,
    now: float,
) -> Iterator[Stale]:
    origin = context.code_location_origin
    tags = {"dagster/code_location": origin.location_name} if origin else None
    for record in context.instance.get_run_records(RunsFilter(statuses=statuses, tags=tags)):
        since = _since(record)
        if since < limit:
            yield _stale_run(kind, record, now - since)


def _since(record: RunRecord) -> float:
    return record.start_time or record.create_timestamp.timestamp()


def _stale_run(kind: str, record: RunRecord, seconds: float) -> Stale:
    run = record.dagster_run
    does_not = (
        "has been in the queue" if kind == "queue" else f"has been {run.status.value.lower()}"
    )
    text = f"Run {run.run_id} of {run.job_name} {does_not} for {seconds / 60:.0f} minutes."
    return Stale(kind, run.run_id, True, seconds, text)


def _assets(context: SensorEvaluationContext, now: float) -> Iterator[Stale]:
    if context.repository_def is None:
        return
    graph = context.repository_def.asset_graph
    for key in sorted(graph.materializable_asset_keys):
        # a policy by cron has no window: Dagster's own page is for it
        policy: Any = graph.get(key).freshness_policy
        window = getattr(policy, "fail_window", None)
        event = context.instance.get_latest_materialization_event(key) if window else None
        age = now - event.timestamp if event else 0
        if window and age > window.to_timedelta().total_seconds():
            name = key.to_user_string()
            text = f"{name} was loaded last {age / 3600:.1f} hours ago, which is overdue."
            yield Stale("asset", name, True, age, text)
