"""Retries of whole runs: which runs get them, how long they wait, and which failures end them.

Dagster's own run retries start at once and take a place in the queue and the pool, so a pause would
have to be made inside the run, where it holds up every other. The sensor here waits outside: a
failed run is looked at until its pause is over, and then what it has not loaded is requested, if
nothing else has loaded it meanwhile. Runs that are lost, or fail before they begin, are retried as
well. It is on unless it is switched off, and needs nothing in ``dagster.yaml``.

Op retry policies would not do: they run a step again as a whole, and end with the process.

No postponed annotations here: Dagster reads the resources of a sensor from its signature.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Final, TypeVar

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetSelection,
    DagsterInstance,
    DagsterRunStatus,
    DefaultSensorStatus,
    RunRecord,
    RunRequest,
    RunsFilter,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.failures import allows_retries
from analytics_assets.orchestration.loads import loaded_since
from analytics_assets.orchestration.run_tags import TRIGGER_TAG, WORKSPACE_TAG

Result = TypeVar("Result")

BACKOFF_TAG: Final = "analytics_assets/retry_backoff_seconds"
LIMIT_TAG: Final = "analytics_assets/max_retries"
NUMBER_TAG: Final = "analytics_assets/retry_number"
OF_TAG: Final = "analytics_assets/retry_of"
WILL_RETRY_TAG: Final = "analytics_assets/will_retry"
"""Says of a failed run whether it is tried again, for those who are told of failures."""
NO_RETRY_TAG: Final = {"dagster/retry_on_asset_or_op_failure": "false"}
"""Tag of a run that failed in a way that cannot pass; Dagster's own retries heed it, too."""
_NOT_DAGSTERS: Final[Mapping[str, str]] = {"dagster/max_retries": "0"}
RETRY_TAGS: Final[Mapping[str, str]] = {**_NOT_DAGSTERS, LIMIT_TAG: "3", BACKOFF_TAG: "60"}
"""Tags of the runs that nobody watches. A run started by hand fails at once, for the one who waits
for it to see why."""
UNTIL_LOADED: Final = "until loaded"
REQUESTED_AGAIN: Final[Mapping[str, str]] = {**_NOT_DAGSTERS, LIMIT_TAG: UNTIL_LOADED}
"""Tags of the runs of the sensor on the audit trail, which itself asks again."""
LONGEST_BACKOFF: Final = 3600.0
LOOKED_AT: Final = timedelta(hours=2)
"""A failure older than that is not retried: the daemon was away, and schedules have come since."""
SECONDS: Final = 30


def with_run_retries(context: AssetExecutionContext, results: Iterable[Result]) -> Iterator[Result]:
    """Yield ``results``; if they fail, note on the run whether trying again is any use.

    What ``results`` raises is passed on as it is.
    """
    try:
        yield from results
    except Exception as error:
        passes = allows_retries(error)
        again = {WILL_RETRY_TAG: str(passes and is_retried(context)).lower()}
        tags = again if passes else {**again, **NO_RETRY_TAG}
        context.instance.add_run_tags(context.run.run_id, tags)
        raise


def is_retried(context: AssetExecutionContext) -> bool:
    """Tell whether this run is tried again if it fails in a way that may pass."""
    instance, tags = context.instance, context.run.tags
    if tags.get(LIMIT_TAG) == UNTIL_LOADED or retries_left(tags) > 0:
        return True
    if not instance.run_retries_enabled:
        return False
    try:
        limit = int(tags.get("dagster/max_retries", instance.run_retries_max_retries))
        return int(tags.get("dagster/retry_number", "0")) < limit
    except ValueError:
        return False  # tags can be edited by hand


def retries_left(tags: Mapping[str, str]) -> int:
    """Return how often a run is retried if it fails."""
    limit, number = tags.get(LIMIT_TAG, ""), tags.get(NUMBER_TAG, "0")
    known = limit.isdecimal() and number.isdecimal()  # tags can be edited by hand
    return int(limit) - int(number) if known else 0


def backoff_seconds(tags: Mapping[str, str]) -> float:
    """Return how long the retry of a failed run waits: twice as long each time."""
    number, base = tags.get(NUMBER_TAG, "0"), tags.get(BACKOFF_TAG, "0")
    try:
        return doubled(float(base), int(number))
    except ValueError:
        return 0.0  # tags can be edited by hand; a bad one must not cost the run


