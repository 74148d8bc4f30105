"""The schedules: one per group, at the times that the environment sets, off until switched on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any, Final

from dagster import DagsterInvalidDefinitionError, DefaultScheduleStatus, ScheduleDefinition

from analytics_assets.orchestration.deployment import Deployment
from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.model import Group

DEFAULT_CRON: Final[Mapping[Group, str]] = {
    "inventory": "7 * * * *",
    "identity": "37 * * * *",
    "catalog": "22 4 * * *",
    "usage": "52 5 * * *",  # the day before is complete by then (UTC), in every time zone
}


def build_schedules(deployment: Deployment, jobs: Mapping[Group, Any]) -> list[ScheduleDefinition]:
    """Return a schedule for each job of ``build_jobs``, in UTC.

    Raises:
        SettingError: a cron string is not one; the text names the variable.
    """
    return [_schedule(group, job, deployment) for group, job in jobs.items()]


def cron_variable(group: Group) -> str:
    """Return the environment variable that holds the cron string of a group."""
    return f"ANALYTICS_CRON_{group.upper()}"


def cron_of(group: Group, deployment: Deployment) -> str:
    """Return the cron string of a group: the deployment's, else the environment's, else ours.

    Raises:
        SettingError: it is not one; the text names the variable.
    """
    given = deployment.crons.get(group, "") or os.environ.get(cron_variable(group), "")
    cron = given.strip() or DEFAULT_CRON[group]
    if not _is_valid(cron):
        raise SettingError(
            f"{cron_variable(group)} is {cron!r}, which is not a cron string of five fields"
            f" (minute, hour, day, month, weekday), such as {DEFAULT_CRON[group]!r}."
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


def _schedule(group: Group, job: Any, deployment: Deployment) -> ScheduleDefinition:
    return ScheduleDefinition(
        name=deployment.named(f"{group}_schedule"),
        job=job,
        cron_schedule=cron_of(group, deployment),
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.STOPPED,
        description=f"Loads the group {group}; {cron_variable(group)} sets when.",
    )
