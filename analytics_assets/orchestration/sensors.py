"""The sensors: on the audit trail and of the reports, off until switched on, and of retries.

No postponed annotations here: Dagster reads the resources of a sensor from its signature.
"""

import os
from typing import Final

from dagster import (
    AssetSelection,
    AutomationConditionSensorDefinition,
    DefaultSensorStatus,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.retries import RETRY_TAGS, build_retries
from analytics_assets.orchestration.run_tags import run_tags
from analytics_assets.segment.errors import SettingError

DEFAULT_SENSOR_SECONDS: Final = 60
LONGEST_SENSOR_SECONDS: Final = 86_400


def build_sensors(deployment: Deployment, index: AssetIndex) -> list[SensorDefinition]:
    """Return the sensors: on the audit trail, of the retries, and of reports that are due.

    Raises:
        SettingError: ANALYTICS_SENSOR_SECONDS is not a number of seconds.
    """
    given = deployment.sensor_seconds
    seconds = _sensor_seconds() if given is None else given
    trail = _workspace_changes(deployment, index, seconds)
    reports = [_reports_due(deployment, index)] if deployment.reports else []
    return [trail, build_retries(deployment, index, seconds), *reports]


def _reports_due(deployment: Deployment, index: AssetIndex) -> SensorDefinition:
    """Return a sensor of our own, so that one which a host keeps for all its assets has no say."""
    return AutomationConditionSensorDefinition(
        name=deployment.named("reports_due"),
        target=AssetSelection.assets(*index.of(deployment.reports)),
        default_status=DefaultSensorStatus.STOPPED,
        run_tags={**RETRY_TAGS, **run_tags(deployment, deployment.reports, "reports due")},
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
            " the Audit Trail feature; a look at a quiet workspace is one request. A change is"
            " requested again until it is loaded, and waits while the run before is under way."
        ),
    )
    def workspace_changes(context: SensorEvaluationContext) -> SensorResult:
        """One run for the assets that new audit events concern, and for those still missing.

        The first look starts a little before now; what was there earlier is the schedules' affair.
        What a look sees is kept in the cursor until a run that began after it has loaded it; a
        look that fails leaves the cursor alone.
        """
        # what only a look needs, so that definitions load fast
        from analytics_assets.orchestration.look import look

        return look(context, deployment, index)

    return workspace_changes
