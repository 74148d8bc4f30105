"""Records that hold a series become one record for each item of it, as their row says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.pages import json_kind
from analytics_assets.segment.records import BadValue


def unfolded(
    endpoint: Endpoint, records: Sequence[Mapping[str, Any]], first_row: int = 0
) -> Sequence[Any]:
    """Return one record for each item of the list that ``endpoint.unfold`` names.

    Each holds the fields of the item, and those fields of the record that are columns. The records
    of any other list are returned as they are.

    Args:
        endpoint: the row of ``endpoints.py``.
        records: the records of a page.
        first_row: number of the first row within the list, for messages.

    Raises:
        BadValue: a record has no such list, or something else where an object should be.
    """
    if endpoint.unfold is None:
        return records
    rows: list[Any] = []
    for record in records:
        number = first_row + len(rows)
        items = record.get(endpoint.unfold)
        if not isinstance(items, list):
            raise BadValue(
                f"row {number}, field {endpoint.unfold!r}: expected a list, got {json_kind(items)}"
            )
        shared = _shared(endpoint, record, number)
        rows += [{**shared, **item} if isinstance(item, dict) else item for item in items]
    return rows


def _shared(endpoint: Endpoint, record: Mapping[str, Any], number: int) -> dict[str, Any]:
    shared = {}
    for field in (column.field for column in endpoint.columns):
        outer, _, inner = field.partition(".")
        if outer not in record:
            continue
        value = record[outer]
        if inner and not (value is None or isinstance(value, dict)):
            raise BadValue(
                f"row {number}, field {outer!r}: expected an object, got {json_kind(value)}"
            )
        shared[field] = (value or {}).get(inner) if inner else value
    return shared
