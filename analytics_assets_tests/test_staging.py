"""Rows that wait on disk until their list is known to be whole."""

from __future__ import annotations

import os
import tempfile
import tracemalloc
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_assets.segment import daily_figures, repeats
from analytics_assets.segment import staging as staging_module
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.extraction import Extraction
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.records import RowTyper
from analytics_assets.segment.staging import Staging

USAGE = BY_NAME["usage_mtu_sources_daily"]
MONTHS = ("2026-01-01", "2026-02-01", "2026-03-01")
Page = list[tuple[int, int, int]]
"""Rows by source, day of the month, and figure."""


def record(month: str, source: int, day: int, figure: int) -> dict[str, Any]:
    """Return a row of usage as the API serves it."""
    moment = f"{date.fromisoformat(month) + timedelta(days=day)}T00:00:00.000Z"
    names = ("anonymous", "anonymousIdentified", "identified", "neverIdentified")
    return {
        "sourceId": f"source{source}",
        "timestamp": moment,
        "periodStart": 0,
        "periodEnd": 1,
        **dict.fromkeys(names, str(figure)),
    }


ROWS = st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 99))
PAGES = st.lists(
    st.tuples(st.sampled_from(MONTHS), st.integers(0, 29), st.lists(ROWS, max_size=6)), max_size=8
)


@pytest.mark.parametrize("at_once", [repeats.ROWS_AT_ONCE, 3])
@given(pages=PAGES, gone=st.sets(st.sampled_from(MONTHS), max_size=1), held=st.lists(ROWS))
def test_the_last_row_of_each_key_is_kept(
    at_once: int, pages: list[tuple[str, int, Page]], gone: set[str], held: Page
) -> None:
    """Prevents lost or doubled rows, wherever a key comes again: in a page, a month or another.

    The months overlap, as an API may serve a day under two of them: some shift their days by up to
    29.
    """
    expected: dict[tuple[str, str], int] = {}
    with tempfile.TemporaryDirectory() as folder:
        typer, staging = RowTyper(USAGE, {}), Staging(USAGE, Path(folder) / "rows")
        for month, shift, rows in pages:
            records = [record(month, source, day + shift, n) for source, day, n in rows]
            staging.add(month, typer.table(records))
        for month, shift, rows in sorted(pages, key=lambda page: page[0]):
            for source, day, figure in rows if month not in gone else ():
                one = record(month, source, day + shift, figure)
                expected[one["sourceId"], one["timestamp"][:10]] = figure
        moments = [record(MONTHS[0], source, day, 0) for source, day, _ in held]
        keys = typer.table(moments).select(USAGE.key_columns).to_pylist()
        wanted = frozenset(tuple(row[name] for name in USAGE.key_columns) for row in keys)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(repeats, "ROWS_AT_ONCE", at_once)  # so few that a month is cut
            staging.settle(frozenset(gone), wanted)
        found = pa.concat_tables(staging.tables(typer.undeclared)).to_pylist()
    rows_found = {
        (row["source_id"], str(row["timestamp"])[:10]): row["identified"] for row in found
    }
    assert (len(found), staging.rows) == (len(expected), len(expected))
    assert rows_found == expected
    assert {(key[0], str(key[1])[:10]) for key in staging.missing} == {
        (key[0], str(key[1])[:10]) for key in wanted
    } - expected.keys()


