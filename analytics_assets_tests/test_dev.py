"""A real ``dagster dev``: web server, daemon, code server and runs in processes of their own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from analytics_assets.orchestration.retries import BACKOFF_TAG, NUMBER_TAG, OF_TAG, WILL_RETRY_TAG
from analytics_assets.sandbox import Options, Reply, RequestInfo, Sandbox
from analytics_assets.segment.endpoints import in_group
from analytics_assets_tests.conftest import SMALL, project_for
from analytics_assets_tests.web import RETRIES, SENSOR, START_SENSOR, STOP_SENSOR, Dev, stop

DAGSTER_YAML = """
telemetry: {enabled: false}
"""
SECONDS = 5
"""Interval of the sensor; Dagster's daemon looks no more often than that."""
AUDIT = "/audit-events"


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """Start ``dagster dev`` on a sandbox; the tests of this module share it."""
    folder = tmp_path_factory.mktemp("dev")
    (folder / "home").mkdir()
    (folder / "home" / "dagster.yaml").write_text(DAGSTER_YAML, encoding="utf-8")
    options = Options(scale=SMALL, counts={"audit_events": 0})
    with Sandbox(options, now=datetime.now(timezone.utc)) as sandbox:
        project = project_for(
            sandbox,
            folder,
            DAGSTER_HOME=str(folder / "home"),
            ANALYTICS_SENSOR_SECONDS=str(SECONDS),
        )
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        words = ["dev", "-h", "127.0.0.1", "-p", port, "-m", "analytics_assets"]
        log = folder / "log.txt"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "dagster", *words],
                cwd=folder,
                env=project.env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                yield Dev(project, f"http://127.0.0.1:{port}", log)
            finally:
                stop(process)


def test_a_change_lands_within_two_ticks_of_the_sensor(dev: Dev) -> None:
    """The sensor works by itself, yet the daemon cannot start its run, or it loads too much."""
    sandbox = dev.project.sandbox
    sensor = dev.wait(lambda: dev.ask(START_SENSOR, sensor=SENSOR)["startSensor"].get("id"), 90)
    dev.wait(lambda: len(dev.ticks()) >= 2)
    assert {tick["skipReason"] for tick in dev.ticks()} == {"Nothing has changed."}
    assert sandbox.count() == sandbox.count(AUDIT)

    source = {**sandbox.served("sources")[0], "id": "a-new-source", "name": "New"}
    sandbox.workspace.put("sources", source)
    before = len(dev.ticks())
    sandbox.workspace.add_event(type="Source Created", resourceId="a-new-source")
    run = dev.wait(dev.run)
    assert run["status"] == "SUCCESS"
    assert run["assets"] == {"sources", "audit_events"}
    assert dev.project.tables() == {"sources", "audit_events"}
    found = dev.project.query("SELECT name FROM analytics.sources WHERE id = 'a-new-source'")
    assert found == [("New",)]

    dev.ask(STOP_SENSOR, id=sensor)
    time.sleep(SECONDS)  # a tick that was under way
    ticks = dev.ticks()
    (requested,) = [n for n, tick in enumerate(ticks) if tick["runIds"]]
    assert requested - before <= 1
    assert len(dev.runs()) == 1
    # each tick asked once; the run asked for the workspace and the two lists it loads
    assert sandbox.count() == len(ticks) + sandbox.count("/") + sandbox.count("/sources") + 1
    assert sandbox.count("/") == 1
    assert sandbox.count(AUDIT) == len(ticks) + 1


def test_a_fault_that_passes_is_retried_for_what_is_missing(dev: Dev) -> None:
    """Dagster's daemon must agree with the tags: another run, after a pause, for the rest."""
    failing = True

    def fault(info: RequestInfo) -> Reply | None:
        return Reply(503) if failing and info.path == "/labels" else None

    dev.project.sandbox.intercept = fault
    first = dev.wait(lambda: dev.launch("identity_job", **{BACKOFF_TAG: "3"}), 90)
    failed = dev.wait(lambda: dev.run(runId=first))
    failing = False
    assert failed["status"] == "FAILURE"
    hourly = {endpoint.name for endpoint in in_group("identity") if not endpoint.detail}
    assert failed["assets"] == hourly - {"labels"}
    retry = dev.wait(lambda: retry_of(dev, first), 90)
    retry = dev.wait(lambda: dev.run(runId=retry["runId"]))
    assert retry["status"] == "SUCCESS"
    assert retry["assets"] == {"labels"}
    assert retry["tags"][NUMBER_TAG] == "1"


def test_a_bad_token_is_not_retried(dev: Dev) -> None:
    """A token that was revoked is asked with again and again, by run after run."""
    sandbox = dev.project.sandbox
    sandbox.intercept = lambda _: Reply(401, b"{}")
    first = dev.wait(lambda: dev.launch("identity_job", **{BACKOFF_TAG: "1"}), 90)
    failed = dev.wait(lambda: dev.run(runId=first))
    assert failed["status"] == "FAILURE"
    assert failed["tags"][WILL_RETRY_TAG] == "false", dev.log.read_text()[-3000:]
    looks = len(dev.ticks(RETRIES))
    dev.wait(lambda: len(dev.ticks(RETRIES)) >= looks + 2)
    assert retry_of(dev, first) is None


def retry_of(dev: Dev, run_id: str) -> dict[str, Any] | None:
    """Return the run that was requested as a retry of another."""
    return next((run for run in dev.runs() if run["tags"].get(OF_TAG) == run_id), None)
