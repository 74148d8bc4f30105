"""The schedules: one for each job, when the environment says; off until switched on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, Final

from dagster import (
    DagsterInvalidDefinitionError,
    DagsterRun,
    DagsterRunStatus,
    DefaultScheduleStatus,
    RunRequest,
    RunsFilter,
    ScheduleDefinition,
    ScheduleEvaluationContext,
    SkipReason,
)

from analytics_assets.orchestration.deployment import DETAILS, Deployment
from analytics_assets.orchestration.run_tags import TRIGGER_TAG, WORKSPACE_TAG
from analytics_assets.segment.errors import SettingError

DEFAULT_CRON: Final[Mapping[str, str]] = {
    "inventory": "7 * * * *",
    "identity": "37 * * * *",
    "catalog": "22 4 * * *",
    "usage": "52 5 * * *",  # the day before is complete by then (UTC), in every time zone
    DETAILS: "17 3 * * *",  # soon after the hourly run that loads the lists these hang on
    "reports": "12 6 * * *",  # after all of these
}
"""When each job runs: those of the groups, and that of the details."""
NOT_BEGUN: Final = (DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED)
A_DAY: Final = timedelta(days=1)
"""A run that has not begun for so long is lost, and holds up its schedule no more."""


def build_schedules(deployment: Deployment, jobs: Mapping[str, Any]) -> list[ScheduleDefinition]:
    """Return a schedule for each job of ``build_jobs``, in UTC.

    Raises:
        SettingError: a cron string is not one; the text names the variable.
    """
    return [_schedule(name, job, deployment) for name, job in jobs.items()]


def cron_variable(name: str) -> str:
    """Return the environment variable that holds the cron string of a job."""
    return f"ANALYTICS_CRON_{name.upper()}"


def cron_of(name: str, deployment: Deployment) -> str:
    """Return the cron string of a job: the deployment's, else the environment's, else ours.

    Raises:
        SettingError: it is not one; the text names the variable.
    """
    given = deployment.crons.get(name, "") or os.environ.get(cron_variable(name), "")
    cron = given.strip() or DEFAULT_CRON[name]
    if not _is_valid(cron):
        raise SettingError(
            f"{cron_variable(name)} is {cron!r}, which is not a cron string of five fields"
            f" (minute, hour, day, month, weekday), such as {DEFAULT_CRON[name]!r}."
        )
    return cron


def _is_valid(cron: str) -> bool:
    """Ask Dagster, which refuses most strings, and warns of intervals such as ``*/90`` minutes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            ScheduleDefinition(name="asked", job_name="nobody", cron_schedule=cron)
        except (DagsterInvalidDefinitionError, UserWarning):
            return False
    return True


def _schedule(name: str, job: Any, deployment: Deployment) -> ScheduleDefinition:
    own = deployment.named(f"{name}_schedule")

    def request(context: ScheduleEvaluationContext) -> RunRequest | SkipReason:
        if waiting := _waiting(context, own, deployment):
            return SkipReason(f"The run before, {waiting.run_id}, has not begun: it will do.")
        return RunRequest(tags={TRIGGER_TAG: "schedule"})

    return ScheduleDefinition(
        name=own,
        job=job,
        cron_schedule=cron_of(name, deployment),
        execution_timezone="UTC",
        execution_fn=request,
        default_status=DefaultScheduleStatus.STOPPED,
        description=f"Starts {name}_job; {cron_variable(name)} sets when.",
    )


def _waiting(
    context: ScheduleEvaluationContext, schedule: str, deployment: Deployment
) -> DagsterRun | None:
    """Return a run of the schedule that has not begun: it would load the same as another."""
    # with tags of its own, since another code location may have a schedule of this name
    tags = {"dagster/schedule_name": schedule, WORKSPACE_TAG: deployment.workspace}
    now = datetime.now(timezone.utc)
    lately = RunsFilter(statuses=NOT_BEGUN, tags=tags, created_after=now - A_DAY)
    return next(iter(context.instance.get_runs(lately, limit=1)), None)
