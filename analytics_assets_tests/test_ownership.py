"""A dataset belongs to one workspace: another one's token changes nothing in it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from dagster import ExecuteInProcessResult

from analytics_assets.sandbox import Options, Reply, RequestInfo
from analytics_assets.segment.endpoints import in_group
from analytics_assets_tests.conftest import SMALL, on_postgres
from analytics_assets_tests.faults import run_logged
from analytics_assets_tests.harness import (
    PATIENCE,
    Project,
    failure_of,
    materialized,
    wait_for,
)
from analytics_assets_tests.requests_made import expected_requests, requests_by_name

KINDS = ("duckdb", "postgres")
OPTIONS = Options(scale=SMALL, counts={"audit_events": 20})
NAMED = ("sources", "warehouses")
"""Two lists whose records name their workspace."""
Build = Callable[[str], tuple[Project, Project]]


@pytest.fixture
def build(start: Callable[..., Project], postgres: str) -> Build:
    """Return a function that points two workspaces at one dataset of a destination."""

    def build_projects(kind: str) -> tuple[Project, Project]:
        project = start(OPTIONS)
        if kind == "postgres":
            project = on_postgres(project, postgres)
        if kind == "files":
            project.env["ANALYTICS_DESTINATION"] = "filesystem"
            project.env["DESTINATION__FILESYSTEM__BUCKET_URL"] = str(project.folder / "lake")
        return project, stranger(project, start)

    return build_projects


def stranger(project: Project, start: Callable[..., Project]) -> Project:
    """Return a project of another workspace that loads into the dataset of ``project``."""
    other = start(replace(OPTIONS, seed=8))
    names = ("ANALYTICS_API_BASE_URL", "ANALYTICS_API_TOKEN")
    env = {**project.env, **{name: other.env[name] for name in names}}
    return replace(project, sandbox=other.sandbox, env=env)


def everything(project: Project) -> dict[str, Any]:
    """Return all rows of the dataset, marks included; of a folder the files."""
    lake = project.folder / "lake"
    if lake.exists():
        files = (file for file in lake.rglob("*") if file.is_file() and file.suffix != ".lock")
        return {str(file): file.read_bytes() for file in files}
    return {name: project.rows(name, live=False) for name in project.tables()}


def workspace_of(project: Project) -> str:
    """Return the id of the workspace that a sandbox serves."""
    return str(project.sandbox.workspace.describe()["id"])


def refuse_workspace(project: Project, status: int = 403, body: bytes = b"{}") -> None:
    """Let ``GET /`` be refused."""
    project.sandbox.intercept = lambda info: Reply(status, body) if info.path == "/" else None


def assert_refused(result: ExecuteInProcessResult, project: Project, other: Project) -> None:
    """Assert that a run was refused in one sentence that names both workspaces and the way out."""
    text = failure_of(result)
    assert materialized(result) == {}
    assert "\n" not in text.strip()
    for part in (workspace_of(project), workspace_of(other), "ANALYTICS_DATASET"):
        assert part in text


@pytest.mark.parametrize("kind", [*KINDS, pytest.param("files", marks=pytest.mark.heavy)])
@pytest.mark.parametrize(
    ("first", "second"),
    [((), ()), (("sources", "labels"), ("users", "labels")), (("roles",), ("group:catalog",))],
    ids=["everything", "other lists", "another group"],
)
def test_another_workspace_is_refused_before_anything_is_asked_for(
    build: Build, kind: str, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    """Prevents that a wrong token marks half of the rows as deleted, with every check green."""
    project, other = build(kind)
    assert failure_of(project.materialize(*first)) == ""
    before = everything(project)
    result = other.materialize(*second)
    assert_refused(result, project, other)
    assert "Harbor Supply" in failure_of(result)
    assert requests_by_name(other.sandbox.requests) == {"workspace": 1}
    assert everything(project) == before
    assert failure_of(project.materialize(*first)) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_another_dataset_takes_another_workspace(build: Build, kind: str) -> None:
    """Prevents that the way out that the refusal names leads nowhere."""
    project, other = build(kind)
    assert failure_of(project.materialize("sources")) == ""
    other.env["ANALYTICS_DATASET"] = second = f"{project.env.get('ANALYTICS_DATASET', 'other')}_2"
    assert failure_of(other.materialize("sources")) == ""
    for dataset, owner in (
        (project.env.get("ANALYTICS_DATASET", "analytics"), project),
        (second, other),
    ):
        found = project.query(f"SELECT DISTINCT workspace_id FROM {dataset}.sources")
        assert found == [(workspace_of(owner),)]


def test_the_workspace_is_asked_for_once(build: Build) -> None:
    """Prevents a second request for the asset of the workspace, and one for a run of checks."""
    project, _ = build("duckdb")
    assert failure_of(project.materialize("workspace", "labels")) == ""
    expected = expected_requests(project, names=["workspace", "labels"])
    assert requests_by_name(project.sandbox.requests) == expected == {"workspace": 1, "labels": 1}
    project.assert_equal(["workspace", "labels"])


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_tell_where_the_workspace_is_refused(build: Build, kind: str, status: int) -> None:
    """Prevents that a token that may not read the workspace loads another one's lists."""
    project, other = build(kind)
    assert failure_of(project.materialize("sources", "users")) == ""
    before = everything(project)
    for one in (project, other):
        refuse_workspace(one, status)
    result = other.materialize("users", *NAMED)
    assert_refused(result, project, other)
    expected = expected_requests(other, names=["users", *NAMED])
    assert requests_by_name(other.sandbox.requests) == expected
    assert everything(project) == before
    assert failure_of(project.materialize("users", *NAMED)) == ""
    project.assert_equal(["users", *NAMED])


