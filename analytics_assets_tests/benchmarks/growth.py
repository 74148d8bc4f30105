"""Cost against size, on paper and measured.

``python -m analytics_assets_tests.benchmarks.growth [SCALE ...]`` prints a row for each scale: what
a load asks for by arithmetic, what it did ask for, and what it took.
"""

from __future__ import annotations

import sys
from datetime import date, datetime, timezone
from math import ceil

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


def main(scales: list[float]) -> None:
    """Print the table."""
    print("| size | rows | requests, on paper | measured | minutes at 600 a minute |", end="")
    print(" load s | peak MB | later load | hourly, a day | sensor, a day |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for scale in scales:
        with Sandbox(Options(scale=scale)) as sandbox:
            today = datetime.now(timezone.utc).date()
            first = sum(requests_of(e, sandbox, today, MONTHS) for e in ENDPOINTS)
            lists = sum(requests_of(e, sandbox, today, 2) for e in ENDPOINTS if e.full_list)
            usage = sum(requests_of(e, sandbox, today, 2) for e in ENDPOINTS if e.monthly)
            rows = _rows(sandbox, today)
            cost = measure("project", sandbox, ALL)
        later = lists + usage + 1  # audit events: what is new fits a page
        by_sensor = SENSOR_TICKS + later
        cells = [f"{scale:g} x", f"{rows:,}", f"{first:,}", f"{cost.requests:,}"]
        cells += [f"{first / PER_MINUTE:.1f}", f"{cost.inner:.0f}", f"{cost.memory:.0f}"]
        cells += [f"{later:,}", f"{first * 24:,}", f"{by_sensor:,}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def _rows(sandbox: Sandbox, today: date) -> int:
    counts = sandbox.workspace.counts
    lists = sum(counts[endpoint.name] for endpoint in ENDPOINTS if not endpoint.monthly)
    first = date(today.year - 1, today.month, 1)
    return lists + 2 * (1 + counts["sources"]) * ((today - first).days + 1)


if __name__ == "__main__":
    main([float(word) for word in sys.argv[1:]] or [1, 10, 100])
