"""One list of records: invented when asked for, changed by tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from analytics_assets.sandbox._bodies import Blueprint
from analytics_assets.sandbox.resources import Key, Resource

_KEPT_RECORDS = 20_000


class Collection:
    """One list of records in served order, made from a blueprint and changed by tests."""

    def __init__(self, resource: Resource, blueprint: Blueprint, count: int) -> None:
        self._resource = resource
        self._blueprint = blueprint
        self._count = count
        self._order: Sequence[int] = range(count)
        self._changed: dict[int, bytes] = {}
        self._added: dict[Key, int] = {}
        self._next_index = count
        self._cache: dict[int, bytes] = {}
        self._tails: dict[int, bytes] = {}
        self._plain_keys: dict[Key, int] | None = None
        self.embedded: Collection | None = None

    def __len__(self) -> int:
        return len(self._order)

    def page(self, offset: int, count: int) -> list[bytes]:
        """Give some records in served order, as JSON."""
        return [self.raw(index) for index in self._order[offset : offset + count]]

    def raw(self, index: int) -> bytes:
        """Give the record with this index as JSON, whether or not it is still listed."""
        changed = self._changed.get(index)
        if changed is not None:
            return changed
        if self.embedded is not None:
            metadata = self.embedded.raw(self._blueprint.embedded_index(index))
            return b'%b,"metadata":%b}' % (self._own(index)[:-1], metadata)
        return self._own(index)

    def put(self, record: Mapping[str, Any]) -> None:
        """Add a record, or replace the one with the same key where it stands."""
        key = self._key(record)
        index = self._find(key)
        if index is None:
            index = self._next_index
            self._next_index += 1
            self._added[key] = index
            self._order = [*self._order, index]
        self._changed[index] = orjson.dumps(record)

    def remove(self, key: Key) -> None:
        """Take a record off the list."""
        index = self._find(key)
        if index is None:
            raise KeyError(key)
        order = list(self._order)
        order.remove(index)
        self._order = order
        self._added.pop(key, None)

    def _key(self, record: Mapping[str, Any]) -> Key:
        return tuple(str(record[name]) for name in self._resource.key)

    def _own(self, index: int) -> bytes:
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        head = orjson.dumps(self._blueprint.head(index))
        tail = self._tail(index % self._blueprint.variants)
        text = head if tail == b"{}" else b"%b,%b" % (head[:-1], tail[1:])
        if index < self._blueprint.variants or self._is_narrow(index):
            self._cache[index] = text
        return text

    def _is_narrow(self, index: int) -> bool:
        """Tell whether the own part of a record is small, and early enough in a list, to keep."""
        return self.embedded is not None and index < _KEPT_RECORDS

    def _tail(self, variant: int) -> bytes:
        tail = self._tails.get(variant)
        if tail is None:
            tail = self._tails[variant] = orjson.dumps(self._blueprint.tail(variant))
        return tail

    def _find(self, key: Key) -> int | None:
        index = self._added.get(key)
        if index is not None:
            return index
        index = self._find_generated(key)
        if index is None or isinstance(self._order, range):
            return index
        return index if index in self._order else None

    def _find_generated(self, key: Key) -> int | None:
        if self._blueprint.codec is not None:
            index = self._blueprint.codec.decode(key[0])
            return index if index < self._count and self._key_of(index) == key else None
        if self._plain_keys is None:
            self._plain_keys = {self._key_of(number): number for number in range(self._count)}
        return self._plain_keys.get(key)

    def _key_of(self, index: int) -> Key:
        return self._key(self._blueprint.head(index))
