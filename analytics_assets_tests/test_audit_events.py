"""The audit trail against the sandbox: every event exactly once, at the cost of what is new."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from analytics_assets.sandbox import Bounds, Options, Order, Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.harness import Project, assert_same, expected_rows, failure_of
from analytics_assets_tests.timetravel import at, start_at, utc

Start = Callable[..., Project]
PAGE = 50
NOW = utc(2026, 3, 5, 12)


class Trail:
    """The audit trail of a project, and every event that a run could have seen."""

    def __init__(self, project: Project, page: int = PAGE, **api: Any) -> None:
        self.project = project
        self.served: dict[str, dict[str, Any]] = {}
        self._api = {"page_size": page, **api}
        self._page = page
        self._overlap = timedelta(minutes=api.get("audit_overlap_minutes", 15))
        self._newest: datetime | None = None

    def event(self, ago: timedelta = timedelta(0), **fields: str) -> None:
        """Write an event now that is dated some time ago."""
        moment = self.project.sandbox.clock() - ago
        step = "milliseconds" if self.project.sandbox.options.audit_fractions else "seconds"
        text = moment.replace(tzinfo=None).isoformat(timespec=step) + "Z"
        self.project.sandbox.workspace.add_event(timestamp=text, **fields)

    def run(self, moment: datetime) -> None:
        """Load at ``moment`` and check the table and the price."""
        with at(self.project, moment):
            assert failure_of(self.project.materialize("audit_events", api=self._api)) == ""
            self.see()
            self.assert_equal()
            self._check_price()

    def see(self) -> None:
        """Remember what is served now."""
        self.served |= {event["id"]: event for event in self.project.sandbox.served("audit_events")}

    def assert_equal(self) -> None:
        """Assert that the table holds every event ever served, each once."""
        expected = expected_rows(BY_NAME["audit_events"], self.served.values())
        assert_same("audit_events", self.project.rows("audit_events"), expected)

    def _check_price(self) -> None:
        """At most ceil((new + overlap) / page size) + 1 requests."""
        moments = [parsed(event) for event in self.project.sandbox.served("audit_events")]
        asked = moments
        if self._newest is not None:
            asked = [moment for moment in moments if moment >= self._newest - self._overlap]
        requests = self.project.sandbox.count("/audit-events")
        assert requests <= math.ceil(len(asked) / self._page) + 1
        self._newest = max(moments, default=self._newest)


def parsed(event: dict[str, Any]) -> datetime:
    """Return the moment of an event."""
    return datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00"))


def started(start: Start, events: int = 60, **options: Any) -> Project:
    """Start a sandbox with a short audit trail that ends at NOW."""
    return start_at(start, NOW, Options(counts={"sources": 1, "audit_events": events}, **options))


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("bounds", ["inclusive", "exclusive"])
@pytest.mark.parametrize("fractions", [False, True])
def test_every_event_once_whatever_the_api_does(
    start: Start, order: Order, bounds: Bounds, fractions: bool
) -> None:
    """Prevents events lost or doubled at a window's edge, at a page's edge or for being late.

    The second run meets 130 events of one second over three pages, right where the first run
    stopped; then events arrive that are dated up to ten minutes ago.
    """
    project = started(start, audit_order=order, audit_bounds=bounds, audit_fractions=fractions)
    trail = Trail(project)
    project.sandbox.clock = NOW + timedelta(milliseconds=100)
    for _ in range(3):
        trail.event()
    trail.run(NOW + timedelta(milliseconds=500))
    project.sandbox.clock = NOW + timedelta(milliseconds=100)
    for number in range(130):
        trail.event(resourceName=f"burst {number}")
    trail.run(NOW + timedelta(minutes=5))
    for minutes in (10, 9.99, 5, 1, 0):
        trail.event(timedelta(minutes=minutes))
    trail.run(NOW + timedelta(minutes=5, seconds=30))
    assert len(project.rows("audit_events")) == 60 + 3 + 130 + 5


def test_a_run_a_day_for_ten_days(start: Start) -> None:
    """Prevents daily runs that read the whole trail again, or drop what the API has forgotten."""
    trail = Trail(started(start, events=400))
    trail.run(NOW)
    for day in range(1, 11):
        now = NOW + timedelta(days=day)
        for hours in range(0, 24, 2):
            trail.project.sandbox.clock = now - timedelta(hours=hours)
            trail.event()
        trail.run(now)
    forgotten = trail.served.keys() - {
        e["id"] for e in trail.project.sandbox.served("audit_events")
    }
    assert len(forgotten) > 10


def test_seventy_days_without_a_run_lose_nothing(start: Start) -> None:
    """Prevents a standstill from losing events that the API still has, or older rows."""
    trail = Trail(started(start, events=300), page=1000)
    trail.run(NOW)
    for hours in range(1, 70 * 24, 7):
        trail.project.sandbox.clock = NOW + timedelta(hours=hours)
        trail.event()
    trail.run(NOW + timedelta(days=70))
    assert len(trail.served) == 300 + 240


def test_an_empty_trail_is_not_a_missing_one(start: Start) -> None:
    """Prevents a workspace without any event from failing, or its first event from being missed."""
    trail = Trail(started(start, events=0))
    trail.run(NOW)
    trail.run(NOW + timedelta(days=1))
    trail.project.sandbox.clock = NOW + timedelta(days=1)
    trail.event(timedelta(minutes=30))
    trail.run(NOW + timedelta(days=1, minutes=1))


def test_events_that_arrive_between_two_pages(start: Start) -> None:
    """Prevents losing what is written while the pages are read: the next run has it."""
    project = started(start, events=120, audit_order="desc")
    trail = Trail(project)

    def write_meanwhile(info: RequestInfo) -> None:
        if info.number in (1, 2):
            project.sandbox.clock = NOW + timedelta(minutes=info.number)
            trail.event()
            trail.event(timedelta(minutes=10))

    project.sandbox.intercept = write_meanwhile
    with at(project, NOW):
        assert failure_of(project.materialize("audit_events", api={"page_size": PAGE})) == ""
    project.sandbox.intercept = None
    trail.run(NOW + timedelta(minutes=3))
    assert len(project.rows("audit_events")) == 124


@pytest.mark.parametrize("minutes", [1, 15, 600])
def test_the_overlap_can_be_set(start: Start, minutes: int) -> None:
    """Prevents a setting that is shown but not used; 600 minutes catch an event ten hours late."""
    project = started(start, audit_bounds="exclusive")
    trail = Trail(project, audit_overlap_minutes=minutes)
    project.sandbox.clock = NOW
    trail.event()
    trail.run(NOW + timedelta(seconds=1))
    late = timedelta(minutes=minutes) - timedelta(seconds=30)
    project.sandbox.clock = NOW
    trail.event(late)
    trail.run(NOW + timedelta(hours=1))
    [asked] = [i.params["startTime"] for i in project.sandbox.requests if i.path == "/audit-events"]
    start_time = datetime.fromisoformat(asked.replace("Z", "+00:00"))
    assert start_time == NOW - timedelta(minutes=minutes)


def test_a_failed_page_moves_nothing(start: Start) -> None:
    """Prevents the window from moving past events of a reading that broke off."""
    project = started(start, events=200)
    trail = Trail(project)
    trail.run(NOW)
    project.sandbox.clock = NOW + timedelta(hours=1)
    for _ in range(120):
        trail.event()

    def break_second_page(info: RequestInfo) -> Reply | None:
        return Reply(500) if "pagination.cursor" in info.params else None

    project.sandbox.intercept = break_second_page
    with at(project, NOW + timedelta(hours=2)):
        api = {"page_size": PAGE, "retries": 0}
        assert "audit_events" in failure_of(project.materialize("audit_events", api=api))
    trail.assert_equal()
    project.sandbox.intercept = None
    trail.run(NOW + timedelta(hours=3))
