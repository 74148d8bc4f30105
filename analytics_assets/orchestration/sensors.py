"""The sensors, off until switched on: on the audit trail, and of the reports.

No postponed annotations here: Dagster reads the resources of a sensor from its signature.
"""

import os
from typing import Final

from dagster import (
    AssetSelection,
    AutomationConditionSensorDefinition,
    DefaultSensorStatus,
    RunRequest,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.retries import RETRY_TAGS
from analytics_assets.segment.errors import AnalyticsError, SettingError

DEFAULT_SENSOR_SECONDS: Final = 60
LONGEST_SENSOR_SECONDS: Final = 86_400


def build_sensors(deployment: Deployment, index: AssetIndex) -> list[SensorDefinition]:
    """Return the sensor on the audit trail, and the one that keeps reports up to date.

    Raises:
        SettingError: ANALYTICS_SENSOR_SECONDS is not a number of seconds.
    """
    seconds = deployment.sensor_seconds
    trail = _workspace_changes(deployment, index, _sensor_seconds() if seconds is None else seconds)
    return [trail, _reports_due(deployment, index)] if deployment.reports else [trail]


def _reports_due(deployment: Deployment, index: AssetIndex) -> SensorDefinition:
    """Return a sensor of our own, so that one which a host keeps for all its assets has no say."""
    return AutomationConditionSensorDefinition(
        name=deployment.named("reports_due"),
        target=AssetSelection.assets(*index.of(deployment.reports)),
        default_status=DefaultSensorStatus.STOPPED,
        run_tags=dict(RETRY_TAGS),
        description="Answers a report again as soon as a table that it reads has been loaded.",
    )


def _sensor_seconds() -> int:
    text = os.environ.get("ANALYTICS_SENSOR_SECONDS", "").strip() or str(DEFAULT_SENSOR_SECONDS)
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= LONGEST_SENSOR_SECONDS):
        raise SettingError(
            f"ANALYTICS_SENSOR_SECONDS is {text!r}; set it to a whole number of seconds from 1 to"
            f" {LONGEST_SENSOR_SECONDS}."
        )
    return int(text)


def _workspace_changes(deployment: Deployment, index: AssetIndex, seconds: int) -> SensorDefinition:
    @sensor(
        name=deployment.named("workspace_changes"),
        asset_selection=AssetSelection.assets(
            *index.of([endpoint for endpoint in deployment.endpoints if endpoint.followed])
        ),
        required_resource_keys={deployment.named("api")},
        minimum_interval_seconds=seconds,
        default_status=DefaultSensorStatus.STOPPED,
        description=(
            "Follows the workspace's audit trail and loads what has changed, and no more. It needs"
            " the Audit Trail feature; a look at a quiet workspace is one request."
        ),
    )
    def workspace_changes(context: SensorEvaluationContext) -> SensorResult:
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
            news = new_events(deployment.api_settings(context.resources), cursor, context.log)
        except AnalyticsError as error:
            return SensorResult(skip_reason=str(error))
        names = [n for n in assets_to_refresh(news, context.log) if n in index.keys]
        if not names:
            # without a cursor, note where the first look was, so that nothing after it is lost
            first = None if cursor else news.cursor.to_json()
            return SensorResult(skip_reason="Nothing has changed.", cursor=first)
        context.log.info(f"New audit events: {summary(news.events)}. Loading {', '.join(names)}.")
        request = RunRequest(
            run_key=news.key,
            asset_selection=[index.keys[name] for name in names],
            tags=dict(RETRY_TAGS),
        )
        return SensorResult(run_requests=[request], cursor=news.cursor.to_json())

    return workspace_changes