def test_rows_of_two_workspaces_tell_nothing(build: Build) -> None:
    """Prevents that the first row decides whose a list is, and rows of another one are loaded."""
    project, other = build("duckdb")
    assert failure_of(project.materialize("sources")) == ""
    before = everything(project)
    half = len(project.sandbox.served("sources")) // 2
    for record in other.sandbox.served("sources")[:half]:
        project.sandbox.workspace.put("sources", record)
    refuse_workspace(project, 403)
    text = failure_of(project.materialize("sources"))
    assert "The rows of sources name several workspaces" in text
    assert everything(project) == before


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_another_workspace_than_the_api_names_are_refused(build: Build, kind: str) -> None:
    """Prevents that a proxy with a stale ``GET /`` loads the lists of another workspace."""
    project, other = build(kind)
    assert failure_of(project.materialize("sources", "users")) == ""
    before = everything(project)
    body = orjson.dumps({"data": {"workspace": project.sandbox.workspace.describe()}})
    other.sandbox.intercept = lambda info: Reply(200, body) if info.path == "/" else None
    text = failure_of(other.materialize("users", "sources"))
    assert f"The rows of sources (GET /sources) name the workspace {workspace_of(other)}" in text
    assert workspace_of(project) in text
    assert everything(project) == before


def test_parents_of_another_workspace_are_refused(build: Build) -> None:
    """Prevents that what hangs on the sources of another workspace is loaded without them."""
    project, other = build("duckdb")
    assert failure_of(project.materialize("sources", "source_schema_settings")) == ""
    before = everything(project)
    body = orjson.dumps({"data": {"workspace": project.sandbox.workspace.describe()}})
    other.sandbox.intercept = lambda info: Reply(200, body) if info.path == "/" else None
    text = failure_of(other.materialize("source_schema_settings"))
    assert f"The rows of sources (GET /sources) name the workspace {workspace_of(other)}" in text
    assert everything(project) == before


def test_a_row_of_another_workspace_is_told(build: Build) -> None:
    """Prevents that one odd value refuses everything, or that nobody hears of it."""
    project, other = build("duckdb")
    record = project.sandbox.served("sources")[0]
    project.sandbox.workspace.put("sources", {**record, "workspaceId": workspace_of(other)})
    result = project.materialize("sources")
    assert failure_of(result) == ""
    told = {c.check_name: str(c.description) for c in result.get_asset_check_evaluations()}
    assert told["read_whole"] == f"some rows name another workspace: {workspace_of(other)}."


def test_a_record_tells_where_no_row_does(build: Build) -> None:
    """Prevents that users of another workspace are loaded, as they do not say whose they are."""
    project, other = build("duckdb")
    assert failure_of(project.materialize("users")) == ""
    before = everything(project)
    for one in (project, other):
        refuse_workspace(one)
        one.sandbox.clear()
    assert_refused(other.materialize("users"), project, other)
    assert requests_by_name(other.sandbox.requests) == {"workspace": 1, "users": 1, "sources": 1}
    assert everything(project) == before
    assert failure_of(project.materialize("users")) == ""


