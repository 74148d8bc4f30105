"""How the checks put what they find, and what they advise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, Final

from analytics_assets.segment.model import Endpoint

NAMED: Final = 3
"""Offenders named in the message of a check."""
COUNTED: Final = 1000
"""Offenders counted; beyond it "more than" has to do."""


def many(count: int, noun: str) -> str:
    """Return ``1 key``, ``2 keys`` or ``more than 1000 keys``."""
    number = f"more than {COUNTED}" if count > COUNTED else str(count)
    return f"{number} {noun}{'' if count == 1 else 's'}"


def firsts(items: Sequence[str]) -> str:
    """Name the first few."""
    more = ", ..." if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def in_order(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Sort records by what they show, so that the same data gives the same message."""
    return sorted(records, key=lambda record: [str(value) for value in record.values()])


def reload_advice(endpoint: Endpoint) -> str:
    """Say how to get rid of surplus rows."""
    if endpoint.by_day:
        return "Load the months concerned again, with start_month and end_month in the run config."
    if endpoint.cursor:
        return "Delete the surplus rows: a load replaces only recent ones."
    return f"Materialize {endpoint.name} again: a load replaces rows by key."


def again_advice(endpoint: Endpoint) -> str:
    """Say how to get rows of a history back that somebody has removed."""
    if endpoint.cursor:
        how = "set audit_start in the run config to the first day of what is missing"
    else:
        how = "set start_month and end_month in the run config to the months of what is missing"
    return f"To have them back, {how}, or drop the table, and all is loaded again."


def months_advice(days: Sequence[date]) -> str:
    """Say how to load the months of these days again."""
    first, last = min(days), max(days)
    return (
        f"Load the months again, with the run config start_month: {first:%Y-%m}, end_month:"
        f" {last:%Y-%m}; what is left then is so in the API."
    )
