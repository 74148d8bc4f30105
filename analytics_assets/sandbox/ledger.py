"""Daily usage of the invented company: API calls and tracked users, per source and in total.

The own figure of a day depends on the seed, the source, the day and the story alone, so a day that
is over never changes. What is served is cumulative within the calendar month, in UTC; the row of
today holds the share of the day that has passed.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import lru_cache
from math import ceil

Figures = tuple[int, int, int, int, int]
"""API calls, anonymous, anonymousIdentified, identified, neverIdentified."""

DAY_SECONDS = 86_400
_ZERO: Figures = (0, 0, 0, 0, 0)
_MASK = (1 << 64) - 1
_WEEKDAYS = (1.05, 1.1, 1.12, 1.08, 1.0, 0.72, 0.66)
_BUSIEST_CALLS_PER_DAY = 650_000
_ANCHOR_YEAR = 2020
_KEPT_ROWS = 1_200_000
"""Some 250 MB: fourteen months of all four lists at ten times the size, so that a load of thirteen
computes each row once."""

PER_SOURCE = frozenset({"usage_api_calls_sources_daily", "usage_mtu_sources_daily"})
"""Usage lists with one row per source and day; the others have one row per day."""

API_CALLS = frozenset({"usage_api_calls_daily", "usage_api_calls_sources_daily"})
"""Usage lists of API calls; the others count monthly tracked users."""


def next_month(month: date) -> date:
    """Give the first day of the month after the one that starts on this day."""
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)


def months_back(month: date, number: int) -> date:
    """Give the first day of the month so many months earlier."""
    index = month.year * 12 + month.month - 1 - number
    return date(index // 12, index % 12 + 1, 1)


def day_timestamp(day: date) -> str:
    """Write a day as the service does, at midnight UTC with milliseconds."""
    return f"{day.isoformat()}T00:00:00.000Z"


@dataclass(frozen=True)
class _Profile:
    """What makes one source busier than another."""

    calls_per_day: float
    growth_per_month: float
    calls_per_user: float
    known_share: float


class UsageLedger:
    """Computes the usage rows of a month; not safe for threads, its owner holds a lock."""

    def __init__(
        self,
        seed: int,
        source_ids: Sequence[str],
        turns: Mapping[int, tuple[date, date, float]] | None = None,
    ) -> None:
        """Prepare the figures of these sources, and of what befalls some; see ``story.turns``."""
        self._seed = seed
        self._turns = turns or {}
        self._source_ids = source_ids
        self._profiles = [self._profile(index) for index in range(len(source_ids))]
        self._columns: OrderedDict[tuple[str, date, int], list[bytes]] = OrderedDict()
        self._kept_rows = 0
        self._totals: dict[date, list[Figures]] = {}
        self._base_day: date | None = None
        self._bases: dict[int, tuple[Figures, Figures]] = {}

    def size(self, name: str, month: date, now: datetime) -> int:
        """Tell how many rows of a month exist at a moment."""
        series = len(self._source_ids) if name in PER_SOURCE else 1
        return series * _days_begun(month, now)

    def rows(
        self, name: str, month: date, now: datetime, first: int = 0, count: int | None = None
    ) -> list[bytes]:
        """Give rows of a month that exist at a moment, in served order, as JSON.

        They come one series after the other, of a source or of the workspace, day by day.
        ``first`` is the position of the first row wanted; without a ``count`` all others follow.
        """
        days, size = _days_begun(month, now), self.size(name, month, now)
        last = size if count is None else min(first + count, size)
        if first >= last:
            return []
        begun, ended = first // days, ceil(last / days)
        found = [
            row for series in range(begun, ended) for row in self._served(name, month, now, series)
        ]
        return found[first - begun * days : last - begun * days]

    def calls(self, source: int, day: date) -> int:
        """Give the API calls of one source on one whole day."""
        return self._own(source, day.replace(day=1), day.day - 1, day.day)[0][0]

    def _hash(self, source: int, day: int) -> float:
        mixed = (self._seed * 0x9E3779B97F4A7C15 + source * 0xBF58476D1CE4E5B9) & _MASK
        mixed = (mixed ^ (day * 0x94D049BB133111EB)) & _MASK
        mixed = ((mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & _MASK
        return (mixed ^ (mixed >> 31)) / (_MASK + 1)

    def _profile(self, source: int) -> _Profile:
        rank = 1 + 40 * self._hash(source, 1) ** 2 + source / 8
        return _Profile(
            calls_per_day=_BUSIEST_CALLS_PER_DAY / rank**1.6,
            growth_per_month=0.004 + 0.016 * self._hash(source, 2),
            calls_per_user=8 + 30 * self._hash(source, 3),
            known_share=0.1 + 0.6 * self._hash(source, 4),
        )

    def _own(self, source: int, month: date, first: int, last: int) -> list[Figures]:
        """Give what one source used on each of some days of a month, counted from 0."""
        profile = self._profiles[source]
        months = (month.year - _ANCHOR_YEAR) * 12 + month.month - 1
        level = profile.calls_per_day * math.exp(profile.growth_per_month * months)
        start = month.toordinal()
        result = []
        since, until, factor = self._turns.get(source, (date.max, date.min, 1.0))
        turn = range(since.toordinal(), until.toordinal() + 1)
        for day in range(start + first, start + last):
            noise = self._hash(source, day)
            calls = int(level * _WEEKDAYS[(day - 1) % 7] * (0.8 + 0.4 * noise))
            if day in turn:
                calls = int(calls * factor)
            users = int(calls / profile.calls_per_user)
            known = int(users * profile.known_share)
            newly = int(known * (0.1 + 0.1 * noise))
            unknown = users - known
            result.append((calls, unknown, newly, known - newly, int(unknown * 0.3)))
        return result

    def _figures(self, source: int, month: date, days: int) -> list[Figures]:
        """Give the cumulative figures of one source for the first days of a month."""
        a = b = c = d = e = 0
        result: list[Figures] = []
        for calls, anonymous, newly, known, never in self._own(source, month, 0, days):
            a, b, c, d, e = a + calls, b + anonymous, c + newly, d + known, e + never
            result.append((a, b, c, d, e))
        return result

    def _month_totals(self, month: date, days: int) -> list[Figures]:
        totals = self._totals.get(month)
        if totals is None:
            length = (next_month(month) - month).days
            per_source = [
                self._figures(source, month, length) for source in range(len(self._source_ids))
            ]
            totals = [_sum(day) for day in zip(*per_source, strict=True)] or [_ZERO] * length
            self._totals[month] = totals
        return totals[:days]

    def _served(self, name: str, month: date, now: datetime, series: int) -> list[bytes]:
        """Give the rows of one series: of a source, or of the workspace, which has number 0."""
        column = self._column(name, month, series)
        today = now.astimezone(timezone.utc).date()
        if today >= next_month(month):
            return column
        share = _share_of_day(now)
        sources = [series] if name in PER_SOURCE else range(len(self._source_ids))
        parts = [
            _sum((before, _part(own, share)))
            for before, own in (self._base(source, month, today) for source in sources)
        ]
        figures = _sum((_ZERO, *parts))
        row = _render(
            name, self._prefix(name, series), _period(month), figures, day_timestamp(today)
        )
        return [*column[: today.day - 1], row]

    def _column(self, name: str, month: date, series: int) -> list[bytes]:
        """Give the rows of one series for all days of a month."""
        key = (name, month, series)
        if (column := self._columns.get(key)) is not None:
            self._columns.move_to_end(key)
            return column
        days = (next_month(month) - month).days
        whole = name not in PER_SOURCE
        figures = self._month_totals(month, days) if whole else self._figures(series, month, days)
        prefix, period = self._prefix(name, series), _period(month)
        rows = zip(figures, _stamps(month), strict=True)
        column = [_render(name, prefix, period, *row) for row in rows]
        self._keep(key, column)
        return column

    def _prefix(self, name: str, series: int) -> str:
        return f'"sourceId":"{self._source_ids[series]}",' if name in PER_SOURCE else ""

    def _keep(self, key: tuple[str, date, int], column: list[bytes]) -> None:
        self._columns[key] = column
        self._kept_rows += len(column)
        while self._kept_rows > _KEPT_ROWS:
            _, oldest = self._columns.popitem(last=False)
            self._kept_rows -= len(oldest)

    def _base(self, source: int, month: date, today: date) -> tuple[Figures, Figures]:
        """Give a source's figures up to yesterday, and its own figures of the whole day."""
        if self._base_day != today:
            self._bases, self._base_day = {}, today
        if source not in self._bases:
            passed = today.day - 1
            self._bases[source] = (
                (_ZERO, *self._figures(source, month, passed))[-1],
                self._own(source, month, passed, passed + 1)[0],
            )
        return self._bases[source]


