"""Months in a quarter of an hour: production as documented, and everything that breaks.

``ANALYTICS_REHEARSAL_SECONDS`` and ``ANALYTICS_REHEARSAL_SEED`` change its length and its plan.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest
from dagster import DagsterInstance

from analytics_assets.sandbox import Options
from analytics_assets_tests.conftest import SMALL, on_postgres
from analytics_assets_tests.harness import Project, environment
from analytics_assets_tests.postgres import own_server
from analytics_assets_tests.production import SETTINGS, Production, production, storage_variables
from analytics_assets_tests.rehearsing import CRONS, KINDS, OF_ONE, Rehearsal, plan, sharpened
from analytics_assets_tests.web import SENSOR, START_SENSOR

SECONDS = float(os.environ.get("ANALYTICS_REHEARSAL_SECONDS", "540"))
VARIABLES = {
    **{f"ANALYTICS_CRON_{name.upper()}": cron for name, cron in CRONS.items()},
    "ANALYTICS_SENSOR_SECONDS": "10",
    "DAGSTER_GRPC_SHUTDOWN_GRACE_PERIOD": "5",
}
OPTIONS = Options(scale=SMALL, counts={"audit_events": 0}, rate_limit=1200)
SEED = int(os.environ.get("ANALYTICS_REHEARSAL_SEED", "1"))


@pytest.mark.unit
def test_the_plan_follows_from_its_seed() -> None:
    """A rehearsal that cannot be repeated finds faults that nobody can look for."""
    assert plan(1, 540) == plan(1, 540) != plan(2, 540)
    for seconds in (60, 180, 540, 900):
        found = plan(3, seconds)
        assert {kind for _, kind in found} == KINDS.keys()
        assert found == sorted(found)
        assert found[-1][0] < seconds * 2 / 3


def rehearse(deployed: Production, rehearsal: Rehearsal, seconds: float) -> None:
    """Load everything, switch the sensor on, let all happen; assert that it has come right."""
    rehearsal.load_everything()
    web = deployed.web
    web.wait(lambda: web.ask(START_SENSOR, sensor=SENSOR)["startSensor"].get("id"))
    web.wait(web.ticks)
    rehearsal.run(SEED, seconds)
    env = deployed.project.env
    with environment(env):
        instance = DagsterInstance.from_config(env["DAGSTER_HOME"])
    with instance:
        complaints = rehearsal.complaints(instance)
    assert complaints == [], f"{rehearsal.happened}; {deployed.log.read_text()[-5000:]}"


@pytest.mark.rehearsal
def test_everything_comes_right(start: Callable[..., Project]) -> None:
    """Whatever breaks for a while in production costs rows, requests, or somebody's night."""
    base = start(OPTIONS, **VARIABLES)
    with own_server() as storage, own_server() as destination:
        project = on_postgres(base, destination.url)
        project.env.update(storage_variables(storage))
        settings = sharpened(SETTINGS.read_text(encoding="utf-8"))
        with production(project, settings) as deployed:
            rehearse(deployed, Rehearsal(deployed, destination, SEED), SECONDS)


@pytest.mark.rehearsal
def test_everything_comes_right_for_one_person(start: Callable[..., Project]) -> None:
    """The same of ``dagster dev`` on files: SQLite for Dagster itself, DuckDB for the tables."""
    project = start(OPTIONS, **VARIABLES)
    settings = sharpened(SETTINGS.read_text(encoding="utf-8"))
    settings = re.sub(r"^storage:\n(?: .*\n|\n)+", "", settings, flags=re.MULTILINE)
    assert "postgres_db" not in settings
    with production(project, settings, ["dev"]) as deployed:
        rehearse(deployed, Rehearsal(deployed, None, SEED, OF_ONE), SECONDS / 4)
