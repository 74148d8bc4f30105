"""The production settings that are shipped, as they stand: on PostgreSQL, in real processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import time_machine
from dagster import DagsterInstance
from dagster_postgres import PostgresRunStorage

from analytics_assets.definitions import defs
from analytics_assets.orchestration.run_tags import TRIGGER_TAG
from analytics_assets.sandbox import Options
from analytics_assets_tests.conftest import SMALL, on_postgres
from analytics_assets_tests.harness import Project, environment
from analytics_assets_tests.postgres import Server, own_server
from analytics_assets_tests.production import SETTINGS, production, storage_variables
from analytics_assets_tests.test_readme import OPERATIONS, blocks
from analytics_assets_tests.web import SENSOR, START_SENSOR


@pytest.fixture
def server() -> Iterator[Server]:
    """Start a server of its own, since Dagster's databases stay in it."""
    with own_server() as server:
        yield server


def test_the_settings_start_an_instance_on_postgresql(server: Server, tmp_path: Path) -> None:
    """A file to copy that Dagster refuses, or whose driver is missing: no process starts."""
    shutil.copy(SETTINGS, tmp_path)
    with environment(storage_variables(server)):
        instance = DagsterInstance.from_config(str(tmp_path))
    with instance:
        assert isinstance(instance.run_storage, PostgresRunStorage)
        assert instance.get_runs_count() == 0
        pools = instance.get_settings("concurrency")["pools"]
        assert pools == {"default_limit": 1, "granularity": "run"}
        queue = instance.get_concurrency_config().run_queue_config
        assert queue
        assert queue.max_user_code_failure_retries > 0
        assert instance.run_monitoring_max_runtime_seconds > 0
        kept = instance.get_settings("retention")
        assert kept.keys() == {"schedule", "sensor", "auto_materialize"}


@pytest.mark.heavy
def test_a_change_lands_in_production(start: Callable[..., Project], server: Server) -> None:
    """Settings that load are no use if the processes cannot run with them."""
    base = start(Options(scale=SMALL, counts={"audit_events": 0}), ANALYTICS_SENSOR_SECONDS="5")
    project = on_postgres(base, server.url)
    project.env.update(storage_variables(server))
    with production(project) as deployed:
        web, sandbox = deployed.web, project.sandbox
        web.wait(lambda: web.ask(START_SENSOR, sensor=SENSOR)["startSensor"].get("id"), 90)
        web.wait(web.ticks, 90)
        label = {**sandbox.served("labels")[0], "description": "changed"}
        sandbox.workspace.put("labels", label)
        sandbox.workspace.add_event(type="Label Modified")
        run = web.wait(web.run, 90)
        assert run["status"] == "SUCCESS"
        assert run["tags"][TRIGGER_TAG] == "audit trail"
        assert run["assets"] == {"labels", "audit_events"}
        project.assert_equal(["labels"])
        web.wait(lambda: not deployed.workers())


def test_the_purge_deletes_old_runs_and_no_others(tmp_path: Path) -> None:
    """A purge to copy that deletes what is still needed shows in production only."""
    found: dict[str, Any] = {}
    [code] = [code for code in blocks("python", OPERATIONS) if "delete_old_runs" in code]
    exec(code, found)  # noqa: S102 - the page's own code
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = defs.resolve_job_def("identity_job")
        kept = instance.create_run_for_job(job)
        with time_machine.travel(datetime.now(timezone.utc) - timedelta(days=91)):
            ended = instance.create_run_for_job(job)
            instance.report_run_failed(ended)
        assert found["delete_old_runs"](instance, days=92) == 0
        assert found["delete_old_runs"](instance) == 1
        assert [run.run_id for run in instance.get_runs()] == [kept.run_id]
