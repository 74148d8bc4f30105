"""Fixtures: a real HTTP server, a real database, a clean environment."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import hypothesis
import pytest
from filelock import FileLock

from analytics_assets.sandbox import Options, Sandbox
from analytics_assets_tests.harness import Project, clean_environment
from analytics_assets_tests.postgres import (
    PostgresProject,
    postgres_server,
    postgres_variables,
)

if TYPE_CHECKING:
    from analytics_assets_tests.faults import Template

SMALL = 0.1
"""A workspace of a tenth of the usual size, for tests that load many times."""

# an example may take its time: the machine has other work too
hypothesis.settings.register_profile("here", deadline=None)
hypothesis.settings.load_profile("here")


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Run the unit lane in this process: it ends before workers have imported what they need.

    Elsewhere tests wait as much as they compute: for servers, processes and time-outs.
    """
    return 0 if config.option.markexpr == "unit" else 2 * (os.cpu_count() or 1)


def pytest_collection_finish() -> None:
    """Keep the garbage collector from what was imported: it took an eighth of the time of tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


IMPURE = frozenset({"start", "project", "loaded", "template", "postgres"})
"""Fixtures that start something; what begins before a test it could not refuse."""
_STARTS = (
    "subprocess.Popen",
    "os.fork",
    "os.forkpty",
    "os.posix_spawn",
    "os.system",
    "os.exec",
    "socket.bind",
    "socket.connect",
    "sqlite3.connect",
)
"""Audit events of what a unit test does without; Dagster stores its runs in SQLite."""
_unit_test_runs = False


TWICE = frozenset(
    {"test_forgetting", "test_healing", "test_odd_values", "test_ownership", "test_whole_lists"}
)
"""Modules whose cases are the same on DuckDB, in CI, and on PostgreSQL, in the heavy lane."""


TOGETHER = frozenset(
    {
        *("test_bad_input", "test_checks", "test_examples", "test_healing", "test_metadata"),
        *("test_proof", "test_reports", "test_upgrade"),
    }
)
"""Modules whose tests share what took long to load: one worker runs them, and loads it once."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse unit tests that ask for what starts something; leave repeats to the heavy lane."""
    for item in items:
        if item.path.stem in TOGETHER and item.get_closest_marker("unit") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        if item.path.stem in TWICE and "postgres" in item.name:
            item.add_marker(pytest.mark.heavy)
        if item.get_closest_marker("unit") and IMPURE & set(getattr(item, "fixturenames", ())):
            raise pytest.UsageError(f"{item.nodeid} is marked unit and starts something")


def _refuse(event: str, _: Any) -> None:
    if _unit_test_runs and event in _STARTS:
        raise AssertionError(f"a unit test starts no process, server, database or run: {event}")


sys.addaudithook(_refuse)


@pytest.fixture(autouse=True)
def _clock_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a test that travels in time from taking all later ones of its process along.

    dlt never lets the clock go back that its load ids come from.
    """
    if load_package := sys.modules.get("dlt.common.storages.load_package"):
        from dlt.common.time import LockedMonotonicPreciseTime

        own = LockedMonotonicPreciseTime(strictly_increasing=True)
        monkeypatch.setattr(load_package, "increasing_precise_time", own)


@pytest.fixture(autouse=True)
def _pure(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep a unit test from starting or reaching anything."""
    global _unit_test_runs  # noqa: PLW0603 - an audit hook stays for good, so it has to be told
    if request.node.get_closest_marker("unit") is None:
        yield
        return

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a unit test opens no database")

    monkeypatch.setattr(duckdb, "connect", refuse)
    _unit_test_runs = True
    yield
    _unit_test_runs = False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Project]]:
    """Return a function that starts a sandbox and points a project at it."""
    with ExitStack() as stack:

        def start_project(options: Options | None = None, **env: str) -> Project:
            # today's usage grows by the minute: stand still, so that what is served stays served
            now = datetime.now(timezone.utc)
            sandbox = stack.enter_context(Sandbox(options or Options(scale=SMALL), now=now))
            return project_for(sandbox, tmp_path, **env)

        yield start_project


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    """Return a database that holds a whole small workspace; tests work on copies.

    The first worker that needs it makes it, for all.
    """
    from analytics_assets_tests.faults import Template, make_template

    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "template"
    moment = shared / "moment"
    with FileLock(shared.with_suffix(".lock")):
        if moment.exists():
            now = datetime.fromisoformat(moment.read_text())
            return Template(shared / "warehouse.duckdb", now)
        shared.mkdir(exist_ok=True)
        made = make_template(shared)
        moment.write_text(made.now.isoformat())
    return made


@pytest.fixture
def loaded(template: Template, tmp_path: Path) -> Iterator[Project]:
    """Return a project whose database holds all that its sandbox serves."""
    with template.project(tmp_path) as project:
        yield project


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """Return the address of a real PostgreSQL server."""
    with postgres_server() as url:
        yield url


@pytest.fixture
def project(start: Callable[..., Project]) -> Project:
    """Return a project that is pointed at a small sandbox of its own."""
    return start()


def project_for(sandbox: Sandbox, folder: Path, **env: str) -> Project:
    """Return a project in ``folder`` that is pointed at ``sandbox``."""
    (folder / "tmp").mkdir(exist_ok=True)
    values = {
        **clean_environment(folder),
        "ANALYTICS_API_BASE_URL": sandbox.url,
        "ANALYTICS_API_TOKEN": sandbox.token,
        "ANALYTICS_DUCKDB_PATH": str(folder / "warehouse.duckdb"),
        **env,
    }
    return Project(sandbox, folder, values)


def on_postgres(project: Project, url: str) -> PostgresProject:
    """Return ``project`` with a dataset of its own on the PostgreSQL server at ``url``."""
    return PostgresProject(
        project.sandbox, project.folder, {**project.env, **postgres_variables(url)}
    )
