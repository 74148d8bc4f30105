"""Rows that wait on disk until their list is known to be whole."""

from __future__ import annotations

import tempfile
import tracemalloc
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from analytics_assets.segment.endpoints import BY_NAME
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


@given(pages=PAGES, gone=st.sets(st.sampled_from(MONTHS), max_size=1), held=st.lists(ROWS))
def test_the_last_row_of_each_key_is_kept(
    pages: list[tuple[str, int, Page]], gone: set[str], held: Page
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


def test_rows_take_no_memory_while_they_wait(tmp_path: Path) -> None:
    """Prevents memory that grows with the size of the workspace: keys of ten million rows."""
    typer, staging = RowTyper(USAGE, {}), Staging(USAGE, tmp_path / "rows")
    records = [record(MONTHS[0], source, 3, 7) for source in range(1000)]
    page = typer.table(records)
    staging.add(MONTHS[0], page)
    tracemalloc.start()
    before = pa.total_allocated_bytes() + tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        staging.add(MONTHS[1], page)
    kept = pa.total_allocated_bytes() + tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert kept / 200_000 < 1  # bytes a row