@given(pages=PAGES)
def test_a_month_of_many_rows_has_the_same_figures(pages: list[tuple[str, int, Page]]) -> None:
    """Prevents figures that depend on how a month is cut to fit into memory, and lost rows."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        typer, staging = RowTyper(USAGE, {}), Staging(USAGE, Path(folder) / "rows")
        for month, shift, rows in pages:
            records = [record(month, source, day + shift, n) for source, day, n in rows]
            staging.add(month, typer.table(records))
        staging.settle()
        for at_once in (daily_figures.ROWS_AT_ONCE, 2):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(daily_figures, "ROWS_AT_ONCE", at_once)
                found.append(pa.concat_tables(staging.tables(typer.undeclared)))
    assert found[0].to_pylist() == found[1].to_pylist()


def test_a_month_is_not_read_again_and_again() -> None:
    """Prevents a load whose time grows with the square of the number of sources."""
    sources = pa.chunked_array([[f"source{n:05}" for n in range(50_000)]])
    found = daily_figures.shares("source_id", [sources], 200 * daily_figures.ROWS_AT_ONCE)
    assert len(found) == daily_figures.MOST_SHARES
    table = pa.table({"source_id": sources})
    assert sum(daily_figures.of_share(table, share).num_rows for share in found) == 50_000


def test_a_month_of_many_rows_takes_little_memory(tmp_path: Path) -> None:
    """Prevents memory that grows with the rows of a month, which are read back to be loaded."""
    typer, staging = RowTyper(USAGE, {}), Staging(USAGE, tmp_path / "rows")
    for first in range(0, 3000, 1000):
        sources = range(first, first + 1000)
        for day in range(20):
            records = [record(MONTHS[0], source, day, 7) for source in sources]
            staging.add(MONTHS[0], typer.table(records))
    staging.settle()
    peaks = []
    usual = pa.default_memory_pool()
    for at_once in (100_000, 6000):
        counting = pa.proxy_memory_pool(usual)
        pa.set_memory_pool(counting)
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(staging_module, "TABLE_BYTES", 500_000)
                patch.setattr(daily_figures, "ROWS_AT_ONCE", at_once)
                rows = sum(table.num_rows for table in staging.tables(typer.undeclared))
        finally:
            pa.set_memory_pool(usual)
        assert rows == staging.rows
        peaks.append(counting.max_memory())
    assert peaks[1] < peaks[0] / 2


def test_rows_of_one_moment_are_compared_at_once() -> None:
    """Prevents rows from being left out where more of them than usual cannot be told apart."""
    days = (datetime(2026, 1, 1), datetime(2026, 1, 1))
    pages = [repeats.Page("", place, 4 * repeats.ROWS_AT_ONCE, days) for place in range(2)]
    [(begin, end)] = repeats.stretches(pages)
    assert begin <= days[0] < end


def test_keys_of_a_long_month_are_compared_in_parts() -> None:
    """Prevents memory that grows with the number of sources, also where chains share days."""
    january = (datetime(2026, 1, 1), datetime(2026, 1, 31))
    later = (datetime(2026, 1, 31), datetime(2026, 2, 28))
    pages = [repeats.Page("", n, 1000, january if n < 1000 else later) for n in range(2000)]
    assert len(repeats.stretches(pages)) == 4 + 1 + 4


def test_rows_take_no_memory_while_they_wait(tmp_path: Path) -> None:
    """Prevents memory that grows with the size of the workspace: keys of ten million rows."""
    typer, staging = RowTyper(USAGE, {}), Staging(USAGE, tmp_path / "rows")
    records = [record(MONTHS[0], source, 3, 7) for source in range(1000)]
    staging.add(MONTHS[0], typer.table(records))
    tracemalloc.start()
    before = pa.total_allocated_bytes() + tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        staging.add(MONTHS[1], typer.table(records))
    kept = pa.total_allocated_bytes() + tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept / 200_000 < 5  # bytes a row, of which its key has 20


def test_rows_that_cannot_be_read_back_cost_their_list_alone(tmp_path: Path) -> None:
    """Prevents a file that was tidied away, or a broken disk, from ending the other groups."""
    rows, name = [record(MONTHS[0], 0, 1, 1)], USAGE.data_selector.rpartition(".")[2]
    body = {"data": {name: rows, "pagination": {"current": "MA==", "totalEntries": 1}}}
    harms: list[Callable[[Path], object]] = [lambda file: os.truncate(file, 300), Path.unlink]
    for harm in harms:
        extraction, file = Extraction(USAGE, [MONTHS[0]]), tmp_path / "rows"
        reading = Reading(
            extraction, RowTyper(USAGE, {}), Staging(USAGE, file), datetime.now(timezone.utc)
        )
        extraction.accept(MONTHS[0], body, 1000)
        assert reading.staging is not None
        reading.staging.add(MONTHS[0], reading.typer.table(rows))
        harm(file)
        reading.finish()
        assert reading.failure is not None
        assert reading.failure.transient
        assert "could not be read back from the folder" in str(reading.failure)