def _days_begun(month: date, now: datetime) -> int:
    """Tell how many days of a month have begun."""
    today = now.astimezone(timezone.utc).date()
    return min(max((today - month).days + 1, 0), (next_month(month) - month).days)


@lru_cache(maxsize=100)
def _stamps(month: date) -> list[str]:
    days = (next_month(month) - month).days
    return [day_timestamp(month + timedelta(days=offset)) for offset in range(days)]


def _share_of_day(now: datetime) -> float:
    moment = now.astimezone(timezone.utc)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return (moment - midnight).total_seconds() / DAY_SECONDS


def _sum(rows: Sequence[Figures]) -> Figures:
    a, b, c, d, e = (sum(column) for column in zip(*rows, strict=True))
    return (a, b, c, d, e)


def _part(figures: Figures, share: float) -> Figures:
    a, b, c, d, e = (int(figure * share) for figure in figures)
    return (a, b, c, d, e)


def _render(name: str, prefix: str, period: str, figures: Figures, stamp: str) -> bytes:
    """Write one row as JSON; nothing in it needs escaping."""
    if name in API_CALLS:
        return f'{{{prefix}"apiCalls":"{figures[0]}","timestamp":"{stamp}"}}'.encode()
    _, anonymous, newly, known, never = figures
    return (
        f'{{{prefix}{period}"anonymous":"{anonymous}","anonymousIdentified":"{newly}",'
        f'"identified":"{known}","neverIdentified":"{never}","timestamp":"{stamp}"}}'
    ).encode()


def _period(month: date) -> str:
    return f'"periodStart":{_unix(month)},"periodEnd":{_unix(next_month(month))},'


def _unix(day: date) -> int:
    return (day.toordinal() - date(1970, 1, 1).toordinal()) * DAY_SECONDS
