"""A real ``dagster dev``: web server, daemon, code server and runs in processes of their own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import requests

from analytics_assets.orchestration.retries import BACKOFF_TAG, NUMBER_TAG, OF_TAG, WILL_RETRY_TAG
from analytics_assets.sandbox import Options, Reply, RequestInfo, Sandbox
from analytics_assets.segment.endpoints import in_group
from analytics_assets_tests.conftest import SMALL, project_for
from analytics_assets_tests.harness import Project

DAGSTER_YAML = """
telemetry: {enabled: false}
"""
SECONDS = 5
"""Interval of the sensor; Dagster's daemon looks no more often than that."""
AUDIT = "/audit-events"
WHERE = {"repositoryLocationName": "analytics_assets", "repositoryName": "__repository__"}
SENSOR = {**WHERE, "sensorName": "workspace_changes"}
RETRIES = {**WHERE, "sensorName": "retries"}

START_SENSOR = """
mutation ($sensor: SensorSelector!) {
  startSensor(sensorSelector: $sensor) { __typename ... on Sensor { id } }
}"""
STOP_SENSOR = """
mutation ($id: String!) { stopSensor(id: $id) { __typename } }"""
TICKS = """
query ($sensor: SensorSelector!) {
  sensorOrError(sensorSelector: $sensor) {
    ... on Sensor { id sensorState { ticks { tickId status timestamp skipReason runIds } } }
  }
}"""
RUNS = """
query { runsOrError {
  ... on Runs { results {
    runId status parentRunId
    tags { key value }
    assetMaterializations { assetKey { path } }
  } }
} }"""
LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""


@dataclass
class Dev:
    """A ``dagster dev`` that runs, and the project it serves."""

    project: Project
    url: str
    log: Path

    def ask(self, query: str, **variables: Any) -> Any:
        """Ask the web server's GraphQL."""
        body: Any = {"query": query, "variables": variables}
        answer = requests.post(f"{self.url}/graphql", json=body, timeout=30)
        content = answer.json()
        assert "errors" not in content, content
        return content["data"]

    def ticks(self, sensor: Mapping[str, str] = SENSOR) -> list[dict[str, Any]]:
        """Return the finished ticks of a sensor, the oldest first."""
        state = self.ask(TICKS, sensor=sensor)["sensorOrError"]["sensorState"]
        done = [tick for tick in state["ticks"] if tick["status"] != "STARTED"]
        return sorted(done, key=lambda tick: int(tick["tickId"]))

    def runs(self) -> list[dict[str, Any]]:
        """Return all runs, with their tags as a dictionary and their assets as a set of names."""
        runs = self.ask(RUNS)["runsOrError"]["results"]
        for run in runs:
            run["tags"] = {tag["key"]: tag["value"] for tag in run["tags"]}
            found = run.pop("assetMaterializations")
            run["assets"] = {event["assetKey"]["path"][-1] for event in found}
        return list(runs)

    def run(self, **wanted: Any) -> dict[str, Any] | None:
        """Return the run with these values once it has ended."""
        for run in self.runs():
            ended = run["status"] in ("SUCCESS", "FAILURE")
            if ended and all(run[name] == value for name, value in wanted.items()):
                return run
        return None

    def launch(self, job: str, **tags: str) -> str:
        """Start a job as the web page does; return the id of its run, nothing if it is too soon."""
        params = {
            "selector": {**WHERE, "pipelineName": job},
            "runConfigData": {"resources": {"api": {"config": {"backoff_factor": 0}}}},
            "executionMetadata": {"tags": [{"key": k, "value": v} for k, v in tags.items()]},
        }
        launched = self.ask(LAUNCH, params=params)["launchRun"]
        return str(launched.get("run", {}).get("runId", ""))

    def wait(self, what: Callable[[], Any], seconds: float = 60) -> Any:
        """Wait until ``what`` gives something, and return that."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if found := what():
                    return found
            except requests.exceptions.RequestException:
                pass  # not up yet
            time.sleep(0.5)
        raise AssertionError(f"waited {seconds} s in vain; {self.log.read_text()[-3000:]}")


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


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process in good order, or else it and all that it has started."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)


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
