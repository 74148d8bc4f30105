"""Which windows of days a run asks for, worked out from what has been loaded.

A window is written as an interval of ISO-8601: the first moment, a slash, and the moment after the
last, such as ``2026-01-01T00:00:00.000Z/2026-01-31T00:00:00.000Z``. Later windows are greater as
text. Days are UTC.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Any, Final

from analytics_assets.segment.model import Window
from analytics_assets.segment.months import shift

LAG: Final = timedelta(minutes=2)
"""How far in the past a window ends: the API wants a minute (EventsApi.md), and clocks differ."""
DAY: Final = timedelta(days=1)


@dataclass(frozen=True)
class LoadedDays:
    """What has been asked for: from the ``first`` day, forgotten or not, to the ``newest`` day.

    There is no hole between the two that could still be filled. Kept in dlt's state, so it lives in
    the destination.
    """

    first: date
    newest: date

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> LoadedDays | None:
        """Read what :meth:`to_state` wrote; ``None`` before the first load."""
        if "first_day" not in state or "newest_day" not in state:
            return None
        return cls(date.fromisoformat(state["first_day"]), date.fromisoformat(state["newest_day"]))

    def to_state(self) -> dict[str, str]:
        """Return the JSON form for dlt's state."""
        return {"first_day": self.first.isoformat(), "newest_day": self.newest.isoformat()}


def windows_to_load(
    way: Window,
    loaded: LoadedDays | None,
    overlap: int,
    again: tuple[date, date] | None,
    now: datetime,
) -> list[str]:
    """Return the windows that a run asks for, the newest first.

    A first load looks back so many days, as does one that has only ever loaded later days. Others
    start at the newest loaded day less an overlap, so that days which were not over are made good.

    Args:
        way: how the list is asked for.
        loaded: the days asked for so far.
        overlap: days before the newest loaded day that are read again.
        again: first and last month to load again instead, each by its first day.
        now: the present moment.
    """
    end = (now - LAG).replace(second=0, microsecond=0)
    if again:
        return _windows(way, again[0], min(end, _midnight(shift(again[1], 1))))
    today = _last_day(end)
    start = today - (way.look_back - 1) * DAY
    if loaded and loaded.first <= start:
        start = min(loaded.newest, today) - overlap * DAY
    elif loaded:
        start = min(start, loaded.newest - overlap * DAY)
    return _windows(way, start, end)


def forgettable(windows: Collection[str], now: datetime) -> frozenset[str]:
    """Return the windows that the API may have forgotten: all that ended more than a day ago."""
    return frozenset(window for window in windows if _bounds(window)[1] < now - DAY)


def after_load(
    loaded: LoadedDays | None,
    asked: Collection[str],
    refused: Collection[str],
    newest_day: date | None,
    empty: Collection[str] = (),
) -> LoadedDays | None:
    """Return what is loaded once the rows of some windows are in the table.

    Days that the API has forgotten count, as they will not come back. A window without any row does
    not, nor do the days before it: they are asked for again. Nor does a reload that leaves a hole
    between itself and the rest, or one without the newest day, which went on after it was loaded.

    Args:
        loaded: the days asked for before.
        asked: the windows asked for.
        refused: those that the API has forgotten.
        newest_day: day of the newest row, ``None`` without any: the last day asked for then.
        empty: those that brought nothing although the API gave them.
    """
    granted = set(asked) - set(refused) - set(empty)
    if not granted:
        return loaded
    (last_start, last) = days_of(max(granted))
    holes = [days_of(window)[1] + DAY for window in empty if window < max(granted)]
    first = max([days_of(min(asked))[0], *holes])
    reached = newest_day if newest_day and newest_day >= last_start else last
    if loaded is None:
        return LoadedDays(first, reached)
    if first > loaded.newest or last < loaded.first - DAY:
        return loaded
    return LoadedDays(min(first, loaded.first), max(loaded.newest, reached))


def days_of(window: str) -> tuple[date, date]:
    """Return the first and the last day of a window."""
    start, end = _bounds(window)
    return start.date(), _last_day(end)


def _windows(way: Window, start: date, end: datetime) -> list[str]:
    """Cut days into windows from their end on, so that the newest is a whole one."""
    windows = []
    while _midnight(start) < end:
        first = max(_midnight(start), _midnight(_last_day(end) - (way.days - 1) * DAY))
        windows.append(f"{_text(first)}/{_text(end)}")
        end = first
    return windows


def _last_day(end: datetime) -> date:
    """Return the last day of which a window that ends then has a part."""
    return (end - timedelta(microseconds=1)).date()


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), timezone.utc)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _bounds(window: str) -> Sequence[datetime]:
    return [datetime.fromisoformat(text.replace("Z", "+00:00")) for text in window.split("/")]
