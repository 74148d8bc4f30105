"""Which windows of days are asked for, and what is remembered of them."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_assets.segment.model import Window
from analytics_assets.segment.windows import (
    LAG,
    LoadedDays,
    after_load,
    days_of,
    forgettable,
    windows_to_load,
)

pytestmark = pytest.mark.unit
WAY = Window(day="time")
NOW = datetime(2026, 3, 5, 6, 0, 30, tzinfo=timezone.utc)
MOMENTS = st.datetimes(datetime(2024, 1, 1), datetime(2027, 1, 1)).map(
    lambda moment: moment.replace(tzinfo=timezone.utc)
)
DAY = timedelta(days=1)


def planned(loaded: LoadedDays | None, *, overlap: int = 2, now: datetime = NOW) -> list[str]:
    """Return what a scheduled run asks for."""
    return windows_to_load(WAY, loaded, overlap, None, now)


def test_a_first_load_asks_for_ninety_days_in_windows_of_thirty() -> None:
    """Prevents windows that are too long for the API, or leave out a day between two of them."""
    assert planned(None) == [
        "2026-02-04T00:00:00.000Z/2026-03-05T05:58:00.000Z",
        "2026-01-05T00:00:00.000Z/2026-02-04T00:00:00.000Z",
        "2025-12-06T00:00:00.000Z/2026-01-05T00:00:00.000Z",
    ]


def test_later_loads_start_before_the_newest_day() -> None:
    """Prevents that a daily run reads ninety days, or that yesterday stays half counted."""
    loaded = LoadedDays(date(2025, 12, 5), date(2026, 3, 4))
    assert planned(loaded) == ["2026-03-02T00:00:00.000Z/2026-03-05T05:58:00.000Z"]
    assert planned(loaded, overlap=0) == ["2026-03-04T00:00:00.000Z/2026-03-05T05:58:00.000Z"]


def test_a_standstill_is_caught_up_with() -> None:
    """Prevents a hole after weeks without a run, and a window that is longer than allowed."""
    loaded = LoadedDays(date(2025, 10, 1), date(2026, 1, 20))
    assert [days_of(window) for window in planned(loaded)] == [
        (date(2026, 2, 4), date(2026, 3, 5)),
        (date(2026, 1, 18), date(2026, 2, 3)),
    ]


@pytest.mark.parametrize(
    ("again", "asked"),
    [
        ((date(2026, 3, 1), date(2026, 3, 1)), [(date(2026, 3, 1), date(2026, 3, 5))]),
        ((date(2026, 2, 1), date(2026, 2, 1)), [(date(2026, 2, 1), date(2026, 2, 28))]),
        (
            (date(2026, 1, 1), date(2026, 1, 1)),
            [(date(2026, 1, 2), date(2026, 1, 31)), (date(2026, 1, 1), date(2026, 1, 1))],
        ),
    ],
)
def test_a_reload_asks_for_the_days_of_its_months(
    again: tuple[date, date], asked: list[tuple[date, date]]
) -> None:
    """Prevents a reload of other days than those that were named."""
    loaded = LoadedDays(date(2025, 12, 5), date(2026, 3, 4))
    windows = windows_to_load(WAY, loaded, 2, again, NOW)
    assert [days_of(window) for window in windows] == asked


def test_the_first_minute_of_a_month_has_no_days_yet() -> None:
    """Prevents a window that ends before it starts."""
    now = datetime(2026, 3, 1, 0, 1, tzinfo=timezone.utc)
    assert windows_to_load(WAY, None, 2, (date(2026, 3, 1), date(2026, 3, 1)), now) == []
    assert days_of(planned(None, now=now)[0])[1] == date(2026, 2, 28)


def test_only_the_past_can_be_forgotten() -> None:
    """Prevents that the refusal of today passes for days that the API no longer has."""
    windows = planned(None)
    assert forgettable(windows, NOW) == set(windows[1:])


@given(
    MOMENTS,
    st.integers(0, 400),
    st.integers(0, 400),
    st.integers(0, 90),
)
def test_windows_leave_no_day_out(now: datetime, back: int, older: int, overlap: int) -> None:
    """Prevents holes and windows that overlap, whatever was loaded before."""
    newest = now.date() - back * DAY
    loaded = LoadedDays(newest - older * DAY, newest)
    windows = planned(loaded, overlap=overlap, now=now)
    assert windows == sorted(windows, reverse=True)
    spans = [days_of(window) for window in reversed(windows)]
    assert all(after[0] == before[1] + DAY for before, after in pairwise(spans))
    assert all((last - first).days < WAY.days for first, last in spans)
    assert (now - LAG - timedelta(minutes=1)).date() <= spans[-1][1] <= now.date()
    assert spans[0][0] <= newest


@given(MOMENTS, st.lists(st.integers(0, 60), max_size=6), st.integers(0, 5))
def test_runs_one_after_the_other_leave_no_hole(
    now: datetime, gaps: list[int], overlap: int
) -> None:
    """Prevents a state that runs ahead of the rows: each run goes on where the last one ended."""
    loaded: LoadedDays | None = None
    have: set[date] = set()
    for gap in [0, *gaps]:
        now += gap * DAY
        windows = planned(loaded, overlap=overlap, now=now)
        for first, last in map(days_of, windows):
            have |= {first + n * DAY for n in range((last - first).days + 1)}
        loaded = after_load(loaded, windows, (), max(have))
    assert loaded is not None
    assert len(have) == (max(have) - min(have)).days + 1
    assert max(have) == loaded.newest


def test_a_refused_window_is_not_asked_for_again() -> None:
    """Prevents that every run asks for days which the API has forgotten."""
    windows = planned(None)
    loaded = after_load(None, windows, windows[1:], date(2026, 3, 5))
    assert loaded == LoadedDays(date(2025, 12, 6), date(2026, 3, 5))
    assert len(planned(loaded)) == 1
    assert after_load(None, windows, windows, None) is None


def test_quiet_days_count_as_loaded() -> None:
    """Prevents that a workspace without events looks back ninety days on every run."""
    loaded = after_load(None, planned(None), (), None)
    assert loaded == LoadedDays(date(2025, 12, 6), date(2026, 3, 5))


def test_a_reload_leaves_no_hole() -> None:
    """Prevents that a reload of one month makes the next run skip the days around it."""
    january = windows_to_load(WAY, None, 2, (date(2026, 1, 1), date(2026, 1, 1)), NOW)
    first = after_load(None, january, (), date(2026, 1, 31))
    assert first == LoadedDays(date(2026, 1, 1), date(2026, 1, 31))
    assert len(planned(first)) == 3
    before = LoadedDays(date(2025, 10, 1), date(2025, 12, 30))
    assert after_load(before, january, (), date(2026, 1, 31)) == before
    later = LoadedDays(date(2026, 2, 10), date(2026, 3, 4))
    assert after_load(later, january, (), date(2026, 1, 31)) == later
    touching = LoadedDays(date(2026, 2, 1), date(2026, 3, 4))
    assert after_load(touching, january, (), date(2026, 1, 31)) == LoadedDays(
        date(2026, 1, 1), date(2026, 3, 4)
    )


def test_state_comes_back_as_it_was() -> None:
    """Prevents that the next run starts from the beginning, or trips over a foreign state."""
    loaded = LoadedDays(date(2026, 1, 1), date(2026, 1, 31))
    assert LoadedDays.from_state(loaded.to_state()) == loaded
    assert LoadedDays.from_state({"first_month": "2026-01-01", "newest_day": "2026-01-31"}) is None