def test_a_token_that_tells_nothing_is_refused(build: Build) -> None:
    """Prevents that lists are loaded although nobody can tell whose they are."""
    project, other = build("duckdb")
    assert failure_of(project.materialize("users", "workspace")) == ""
    before = everything(project)
    other.sandbox.intercept = lambda info: None if info.path == "/users" else Reply(403, b"{}")
    text = failure_of(other.materialize("users"))
    assert workspace_of(project) in text
    assert "give it a role that may read the workspace" in text
    assert everything(project) == before


def test_a_workspace_that_is_refused_costs_its_own_asset_only(build: Build) -> None:
    """Prevents that one missing permission ends every run."""
    project, _ = build("duckdb")
    refuse_workspace(project)
    result = project.materialize("workspace", "sources", "labels")
    assert set(materialized(result)) == {"sources", "labels"}
    assert "workspace (GET /): HTTP 403" in failure_of(result)
    assert project.sandbox.count("/") == 1


@pytest.mark.parametrize(
    "body", [b"null", b"{}", orjson.dumps({"data": {"workspace": {"name": "nameless"}}})]
)
def test_an_odd_answer_counts_as_none(build: Build, body: bytes) -> None:
    """Prevents a stack trace, or a dataset of nobody, where the API has changed."""
    project, other = build("duckdb")
    assert failure_of(project.materialize("sources")) == ""
    refuse_workspace(other, 200, body)
    refuse_workspace(project, 200, body)
    assert_refused(other.materialize("sources"), project, other)
    assert failure_of(project.materialize("sources")) == ""


def test_a_fault_that_passes_is_tried_again_and_then_ends_the_run(build: Build) -> None:
    """Prevents that a fault of the API loads rows of nobody knows whom, or is never retried."""
    project, _ = build("duckdb")
    refuse_workspace(project, 503)
    result = project.materialize("labels", api={"retries": 2})
    assert "GET /" in failure_of(result)
    assert "HTTP 503" in failure_of(result)
    assert requests_by_name(project.sandbox.requests) == {"workspace": 3}
    (failed,) = [event for event in result.all_events if event.is_step_failure]
    data = failed.step_failure_data.user_failure_data
    assert data is not None
    assert "tables" not in failure_of(result)
    assert project.tables() == set()


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_run_of_two_makes_a_new_dataset_its_own(build: Build, kind: str) -> None:
    """Prevents that two workspaces share a dataset because both found it new."""
    project, other = build(kind)
    reading, done = threading.Event(), threading.Event()

    def hold(info: RequestInfo) -> Reply | None:
        if info.path != "/labels" or done.is_set():
            return None
        reading.set()
        return Reply(429, b"{}", {"Retry-After": "1"})

    project.sandbox.intercept = hold
    log = project.folder / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            project.words("group:identity"),
            cwd=project.folder,
            env=project.env,
            stdout=output,
            stderr=output,
        ) as run,
    ):
        try:
            wait_for(reading.is_set)
            assert failure_of(other.materialize("group:catalog")) == ""
            done.set()
            assert run.wait(PATIENCE) != 0
        finally:
            run.kill()
    text = Path(log).read_text()
    for part in (workspace_of(project), workspace_of(other), "ANALYTICS_DATASET"):
        assert part in text
    assert project.tables() == {endpoint.name for endpoint in in_group("catalog")}


def test_a_new_name_of_the_workspace_is_taken_up(build: Build) -> None:
    """Prevents that a workspace that was renamed is refused, or named as nobody knows it."""
    project, other = build("duckdb")
    assert failure_of(project.materialize("labels")) == ""
    renamed = {**project.sandbox.workspace.describe(), "name": "New Harbor"}
    body = orjson.dumps({"data": {"workspace": renamed}})
    refuse_workspace(project, 200, body)
    result, log = run_logged(project, "labels")
    assert failure_of(result) == ""
    assert "does not say whose it is" not in log
    assert "'New Harbor' (harbor-supply, id " in failure_of(other.materialize("labels"))
