"""A day's own figures out of counters that the API accumulates over the month."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from math import ceil
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.windows import DAY, days_of

ROWS_AT_ONCE: Final = 100_000
"""Rows of a month whose figures are made at once, some 40 MB with what Arrow needs to do it."""
MOST_SHARES: Final = 8
"""Each share goes through all pages of the month."""


def day_outside(endpoint: Endpoint, rows: pa.Table, chain: str) -> date | None:
    """Return a day that does not lie in what was asked for, ``None`` if all do.

    Args:
        endpoint: a list by day.
        rows: rows of it.
        chain: first day of the month, ``YYYY-MM-DD``, or the window. The API may round the ends of
            a window, so that a day before and after it belong to it.
    """
    found = pc.min_max(rows[endpoint.cursor_column]).as_py().values()
    days = [day.date() for day in found if day is not None]
    if endpoint.monthly:
        return next((day for day in days if f"{day:%Y-%m}" != chain[:7]), None)
    first, last = days_of(chain)
    return next((day for day in days if not first - DAY <= day <= last + DAY), None)


Share = tuple[str, pa.Scalar, pa.Scalar] | None
"""The column of the source, and the first and last source of a share; ``None`` for all rows."""


def source_column(endpoint: Endpoint) -> str | None:
    """Return the key column whose rows need no others for their figures, ``None`` without one."""
    return next((key for key in endpoint.key_columns if key != endpoint.cursor_column), None)


def shares(column: str | None, values: Iterable[pa.ChunkedArray], rows: int) -> Sequence[Share]:
    """Cut a month by its sources, each share with about as many rows as are worked on at once.

    Args:
        column: that of the source, ``None`` without one.
        values: its values, page by page; only asked for if there are too many rows.
        rows: rows of the month.
    """
    if column is None or rows <= ROWS_AT_ONCE:
        return [None]
    sources = pa.array([], pa.string())
    for page in values:
        sources = pc.unique(pa.chunked_array([sources, *page.chunks]))
    sources = sources.sort()
    size = ceil(len(sources) * max(ROWS_AT_ONCE / rows, 1 / MOST_SHARES))
    cuts = (sources.slice(first, size) for first in range(0, len(sources), size))
    return [(column, cut[0], cut[-1]) for cut in cuts]


def of_share(rows: pa.Table, share: Share) -> pa.Table:
    """Return the rows of a share."""
    if share is None:
        return rows
    column, first, last = share
    values = rows[column]
    return rows.filter(pc.and_(pc.greater_equal(values, first), pc.less_equal(values, last)))


def with_daily_figures(endpoint: Endpoint, month: pa.Table) -> pa.Table:
    """Return one month of usage, sorted by key, with each counter's figure for the day itself.

    The month has one row for each key.

    The figure is the difference to the latest earlier day of the same month (and source) that the
    API serves, and the counter itself on the first of them. So the figures of a month add up to
    its last counter even when a day is missing, or its counter null: the day after the gap then
    carries the gap too.
    """
    if not month.num_rows:
        return _append(endpoint, month, [month[c.name] for c in endpoint.counters])
    order = pc.sort_indices(month, sort_keys=[(key, "ascending") for key in endpoint.key_columns])
    month = month.take(order).combine_chunks()
    follows = _follows(month, endpoint)
    figures = []
    for counter in endpoint.counters:
        values = month[counter.name]
        figures.append(pc.subtract_checked(values, _earlier(values, follows)))
    return _append(endpoint, month, figures)


def _follows(month: pa.Table, endpoint: Endpoint) -> pa.Array:
    """Tell for each row whether the row before it belongs to the same month and source."""
    days = month[endpoint.cursor_column]
    months = pc.add(pc.multiply(pc.year(days), 12), pc.month(days))
    same = pc.equal(months, _previous(months))
    for key in endpoint.key_columns:
        if key != endpoint.cursor_column:
            same = pc.and_(same, pc.equal(month[key], _previous(month[key])))
    return pc.fill_null(same, False)


def _earlier(values: pa.ChunkedArray, follows: pa.Array) -> pa.Array:
    """Return for each row the latest count above it in its month and source, 0 without one."""
    if not values.null_count:
        return pc.if_else(follows, _previous(values), 0)
    rows = pa.array(range(len(values)), pa.int64())
    nothing = pa.scalar(None, pa.int64())
    begins = pc.fill_null_forward(pc.if_else(follows, nothing, rows))
    counted = pc.fill_null_forward(pc.if_else(pc.is_valid(values), rows, nothing))
    latest = _previous(pa.chunked_array([counted]))
    found = pc.fill_null(pc.greater_equal(latest, begins), False)
    return pc.if_else(found, values.take(pc.fill_null(latest, 0)), 0)


def _previous(values: pa.ChunkedArray) -> pa.Array:
    values = values.combine_chunks()
    return pa.concat_arrays([pa.nulls(1, values.type), values.slice(0, len(values) - 1)])


def _append(endpoint: Endpoint, month: pa.Table, figures: Sequence[pa.ChunkedArray]) -> pa.Table:
    for column, values in zip(endpoint.daily_columns, figures, strict=True):
        month = month.append_column(column.name, values)
    return month
