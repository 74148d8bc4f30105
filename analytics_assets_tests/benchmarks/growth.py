"""Cost against size, on paper and measured.

``python -m analytics_assets_tests.benchmarks.growth [--everything] [SCALE ...]`` prints a row for
each scale. For the seventeen assets of version 0.1: what a load asks for by arithmetic, what it did
ask for, and what it took; for all assets and reports what it took.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import date, datetime, timezone
from math import ceil

from analytics_assets.docs.costs import EVERY_RUN
from analytics_assets.sandbox import Options, Sandbox
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.model import Endpoint
from analytics_assets_tests.benchmarks.__main__ import ALL, COMPARED, measure

ENDPOINTS = tuple(BY_NAME[name] for name in COMPARED)
PAGE = 1000
PER_MINUTE = 600
"""A limit that the API's reference names for some endpoints; the default one is not published."""
SENSOR_TICKS = 24 * 60
"""Looks of the sensor in a day, at its default of one a minute."""
MONTHS = 13


def pages(rows: int) -> int:
    """Requests for a list of so many rows: at least one."""
    return max(1, ceil(rows / PAGE))


def requests_of(endpoint: Endpoint, sandbox: Sandbox, today: date, months: int) -> int:
    """Requests for one endpoint; of usage so many months, the current one among them."""
    counts = sandbox.workspace.counts
    if not endpoint.paginated:
        return 1
    if not endpoint.monthly:
        return pages(counts[endpoint.name])
    sources = counts["sources"] if len(endpoint.primary_key) > 1 else 1
    last = today.year * 12 + today.month - 1
    total = 0
    for month in range(last - months + 1, last + 1):
        first = date(month // 12, month % 12 + 1, 1)
        after = date((month + 1) // 12, (month + 1) % 12 + 1, 1)
        days = (min(after, today) - first).days if after <= today else today.day
        total += pages(sources * days)
    return total


def main(scales: Sequence[float], *, everything: bool) -> None:
    """Print the table."""
    columns = ["size", "rows", "requests", "load s", "peak MB", "tables"]
    if not everything:
        columns[2:3] = ["requests, on paper", "measured", "minutes at 600 a minute"]
        columns[-1:] = ["later load", "hourly, a day", "sensor, a day"]
    print(f"| {' | '.join(columns)} |")
    print(f"| {' | '.join('---' for _ in columns)} |")
    for scale in scales:
        with Sandbox(Options(scale=scale)) as sandbox:
            cells = _of_everything(sandbox) if everything else _of_the_first(sandbox)
        print(f"| {' | '.join([f'{scale:g} x', *cells])} |", flush=True)


def _of_everything(sandbox: Sandbox) -> list[str]:
    cost = measure("everything", sandbox, ALL)
    figures = (cost.rows, cost.requests, cost.inner, cost.memory, cost.tables)
    return [f"{figure:,.0f}" for figure in figures]


def _of_the_first(sandbox: Sandbox) -> list[str]:
    today = datetime.now(timezone.utc).date()
    first = EVERY_RUN + sum(requests_of(e, sandbox, today, MONTHS) for e in ENDPOINTS)
    lists = sum(requests_of(e, sandbox, today, 2) for e in ENDPOINTS if e.full_list)
    usage = sum(requests_of(e, sandbox, today, 2) for e in ENDPOINTS if e.monthly)
    cost = measure("project", sandbox, ALL)
    later = EVERY_RUN + lists + usage + 1  # audit events: what is new fits a page
    cells = [f"{cost.rows:,}", f"{first:,}", f"{cost.requests:,}", f"{first / PER_MINUTE:.1f}"]
    cells += [f"{cost.inner:.0f}", f"{cost.memory:.0f}"]
    return [*cells, f"{later:,}", f"{first * 24:,}", f"{SENSOR_TICKS + later:,}"]


if __name__ == "__main__":
    words = sys.argv[1:]
    sizes = [float(word) for word in words if word != "--everything"]
    main(sizes or [1, 10, 100], everything="--everything" in words)
