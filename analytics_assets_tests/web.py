"""Dagster's web server, asked as its pages ask it, and processes that end in good order."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from analytics_assets_tests.harness import Project

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


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process in good order, or else it and all that it has started."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)