def doubled(seconds: float, times: int) -> float:
    """Double a pause some times, up to an hour."""
    return min(seconds * 2.0 ** max(0, min(times, 60)), LONGEST_BACKOFF)


def build_retries(deployment: Deployment, index: AssetIndex, seconds: int) -> SensorDefinition:
    """Return the sensor that requests again what failed runs of a workspace have not loaded.

    Args:
        deployment: the workspace.
        index: its assets.
        seconds: between two looks, if that is less than usual.
    """

    @sensor(
        name=deployment.named("retries"),
        asset_selection=AssetSelection.assets(*index.keys.values()),
        minimum_interval_seconds=min(seconds, SECONDS),
        default_status=DefaultSensorStatus.RUNNING,
        description=(
            "Tries runs of the jobs again that failed in a way that may pass: what is missing,"
            " three times, after 60, 120 and 240 seconds. It waits where it holds up nobody."
        ),
    )
    def retries(context: SensorEvaluationContext) -> SensorResult:
        """One run for each failed run whose pause is over."""
        now = datetime.now(timezone.utc)
        failed = [r for r in _failed(context.instance, deployment, now) if _is_open(context, r)]
        due = [record for record in failed if _due(record) <= now.timestamp()]
        requests = [_again(context.instance, record, deployment, index) for record in due]
        found = [request for request in requests if request]
        waiting = f"{len(failed) - len(due)} failed runs wait for their retry."
        return SensorResult(run_requests=found, skip_reason=None if found else waiting)

    return retries


def _failed(
    instance: DagsterInstance, deployment: Deployment, now: datetime
) -> Iterator[RunRecord]:
    """Yield the runs of a workspace that have failed lately and may be retried."""
    for record in instance.get_run_records(
        RunsFilter(
            statuses=[DagsterRunStatus.FAILURE],
            tags={WORKSPACE_TAG: deployment.workspace},
            updated_after=now - LOOKED_AT,
        )
    ):
        tags = record.dagster_run.tags
        if retries_left(tags) > 0 and not NO_RETRY_TAG.items() <= tags.items():
            yield record


def _is_open(context: SensorEvaluationContext, record: RunRecord) -> bool:
    """Tell whether a failed run has not been retried yet."""
    retried = RunsFilter(tags={OF_TAG: record.dagster_run.run_id})
    return context.instance.get_runs_count(retried) == 0


def _due(record: RunRecord) -> float:
    ended = record.end_time or record.update_timestamp.timestamp()
    return ended + backoff_seconds(record.dagster_run.tags)


def _again(
    instance: DagsterInstance, record: RunRecord, deployment: Deployment, index: AssetIndex
) -> RunRequest | None:
    """Return the run that loads what a failed run has not, if there is anything."""
    run = record.dagster_run
    begun = record.start_time or record.create_timestamp.timestamp()
    wanted = _wanted(run.job_name, run.asset_selection, deployment, index)
    loaded = loaded_since(instance, wanted, begun)
    missing = [key for key in wanted if key not in loaded]
    if not missing:
        return None
    number = int(run.tags.get(NUMBER_TAG, "0")) + 1
    own = {TRIGGER_TAG: "retry", NUMBER_TAG: str(number), OF_TAG: run.run_id}
    return RunRequest(
        run_key=run.run_id,
        asset_selection=missing,
        run_config=run.run_config,
        tags={**_kept(run.tags), **_NOT_DAGSTERS, **own},
    )


def _kept(tags: Mapping[str, str]) -> dict[str, str]:
    """Return the tags of a run that hold for its retry as well: all but Dagster's own."""
    own = {name: v for name, v in tags.items() if not name.lstrip(".").startswith("dagster/")}
    own.pop(WILL_RETRY_TAG, None)
    return own


def _wanted(
    job_name: str,
    selection: Iterable[AssetKey] | None,
    deployment: Deployment,
    index: AssetIndex,
) -> Sequence[AssetKey]:
    """Return the assets that a run was to load, in the order of ``endpoints.py``."""
    jobs = {deployment.named(f"{name}_job"): own for name, own in deployment.jobs.items()}
    chosen = set(selection or index.of(jobs.get(job_name, ())))
    return [key for key in index.keys.values() if key in chosen]
