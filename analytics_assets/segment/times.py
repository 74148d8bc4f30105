"""Times as the API writes them: ISO-8601 text or unix seconds, and what is nearly one of these."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")
LEAP_SECOND: Final = "leap seconds became the second after them"
MILLISECONDS: Final = "milliseconds in place of seconds, read as such"
BEYOND: Final = "times beyond the years 1 to 9999 (UTC) became the nearest moment within them"
NO_TIME: Final = "not to be read as times, became null"

_ISO_8601 = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?\s*(Z|[+-]\d\d:?\d\d)?",
    re.IGNORECASE | re.ASCII,
)
_MIDNIGHT = re.compile("24:00(00)?0*")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FIRST = datetime(1, 1, 1, tzinfo=timezone.utc)
_LAST = datetime(9999, 12, 31, 23, 59, 59, 999_999, timezone.utc)
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
"""The years 1 to 9999, which Python and databases can show."""
_MICROSECONDS: Final = 1_000_000
_EDGES: Final = {"0000": ("0004", _FIRST), "0001": ("0004", _FIRST), "9999": ("9996", _LAST)}
"""Years whose times may lie beyond the edge; a year in which to see whether it is a time at all."""


class NoTime(ValueError):
    """A value that is no time."""


def timestamps(values: Sequence[Any]) -> pa.Array:
    """Read times exactly, as microseconds in UTC; those without a zone are UTC.

    Raises:
        NoTime, OverflowError, pyarrow.ArrowException: one of them is no time, or beyond the years
            1 to 9999.
    """
    if set(map(type, values)) <= {int, type(None)}:
        return _unix_seconds(values)
    try:
        array = pc.cast(pa.array(values, pa.string()), TIMESTAMP)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        moments = [None if value is None else parse_timestamp(value) for value in values]
        return pa.array(moments, TIMESTAMP)
    _check_range(array.view(pa.int64()), _MICROSECONDS)
    return array


def _unix_seconds(values: Sequence[int | None]) -> pa.Array:
    seconds = pa.array(values, pa.int64())
    _check_range(seconds, 1)
    return seconds.cast(pa.timestamp("s", "UTC")).cast(TIMESTAMP)


def _check_range(numbers: pa.Array, a_second: int) -> None:
    first, last = pc.min_max(numbers).as_py().values()
    if first is not None and (
        first < _FIRST_SECOND * a_second or last >= (_LAST_SECOND + 1) * a_second
    ):
        raise NoTime


def parse_timestamp(value: Any) -> datetime:
    """Read ISO-8601 text or unix seconds as a time in UTC.

    Digits beyond the microsecond are cut off; 24:00 is the midnight at the end of its day.

    Raises:
        NoTime: neither of the two.
        OverflowError: beyond the years 1 to 9999.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _EPOCH + timedelta(seconds=value)
    found = _ISO_8601.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise NoTime
    day, minute, second, fraction, zone = found.groups()
    zone = "+00:00" if zone in (None, "Z", "z") else zone
    zone = zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"
    later = timedelta(0)
    if minute and _MIDNIGHT.fullmatch(f"{minute}{second or ''}{fraction or ''}"):
        minute, later = "00:00", timedelta(days=1)
    clock = f"{minute or '00:00'}:{second or '00'}.{(fraction or '')[:6]:0<6}"
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{zone}")
    except ValueError:
        raise NoTime from None
    return (moment + later).astimezone(timezone.utc)


def nearest_time(value: Any) -> tuple[datetime | None, str]:
    """Return the moment that an odd value stands for, and what was odd about it.

    Raises:
        NoTime: it is of a kind that no time is written in.
    """
    if isinstance(value, Decimal):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise NoTime
    try:
        return parse_timestamp(value), ""
    except (NoTime, OverflowError):
        pass
    if isinstance(value, str):
        return _nearest_of_text(value)
    if _LAST_SECOND < value < (_LAST_SECOND + 1) * 1000:
        return _EPOCH + timedelta(milliseconds=value), MILLISECONDS
    return None, NO_TIME


def _nearest_of_text(text: str) -> tuple[datetime | None, str]:
    found = _ISO_8601.fullmatch(text)
    try:
        if found and found[3] == "60":
            before = text[: found.start(3)] + "59" + text[found.end(3) :]
            return parse_timestamp(before) + timedelta(seconds=1), LEAP_SECOND
        if text[:4] in _EDGES:
            year, edge = _EDGES[text[:4]]
            parse_timestamp(year + text[4:])
            return edge, BEYOND
    except (NoTime, OverflowError):
        pass
    return None, NO_TIME
