"""Alerts for the people on call: a sensor that tells once of each check that turned bad or good."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dagster import (
    AssetCheckKey,
    AssetKey,
    DagsterInstance,
    DefaultSensorStatus,
    SensorDefinition,
    SensorEvaluationContext,
    SensorResult,
    sensor,
)

SECONDS: Final = 60


@dataclass(frozen=True)
class CheckChange:
    """A check that has turned bad, or good again.

    Attributes:
        asset_key: the asset.
        check_name: the check.
        failed: whether it has turned bad.
        severity: ``WARN`` or ``ERROR``.
        description: what was found, and what to do about it; no secrets, no personal data.
        run_id: the run in which it was looked at.
    """

    asset_key: AssetKey
    check_name: str
    failed: bool
    severity: str
    description: str
    run_id: str

    def __str__(self) -> str:
        """Say it in one line."""
        turned = f"failed ({self.severity})" if self.failed else "is good again"
        return f"{self.asset_key.to_user_string()}, {self.check_name} {turned}: {self.description}"


def failed_checks_sensor(
    on_failure: Callable[[CheckChange], None],
    *,
    name: str = "failed_checks",
    minimum_interval_seconds: int = SECONDS,
) -> SensorDefinition:
    """Return a sensor that tells of each check of the code location that turned bad or good again.

    A check that stays bad is told of once. What ``on_failure`` raises ends the look, and what was
    to be told is told again at the next.

    Args:
        on_failure: called with each change, oldest state of affairs forgotten.
        name: name of the sensor.
        minimum_interval_seconds: seconds between two looks.
    """

    @sensor(
        name=name,
        minimum_interval_seconds=minimum_interval_seconds,
        default_status=DefaultSensorStatus.STOPPED,
        description="Tells once of each check that turned bad, and once when it is good again.",
    )
    def failed_checks(context: SensorEvaluationContext) -> SensorResult:
        before: dict[str, bool] = json.loads(context.cursor or "{}")
        changes = list(_changes(context, before))
        for change in changes:
            on_failure(change)
        now = before | {_text(c.asset_key, c.check_name): c.failed for c in changes}
        failing = {check: True for check, failed in now.items() if failed}
        said = f"{len(changes)} checks changed, {len(failing)} fail."
        return SensorResult(skip_reason=said, cursor=json.dumps(failing))

    return failed_checks


def _changes(context: SensorEvaluationContext, before: Mapping[str, bool]) -> Iterator[CheckChange]:
    if context.repository_def is None:
        return
    for key in sorted(context.repository_def.asset_graph.asset_check_keys):
        change = _latest(context.instance, key)
        if change and change.failed != before.get(_text(key.asset_key, key.name), False):
            yield change


def _latest(instance: DagsterInstance, key: AssetCheckKey) -> CheckChange | None:
    """Return what a check found last; ``None`` if it never ran, or is about to."""
    record = instance.get_latest_asset_check_evaluation_record(key)
    event = record.event.dagster_event if record and record.event else None
    if record is None or event is None or event.event_type_value != "ASSET_CHECK_EVALUATION":
        return None
    found = event.asset_check_evaluation_data
    return CheckChange(
        key.asset_key,
        key.name,
        not found.passed,
        found.severity.value,
        found.description or "",
        record.run_id,
    )


def _text(asset_key: AssetKey, check_name: str) -> str:
    return f"{asset_key.to_user_string()}:{check_name}"
