"""Runs that are killed in the middle: the next run ends with exactly the right tables.

The command line is killed with SIGKILL, so nothing can be tidied up; the run after it is the one
that a schedule would start next.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from analytics_assets.sandbox import Options, RequestInfo, Sandbox
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.months import shift
from analytics_assets_tests.conftest import project_for
from analytics_assets_tests.harness import Project, assert_same, expected_rows, failure_of
from analytics_assets_tests.timetravel import USAGE, assert_usage

SELECT = ",".join([*USAGE, "audit_events"])
OPTIONS = Options(counts={"sources": 3, "audit_events": 40})
HOOK = Path(__file__).parent / "crashing"


def first_month() -> date:
    """Return the first month these tests load: usage of three months."""
    return shift(datetime.now(timezone.utc).date().replace(day=1), -2)


def prepare(project: Project) -> None:
    """Point a project at three months, with the killing hook in its interpreter."""
    project.env["ANALYTICS_USAGE_START"] = f"{first_month():%Y-%m}"
    project.env["PYTHONPATH"] = os.pathsep.join([str(HOOK), project.env["PYTHONPATH"]])


def change(project: Project) -> None:
    """Let the workspace live on: new events, and corrected usage."""
    workspace = project.sandbox.workspace
    project.sandbox.clock = timedelta(seconds=1)
    for minutes in (0, 0, 5):
        moment = project.sandbox.clock() - timedelta(minutes=minutes)
        workspace.add_event(timestamp=f"{moment:%Y-%m-%dT%H:%M:%S}Z")
    month = shift(first_month(), 1)
    for name in USAGE:
        row = workspace.usage(name, month.isoformat())[-1]
        key = [str(row[wire]) for wire in BY_NAME[name].primary_key]
        counter = BY_NAME[name].counters[0].field
        workspace.restate(name, key, {counter: str(int(row[counter]) + 1)})


def assert_right(project: Project) -> None:
    """Assert that the tables, and no others, hold exactly what the sandbox serves."""
    assert project.tables() == {*USAGE, "audit_events"}
    assert_usage(project, first_month())
    served = expected_rows(BY_NAME["audit_events"], project.sandbox.served("audit_events"))
    assert_same("audit_events", project.rows("audit_events"), served)


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Count the requests and dlt's calls of a later run that nobody kills, by phase."""
    folder = tmp_path_factory.mktemp("uncrashed")
    with Sandbox(OPTIONS, now=datetime.now(timezone.utc)) as sandbox:
        project = project_for(sandbox, folder)
        prepare(project)
        assert failure_of(project.materialize(*USAGE, "audit_events")) == ""
        change(project)
        sandbox.clear()
        done = project.run(SELECT, CALLS_FILE=str(folder / "calls.json"))
        assert done.returncode == 0, done.stdout[-3000:]
        yield {**json.loads((folder / "calls.json").read_text()), "read": sandbox.count()}


def run_killed(project: Project, phase: str, number: int) -> None:
    """Run the command line and kill it at a request of the reading, or at a call of dlt."""
    env = {**project.env, "KILL_AT": f"{phase}:{number}"}
    output = project.folder / "killed.log"
    with (
        output.open("wb") as log,
        subprocess.Popen(
            project.words(SELECT), cwd=project.folder, env=env, stdout=log, stderr=log
        ) as process,
    ):

        def kill(info: RequestInfo) -> None:
            if info.number >= number:
                process.kill()

        project.sandbox.clear()
        project.sandbox.intercept = kill if phase == "read" else None
        process.wait(timeout=300)
    project.sandbox.intercept = None
    assert process.returncode == -signal.SIGKILL, output.read_text()[-3000:]


@pytest.mark.parametrize(
    ("phase", "first", "later"),
    [
        ("read", 2, (0.5, 1.0)),
        pytest.param("extract", 3, (0.9,), marks=pytest.mark.heavy),
        pytest.param("normalize", 3, (0.6, 1.0), marks=pytest.mark.heavy),
        pytest.param("load", 20, (0.1, 0.5, 1.0), marks=pytest.mark.heavy),
    ],
)
def test_a_killed_run_is_made_good_by_the_next(
    start: Callable[..., Project],
    calls: dict[str, int],
    phase: str,
    first: int,
    later: tuple[float, ...],
) -> None:
    """Prevents holes, doubles and stale rows after a kill, on a new database and on a grown one.

    The first load is killed at the call ``first``, later runs at shares of the calls that a run
    makes. What has changed since the last good run would be missing if the killed run had moved the
    state ahead of its rows.
    """
    project = start(OPTIONS)
    prepare(project)
    for number in (first, *(max(round(share * calls[phase]), 1) for share in later)):
        change(project)
        run_killed(project, phase, number)
        result = project.materialize(*USAGE, "audit_events")
        assert failure_of(result) == ""
        assert_right(project)


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("load", 10),
        pytest.param("extract", 2, marks=pytest.mark.heavy),
        pytest.param("normalize", 2, marks=pytest.mark.heavy),
    ],
)
def test_sigterm_ends_a_load_under_way(
    start: Callable[..., Project], calls: dict[str, int], phase: str, number: int
) -> None:
    """Prevents a run that is told to stop from loading on to its end, or leaving things behind.

    dlt looks for signals in the main thread, and the load is in another.
    """
    project = start(OPTIONS)
    prepare(project)
    counted = project.folder / "calls.json"
    project.env |= {"KILL_AT": f"{phase}:{number}", "KILL_BY": "SIGTERM"}
    done = project.run(SELECT, CALLS_FILE=str(counted))
    assert done.returncode != 0
    assert "RUN_SUCCESS" not in done.stdout
    assert "Interrupted. What has loaded stays" in done.stdout
    reached = json.loads(counted.read_text())
    assert reached[phase] < calls[phase]
    assert reached.get("load", 0) < calls["load"] / 2
    assert list((project.folder / "tmp").glob("analytics_assets_*")) == []
    assert failure_of(project.materialize(*USAGE, "audit_events")) == ""
    assert_right(project)


def test_two_kills_in_a_row_on_a_new_database(start: Callable[..., Project]) -> None:
    """Prevents a half-loaded first package from being taken for a finished one by later runs."""
    project = start(OPTIONS)
    prepare(project)
    for number in (45, 12):
        run_killed(project, "load", number)
        change(project)
    assert failure_of(project.materialize(*USAGE, "audit_events")) == ""
    assert_right(project)
