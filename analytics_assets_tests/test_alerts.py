"""Alerts: once when something turns bad, once when it is good again, on Dagster's own storage."""

from __future__ import annotations

from pathlib import Path

import pytest
from dagster import DagsterInstance, SensorResult, build_sensor_context

from analytics_assets import failed_checks_sensor
from analytics_assets.definitions import defs
from analytics_assets.orchestration.alerts import CheckChange
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
        context = build_sensor_context(instance=self.instance, cursor=self.cursor, definitions=defs)
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
