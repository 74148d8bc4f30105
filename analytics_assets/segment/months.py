"""Which calendar months of usage a run asks for, worked out from what has been loaded.

A month is the ``date`` of its first day. Days and months are UTC, as in the API.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any, Final

from analytics_assets.segment.errors import SettingError

GRACE: Final = timedelta(days=7)
"""How far the newest loaded day may lie back before the month ahead of it is read again too."""
DEFAULT_MONTHS: Final = 12
FIRST_YEAR: Final = 2000
"""No month of an earlier year is ever noted."""
EARLIEST: Final = date(2011, 1, 1)
"""Segment was founded in 2011; an earlier month is a slip of the pen, and thousands of requests."""
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MONTH = re.compile(r"(\d{4})-(0[1-9]|1[0-2])")


@dataclass(frozen=True)
class Loaded:
    """What the destination holds of one usage resource: ``first`` month up to ``newest`` day.

    There is no hole between the two but for the months that are due. Kept in dlt's state, so it
    lives in the destination.

    Attributes:
        first: the first month.
        newest: the newest day.
        due: months that were asked for and came empty, or maybe not whole.
    """

    first: date
    newest: date
    due: frozenset[date] = frozenset()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Loaded | None:
        """Read what :meth:`to_state` wrote; ``None`` before the first load.

        Raises:
            ValueError: somebody has edited it, so that it holds no months that the API could have.
        """
        if "first_month" not in state or "newest_day" not in state:
            return None
        first, newest = (date.fromisoformat(state[name]) for name in ("first_month", "newest_day"))
        due = frozenset(map(date.fromisoformat, state.get("due_months", ())))
        if any(month.day != 1 or month.year < FIRST_YEAR for month in (first, *due)):
            raise ValueError(f"no months: {first}, {sorted(due)}")
        return cls(first, newest, due)

    def to_state(self) -> dict[str, Any]:
        """Return the JSON form for dlt's state."""
        return {
            "first_month": self.first.isoformat(),
            "newest_day": self.newest.isoformat(),
            "due_months": sorted(month.isoformat() for month in self.due),
        }


def month_of(day: date) -> date:
    """Return the first day of the month of ``day``."""
    return date(day.year, day.month, 1)


def shift(month: date, by: int) -> date:
    """Return the month ``by`` months after ``month`` (before it when negative)."""
    years, index = divmod(month.month - 1 + by, 12)
    return date(month.year + years, index + 1, 1)


def month_range(first: date, last: date) -> list[date]:
    """Return the months from ``first`` to ``last``, both included; empty if ``first`` is later."""
    months = []
    while first <= last:
        months.append(first)
        first = shift(first, 1)
    return months


def parse_month(text: str, setting: str) -> date:
    """Read ``YYYY-MM``.

    Raises:
        SettingError: anything else, or a month before there was an API; names ``setting``.
    """
    found = _MONTH.fullmatch(text.strip())
    month = date(int(found[1]), int(found[2]), 1) if found and int(found[1]) else None
    if month is None:
        raise SettingError(f"{setting} is {text!r}, which is not a month; write it as YYYY-MM.")
    if month < EARLIEST:
        raise SettingError(
            f"{setting} is {text!r}, which lies before anything Segment can have recorded; set it"
            f" to {EARLIEST:%Y-%m} or later."
        )
    return month


def usage_start(text: str | None, today: date) -> date:
    """Return the first month to load: ``ANALYTICS_USAGE_START``, else twelve months back.

    Raises:
        SettingError: not a month, or a month that has not begun.
    """
    current = month_of(today)
    if not text:
        return shift(current, -DEFAULT_MONTHS)
    start = parse_month(text, "ANALYTICS_USAGE_START")
    if start > current:
        raise SettingError(
            f"ANALYTICS_USAGE_START is {text}, which lies in the future; set it to"
            f" {current:%Y-%m} or earlier."
        )
    return start


def reload_range(start: str | None, end: str | None, today: date) -> tuple[date, date] | None:
    """Return the first and last month that run config asks to reload, or ``None``.

    With only one of the two given, the other is the current month (``end``) or the same month
    (``start``).

    Raises:
        SettingError: not a month, the wrong way round, or in the future.
    """
    if not start and not end:
        return None
    current = month_of(today)
    last = parse_month(end, "end_month") if end else current
    first = parse_month(start, "start_month") if start else last
    for name, month in (("end_month", last), ("start_month", first)):
        if month > current:
            raise SettingError(
                f"{name} is {month:%Y-%m}, which lies in the future; the last month that can be"
                f" loaded is {current:%Y-%m}."
            )
    if first > last:
        raise SettingError(
            f"start_month {first:%Y-%m} lies after end_month {last:%Y-%m}; swap the two."
        )
    return first, last


def months_to_load(loaded: Loaded | None, start: date, today: date) -> list[date]:
    """Return the months a scheduled run asks for, oldest first, each once.

    A first load takes ``start`` to the current month. Later runs read the month before the current
    one and the current one again, because recent days still change; after a gap they go back to
    the month before the newest loaded day. A ``start`` earlier than before adds the months that
    are missing in front, once. Months that are due are asked for until they come.
    """
    current = month_of(today)
    if loaded is None:
        return month_range(start, current)
    again = shift(current, -1)
    if today - loaded.newest > GRACE:
        again = min(again, shift(month_of(loaded.newest), -1))
    again = max(again, min(start, loaded.first))
    older = month_range(start, min(shift(loaded.first, -1), current))
    due = (month for month in loaded.due if month >= start)
    return sorted({*older, *due, *month_range(again, current)})


def after_load(
    loaded: Loaded | None,
    months: list[date],
    newest_day: date | None,
    unproved: Collection[date] = (),
) -> Loaded | None:
    """Return what is loaded once ``months`` are in the table.

    A reload that leaves a hole between itself and the rest does not count as loaded, so the next
    scheduled run fills it; nor does one that leaves out the month of the newest day, which went on
    after that day was loaded. Without any row (``newest_day`` is ``None``) the months still count:
    the last of them stands for the newest day.

    Args:
        loaded: what was loaded before.
        months: months loaded now, in order.
        newest_day: the newest day that came.
        unproved: those of ``months`` that may not be whole; they are due.
    """
    was_due = loaded.due if loaded else frozenset()
    now = _range_after_load(loaded, months, newest_day)
    due = (was_due - set(months)) | set(unproved)
    return now and replace(now, due=frozenset(m for m in due if now.first <= m <= now.newest))


def _range_after_load(
    loaded: Loaded | None, months: list[date], newest_day: date | None
) -> Loaded | None:
    first, last = months[0], months[-1]
    reached = newest_day if newest_day and newest_day >= last else last
    if loaded is None:
        return Loaded(first, reached)
    touches_front = shift(loaded.first, -1) <= last
    touches_back = first <= month_of(loaded.newest)
    if not (touches_front and touches_back):
        return loaded
    return Loaded(min(first, loaded.first), max(loaded.newest, reached))


def parse_day(text: str, setting: str, today: date) -> date:
    """Read ``YYYY-MM-DD``.

    Raises:
        SettingError: anything else, or a day that has not begun; names ``setting``.
    """
    try:
        day = date.fromisoformat(text.strip() if _DAY.fullmatch(text.strip()) else "")
    except ValueError:
        raise SettingError(
            f"{setting} is {text!r}, which is not a day; write it as YYYY-MM-DD."
        ) from None
    if not EARLIEST <= day <= today:
        raise SettingError(
            f"{setting} is {text!r}; set it to a day from {EARLIEST} to today, {today}."
        )
    return day
