"""A day's own figures out of counters that add up over the month, for any month the API serves."""

from __future__ import annotations

from collections import defaultdict
from datetime import date, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_assets.segment.daily_figures import with_daily_figures
from analytics_assets.segment.endpoints import ENDPOINTS
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.records import RowTyper

pytestmark = pytest.mark.unit
MONTHLY = [endpoint for endpoint in ENDPOINTS if endpoint.monthly]
COUNTS = st.integers(-(2**61), 2**61)
Month = tuple[Endpoint, pa.Table]


@st.composite
def months(draw: st.DrawFn, counts: st.SearchStrategy[int | None] = COUNTS) -> Month:
    """Draw rows of one or two months in any order: days and sources are missing at will."""
    endpoint = draw(st.sampled_from(MONTHLY))
    start = draw(st.dates(date(2011, 1, 1), date(2030, 12, 1))).replace(day=1)
    days = st.integers(0, 58).map(lambda n: (start + timedelta(days=n)).isoformat())
    sources = (
        st.sampled_from(["a", "b", "c"]) if "sourceId" in endpoint.primary_key else st.just(None)
    )
    keys = draw(st.lists(st.tuples(days, sources), unique=True, max_size=30))
    rows = [
        {"timestamp": day, **{c.field: draw(counts) for c in endpoint.counters}}
        | ({"sourceId": source} if source else {})
        for day, source in keys
    ]
    return endpoint, RowTyper(endpoint, {}).table(rows)


def by_month(table: pa.Table) -> list[list[dict[str, Any]]]:
    """Return the rows of each source and month, by day."""
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(table.to_pylist(), key=lambda row: row["timestamp"]):
        day = row["timestamp"]
        found[row.get("source_id"), day.year, day.month].append(row)
    return list(found.values())


@given(months())
def test_the_figures_of_a_month_add_up_to_its_last_counter(month: Month) -> None:
    """Prevents figures that are counted twice or lost, whatever days and sources are missing."""
    endpoint, table = month
    for rows in by_month(with_daily_figures(endpoint, table)):
        for counter in endpoint.counters:
            for until in range(1, len(rows) + 1):
                figures = [row[f"daily_{counter.name}"] for row in rows[:until]]
                assert sum(figures) == rows[until - 1][counter.name]


@given(months(st.none() | COUNTS))
def test_a_counter_that_is_missing_is_carried_by_the_next_day(month: Month) -> None:
    """Prevents that a null takes the rest of the month with it, or passes for a zero."""
    endpoint, table = month
    for rows in by_month(with_daily_figures(endpoint, table)):
        for counter in endpoint.counters:
            counted = [row for row in rows if row[counter.name] is not None]
            figures = [row[f"daily_{counter.name}"] for row in rows]
            assert [row for row in rows if row[f"daily_{counter.name}"] is not None] == counted
            last = counted[-1][counter.name] if counted else 0
            assert sum(figure or 0 for figure in figures) == last


@given(months(st.none() | COUNTS), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(month: Month, random: Any) -> None:
    """Prevents figures that depend on the order in which pages or days arrive."""
    endpoint, table = month
    order = list(range(table.num_rows))
    random.shuffle(order)
    shuffled = table.take(pa.array(order, pa.int64()))
    figures = with_daily_figures(endpoint, table)
    assert with_daily_figures(endpoint, shuffled) == figures
    keys = figures.select(list(endpoint.key_columns)).to_pylist()
    assert keys == sorted(keys, key=lambda row: tuple(row.values()))


@given(months(st.none() | COUNTS))
def test_what_the_api_serves_stays_as_it_is(month: Month) -> None:
    """Prevents that a row or a counter is lost or changed where a figure is added."""
    endpoint, table = month
    figures = with_daily_figures(endpoint, table)
    assert figures.column_names == [column.name for column in endpoint.table_columns]
    order = [(key, "ascending") for key in endpoint.key_columns]
    assert figures.select(table.column_names) == table.sort_by(order)


@pytest.mark.parametrize("endpoint", MONTHLY, ids=lambda endpoint: endpoint.name)
def test_a_month_without_rows_has_typed_figures(endpoint: Endpoint) -> None:
    """Prevents that an empty month has other columns than a full one, and fails the load."""
    figures = with_daily_figures(endpoint, RowTyper(endpoint, {}).table([]))
    assert figures.num_rows == 0
    for column in endpoint.daily_columns:
        assert figures.schema.field(column.name).type == pa.int64()
