"""What the sandbox knows of a list: where it is, how large, and what its answers look like."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import orjson

from analytics_assets.sandbox.company import Company, Ids, Record

Kind = Literal["list", "plain", "single", "audit", "usage", "volume"]
Key = tuple[str, ...]
_PLACE = re.compile(r"\\\{\w+\\\}")


@dataclass(frozen=True)
class Embedded:
    """A record of another list that is repeated whole.

    Attributes:
        name: the other list.
        index: gives the index of the record in it, from the company and the index of the record
            that repeats it, with the index of the parent before it if there is one.
        under: the field that holds it; empty if it is all there is of the record.
    """

    name: str
    index: Callable[..., int]
    under: str = "metadata"


@dataclass(frozen=True)
class Parent:
    """The list on whose records another one hangs.

    Attributes:
        name: the list of the parents.
        field: what the identifier of the parent is called, in the path and in the row.
        size: gives the number of records of the parent with an index; it heeds ``counts``.
        in_record: whether the field is part of the record already on the way.
    """

    name: str
    field: str
    size: Callable[[Company, int], int]
    in_record: bool = False


@dataclass(frozen=True)
class Choice:
    """A parameter that asks for the records whose field of the same name has a value.

    Attributes:
        field: the name of the parameter and of the field.
        values: all it may be.
        required: whether a request without it is refused.
    """

    field: str
    values: tuple[str, ...]
    required: bool = True


def _nothing(_company: Company, *_place: int) -> Record:
    return {}


@dataclass(frozen=True)
class Resource:
    """One list of the service; the whole of what the sandbox holds about it.

    Attributes:
        name: what the list is called in tests and options.
        path: where it is; of a list that hangs on another one with the field of the parent in
            braces, such as ``/groups/{userGroupId}/users``.
        list_key: where the records are in the ``data`` of an answer.
        kind: ``list`` with pages, ``plain`` without, a ``single`` object, or one of the three that
            are made in rooms of their own.
        key: the fields that identify a record, within its parent if it has one; a field that is
            missing counts as an empty text.
        alone: whether they do so without the parent.
        size: records in a workspace of scale 1.
        grows: whether the scale multiplies the size.
        ids: what identifiers look like, for lists that have some.
        head: makes what is a record's own, from the company and the index of the record, with the
            index of the parent before it if there is one.
        tail: makes the rest of a record, from the company and the number of a variant.
        variants: how many of these there are, the size if 0.
        embedded: a record that is repeated in each.
        parent: the list that this one hangs on.
        choice: the parameter that picks some of the records.
        bare: whether the value of the only key field stands for the record, as in a list of texts.
        echo: whether the answer names the parent beside the object.
        one: what a record is called in the answer of the path of its own, which is that of the list
            and its identifier; empty if there is none.
        linked: the list in which a record hangs on another one, which that answer names beside it.
        total: whether answers say how many records there are.
        last_next: how the last page says that it is the last.
        first_offset: what the cursor of the first page says.
        page_limit: the largest page.
        rate_limit: requests a minute, where it is below the usual.
    """

    name: str
    path: str
    list_key: str
    kind: Kind = "list"
    key: Key = ("id",)
    alone: bool = False
    size: int = 0
    grows: bool = True
    ids: Ids | None = None
    head: Callable[..., Record] = _nothing
    tail: Callable[[Company, int], Record] = _nothing
    variants: int = 0
    embedded: Embedded | None = None
    parent: Parent | None = None
    choice: Choice | None = None
    bare: bool = False
    echo: bool = False
    one: str = ""
    linked: str = ""
    total: bool = True
    last_next: Literal["null", "missing"] = "null"
    first_offset: int = 0
    page_limit: int = 1000
    rate_limit: int | None = None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What the paths of the list look like; the group is the identifier of the parent."""
        return re.compile(_PLACE.sub("([^/]+)", re.escape(self.path)))

    def key_of(self, record: Mapping[str, Any]) -> Key:
        """Give the key of a record; a single object needs none."""
        if self.kind == "single":
            return ()
        return tuple(str(record.get(field, "")) for field in self.key)

    def to_wire(self, record: Mapping[str, Any]) -> bytes:
        """Write a record as the service does, without what only a table needs."""
        if self.bare:
            return orjson.dumps(record[self.key[0]])
        if self.parent is not None and self.parent.field in record and not self.parent.in_record:
            record = {key: value for key, value in record.items() if key != self.parent.field}
        return orjson.dumps(record)

    def from_wire(self, text: bytes, parent: str | None = None) -> Record:
        """Give a record as a table holds it: with the identifier of its parent."""
        content = orjson.loads(text)
        record: Record = {self.key[0]: content} if self.bare else content
        if self.parent is not None:
            record = {self.parent.field: parent, **record}
        return record
