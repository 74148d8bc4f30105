"""Wide rows on DuckDB, which must have a vector of 2,048 of them in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from analytics_assets.sandbox import Options
from analytics_assets_tests.harness import Project, failure_of

KILOBYTE = 1000
MEGABYTE = 1000 * KILOBYTE


WORDS = ("sends", "events", "to", "the", "warehouse", "every", "hour", "and", "counts", "them")


def text(seed: int, length: int) -> str:
    """Return a text of about ``length`` characters that differs from all others."""
    words = [WORDS[(seed + number * number) % len(WORDS)] for number in range(length // 6)]
    return f"{seed} {' '.join(words)}"


def widen(project: Project, name: str, field: str, count: int, width: int) -> None:
    """Let a list have ``count`` records with a wide text each, in a text or a JSON column."""
    workspace = project.sandbox.workspace
    [first, *_] = records = workspace.records(name)
    for record in records:
        workspace.remove(name, record["id"])
    for number in range(count):
        wide = {"text": text(number, width)} if field == "options" else text(number, width)
        workspace.put(name, {**first, "id": f"wide-{number:05}", field: wide})


@pytest.mark.parametrize(
    ("name", "field", "count", "width"),
    [
        ("catalog_sources", "description", 1000, 40 * KILOBYTE),
        ("catalog_sources", "options", 1000, 40 * KILOBYTE),
        ("catalog_sources", "options", 1, 20 * MEGABYTE),
    ],
)
def test_wide_rows_load_and_load_again(
    start: Callable[..., Project], name: str, field: str, count: int, width: int
) -> None:
    """Prevents that a list of wide rows fails with "Out of Memory" on every run."""
    project = start(Options(scale=0.02))
    widen(project, name, field, count, width)
    for _ in range(2):
        assert failure_of(project.materialize(name, "labels")) == ""
    project.assert_equal([name, "labels"])


def test_the_memory_of_duckdb_can_be_set(start: Callable[..., Project]) -> None:
    """Prevents that a small machine is taken down, or a large one left unused."""
    project = start(Options(scale=0.02))
    widen(project, "catalog_sources", "options", 1, 20 * MEGABYTE)
    message = failure_of(project.materialize("catalog_sources", warehouse={"duckdb_memory_mb": 64}))
    assert "catalog_sources (GET /catalog/sources): " in message
    assert "ANALYTICS_DUCKDB_MEMORY_MB" in message
    project.env["ANALYTICS_DUCKDB_MEMORY_MB"] = "1000"
    assert failure_of(project.materialize("catalog_sources")) == ""
    project.assert_equal(["catalog_sources"])
