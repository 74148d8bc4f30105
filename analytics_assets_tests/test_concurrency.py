"""Several runs at once, from several processes, into one database."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from analytics_assets.segment.endpoints import in_group
from analytics_assets_tests.conftest import on_postgres
from analytics_assets_tests.harness import PATIENCE, Project, failure_of, wait_for

SELECTIONS = ("*", "group:identity", "sources,labels,usage_mtu_daily", "group:identity")
ROUNDS = 5


def run_together(project: Project, selections: tuple[str, ...]) -> list[tuple[int, str]]:
    """Start a command line for each selection at the same time; return exit codes and output."""
    running = [
        subprocess.Popen(
            project.words(select),
            cwd=project.folder,
            env={**project.env, "DAGSTER_HOME": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for select in selections
    ]
    with ThreadPoolExecutor(len(running)) as pool:  # a full pipe would stop who writes to it
        outputs = list(pool.map(lambda one: one.communicate(timeout=300)[0], running))
    return [(one.returncode, text) for one, text in zip(running, outputs, strict=True)]


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
@pytest.mark.heavy
def test_four_processes_five_rounds(
    start: Callable[..., Project], postgres: str, kind: str
) -> None:
    """Prevents lock failures, doubled rows and lost state when runs overlap."""
    project = start()
    if kind == "postgres":
        project = on_postgres(project, postgres)
    for _ in range(ROUNDS):
        for code, output in run_together(project, SELECTIONS):
            assert code == 0, output[-3000:]
        project.assert_equal()


@pytest.mark.parametrize("kind", ["duckdb", pytest.param("postgres", marks=pytest.mark.heavy)])
def test_two_processes_load_the_same_group(
    start: Callable[..., Project], postgres: str, kind: str
) -> None:
    """Prevents two runs of a group from corrupting each other; the one that waits says so."""
    project = start()
    if kind == "postgres":
        project = on_postgres(project, postgres)
    outputs = run_together(project, ("group:identity", "group:identity", "group:catalog"))
    assert [code for code, _ in outputs] == [0, 0, 0], outputs
    assert any("Waiting: another run is loading" in text for _, text in outputs)
    project.assert_equal(e.name for e in (*in_group("identity"), *in_group("catalog")))


def test_a_reader_delays_the_load_and_is_named(project: Project) -> None:
    """Prevents a failed night because somebody looks at the database while it is loaded.

    The reader lets go of it only when the run has said that it waits.
    """
    assert failure_of(project.materialize("labels")) == ""
    output = project.folder / "log"
    with (
        open_for_reading(project) as reader,
        output.open("w") as log,
        subprocess.Popen(
            project.words("labels"), cwd=project.folder, env=project.env, stdout=log, stderr=log
        ) as run,
    ):
        try:
            wait_for(lambda: "Waiting: " in output.read_text())
        finally:
            reader.communicate()
        run.wait(PATIENCE)
    assert run.returncode == 0, output.read_text()[-3000:]
    assert "Materialized value labels" in output.read_text()
    project.assert_equal(["labels"])


def test_a_reader_is_waited_for_no_longer_than_told(project: Project) -> None:
    """Prevents that one forgotten client stops all loads for ever, and nobody knows which."""
    assert failure_of(project.materialize("labels")) == ""
    with open_for_reading(project) as reader:
        text = failure_of(project.materialize("labels", warehouse={"reader_timeout": 1.0}))
        assert reader.poll() is None
        reader.communicate()
    assert f"PID {reader.pid}" in text
    assert "holds warehouse.duckdb open" in text
    project.assert_equal(["labels"])


def open_for_reading(project: Project) -> subprocess.Popen[bytes]:
    """Hold the DuckDB file open in another process, until its input is closed."""
    code = f"""
        import duckdb, sys
        connection = duckdb.connect({str(project.database)!r}, read_only=True)
        print("open", flush=True)
        sys.stdin.read()
    """
    return holding(code)


def holding(code: str) -> subprocess.Popen[bytes]:
    """Run Python code in another process; return it once it has told that it holds something."""
    holder = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    holder.stdout.readline()
    return holder


def test_another_run_is_waited_for_no_longer_than_told(project: Project) -> None:
    """Prevents runs that queue up for ever behind one that hangs."""
    assert failure_of(project.materialize("labels")) == ""
    lock = project.database.with_name(f".{project.database.name}.analytics.identity.lock")
    code = f"""
        import filelock, sys
        with filelock.FileLock({str(lock)!r}):
            print("held", flush=True)
            sys.stdin.read()
    """
    with holding(code) as holder:
        text = failure_of(project.materialize("labels", warehouse={"lock_timeout": 1.0}))
        assert holder.poll() is None
        holder.communicate()
    assert "another run is loading the identity group" in text
