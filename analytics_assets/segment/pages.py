"""What a page must be like before its rows are believed, and where the next one is.

Without these guards a list ends early without a word, or never: dlt takes a missing list for an
empty one and follows any cursor.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.model import Endpoint

SAME_PAGE_LIMIT: Final = 3
"""So many pages with the same keys in one chain mean that the cursor leads nowhere."""
EMPTY_PAGE_LIMIT: Final = 3
"""So many empty pages in a row that still promise more mean the same."""
MOST_TIMES: Final = 2
MOST_MORE: Final = 1000
"""A list has no more rows than so many times what ``totalEntries`` says, and so many more."""
_TELLING: Final = ("errors", "next", "pagination")
"""What an answer of the API never has beside its data; it may tell that not all is there."""
_DIGITS = re.compile("[0-9]{1,18}")
"""Python reads no more than some thousand digits."""
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
MOVED: Final = "the list changed while it was read"


@dataclass(slots=True)
class Seen:
    """What a walk has seen, for as long as it is under way.

    Attributes:
        empty_pages: empty pages in a row.
        cursors: cursors followed.
        keys: hashes of the keys that came, of a list whose missing rows are marked as deleted.
        page_marks: how often each page's keys have come.
    """

    empty_pages: int = 0
    cursors: set[str] = field(default_factory=set)
    keys: set[int] = field(default_factory=set)
    page_marks: Counter[int] = field(default_factory=Counter)


@dataclass(slots=True)
class Chain:
    """One walk over the pages of a list; a run may have some hundred thousand of them.

    Attributes:
        rows: records received.
        pages: pages received.
        total: ``totalEntries`` of the newest page that had it.
        done: whether the walk has come to its end.
        moved: whether the list changed while it was walked: its total did.
        end_unproved: why it is not certain that the walk came to the end, empty if it is.
        refusal: the error of one slice that is not there or not to be seen, while others may be.
        distinct: different keys that came, of a list whose missing rows are marked as deleted;
            known at the end.
        fingerprint: a number that is the same for the same keys; known at the end.
    """

    rows: int = 0
    pages: int = 0
    total: int | None = None
    done: bool = False
    moved: bool = False
    end_unproved: str = ""
    refusal: ResourceError | None = None
    distinct: int = 0
    fingerprint: int = 0
    _seen: Seen | None = None

    @property
    def seen(self) -> Seen:
        """What it has seen so far."""
        self._seen = self._seen or Seen()
        return self._seen

    def end(self) -> None:
        """Note that the walk has come to its end, and keep no more than what is asked for then."""
        self.distinct, self.fingerprint = len(self.seen.keys), hash(frozenset(self.seen.keys))
        self.done, self._seen = True, None


def accept(
    endpoint: Endpoint, chain: Chain, body: Any, page_size: int
) -> tuple[list[Any], str | None]:
    """Check a page and note it; return its records and the cursor of the next page.

    Raises:
        ResourceError: the page cannot be trusted; the text says why.
    """
    records, pagination = unpack(endpoint, body)
    cursor = next_cursor(endpoint, chain, records, pagination, page_size)
    if beside := [name for name in _TELLING if body.get(name)]:
        chain.end_unproved = f"the answer has {beside[0]!r} beside 'data', so there may be more"
    check_progress(endpoint, chain, records)
    if cursor is None:
        chain.end()
    return records, cursor


def unpack(endpoint: Endpoint, body: Any) -> tuple[list[Any], Mapping[str, Any] | None]:
    """Take the records and ``data.pagination`` out of an answer.

    Raises:
        ResourceError: the answer has not the documented shape.
    """
    wrapper, _, name = endpoint.data_selector.rpartition(".")
    data = body.get(wrapper) if isinstance(body, dict) else None
    if not isinstance(data, dict):
        raise ResourceError(f"the answer has no {wrapper!r} object", status=200)
    if name not in data:
        what = "object" if endpoint.single else "list"
        raise ResourceError(
            f"the answer has no {what} {endpoint.data_selector!r}; the API has changed, or the path"
            " is wrong",
            status=200,
        )
    records = data[name]
    if endpoint.single:
        if not isinstance(records, dict):
            raise ResourceError(f"{endpoint.data_selector!r} is not an object", status=200)
        records = [records]
    if not isinstance(records, list):
        raise ResourceError(f"{endpoint.data_selector!r} is not a list", status=200)
    _check_kinds(endpoint, records)
    pagination = data.get("pagination")
    if pagination is not None and not isinstance(pagination, dict):
        raise ResourceError("'data.pagination' is not an object", status=200)
    return records, pagination


def _check_kinds(endpoint: Endpoint, records: Sequence[Any]) -> None:
    kind = str if endpoint.strings else dict
    if all(isinstance(record, kind) for record in records):
        return
    number, odd = next((n, r) for n, r in enumerate(records) if not isinstance(r, kind))
    wanted = "text" if endpoint.strings else "an object"
    raise ResourceError(f"row {number} of a page is {json_kind(odd)}, not {wanted}", status=200)


def json_kind(value: Any) -> str:
    """Name the kind of a JSON value."""
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def next_cursor(
    endpoint: Endpoint,
    chain: Chain,
    records: Sequence[Any],
    pagination: Mapping[str, Any] | None,
    page_size: int,
) -> str | None:
    """Return the cursor of the next page, ``None`` at the end of the chain.

    Raises:
        ResourceError: following the pages would lose rows or never end.
    """
    if pagination is None:
        if page_size and len(records) >= page_size:
            raise ResourceError(
                f"a full page of {len(records)} rows came without 'data.pagination', so there may"
                " be more that cannot be asked for",
                status=200,
            )
        if endpoint.paginated:
            chain.end_unproved = "a page came without 'data.pagination', so there may be more"
        return None
    told = pagination.get("totalEntries")
    total = _whole_number(told)
    if total is not None:
        chain.moved = chain.moved or chain.total not in (None, total)
        chain.total = total
    elif told is None and "current" not in pagination:
        chain.end_unproved = "'data.pagination' tells nothing, so there may be more"
    elif told is not None:
        chain.end_unproved = "totalEntries is no whole number, so there may be more"
    if not endpoint.paginated:
        if pagination.get("next"):
            chain.end_unproved = "the answer names a next page, which this list is not known for"
        return None
    cursor = pagination.get("next")
    if cursor is None or cursor == "":
        return None
    if not isinstance(cursor, str) or not fit_for_an_address(cursor):
        raise ResourceError("'data.pagination.next' is not text", status=200)
    if cursor in chain.seen.cursors:
        raise ResourceError(
            "the cursor of the next page repeats; the list would never end", status=200
        )
    chain.seen.cursors.add(cursor)
    return cursor


def _whole_number(value: Any) -> int | None:
    """Read a count, which the API writes as text in other places; ``None`` if it is none."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return int(value) if value == value // 1 else None


