"""Measure the project against the original configuration and tuned dlt scripts.

``python -m analytics_assets_tests.benchmarks`` runs all in one go, alternating between the ways to
load, and prints tables of medians, spreads and ratios. Nothing is asserted: seconds belong to the
machine, and only ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import duckdb
import psycopg2
from dagster import DagsterInstance

from analytics_assets.sandbox import Options, Sandbox
from analytics_assets_tests.harness import clean_environment
from analytics_assets_tests.postgres import postgres_server, postgres_variables

COMPARED = (
    *("warehouses", "sources", "destinations", "reverse_etl_models", "transformations", "spaces"),
    *("catalog_destinations", "catalog_sources", "catalog_warehouses"),
    *("users", "roles", "labels", "audit_events"),
    *("usage_api_calls_daily", "usage_mtu_daily"),
    *("usage_api_calls_sources_daily", "usage_mtu_sources_daily"),
)
"""The assets of version 0.1, so that figures can be compared from version to version; the plain
scripts know of no other slice than months."""
ALL = ",".join(COMPARED)
WIDE = "sources"
SIZES = {
    "default": (Options(), ALL),
    "ten times": (Options(scale=10), ALL),
    "100,000 wide": (Options(counts={WIDE: 100_000}), WIDE),
}
"""Name, workspace and what is loaded of it."""
WAYS = ("project", "everything", "postgres", "original", "tuned", "arrow")
"""The project on DuckDB, the same with all assets and reports, on PostgreSQL, and three plain
scripts on DuckDB."""
OF_PROJECT = ("project", "everything", "postgres")


@dataclass(frozen=True)
class Cost:
    """What one load took: seconds, seconds of CPU, MB at the peak, and what it made.

    ``inner`` is the load without the start of the process: RUN_START to RUN_SUCCESS, or
    ``pipeline.run``.
    """

    wall: float
    inner: float
    cpu: float
    memory: float
    requests: int
    tables: int
    columns: int
    rows: int


def measure(way: str, sandbox: Sandbox, names: str, postgres: str = "") -> Cost:
    """Load ``names`` into a new database, in a process of its own.

    ``postgres`` is the address of a server, for the way of that name.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = project_environment(folder, sandbox)
        if way == "postgres":
            env.update(postgres_variables(postgres))
        database = Path(env["ANALYTICS_DUCKDB_PATH"])
        sandbox.clear()
        ended = run_process(_command(way, database, names), env, folder)
        inner = _run_seconds(name) if way in OF_PROJECT else float(ended.output.split()[-1])
        made = _made_on_postgres(env) if way == "postgres" else _made(database)
        return Cost(ended.wall, inner, ended.cpu, ended.memory, len(sandbox.requests), *made)


def project_environment(folder: Path, sandbox: Sandbox) -> dict[str, str]:
    """Return the environment of a process that loads from ``sandbox`` into a new database."""
    (folder / "tmp").mkdir()
    return {
        **clean_environment(folder),
        "ANALYTICS_API_BASE_URL": sandbox.url,
        "ANALYTICS_API_TOKEN": sandbox.token,
        "ANALYTICS_DUCKDB_PATH": str(folder / "benchmark.duckdb"),
        "DAGSTER_HOME": str(folder),
    }


@dataclass(frozen=True)
class Ended:
    """A process that ended well: seconds, seconds of CPU, MB at the peak, and what it printed."""

    wall: float
    cpu: float
    memory: float
    output: str


def run_process(command: Sequence[str], env: Mapping[str, str], folder: Path) -> Ended:
    """Run a command to its end; a failure ends the benchmark and shows the output."""
    start = perf_counter()
    with (folder / "output.txt").open("w+") as output:
        child = subprocess.Popen(command, env=env, cwd=folder, stdout=output, stderr=output)
        _, status, usage = os.wait4(child.pid, 0)
        wall = perf_counter() - start
        output.seek(0)
        text = output.read()
    if status != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{text[-3000:]}")
    return Ended(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, text)


def _command(way: str, database: Path, names: str) -> list[str]:
    if way in OF_PROJECT:
        main = [sys.executable, "-m", "dagster", "asset", "materialize"]
        select = "*" if way == "everything" else names
        return [*main, "--select", select, "-m", "analytics_assets"]
    module = "analytics_assets_tests.benchmarks.scripts"
    return [sys.executable, "-m", module, way, str(database), names]


