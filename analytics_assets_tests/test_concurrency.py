"""Several runs at once, from several processes, into one database."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from analytics_assets.segment.endpoints import in_group
from analytics_assets_tests.conftest import on_postgres
from analytics_assets_tests.harness import Project, failure_of, materialized

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


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
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
    """Prevents a failed night because somebody looks at the database while it is loaded."""
    assert failure_of(project.materialize("labels")) == ""
    reader = open_for_reading(project, seconds=4)
    result = project.materialize("labels")
    assert failure_of(result) == ""
    assert set(materialized(result)) == {"labels"}
    reader.wait(30)
    reader = open_for_reading(project, seconds=30)
    try:
        text = failure_of(project.materialize("labels", warehouse={"reader_timeout": 1.0}))
    finally:
        reader.kill()
        reader.wait()
    assert f"PID {reader.pid}" in text
    assert "holds warehouse.duckdb open" in text
    project.assert_equal(["labels"])


def open_for_reading(project: Project, seconds: float) -> subprocess.Popen[bytes]:
    """Hold the DuckDB file open in another process."""
    code = f"""
        import duckdb, time
        connection = duckdb.connect({str(project.database)!r}, read_only=True)
        print("open", flush=True)
        time.sleep({seconds})
    """
    reader = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert reader.stdout is not None
    reader.stdout.readline()
    return reader


def test_another_run_is_waited_for_no_longer_than_told(project: Project) -> None:
    """Prevents runs that queue up for ever behind one that hangs."""
    assert failure_of(project.materialize("labels")) == ""
    lock = project.database.with_name(f".{project.database.name}.analytics.identity.lock")
    code = f"""
        import filelock, time
        with filelock.FileLock({str(lock)!r}):
            print("held", flush=True)
            time.sleep(60)
    """
    holder = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    began = time.monotonic()
    try:
        text = failure_of(project.materialize("labels", warehouse={"lock_timeout": 1.0}))
    finally:
        holder.kill()
        holder.wait()
    assert "another run is loading the identity group" in text
    assert time.monotonic() - began < 30
