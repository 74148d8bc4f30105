"""Which months a usage run asks for: properties over any day, month, year and history of runs."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.months import (
    EARLIEST,
    GRACE,
    Loaded,
    after_load,
    month_of,
    month_range,
    months_to_load,
    parse_month,
    reload_range,
    shift,
    usage_start,
)

pytestmark = pytest.mark.unit
FIRST_DAY, LAST_DAY = EARLIEST, date(2032, 12, 31)
DAYS = st.dates(FIRST_DAY, LAST_DAY)
MONTHS = DAYS.map(month_of)
SLIPS = st.one_of(st.none(), st.integers(0, 60))
"""How many days the newest row of an answer lies back; ``None``: there was no row at all."""


def index(month: date) -> int:
    """Number months without a gap, worked out apart from the code under test."""
    return month.year * 12 + month.month


def served_until(today: date, months: list[date], slip: int | None) -> date | None:
    """Return the newest day among ``months`` that the API serves when it is ``slip`` days late."""
    if slip is None:
        return None
    end = date.fromordinal(shift(months[-1], 1).toordinal() - 1)
    newest = min(today, end) - timedelta(days=slip)
    return newest if newest >= months[0] else None


class History:
    """What runs have read: for each month the day of the latest reading, and dlt's state."""

    def __init__(self) -> None:
        self.state: Loaded | None = None
        self.read_on: dict[date, date] = {}

    def run(self, months: list[date], today: date, slip: int | None) -> None:
        """Note that ``months`` were read and loaded."""
        self.read_on.update(dict.fromkeys(months, today))
        newest = served_until(today, months, slip)
        self.state = after_load(self.state, months, newest)
        if self.state:
            self.state = Loaded.from_state(self.state.to_state())

    def assert_no_hole(self, start: date, today: date) -> None:
        """Every month from ``start`` was read after it had ended, the current one today."""
        for month in month_range(start, today):
            assert month in self.read_on, f"{month} was never read"
            ended = shift(month, 1) <= self.read_on[month]
            assert ended or self.read_on[month] == today, f"the end of {month} was never read"


@given(DAYS, st.integers(-400, 400))
def test_shift_and_month_of_agree_with_counting(day: date, by: int) -> None:
    """Prevents a month lost or doubled where the year changes."""
    month = month_of(day)
    assert (month.day, index(month)) == (1, day.year * 12 + day.month)
    assert index(shift(month, by)) == index(month) + by
    assert shift(shift(month, by), -by) == month


@given(MONTHS, MONTHS)
def test_month_range_is_sorted_without_gap(first: date, last: date) -> None:
    """Prevents a range that leaves out its ends or a month in between."""
    months = month_range(first, last)
    assert [index(m) for m in months] == list(range(index(first), index(last) + 1))


@given(MONTHS, DAYS)
def test_a_first_load_takes_everything_from_the_start(start: date, today: date) -> None:
    """Prevents a first load that stops short of the current month or begins late."""
    months = months_to_load(None, start, today)
    assert [index(m) for m in months] == list(range(index(start), index(today) + 1))


@given(DAYS, DAYS, MONTHS, st.integers(0, 30))
def test_later_runs_connect_to_what_is_loaded(
    newest: date, today: date, start: date, held: int
) -> None:
    """Prevents a hole between the newest loaded day and now, and months asked for twice."""
    newest, today = sorted((newest, today))
    start = min(start, month_of(today))
    loaded = Loaded(shift(month_of(newest), -held), newest)
    months = months_to_load(loaded, start, today)
    assert months == sorted(set(months))
    again = [m for m in months if m >= loaded.first]
    assert month_of(newest) >= again[0] or month_of(newest) < loaded.first
    assert [index(m) for m in again] == list(range(index(again[0]), index(today) + 1))
    older = [m for m in months if m < loaded.first]
    assert older == month_range(start, shift(loaded.first, -1))


@given(DAYS, st.integers(0, GRACE.days), st.integers(1, 40))
def test_daily_runs_ask_for_two_months_at_most(newest: date, pause: int, held: int) -> None:
    """Prevents a daily run that costs more than the previous and the current month."""
    today = newest + timedelta(days=pause)
    loaded = Loaded(shift(month_of(newest), -held), newest)
    months = months_to_load(loaded, loaded.first, today)
    assert months == [shift(month_of(today), -1), month_of(today)]


@given(DAYS, st.integers(8, 3000))
def test_after_a_gap_the_month_before_the_newest_day_is_read_again(newest: date, gap: int) -> None:
    """Prevents late corrections of the last loaded days from being missed after a standstill."""
    today = newest + timedelta(days=gap)
    loaded = Loaded(date(FIRST_DAY.year - 1, 1, 1), newest)
    months = months_to_load(loaded, loaded.first, today)
    assert months[0] == min(shift(month_of(newest), -1), shift(month_of(today), -1))


