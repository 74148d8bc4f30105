"""Values as the destinations give them, each of which has its own form for days and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timezone
from typing import Any


def utc_day(value: Any) -> date:
    """Return the UTC day of a time as a destination gives it: with a zone, without, or as text."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        return date(moment.year, moment.month, moment.day)
    return (moment.astimezone(timezone.utc) if moment.tzinfo else moment).date()


def shown(value: Any) -> Any:
    """Return a value as a cell of a table that is shown: a number, a bool, a text or nothing."""
    if isinstance(value, datetime):
        return str(utc_day(value)) if value.time() == datetime.min.time() else value.isoformat()
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def values_at(document: Any, path: Sequence[str]) -> Iterator[Any]:
    """Yield the scalars at a path of keys within JSON; ``[]`` stands for every item of a list."""
    if not path:
        if not isinstance(document, (dict, list)):
            yield document
    elif path[0] == "[]":
        for item in document if isinstance(document, list) else ():
            yield from values_at(item, path[1:])
    elif isinstance(document, dict):
        yield from values_at(document.get(path[0]), path[1:])
