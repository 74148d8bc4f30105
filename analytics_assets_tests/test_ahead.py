"""The next group is loaded while Dagster stores what became of the last one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import filelock
import pytest
from dagster import DagsterEventType, DagsterInstance, EventLogEntry

from analytics_assets.segment.spans import recording
from analytics_assets.warehouse.ahead import ahead
from analytics_assets_tests.harness import Project, failure_of, wait_for

CATALOG, IDENTITY = "catalog_sources", "labels"


def test_a_group_is_loaded_while_the_one_before_is_stored(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a slow storage of Dagster from holding up all loads, one event after the other.

    And another run from loading a group before it is known what became of it in this one.
    """
    instance = DagsterInstance.ephemeral()
    store, seen = instance.handle_new_event, threading.Event()
    lock = project.database.with_name(f".{project.database.name}.analytics.catalog.lock")

    def store_slowly(event: EventLogEntry, **options: Any) -> None:
        found = event.dagster_event
        if found and found.event_type == DagsterEventType.ASSET_MATERIALIZATION:
            wait_for(lambda: recorder.loading["check"].count == 2)
            if not seen.is_set():
                with pytest.raises(filelock.Timeout):
                    filelock.FileLock(lock).acquire(timeout=0)
                seen.set()
        store(event, **options)

    monkeypatch.setattr(instance, "handle_new_event", store_slowly)
    with recording() as recorder:
        result = project.materialize(CATALOG, IDENTITY, instance=instance)
    assert failure_of(result) == ""
    assert seen.is_set()
    project.assert_equal([CATALOG, IDENTITY])


def test_nothing_more_is_begun_for_one_who_gives_up() -> None:
    """Prevents a run that is told to stop from loading group after group for nobody."""
    begun: list[int] = []
    going_on = threading.Event()

    def work() -> Iterator[int]:
        for number in range(1, 4):
            begun.append(number)
            if number == 2:
                assert going_on.wait(60)
            yield number

    with closing(ahead(work(), going_on.set)) as told:
        assert next(told) == 1
        wait_for(lambda: begun == [1, 2])
    assert begun == [1, 2]
    assert not [t for t in threading.enumerate() if t.name.startswith("load")]


def test_what_fails_is_raised_in_its_turn() -> None:
    """Prevents the results before a failure from being lost, or the work from going on after it."""
    ended: list[str] = []

    def work() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("broken")

    told = ahead(work(), lambda: ended.append("ended"))
    assert [next(told), next(told)] == [1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(told)
    assert ended == ["ended"]
    assert list(ahead(iter([1, 2]), lambda: ended.append("again"))) == [1, 2]
    assert ended == ["ended"]
