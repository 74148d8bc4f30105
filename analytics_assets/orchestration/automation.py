"""What runs by itself: a job and a schedule per group, the sensor on the audit trail, freshness.

All of it is off until somebody switches it on. No postponed annotations here: Dagster reads the
resources of a sensor from its signature.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Final, cast

from dagster import (
    AssetKey,
    AssetsDefinition,
    AssetSelection,
    AssetSpec,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    FreshnessPolicy,
    RunRequest,
    ScheduleDefinition,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    apply_freshness_policy,
    define_asset_job,
    map_asset_specs,
    sensor,
)
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._utils.schedules import (
    cron_string_iterator,
    has_out_of_range_cron_interval,
    is_valid_cron_string,
)

from analytics_assets.orchestration.resources import AnalyticsApi
from analytics_assets.orchestration.retries import RETRY_TAGS
from analytics_assets.segment.endpoints import ENDPOINTS, GROUPS, in_group
from analytics_assets.segment.errors import AnalyticsError, SettingError
from analytics_assets.segment.model import Group

DEFAULT_CRON: Final[Mapping[Group, str]] = {
    "inventory": "7 * * * *",
    "identity": "37 * * * *",
    "catalog": "22 4 * * *",
    "usage": "52 5 * * *",  # the day before is complete by then (UTC), in every time zone
}
DEFAULT_SENSOR_SECONDS: Final = 60
LONGEST_SENSOR_SECONDS: Final = 86_400
GRACE: Final = timedelta(hours=1)
"""A run may wait in the queue, for the database, and for its retries."""


# Jobs and schedules.


def build_jobs() -> dict[Group, UnresolvedAssetJobDefinition]:
    """Return a job for each group, which loads all of it and runs its checks."""
    return {group: _job(group) for group in GROUPS}


def _job(group: Group) -> UnresolvedAssetJobDefinition:
    names = ", ".join(endpoint.name for endpoint in in_group(group))
    return define_asset_job(
        f"{group}_job",
        selection=AssetSelection.groups(group),
        description=f"Loads the group {group}: {names}.",
        tags=RETRY_TAGS,
    )


def build_schedules(
    jobs: Mapping[Group, UnresolvedAssetJobDefinition],
) -> list[ScheduleDefinition]:
    """Return a schedule for each job, in UTC, at the times that the environment sets.

    Raises:
        SettingError: a cron string is not one; the text names the variable.
    """
    return [_schedule(group, job) for group, job in jobs.items()]


def cron_variable(group: Group) -> str:
    """Return the environment variable that holds the cron string of a group."""
    return f"ANALYTICS_CRON_{group.upper()}"


def cron_of(group: Group) -> str:
    """Return the cron string of a group.

    Raises:
        SettingError: it is not one; the text names the variable.
    """
    cron = os.environ.get(cron_variable(group), "").strip() or DEFAULT_CRON[group]
    if not is_valid_cron_string(cron) or has_out_of_range_cron_interval(cron):
        raise SettingError(
            f"{cron_variable(group)} is {cron!r}, which is not a cron string of five fields"
            f" (minute, hour, day, month, weekday), such as {DEFAULT_CRON[group]!r}."
        )
    return cron


def _schedule(group: Group, job: UnresolvedAssetJobDefinition) -> ScheduleDefinition:
    return ScheduleDefinition(
        name=f"{group}_schedule",
        job=job,
        cron_schedule=cron_of(group),
        execution_timezone="UTC",
        default_status=DefaultScheduleStatus.STOPPED,
        description=f"Loads the group {group}; {cron_variable(group)} sets when.",
    )


# The sensor.


def build_sensors() -> list[SensorDefinition]:
    """Return the sensor on the audit trail.

    Raises:
        SettingError: ANALYTICS_SENSOR_SECONDS is not a number of seconds.
    """
    return [_workspace_changes(_sensor_seconds())]


def _sensor_seconds() -> int:
    text = os.environ.get("ANALYTICS_SENSOR_SECONDS", "").strip() or str(DEFAULT_SENSOR_SECONDS)
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= LONGEST_SENSOR_SECONDS):
        raise SettingError(
            f"ANALYTICS_SENSOR_SECONDS is {text!r}; set it to a whole number of seconds from 1 to"
            f" {LONGEST_SENSOR_SECONDS}."
        )
    return int(text)


def _workspace_changes(seconds: int) -> SensorDefinition:
    @sensor(
        asset_selection=AssetSelection.assets(*(e.name for e in ENDPOINTS if e.followed)),
        minimum_interval_seconds=seconds,
        default_status=DefaultSensorStatus.STOPPED,
        description=(
            "Follows the workspace's audit trail and loads what has changed, and no more. It needs"
            " the Audit Trail feature; a look at a quiet workspace is one request."
        ),
    )
    def workspace_changes(context: SensorEvaluationContext, api: AnalyticsApi) -> SensorResult:
        """One run for the assets that new audit events concern.

        The first look starts a little before now; what was there earlier is the schedules' affair.
        The cursor moves together with the request of a run; a look that fails leaves it alone.
        """
        from analytics_assets.segment.audit_trail import (
            Cursor,
            assets_to_refresh,
            new_events,
            summary,
        )

        try:
            cursor = Cursor.from_json(context.cursor) if context.cursor else None
            news = new_events(api.settings(), cursor, context.log)
        except AnalyticsError as error:
            return SensorResult(skip_reason=str(error))
        names = assets_to_refresh(news, context.log)
        if not names:
            # without a cursor, note where the first look was, so that nothing after it is lost
            first = None if cursor else news.cursor.to_json()
            return SensorResult(skip_reason="Nothing has changed.", cursor=first)
        context.log.info(f"New audit events: {summary(news.events)}. Loading {', '.join(names)}.")
        request = RunRequest(
            run_key=news.key,
            asset_selection=[AssetKey(name) for name in names],
            tags=dict(RETRY_TAGS),
        )
        return SensorResult(run_requests=[request], cursor=news.cursor.to_json())

    return workspace_changes


# Freshness.


def with_freshness(assets: Iterable[AssetsDefinition]) -> Sequence[AssetsDefinition]:
    """Give every asset the freshness policy of its group."""
    policies = {group: freshness_policy(cron_of(group)) for group in GROUPS}

    def with_policy(spec: AssetSpec) -> AssetSpec:
        group = cast(Group, spec.group_name)
        return cast(AssetSpec, apply_freshness_policy(spec, policies[group]))

    return map_asset_specs(with_policy, assets)


def freshness_policy(cron: str) -> FreshnessPolicy:
    """Return the policy that goes with a schedule: warn if a run is missing, fail if two are."""
    gap = longest_gap(cron)
    return FreshnessPolicy.time_window(fail_window=2 * gap + GRACE, warn_window=gap + GRACE)


def longest_gap(cron: str) -> timedelta:
    """Return the longest time between two ticks, as over a weekend of a schedule for weekdays."""
    # a week shows every gap of a schedule by hour and weekday; a rarer one ticks a few times more
    start = datetime(2024, 1, 1, tzinfo=timezone.utc)
    ticks: list[datetime] = []
    for tick in cron_string_iterator(start.timestamp(), cron, "UTC"):
        ticks.append(tick)
        if len(ticks) > 12 and tick > start + timedelta(days=8):  # noqa: PLR2004
            break
    return max(after - before for before, after in pairwise(ticks))
