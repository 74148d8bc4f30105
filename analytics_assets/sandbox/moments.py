"""The time the sandbox lives in, and how moments are read and written."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT = re.compile(
    r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}(?::\d{2})?)(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})?"
)


def utc_now() -> datetime:
    """Give the present moment in UTC."""
    return datetime.now(timezone.utc)


def parse_moment(text: str) -> datetime:
    """Read an ISO-8601 date or date-time; without an offset it is UTC.

    Raises:
        ValueError: the text is something else.
    """
    if _DATE.fullmatch(text):
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError(f"not an ISO-8601 date-time: {text!r}")
    day, clock, fraction, offset = match.groups()
    micros = (fraction or ".0")[1:7].ljust(6, "0")
    zone = "+00:00" if offset in (None, "Z") else offset
    seconds = clock if clock.count(":") > 1 else f"{clock}:00"
    return datetime.fromisoformat(f"{day}T{seconds}.{micros}{zone}").astimezone(timezone.utc)


def parse_month(text: str) -> date:
    """Read a usage period and give the first day of the month it lies in.

    Raises:
        ValueError: the text is not an ISO-8601 date or date-time.
    """
    return parse_moment(text).date().replace(day=1)


class Clock:
    """The time the sandbox lives in; it runs with the real time until it is set otherwise."""

    def __init__(self, source: Callable[[], datetime] = utc_now) -> None:
        """Follow a function that gives the present moment."""
        self._source = source
        self._offset = timedelta(0)

    def __call__(self) -> datetime:
        """Give the present moment of the sandbox, in UTC."""
        return (self._source() + self._offset).astimezone(timezone.utc)

    def follow(self, source: Callable[[], datetime] = utc_now) -> None:
        """Follow another function, by default the real time, without any offset."""
        self._source, self._offset = source, timedelta(0)

    def freeze(self, moment: datetime) -> None:
        """Stand still at a moment; ``shift`` still moves it."""
        self.follow(lambda: moment)

    def shift(self, delta: timedelta) -> None:
        """Go forward (or back) by some time, and run on as before from there."""
        self._offset += delta


def millis(moment: datetime) -> int:
    """Give a moment in unix milliseconds."""
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)
