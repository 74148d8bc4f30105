"""Alerts: once when something turns bad, once when it is good again, on Dagster's own storage."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import time_machine
from dagster import DagsterInstance, DagsterRunStatus, SensorResult, build_sensor_context

from analytics_assets import failed_checks_sensor, stale_sensor
from analytics_assets.definitions import defs
from analytics_assets.orchestration.alerts import CheckChange
from analytics_assets.orchestration.stale import Stale
from analytics_assets_tests.harness import Project, failure_of


@pytest.fixture
def instance(tmp_path: Path) -> DagsterInstance:
    """Return an instance on SQLite, as ``dagster dev`` has it."""
    home = tmp_path / "home"
    home.mkdir()
    return DagsterInstance.local_temp(str(home))


class Told:
    """What was told, and a sensor that tells it."""

    def __init__(self, instance: DagsterInstance) -> None:
        self.instance = instance
        self.cursor: str | None = None
        self.deaf = False
        self._heard: list[CheckChange] = []
        self.sensor = failed_checks_sensor(self._hear)

    def _hear(self, change: CheckChange) -> None:
        if self.deaf:
            raise ConnectionError("the pager is away")
        self._heard.append(change)

    def look(self) -> list[CheckChange]:
        """Evaluate the sensor once; return what it told."""
        self._heard.clear()
        with build_sensor_context(
            instance=self.instance, cursor=self.cursor, definitions=defs
        ) as context:
            result = self.sensor(context)
        assert isinstance(result, SensorResult)
        self.cursor = result.cursor
        return list(self._heard)


def test_a_check_is_told_of_when_it_turns_and_then_is_quiet(
    project: Project, instance: DagsterInstance
) -> None:
    """Prevents an alert for each run of a check that stays bad, and silence when it is mended."""
    told = Told(instance)
    assert project.materialize("catalog_sources", instance=instance).success
    assert told.look() == []
    served = project.sandbox.served("sources")[0]
    project.sandbox.workspace.put("sources", {**served, "metadata": {"id": "gone"}})
    for expected in (1, 0, 0):
        result = project.materialize("sources", instance=instance)
        assert failure_of(result) == ""
        changes = told.look()
        assert len(changes) == expected
        if changes:
            assert changes[0].failed
            assert str(changes[0]).startswith("sources, references_hold failed (WARN): ")
            assert "gone" in changes[0].description
    project.sandbox.workspace.put("sources", served)
    project.materialize("sources", instance=instance)
    [change] = told.look()
    assert not change.failed
    assert str(change).startswith("sources, references_hold is good again: ")
    assert told.look() == []


def test_what_could_not_be_told_is_told_again(project: Project, instance: DagsterInstance) -> None:
    """Prevents that an alert is lost because the pager was away at that minute."""
    told = Told(instance)
    assert project.materialize("catalog_sources", instance=instance).success
    served = project.sandbox.served("sources")[0]
    project.sandbox.workspace.put("sources", {**served, "metadata": {"id": "gone"}})
    project.materialize("sources", instance=instance)
    told.deaf = True
    with pytest.raises(ConnectionError):
        told.look()
    told.deaf = False
    assert [change.check_name for change in told.look()] == ["references_hold"]


class Stood:
    """What was told of what has not happened, and a sensor that tells it."""

    def __init__(self, instance: DagsterInstance) -> None:
        self.instance = instance
        self._cursor: str | None = None
        self._heard: list[Stale] = []
        self._sensor = stale_sensor(self._heard.append)

    def look(self, hours: float) -> list[str]:
        """Evaluate the sensor some hours from now; return what it told."""
        self._heard.clear()
        moment = datetime.now(timezone.utc) + timedelta(hours=hours)
        with (
            time_machine.travel(moment),
            build_sensor_context(
                instance=self.instance, cursor=self._cursor, definitions=defs
            ) as context,
        ):
            result = self._sensor(context)
        assert isinstance(result, SensorResult)
        self._cursor = result.cursor
        return [str(stale) for stale in self._heard]


@pytest.mark.parametrize(
    ("status", "hours", "said"),
    [
        (DagsterRunStatus.STARTED, 2, "has been started for 1"),
        (DagsterRunStatus.NOT_STARTED, 0.5, "has been in the queue for 3"),
    ],
)
def test_a_run_that_does_not_move_is_told_of_once(
    instance: DagsterInstance, status: DagsterRunStatus, hours: float, said: str
) -> None:
    """Prevents that a lost run holds its pool for days, with nothing failed and nobody told."""
    stood = Stood(instance)
    run = instance.create_run_for_job(defs.resolve_job_def("identity_job"), status=status)
    assert stood.look(hours - 0.1) == []
    [text] = stood.look(hours + 0.1)
    assert text.startswith(f"Run {run.run_id} of identity_job {said}")
    assert stood.look(hours + 0.2) == []
    instance.report_run_failed(run, "It was lost.")
    [over] = stood.look(hours + 0.3)
    assert over.startswith("This is over: Run ")
    assert stood.look(hours + 0.4) == []


def test_an_asset_that_is_overdue_is_told_of_once(
    project: Project, instance: DagsterInstance
) -> None:
    """Prevents that tables grow old unnoticed where schedules were off, or nothing was queued."""
    stood = Stood(instance)
    assert stood.look(1000) == []  # what was never loaded is not overdue
    assert project.materialize("labels", instance=instance).success
    assert stood.look(2.9) == []
    assert stood.look(3.1) == ["labels was loaded last 3.1 hours ago, which is overdue."]
    assert stood.look(4) == []
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(hours=4)):
        assert project.materialize("labels", instance=instance).success
    [over] = stood.look(4.1)
    assert over.startswith("This is over: labels was loaded last")
