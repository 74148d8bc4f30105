"""Bounds: of memory, of time, and of what a signal or a bad network leaves behind.

The proof with 1,000,000 audit events takes a minute: ``pytest -m heavy``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import psutil
import pytest

from analytics_assets.sandbox import Options, Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.faults import everything
from analytics_assets_tests.harness import (
    ALL_TABLES,
    PATIENCE,
    Project,
    clean_environment,
    failure_of,
    materialized,
)

MEGABYTE = 2**20
HELD = 10 * PATIENCE
"""Seconds for which an answer is held back: what ends before it has not waited for it."""
TABLES_OF_FAULTS = ("sources", "labels", "users", "usage_mtu_daily", "audit_events")


def peak_memory(words: list[str], env: dict[str, str], folder: Path) -> tuple[int, int, str]:
    """Run a command; return its exit code, the peak of its process tree in bytes, its output."""
    log = folder / "log"
    peak = 0
    with log.open("wb") as file:
        run = subprocess.Popen(words, cwd=folder, env=env, stdout=file, stderr=file)
        while run.poll() is None:
            try:
                main = psutil.Process(run.pid)
                tree = [main, *main.children(recursive=True)]
                peak = max(peak, sum(process.memory_info().rss for process in tree))
            except psutil.Error:
                continue
            time.sleep(0.02)
    return run.returncode, peak, log.read_text()


@contextmanager
def sandbox_process(*options: str) -> Iterator[dict[str, str]]:
    """Serve from a process of its own, whose memory does not count; yield its variables."""
    words = [sys.executable, "-m", "analytics_assets.sandbox", *options]
    server = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert server.stdout
    try:
        lines = [server.stdout.readline() for _ in range(2)]
        found = [re.fullmatch(r"export (\w+)='?([^']*?)'?\n", line) for line in lines]
        yield {match[1]: match[2] for match in found if match}
    finally:
        server.terminate()
        server.wait()
        server.stdout.close()


@pytest.mark.parametrize(
    ("name", "count", "limit"),
    [
        ("audit_events", 100_000, 500),
        pytest.param("sources", 100_000, 500, marks=pytest.mark.heavy),
        ("destinations", 20_000, 600),  # of some 25 KB each
        pytest.param("audit_events", 1_000_000, 600, marks=pytest.mark.heavy),
    ],
)
def test_memory_does_not_grow_with_the_rows(
    tmp_path: Path, name: str, count: int, limit: int
) -> None:
    """Prevents that a long audit trail, or a list of wide records, takes the machine down."""
    size = ("--scale", "0.1", "--count", f"{name}={count}")
    found, peak = peak_of_a_load(tmp_path, name, "id", *size)
    assert found == (count, count)
    assert peak < limit * MEGABYTE, f"{peak / MEGABYTE:.0f} MB"


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "counts", "least"),
    [
        ("tracking_plan_rules", {"tracking_plans": 100, "tracking_plan_rules": 1000}, 100_000),
        ("events_volume", {"sources": 12, "events_volume": 930}, 1_000_000),
    ],
)
def test_memory_does_not_grow_with_children_or_volume(
    tmp_path: Path, name: str, counts: dict[str, int], least: int
) -> None:
    """Prevents that lists that hang on others, or the longest one, take the machine down."""
    options = [word for each, n in counts.items() for word in ("--count", f"{each}={n}")]
    keys = ", ".join(BY_NAME[name].key_columns)
    found, peak = peak_of_a_load(tmp_path, name, keys, "--scale", "0.1", *options)
    assert found[0] == found[1] >= least
    assert peak < 600 * MEGABYTE, f"{peak / MEGABYTE:.0f} MB"


def peak_of_a_load(
    folder: Path, name: str, keys: str, *options: str
) -> tuple[tuple[int, int], float]:
    """Load one asset in a process of its own; return its rows, its distinct keys, and the peak."""
    (folder / "tmp").mkdir()
    database = folder / "warehouse.duckdb"
    with sandbox_process(*options) as variables:
        env = {**clean_environment(folder), **variables, "ANALYTICS_DUCKDB_PATH": str(database)}
        words = [sys.executable, "-m", "dagster", "asset", "materialize"]
        words += ["--select", name, "-m", "analytics_assets"]
        code, peak, log = peak_memory(words, env, folder)
    assert code == 0, log[-2000:]
    with duckdb.connect(str(database), read_only=True) as connection:
        [found] = connection.execute(
            f"SELECT count(*), count(DISTINCT ({keys})) FROM analytics.{name}"
        ).fetchall()
    return found, peak


def test_a_server_that_never_answers_is_given_up(loaded: Project) -> None:
    """Prevents that a run hangs on a request that nobody answers: it ends before the answer."""
    before = everything(loaded, "labels")
    loaded.sandbox.intercept = lambda info: Reply(delay=HELD) if info.path == "/labels" else None
    result = loaded.materialize("labels", "roles", api={"timeout": 1, "retries": 1})
    assert loaded.sandbox.count("/labels") == 0
    message = failure_of(result)
    assert "labels (GET /labels): the connection to 127.0.0.1" in message
    assert "timed out, also after 1 retries" in message
    assert set(materialized(result)) == {"roles"}
    assert everything(loaded, "labels") == before


def test_a_host_that_is_not_there_is_named(loaded: Project) -> None:
    """Prevents that a wrong address ends in a traceback."""
    loaded.env["ANALYTICS_API_BASE_URL"] = "http://127.0.0.1:9"
    message = failure_of(loaded.materialize("labels"))
    assert "(GET /), so nothing was loaded: the connection to 127.0.0.1:9 failed" in message


WAITS = {
    "waiting for an answer": (Reply(delay=HELD), "", 0),
    "waiting for a rate limit": (
        Reply(429, b"{}", {"Retry-After": "300"}),
        "Waiting 300.0 s before the next request",
        1,
    ),
    "waiting for a retry": (Reply(503), "trying again in 60.0 s", 1),
}
"""What the API answers, what the run says, and how many answers it has had when it ends."""


@pytest.mark.parametrize(
    "wait",
    [
        "waiting for a retry",
        *(pytest.param(wait, marks=pytest.mark.heavy) for wait in list(WAITS)[:2]),
    ],
)
def test_sigterm_ends_a_run_cleanly(loaded: Project, wait: str) -> None:
    """Prevents that a stopped run hangs, or leaves a lock, a folder or half a table behind."""
    before = everything(loaded, "sources")
    reply, said, answers = WAITS[wait]
    asked = threading.Event()  # for sources: a rate limit may hold back all the others

    def intercept(info: RequestInfo) -> Reply | None:
        if info.path != "/sources":
            return None
        asked.set()
        return reply

    loaded.sandbox.intercept = intercept
    code, text = loaded.terminate(asked, said, "group:inventory", "--config-json", PATIENT)
    assert code != 0
    assert loaded.sandbox.count("/sources") == answers, text[-3000:]
    assert list((loaded.folder / "tmp").glob("analytics_assets_*")) == []
    assert everything(loaded, "sources") == before
    loaded.sandbox.intercept = None
    assert loaded.materialize("group:inventory", warehouse={"lock_timeout": 1}).success
    loaded.assert_equal(["sources", "destinations"])


PATIENT = json.dumps({"resources": {"api": {"config": {"backoff_factor": 60, "timeout": HELD}}}})
"""The client's own time-out must not be what ends the run."""


