"""Where the seconds of ``dagster asset materialize`` go, span by span.

``python -m analytics_assets_tests.benchmarks.profile [--scale N] [--latency-ms N] [--rounds N]``
serves a sandbox in this process, loads all of it into a new DuckDB file with a ``DAGSTER_HOME`` of
its own, each round in a new process, and prints a table of medians. What each span covers is told
in ``analytics_assets/segment/spans.py``.

The rows of the main thread, with ``other``, add up to the wall time of the process: ``other`` is
what no span covers, such as Dagster's own work between steps and the end of the interpreter. The
thread that loads runs beside it, and so do those that read; theirs are thread seconds, summed over
all of them, which may exceed the wall time. CPU seconds are those of the span's own thread; what
runs in threads that have no span, such as DuckDB's and those of dlt's load step, is in ``other``.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from analytics_assets.sandbox import Options, Sandbox
from analytics_assets.segment.spans import SPANS, Figures
from analytics_assets_tests.benchmarks.__main__ import project_environment, run_process

OTHER = "other"


@dataclass(frozen=True)
class Profile:
    """One run: seconds and CPU seconds of the process, and the figures of its spans by name.

    ``critical`` is the main thread's, and has a row ``other`` that completes it; ``loading`` is
    that of the thread that loads, ``aside`` that of all other threads.
    """

    wall: float
    cpu: float
    critical: dict[str, Figures]
    loading: dict[str, Figures]
    aside: dict[str, Figures]


def measure_spans(sandbox: Sandbox) -> Profile:
    """Load all that ``sandbox`` serves into a new database, in a process of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder, report = Path(name), Path(name) / "spans.json"
        env = project_environment(folder, sandbox)
        module = "analytics_assets_tests.benchmarks.profiled"
        words = ["asset", "materialize", "--select", "*", "-m", "analytics_assets"]
        command = [sys.executable, "-m", module, str(time.time()), str(report), *words]
        ended = run_process(command, env, folder)
        lanes = {
            lane: {name: Figures(**figures) for name, figures in spans.items()}
            for lane, spans in json.loads(report.read_text()).items()
        }
    known = [figures for lane in lanes.values() for figures in lane.values()]
    critical = lanes["critical"]
    critical[OTHER] = Figures(
        ended.wall - sum(figures.seconds for figures in critical.values()),
        ended.cpu - sum(figures.cpu for figures in known),
    )
    return Profile(ended.wall, ended.cpu, **lanes)


def print_table(profiles: Sequence[Profile]) -> None:
    """Print the median of each figure, and its share of the wall time."""
    wall = statistics.median(profile.wall for profile in profiles)
    cpu = statistics.median(profile.cpu for profile in profiles)
    lanes = ("main thread s | share", "loading s", "reading s")
    print("| span |", " | ".join(f"{lane} | CPU s | count" for lane in lanes), "|")
    print("| --- |", " | ".join(["---:"] * 10), "|")
    for name in (*SPANS, OTHER):
        main = _median([profile.critical.get(name) for profile in profiles])
        loading = _median([profile.loading.get(name) for profile in profiles])
        aside = _median([profile.aside.get(name) for profile in profiles])
        share = f"{main.seconds / wall:.0%}" if main else ""
        print(f"| {name} | {_cells(main, share)} | {_cells(loading)} | {_cells(aside)} |")
    print(f"| process | {wall:.2f} | 100% | {cpu:.2f} |" + " |" * 7)


def _median(found: Sequence[Figures | None]) -> Figures | None:
    figures = [one for one in found if one]
    if not figures:
        return None

    def median(pick: Callable[[Figures], float]) -> float:
        return statistics.median(pick(one) for one in figures)

    return Figures(median(lambda f: f.seconds), median(lambda f: f.cpu), figures[-1].count)


def _cells(figures: Figures | None, *shares: str) -> str:
    if figures is None:
        return " | ".join(["", *shares, "", ""])
    seconds, cpu = f"{figures.seconds:.2f}", f"{figures.cpu:.2f}"
    return " | ".join([seconds, *shares, cpu, str(figures.count or "")])


def main() -> None:
    """Parse the command line and measure."""
    parser = argparse.ArgumentParser(prog="profile", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    options = Options(scale=words.scale, latency=words.latency_ms / 1000)
    with Sandbox(options) as sandbox:
        profiles = [measure_spans(sandbox) for _ in range(words.rounds)]
    print(
        f"{os.cpu_count()} cores, Python {sys.version.split()[0]}, load average"
        f" {os.getloadavg()[0]:.1f}; size {words.scale:g}, {words.latency_ms:g} ms latency, median"
        f" of {words.rounds}\n"
    )
    print_table(profiles)


if __name__ == "__main__":
    main()
