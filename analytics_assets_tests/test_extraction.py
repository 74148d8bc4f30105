"""What the threads of a run know together of the reading of one list."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any

import pytest

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.extraction import Extraction

CHAINS = 3000


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Let threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_chains_that_have_ended_are_not_under_way() -> None:
    """Prevents a list of many parents from standing still: only so many are read at once."""
    endpoint = BY_NAME["source_schema_settings"]
    extraction = Extraction(endpoint, parent=Extraction(BY_NAME["sources"]))
    assert all(extraction.expect(name) for name in ("read", "later", "gone", "going"))
    assert not extraction.expect("read")
    body: dict[str, Any] = {"data": {"settings": {"track": {}}}}
    extraction.accept("read", body, 1000)
    extraction.end_request("gone", ResourceError("not found", status=404))
    assert extraction.under_way == 2
    extraction.accept("later", body, 1000)
    extraction.end_request("going", ResourceError("not found", status=404))
    assert extraction.under_way == 0


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("counted", ["pages", "rows", "under_way"])
def test_chains_may_be_counted_while_they_are_found(counted: str) -> None:
    """Prevents a word of progress from failing a group whose parents are still being read."""
    parent = Extraction(BY_NAME["sources"])
    extraction = Extraction(BY_NAME["source_schema_settings"], parent=parent)
    ended = Event()

    def count() -> None:
        while not ended.is_set():
            getattr(extraction, counted)

    with ThreadPoolExecutor(3) as pool:
        counts = [pool.submit(count) for _ in range(3)]
        for number in range(CHAINS):
            extraction.expect(f"source{number}")
        ended.set()
    assert [future.exception() for future in counts] == [None] * 3
    assert len(extraction.chains) == CHAINS