def _run_seconds(folder: str) -> float:
    """Seconds from RUN_START to RUN_SUCCESS, from Dagster's own storage."""
    with DagsterInstance.from_config(folder) as instance:
        [run] = instance.get_run_records(limit=1)
        return float((run.end_time or 0) - (run.start_time or 0))


def _made(database: Path) -> tuple[int, int, int]:
    """Count tables, columns and rows of the dataset, without dlt's own tables."""
    with duckdb.connect(str(database), read_only=True) as connection:
        tables = connection.execute(
            "SELECT table_name, column_count FROM duckdb_tables()"
            " WHERE schema_name = 'analytics' AND table_name NOT LIKE '\\_dlt%' ESCAPE '\\'"
        ).fetchall()
        counts = [connection.table(f"analytics.{name}").shape[0] for name, _ in tables]
    return len(tables), sum(count for _, count in tables), sum(counts)


def _made_on_postgres(env: Mapping[str, str]) -> tuple[int, int, int]:
    with psycopg2.connect(env["DESTINATION__POSTGRES__CREDENTIALS"]) as connection:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT table_name, count(*) FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name NOT LIKE '\\_dlt%%' GROUP BY table_name",
            [env["ANALYTICS_DATASET"]],
        )
        tables = cursor.fetchall()
        rows = 0
        for name, _ in tables:
            cursor.execute(f'SELECT count(*) FROM "{env["ANALYTICS_DATASET"]}"."{name}"')
            rows += cursor.fetchall()[0][0]
    return len(tables), sum(count for _, count in tables), rows


@contextmanager
def _sandbox(options: Options, latency: float) -> Iterator[Sandbox]:
    """Serve in this process: the loads are measured in theirs."""
    values = {**options.__dict__, "latency": latency}
    with Sandbox(Options(**values)) as sandbox:
        yield sandbox


def compare(size: str, latency: float, ways: Sequence[str], rounds: int) -> None:
    """Measure the ways in turn, ``rounds`` times, and print the table."""
    options, names = SIZES[size]
    costs: dict[str, list[Cost]] = {way: [] for way in ways}
    with ExitStack() as stack:
        sandbox = stack.enter_context(_sandbox(options, latency))
        url = stack.enter_context(postgres_server()) if "postgres" in ways else ""
        for _ in range(rounds):
            for way in ways:
                costs[way].append(measure(way, sandbox, names, url))
    print(f"\n{size}, {latency * 1000:.0f} ms latency, {rounds} rounds: median (spread)")
    print("| way | wall s | load s | CPU s | peak MB | requests | tables | columns |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for way, found in costs.items():
        cells = [_cell(found, lambda c: c.wall), _cell(found, lambda c: c.inner)]
        cells += [_cell(found, lambda c: c.cpu), _cell(found, lambda c: c.memory, "{:.0f}")]
        last = found[-1]
        print(f"| {way} | {' | '.join(cells)} | {last.requests} | {last.tables} | {last.columns} |")
    _print_ratios(costs)


def _cell(costs: Sequence[Cost], pick: Callable[[Cost], float], form: str = "{:.2f}") -> str:
    values = [pick(cost) for cost in costs]
    spread = form.format(max(values) - min(values))
    return f"{form.format(statistics.median(values))} ({spread})"


def _print_ratios(costs: dict[str, list[Cost]]) -> None:
    def median(way: str, pick: Callable[[Cost], float]) -> float:
        return statistics.median(pick(cost) for cost in costs[way])

    for way in costs:
        if way == "project":
            continue
        ratios = {
            "process": median("project", lambda c: c.wall) / median(way, lambda c: c.wall),
            "load": median("project", lambda c: c.inner) / median(way, lambda c: c.inner),
            "memory": median("project", lambda c: c.memory) / median(way, lambda c: c.memory),
        }
        text = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
        print(f"project / {way}: {text}")


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--latencies", nargs="*", type=float, default=[0.0, 0.15])
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    words = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for size in words.sizes:
        for latency in words.latencies:
            compare(size, latency, words.ways, words.rounds)


if __name__ == "__main__":
    main()