@pytest.mark.parametrize("loads", [2, pytest.param(20, marks=pytest.mark.heavy)])
def test_many_loads_through_a_bad_network(start: Callable[..., Project], loads: int) -> None:
    """Prevents that faults at random leave a wrong table behind, or a failure without a name."""
    counts = {"catalog_destinations": 20, "catalog_sources": 20, "audit_events": 200}
    project = start(Options(scale=0.02, counts=counts, fault_rate=0.2))
    project.env["ANALYTICS_USAGE_START"] = project.sandbox.clock().strftime("%Y-%m")
    this_month = [project.sandbox.clock().date().replace(day=1)]
    failures = 0
    for number in range(loads):
        tables = project.tables() if project.database.exists() else set()
        before = {name: everything(project, name) for name in tables}
        result = project.materialize(api={"max_wait": 5, "page_size": 50, "retries": 2})
        done, messages = set(materialized(result)), failure_of(result)
        for name in ALL_TABLES - done:
            failures += 1
            own = f"{name} (GET {BY_NAME[name].path}): " in messages
            assert own or (not done and "(GET /), so nothing" in messages), (number, name, messages)
            assert not before.get(name) or everything(project, name) == before[name]
        lists = [name for name in done if not BY_NAME[name].monthly]
        project.assert_equal(lists)
        for name in done.difference(lists):
            assert project.rows(name) == project.expected_usage(name, this_month)
    assert failures < loads * len(ALL_TABLES) / 4