def fit_for_an_address(value: Any) -> bool:
    """Tell whether a value can go into the address of a request: text without half characters."""
    return isinstance(value, str) and bool(value) and not _HALF_CHARACTER.search(value)


def check_progress(endpoint: Endpoint, chain: Chain, records: Sequence[Any]) -> None:
    """Note a page.

    Raises:
        ResourceError: page after page brings nothing new although its cursor differs, or far more
            rows come than ``totalEntries`` says.
    """
    chain.rows += len(records)
    chain.pages += 1
    if chain.total is not None and chain.rows > MOST_TIMES * chain.total + MOST_MORE:
        raise ResourceError(
            f"{chain.rows} rows have come although totalEntries says {chain.total}; the list would"
            " never end",
            status=200,
        )
    seen = chain.seen
    if not records:
        seen.empty_pages += 1
        if seen.empty_pages >= EMPTY_PAGE_LIMIT and seen.cursors:
            raise ResourceError(
                "empty pages keep promising more; the list would never end", status=200
            )
        return
    seen.empty_pages = 0
    keys = _keys(endpoint, records)
    if endpoint.full_list:
        seen.keys.update(keys)
    mark = hash(keys)
    seen.page_marks[mark] += 1
    if seen.page_marks[mark] >= SAME_PAGE_LIMIT:
        raise ResourceError(
            "the same page comes again and again; the list would never end", status=200
        )


def _keys(endpoint: Endpoint, records: Sequence[Any]) -> tuple[int, ...]:
    """Return a number for each record that is the same for the same key."""
    fields = endpoint.primary_key
    try:
        if endpoint.strings:
            return tuple(map(hash, records))
        return tuple(hash(tuple(_at(record, key) for key in fields)) for record in records)
    except (AttributeError, TypeError):  # no objects, or odd keys: typing will name them
        return tuple(hash(repr(record)) for record in records)


def _at(record: Any, field: str) -> Any:
    """Return a field of a record; a dot leads into an object."""
    outer, _, inner = field.partition(".")
    value = record.get(outer)
    return value.get(inner) if inner and value is not None else value


def doubt_of(endpoint: Endpoint, chain: Chain) -> str:
    """Say why a walk that came to its end may not have brought all there is, empty if it has.

    What is new at the end of a list that follows a cursor comes with the next load.
    """
    if chain.end_unproved:
        return chain.end_unproved
    if chain.moved:
        return "" if endpoint.cursor else MOVED
    if chain.total not in (None, chain.rows):
        return f"{chain.rows} rows came, but totalEntries says {chain.total}"
    twice = chain.rows - chain.distinct if endpoint.full_list else 0
    if twice and chain.pages > 1:
        return MOVED
    return f"{twice} of {chain.rows} rows came twice, so others may be missing" if twice else ""
