"""Weeks of a bad life in minutes: faults, a rate limit, kills, and a workspace that changes.

``pytest -m heavy analytics_assets_tests/test_soak.py`` takes 200 loads.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from analytics_assets.sandbox import Options
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.harness import Project, failure_of, materialized

NAMES = (
    "sources",
    "users",
    "groups",
    "group_users",
    "functions",
    "usage_mtu_daily",
    "audit_events",
)
"""One asset of each slice, and of each way to load."""
OPTIONS = Options(
    scale=0.05,
    counts={"sources": 40, "users": 30, "groups": 4, "audit_events": 100},
    fault_rate=0.2,
    rate_limit=1200,
    burst=20,
)
API: Mapping[str, Any] = {"max_wait": 5, "page_size": 15, "retries": 2, "backoff_factor": 0.05}
LOADS = 200
KILLED = 10
"""One load in so many is killed."""


class Life:
    """A workspace that changes between loads, as a seed says.

    Attributes:
        gone: identifiers of sources and users that were removed and have not come back.
    """

    def __init__(self, project: Project, seed: int) -> None:
        self.gone: dict[str, dict[str, Mapping[str, Any]]] = {"sources": {}, "users": {}}
        self._workspace = project.sandbox.workspace
        self._clock = project.sandbox.clock
        self._chance = random.Random(seed)  # noqa: S311 - no secret, the same again

    def pick(self, count: int) -> int:
        """Return a number below ``count``."""
        return self._chance.randrange(count)

    def change(self) -> None:
        """Change a few things: rename, remove, bring back, add events, correct usage."""
        for name, gone in self.gone.items():
            records = self._workspace.records(name)
            renamed, removed = self._chance.sample(records, 2)
            self._workspace.put(name, {**renamed, "name": f"Renamed {self.pick(10**6)}"})
            if len(records) > len(gone) + 20:
                gone[removed["id"]] = removed
                self._workspace.remove(name, removed["id"])
            elif gone:
                self._workspace.put(name, gone.pop(min(gone)))
        for minutes in range(self.pick(3)):
            moment = self._clock() - timedelta(minutes=minutes)
            self._workspace.add_event(timestamp=f"{moment:%Y-%m-%dT%H:%M:%S}Z")
        day = self._workspace.usage("usage_mtu_daily", self._clock().date().isoformat())[-1]
        count = str(int(day["anonymous"]) + 1)
        self._workspace.restate("usage_mtu_daily", day["timestamp"], {"anonymous": count})


def load(project: Project) -> None:
    """Load once; what fails must be named, and what is served must be live."""
    result = project.materialize(*NAMES, api=API)
    said, done = failure_of(result), set(materialized(result))
    for name in set(NAMES) - done:
        own = f"{name} (GET {BY_NAME[name].path}): " in said
        assert own or (not done and "(GET /), so nothing" in said), said
    for name in {"sources", "users"} & done:  # what is gone stays while a fault leaves a doubt
        served = {record["id"] for record in project.sandbox.served(name)}
        assert served <= {row["id"] for row in project.rows(name)}


def load_and_kill(project: Project, seconds: float) -> None:
    """Load in a process of its own, and kill it after so many seconds if it is still there."""
    with subprocess.Popen(
        project.words(",".join(NAMES)),
        cwd=project.folder,
        env=project.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()


@pytest.mark.heavy
def test_all_is_right_after_a_bad_life(start: Callable[..., Project]) -> None:
    """Prevents that a fault, a kill or a limit leaves something behind that later loads keep."""
    project = start(OPTIONS)
    month = project.sandbox.clock().date().replace(day=1)
    project.env["ANALYTICS_USAGE_START"] = f"{month:%Y-%m}"
    life = Life(project, seed=14)
    for number in range(LOADS):
        if number % KILLED == KILLED - 1:
            load_and_kill(project, 3 + life.pick(50) / 10)
        else:
            load(project)
        life.change()
    project.sandbox.state.options = replace(OPTIONS, fault_rate=0.0)
    assert failure_of(project.materialize(*NAMES)) == ""
    project.assert_equal(name for name in NAMES if not BY_NAME[name].monthly)
    assert project.rows("usage_mtu_daily") == project.expected_usage("usage_mtu_daily", [month])
    for name, gone in life.gone.items():
        rows = project.rows(name, live=False)
        marked = {row["id"] for row in rows if row["deleted_at"] is not None}
        assert marked == gone.keys()
