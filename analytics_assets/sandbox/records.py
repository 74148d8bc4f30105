"""Lists of records: invented when asked for, changed by tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from analytics_assets.sandbox.company import Company, Record
from analytics_assets.sandbox.resources import Key, Resource

_KEPT_RECORDS = 20_000
_APART = 61  # so that the first records of two parents are of different variants


class Tails:
    """The shared part of the records of a list as JSON, each variant made once."""

    def __init__(self, resource: Resource, company: Company) -> None:
        """Prepare the variants of a list."""
        self.variants = max(resource.variants or resource.size, 1)
        self._make = resource.tail
        self._company = company
        self._made: dict[int, bytes] = {}

    def of(self, number: int) -> bytes:
        """Give the shared part of a record."""
        variant = number % self.variants
        tail = self._made.get(variant)
        if tail is None:
            tail = self._made[variant] = orjson.dumps(self._make(self._company, variant))
        return tail


class Collection:
    """One list of records in served order, made from a row of the table and changed by tests."""

    def __init__(
        self,
        resource: Resource,
        company: Company,
        count: int,
        *,
        tails: Tails | None = None,
        embedded: Collection | None = None,
        parent: int | None = None,
    ) -> None:
        """Prepare so many records; those of a parent are told by its index."""
        self._resource = resource
        self._company = company
        self._count = count
        self._tails = tails or Tails(resource, company)
        self._embedded = embedded
        self._parent = parent
        self._order: Sequence[int] = range(count)
        self._changed: dict[int, bytes] = {}
        self._keys: dict[int, Key] = {}
        self._added: dict[Key, int] = {}
        self._next_index = count
        self._cache: dict[int, bytes] = {}
        self._plain_keys: dict[Key, int] | None = None

    def __len__(self) -> int:
        return len(self._order)

    def page(self, offset: int, count: int) -> list[bytes]:
        """Give some records in served order, as JSON."""
        return [self.raw(index) for index in self._order[offset : offset + count]]

    def listed(self) -> list[tuple[int, Key]]:
        """Give the index and the key of every record, in served order."""
        return [(index, self._keys.get(index) or self._key_at(index)) for index in self._order]

    def raw(self, index: int) -> bytes:
        """Give the record with this index as JSON, whether or not it is still listed."""
        changed = self._changed.get(index)
        if changed is not None:
            return changed
        embeds = self._resource.embedded
        if self._embedded is None or embeds is None:
            return self._own(index)
        repeated = self._embedded.raw(embeds.index(self._company, *self._place(index)))
        if not embeds.under:
            return repeated
        return b'%b,"%b":%b}' % (self._own(index)[:-1], embeds.under.encode(), repeated)

    def put(self, record: Mapping[str, Any]) -> None:
        """Add a record, or replace the one with the same key where it stands."""
        key = self._resource.key_of(record)
        index = self.find(key)
        if index is None:
            index = self._next_index
            self._next_index += 1
            self._added[key] = index
            self._keys[index] = key
            self._order = [*self._order, index]
        self._changed[index] = self._resource.to_wire(record)

    def remove(self, key: Key) -> None:
        """Take a record off the list; ``KeyError`` when there is none with this key."""
        index = self.find(key)
        if index is None:
            raise KeyError(key)
        order = list(self._order)
        order.remove(index)
        self._order = order
        self._added.pop(key, None)

    def find(self, key: Key) -> int | None:
        """Give the index of the listed record with a key."""
        index = self._added.get(key)
        if index is not None:
            return index
        index = self._find_generated(key)
        if index is None or isinstance(self._order, range):
            return index
        return index if index in self._order else None

    def _own(self, index: int) -> bytes:
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        head = self._resource.to_wire(self._head(index))
        tail = self._tails.of(index + _APART * (self._parent or 0))
        text = b"%b,%b" % (head[:-1], tail[1:])
        if b"{}" in (head, tail):
            text = tail if head == b"{}" else head
        if self._is_kept(index):
            self._cache[index] = text
        return text

    def _is_kept(self, index: int) -> bool:
        """Tell whether a record is small, and early enough in a list, to keep."""
        if self._parent is not None:
            return False
        return index < self._tails.variants or (
            self._embedded is not None and index < _KEPT_RECORDS
        )

    def _head(self, index: int) -> Record:
        return self._resource.head(self._company, *self._place(index))

    def _place(self, index: int) -> tuple[int, ...]:
        """Give what tells a record of the list: its index, after that of the parent if any."""
        return (index,) if self._parent is None else (self._parent, index)

    def _find_generated(self, key: Key) -> int | None:
        if self._resource.ids is not None and self._parent is None:
            index = self._company.codecs[self._resource.name].decode(key[0])
            return index if index < self._count and self._key_at(index) == key else None
        if self._plain_keys is None:
            self._plain_keys = {self._key_at(number): number for number in range(self._count)}
        return self._plain_keys.get(key)

    def _key_at(self, index: int) -> Key:
        return self._resource.key_of(self._head(index))


class Children:
    """The lists of one kind that hang on the records of another list.

    Each is made when it is first asked for, and gone with its parent for good.
    """

    def __init__(
        self,
        resource: Resource,
        company: Company,
        parents: Collection,
        embedded: Collection | None = None,
    ) -> None:
        """Prepare one list for each of the parents."""
        self._resource = resource
        self._company = company
        self._parents = parents
        self._embedded = embedded
        self._generated = len(parents)
        self._tails = Tails(resource, company)
        self._lists: dict[int, Collection] = {}

    def of(self, parent: str) -> Collection:
        """Give the list of a parent; ``KeyError`` when there is none with this identifier."""
        index = self._parents.find((parent,))
        if index is None:
            raise KeyError(parent)
        return self._at(index)

    def all(self) -> Iterator[tuple[str, Collection]]:
        """Give the identifier of each parent and its list, in served order of the parents."""
        for index, key in self._parents.listed():
            yield key[0], self._at(index)

    def _at(self, index: int) -> Collection:
        found = self._lists.get(index)
        if found is None:
            found = Collection(
                self._resource,
                self._company,
                self._size(index),
                tails=self._tails,
                embedded=self._embedded,
                parent=index,
            )
            self._lists[index] = found
        return found

    def _size(self, index: int) -> int:
        parent = self._resource.parent
        added = index >= self._generated  # by a test: it has none yet, but for what each one has
        if parent is None or (added and self._resource.kind != "single"):
            return 0
        return parent.size(self._company, index)
