"""Which rows came again, found in little memory: one stretch of days after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate, pairwise
from math import ceil
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

ROWS_AT_ONCE: Final = 250_000
"""About so many keys are compared at once, some 50 MB with what Arrow needs to do it."""
ROW: Final = "_row"
MOMENT: Final = timedelta.resolution
Days = tuple[datetime, datetime]
"""Two moments, the first and the last of some rows."""


@dataclass(frozen=True)
class Page:
    """A page that is kept.

    Attributes:
        chain: the chain that brought it.
        place: where it begins in the file.
        rows: rows that it has.
        days: first and last moment of its rows; ``None`` of a list that is not by day, or empty.
    """

    chain: str
    place: int
    rows: int
    days: Days | None


Reader = Callable[[Sequence[Page]], Iterator[pa.Table]]
"""Reads columns of some pages, one table for each."""


def outdated_rows(keys: pa.Table) -> pa.Array:
    """Return the numbers of the rows whose key comes again later.

    Args:
        keys: the key columns, and the number of each row as ``_row``.
    """
    names = [name for name in keys.column_names if name != ROW]
    last = keys.group_by(names).aggregate([(ROW, "max")])[f"{ROW}_max"].combine_chunks()
    if len(last) == keys.num_rows:
        return last.slice(0, 0)
    return keys[ROW].filter(pc.invert(pc.is_in(keys[ROW], value_set=last))).combine_chunks()


def key_tables(pages: Sequence[Page], day: str | None, keys: Reader) -> Iterator[pa.Table]:
    """Yield the keys of all rows and their numbers: those that might be the same in one table.

    Args:
        pages: in the order in which their rows are numbered.
        day: the key column that tells the day, ``None`` without one.
        keys: reads the key columns of some pages.
    """
    numbers = accumulate((page.rows for page in pages), initial=0)
    firsts = dict(zip(pages, numbers, strict=False))

    def read(some: Sequence[Page]) -> Iterator[pa.Table]:
        for page, table in zip(some, keys(some), strict=True):
            rows = pa.array(range(firsts[page], firsts[page] + page.rows), pa.int64())
            yield table.append_column(ROW, rows)

    if day is None:
        yield from [pa.concat_tables(read(pages))] if pages else []
        return
    for begin, end in stretches(pages):
        own = [page for page in pages if page.days and page.days[0] < end and begin <= page.days[1]]
        yield pa.concat_tables(_within(table, day, begin, end) for table in read(own))


def stretches(pages: Sequence[Page]) -> Sequence[Days]:
    """Cut the time that pages cover, each with about as many rows as are compared at once.

    Rows with the same key have the same day, hence lie in the same stretch, whichever chains bring
    them. A stretch begins with its first moment and ends before its second.
    """
    spans = [page.days for page in pages if page.days]
    moments = {moment for first, last in spans for moment in (first, last + MOMENT)}
    found: list[Days] = []
    for begin, end in pairwise(sorted(moments)):
        rows = sum(page.rows * _share(page.days, begin, end) for page in pages if page.days)
        parts = ceil(rows / ROWS_AT_ONCE)
        cuts = [begin + (end - begin) * number / parts for number in range(parts)]
        found += (cut for cut in pairwise([*cuts, end]) if cut[0] < cut[1])
    return found


def _share(days: Days, begin: datetime, end: datetime) -> float:
    """Return which share of a page lies in a stretch, if its rows are spread evenly."""
    last = days[1] + MOMENT
    within = min(end, last) - max(begin, days[0])
    return max(0.0, within / (last - days[0]))


def _within(table: pa.Table, day: str, begin: datetime, end: datetime) -> pa.Table:
    """Return the rows of a stretch."""
    kind = table.schema.field(day).type
    since, until = (pa.scalar(moment, kind) for moment in (begin, end))
    column = table[day]
    return table.filter(pc.and_(pc.greater_equal(column, since), pc.less(column, until)))
