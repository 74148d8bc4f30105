"""Run the project at other moments than now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime, timezone

import time_machine

from analytics_assets.sandbox import Options
from analytics_assets.segment.endpoints import in_group
from analytics_assets.segment.months import month_range
from analytics_assets_tests.harness import Project, assert_same

USAGE = tuple(endpoint.name for endpoint in in_group("usage") if endpoint.monthly)


def start_at(
    start: Callable[..., Project], moment: datetime, options: Options, **env: str
) -> Project:
    """Start a sandbox whose audit trail ends at ``moment``."""
    with time_machine.travel(moment, tick=True):
        return start(options, **env)


@contextmanager
def at(project: Project, moment: datetime) -> Iterator[None]:
    """Put the sandbox and this process at ``moment`` and forget the requests so far.

    The sandbox stands still, so that what it serves stays served; the clock of the process ticks
    on, and ``time.monotonic``, which time-outs and waits go by, is left alone.
    """
    project.sandbox.clock = moment
    project.sandbox.clear()
    with time_machine.travel(moment, tick=True):
        yield


def utc(year: int, month: int, day: int, hour: int = 6, minute: int = 0) -> datetime:
    """Return a moment in UTC."""
    return datetime(year, month, day, hour, minute, tzinfo=timezone.utc)


def months_asked(project: Project, name: str) -> list[str]:
    """Return the months of usage that were asked for, in order, ``YYYY-MM``; first pages only."""
    path = next(e.path for e in in_group("usage") if e.name == name)
    return sorted(
        info.params["period"][:7]
        for info in project.sandbox.requests
        if info.path == path and "pagination.cursor" not in info.params
    )


def assert_usage(
    project: Project, first: date, names: Sequence[str] = USAGE, *, last: date | None = None
) -> None:
    """Assert that usage tables hold what the sandbox serves now from ``first`` month on."""
    months = month_range(first, last or project.sandbox.clock().date())
    for name in names:
        assert_same(name, project.rows(name), project.expected_usage(name, months))
