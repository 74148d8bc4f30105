"""A page of a list as the service writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import orjson

from analytics_assets.sandbox.company import Record
from analytics_assets.sandbox.resources import Resource


@dataclass(frozen=True)
class Turn:
    """Where a page stands in its list."""

    offset: int
    count: int
    total: int
    cursor: Callable[[int], str]

    def pagination(self, resource: Resource) -> Record:
        """Give the pagination object of the answer."""
        pagination: Record = {"current": self.cursor(self.offset)}
        following = self.offset + self.count
        if following < self.total:
            pagination["next"] = self.cursor(following)
        elif resource.last_next == "null":
            pagination["next"] = None
        if self.offset > 0:
            pagination["previous"] = self.cursor(max(self.offset - self.count, 0))
        elif resource.last_next == "null":
            pagination["previous"] = None
        if resource.total:
            pagination["totalEntries"] = self.total
        return pagination


def single(name: str, record: bytes, beside: Mapping[str, str | None]) -> bytes:
    """Put one object into an answer, with what stands beside it."""
    fields = b"".join(
        b'"%b":%b,' % (key.encode(), orjson.dumps(value)) for key, value in beside.items()
    )
    return b'{"data":{%b"%b":%b}}' % (fields, name.encode(), record)


def envelope(
    resource: Resource, rows: list[bytes], pagination: Record | None, head: Record | None = None
) -> bytes:
    """Put records into an answer; uses up the list, to copy large pages only once.

    Args:
        resource: the list.
        rows: its records on this page.
        pagination: where the page stands, if there are pages.
        head: what else the answer tells.
    """
    before = orjson.dumps(head)[1:-1] + b"," if head else b""
    start = b'{"data":{%b"%b":[' % (before, resource.list_key.encode())
    end = b"]}}" if pagination is None else b'],"pagination":%b}}' % orjson.dumps(pagination)
    if not rows:
        return start + end
    rows[0] = start + rows[0]
    rows[-1] += end
    return b",".join(rows)
