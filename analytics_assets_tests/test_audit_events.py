"""The audit trail against the sandbox: every event exactly once, at the cost of what is new."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics_assets.sandbox import Bounds, Options, Order, Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.faults import execute
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


class DatedTrail:
    """An audit trail whose events carry any time, or none, in place of the sandbox's."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.events: list[dict[str, Any]] = []
        self.fails_at = 0
        project.sandbox.intercept = self._answer

    def write(self, text: str | None) -> None:
        """Write an event that is dated so."""
        number = len(self.events)
        self.events.append({"id": f"events/{number}", "timestamp": text, "type": "Source Created"})

    def run(self, moment: datetime, **options: Any) -> bool:
        """Load at a moment; tell whether that went well."""
        with at(self.project, moment):
            return self.project.materialize("audit_events", **options).success

    def ids(self) -> list[str]:
        """Return the ids of the events in the table."""
        return sorted(
            (row["id"] for row in self.project.rows("audit_events")),
            key=lambda text: int(text.removeprefix("events/")),
        )

    def _answer(self, info: RequestInfo) -> Reply | None:
        if info.path != "/audit-events":
            return None
        offset = int(info.params.get("pagination.cursor", "0"))
        if self.fails_at and offset >= self.fails_at - 1:
            return Reply(500)
        start = info.params.get("startTime", "0001-01-01T00:00:00Z")
        due = [e for e in self.events if not e["timestamp"] or parsed(e) >= moment_of(start)]
        size = int(info.params["pagination.count"])
        following = offset + size
        cursor = {"next": str(following)} if following < len(due) else {}
        data = {"events": due[offset:following], "pagination": {"current": "x", **cursor}}
        return Reply(body=orjson.dumps({"data": data}))


def moment_of(text: str) -> datetime:
    """Return the moment that a text names."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@pytest.mark.parametrize("ahead", ["2026-03-06T12:00:00Z", "9999-12-31T23:59:59.999Z"])
def test_an_event_dated_ahead_costs_no_later_one(start: Start, ahead: str) -> None:
    """Prevents that everything after one event with a wrong clock is never asked for again."""
    trail = DatedTrail(started(start))
    trail.write("2026-03-05T11:00:00Z")
    trail.write(ahead)
    assert trail.run(NOW)
    trail.write("2026-03-05T13:00:00Z")
    trail.write("2026-03-05T17:00:00Z")
    assert trail.run(NOW + timedelta(hours=6))
    assert trail.ids() == [f"events/{n}" for n in range(4)]
    trail.write("2026-03-05T18:30:00Z")
    assert trail.run(NOW + timedelta(hours=12))
    assert trail.ids() == [f"events/{n}" for n in range(5)]


def test_events_are_loaded_again_from_a_day(start: Start) -> None:
    """Prevents that audit_start is shown and ignored: what was deleted by hand comes back."""
    trail = DatedTrail(started(start))
    for day in range(1, 6):
        trail.write(f"2026-03-0{day}T10:00:00Z")
    assert trail.run(NOW)
    execute(trail.project, "DELETE FROM analytics.audit_events WHERE id < 'events/4'")
    assert trail.run(NOW)
    assert trail.ids() == ["events/4"]
    assert trail.run(NOW, config={"audit_start": "2026-03-02"})
    assert trail.ids() == ["events/1", "events/2", "events/3", "events/4"]
    trail.write("2026-03-05T12:30:00Z")
    assert trail.run(NOW + timedelta(hours=1))
    requests = trail.project.sandbox.requests
    asked = [moment_of(i.params["startTime"]) for i in requests if i.path == "/audit-events"]
    assert asked == [NOW - timedelta(hours=2, minutes=15)]  # it goes on from the newest event


ZONES = (timezone.utc, timezone(timedelta(hours=2)), timezone(-timedelta(hours=9, minutes=30)))


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[timedelta, list[tuple[float, int]], int]]:
    """Draw runs: the time until each, the events before it, and where its reading fails.

    An event is a share (below 0 it has no time, below 1 it comes late, else it lies ahead) and a
    time zone.
    """
    share = st.integers(-20, 130).map(lambda percent: percent / 100)
    event = st.tuples(share, st.integers(0, 2))
    step = st.tuples(
        st.timedeltas(timedelta(minutes=1), timedelta(days=3)),
        st.lists(event, max_size=5),
        st.sampled_from((0, 0, 0, 1, 3)),
    )
    return draw(st.lists(step, min_size=1, max_size=4))


def check_history(project: Project, overlap: int, page: int, history: Any) -> None:
    """Write events and load; after each good run all that is there is in the table, once."""
    trail = DatedTrail(project)
    project.database.unlink(missing_ok=True)
    now = NOW
    options = {"page_size": page, "audit_overlap_minutes": overlap, "retries": 0}
    for pause, events, fails_at in [*history, (timedelta(hours=1), [(0.5, 0)], 0)]:
        now += pause
        for share, zone in events:
            late = timedelta(minutes=overlap) * share
            moment = now - late if share < 1 else now + timedelta(days=2000) * (share - 1)
            text = moment.astimezone(ZONES[zone]).isoformat(timespec="milliseconds")
            trail.write(None if share < 0 else text)
        trail.fails_at = fails_at
        if trail.run(now, api=options):
            assert trail.ids() == [event["id"] for event in trail.events]
        else:
            assert fails_at


SOME = settings(deadline=None, suppress_health_check=list(HealthCheck))


@settings(SOME, max_examples=5)
@given(st.integers(1, 600), st.integers(1, 4), histories())
def test_every_event_once_whatever_its_time(
    project: Project, overlap: int, page: int, history: Any
) -> None:
    """Prevents events lost or doubled by odd times, late ones within the overlap, or failures."""
    check_history(project, overlap, page, history)


@pytest.mark.heavy
@settings(SOME, max_examples=100)
@given(st.integers(1, 600), st.integers(1, 4), histories())
def test_every_event_once_in_hundreds_of_runs(
    project: Project, overlap: int, page: int, history: Any
) -> None:
    """Prevents what the quick lane is too short to find."""
    check_history(project, overlap, page, history)