@given(DAYS, MONTHS, st.integers(1, 40), SLIPS)
def test_an_earlier_start_fetches_the_older_months_once(
    today: date, start: date, earlier: int, slip: int | None
) -> None:
    """Prevents an earlier ANALYTICS_USAGE_START from being ignored, or paid for on every run."""
    start = min(start, month_of(today))
    history = History()
    history.run(months_to_load(None, start, today), today, slip)
    before = shift(start, -earlier)
    second = months_to_load(history.state, before, today)
    assert set(month_range(before, shift(start, -1))) <= set(second)
    history.run(second, today, slip)
    third = months_to_load(history.state, before, today)
    assert not set(third) & set(month_range(before, shift(month_of(today), -2)))
    history.assert_no_hole(before, today)


@given(DAYS, MONTHS, st.integers(1, 40), SLIPS)
def test_a_later_start_changes_nothing(
    today: date, start: date, later: int, slip: int | None
) -> None:
    """Prevents a start that moves on, as the default does, from cutting off the window."""
    start = min(start, month_of(today))
    history = History()
    history.run(months_to_load(None, start, today), today, slip)
    moved = min(shift(start, later), month_of(today))
    assert months_to_load(history.state, moved, today) == months_to_load(
        history.state, start, today
    )


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["run", "run", "run", "fail", "reload", "start"]),
        st.one_of(st.integers(0, 3), st.integers(0, 130)),
        st.integers(0, 30),
        st.integers(0, 30),
        SLIPS,
    ),
    min_size=1,
    max_size=25,
)


@given(DAYS, st.integers(0, 20), STEPS)
def test_no_history_of_runs_leaves_a_hole(
    today: date, back: int, steps: list[tuple[str, int, int, int, int | None]]
) -> None:
    """Prevents holes of whatever cause: pauses, failures, reloads, other starts, late rows."""
    history = History()
    start = shift(month_of(today), -back)
    for what, pause, far, long, slip in steps:
        today += timedelta(days=pause)
        if what == "start":
            start = shift(month_of(today), -far)
        elif what == "reload":
            first = shift(month_of(today), -far)
            history.run(month_range(first, min(shift(first, long), today)), today, slip)
        elif what == "run":
            history.run(months_to_load(history.state, start, today), today, slip)
            history.assert_no_hole(start, today)
    history.run(months_to_load(history.state, start, today), today, 0)
    history.assert_no_hole(start, today)


def test_a_reload_does_not_hide_an_unfinished_month() -> None:
    """Prevents a reload right after a standstill from cutting off the end of the last month."""
    history = History()
    history.run(month_range(date(2026, 1, 1), date(2026, 7, 1)), date(2026, 7, 20), 0)
    history.run(month_range(date(2026, 8, 1), date(2026, 9, 1)), date(2026, 9, 11), 0)
    today = date(2026, 9, 12)
    history.run(months_to_load(history.state, date(2026, 1, 1), today), today, 0)
    history.assert_no_hole(date(2026, 1, 1), today)


@given(DAYS, MONTHS, MONTHS)
def test_a_reload_takes_exactly_the_months_named(today: date, first: date, last: date) -> None:
    """Prevents a reload that asks for more or less than its two months say."""
    first, last = sorted((first, last))
    texts = f"{first:%Y-%m}", f"{last:%Y-%m}"
    if last > today:
        with pytest.raises(SettingError, match="lies in the future"):
            reload_range(*texts, today)
        return
    assert reload_range(*texts, today) == (first, last)
    assert reload_range(texts[0], None, today) == (first, month_of(today))
    assert reload_range(None, texts[1], today) == (last, last)
    if first < last:
        with pytest.raises(SettingError, match="swap the two"):
            reload_range(texts[1], texts[0], today)


@given(DAYS)
def test_without_run_config_nothing_is_reloaded(today: date) -> None:
    """Prevents a scheduled run from being taken for a reload."""
    assert reload_range(None, None, today) is None
    assert index(usage_start(None, today)) == index(today) - 12


@given(st.text(max_size=12))
def test_nonsense_is_refused_in_one_sentence(text: str) -> None:
    """Prevents a slip of the pen from ending in a traceback or in thousands of requests."""
    message = ""
    try:
        month = parse_month(text, "start_month")
    except SettingError as error:
        month, message = EARLIEST, str(error)
    assert month >= EARLIEST
    assert message == "" or message.startswith("start_month is ")
    assert "\n" not in message


@pytest.mark.parametrize(
    "text",
    [
        "2026",
        "2026-13",
        "2026-00",
        "2026-1",
        "26-01",
        "2026-01-01",
        "0000-01",
        "last month",
        "2026/01",
    ],
)
def test_only_a_year_and_a_month_are_a_month(text: str) -> None:
    """Prevents a day, or a month that does not exist, from being read as some other month."""
    with pytest.raises(SettingError, match="which is not a month; write it as YYYY-MM"):
        parse_month(text, "end_month")


@pytest.mark.parametrize("text", ["0001-01", "1026-05", "2010-12"])
def test_a_month_before_the_api_is_refused(text: str) -> None:
    """Prevents ten thousand requests, or a crash before the year 1, for a mistyped year."""
    with pytest.raises(SettingError, match=r"before anything Segment.*2011-01 or later\.$"):
        usage_start(text, date(2026, 7, 1))
