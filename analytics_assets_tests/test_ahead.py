"""The next group is loaded while Dagster stores what became of the last one."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import filelock
import pytest
from dagster import DagsterEventType, DagsterInstance, EventLogEntry
from dlt.common.runtime import signals

from analytics_assets.sandbox import RequestInfo
from analytics_assets.segment.errors import DestinationUnreachable
from analytics_assets.segment.spans import recording
from analytics_assets.warehouse.ahead import ahead
from analytics_assets.warehouse.stopping import Stopping
from analytics_assets_tests.harness import PATIENCE, Project, failure_of, wait_for

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
    assert list(ahead(iter([1, 2]), lambda: ended.append("ended"))) == [1, 2]
    assert not ended  # nothing was under way


def test_two_interrupts_do_not_leave_work_behind() -> None:
    """Prevents a second Ctrl-C from letting locks go while what they guard goes on."""
    code = """
        import os, signal, threading, time
        from analytics_assets.warehouse.ahead import ahead
        def work():
            yield 1
            time.sleep(3)
            print("worked", flush=True)
            yield 2
        def interrupt():
            os.kill(os.getpid(), signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have switched it off
        for seconds in (0.5, 1.5):
            threading.Timer(seconds, interrupt).start()
        try:
            for number in ahead(work(), lambda: print("told", flush=True)):
                print(number, flush=True)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout.split() == ["1", "told", "told", "worked", "interrupted"], done.stderr


def test_dlt_is_told_only_while_the_load_is_under_way() -> None:
    """Prevents a run that was stopped from ending whatever dlt does next in the same process."""
    stopping = Stopping()
    with stopping.heeded_by_dlt():
        assert not signals.was_signal_received()
        stopping.tell()
        assert signals.was_signal_received()
    assert not signals.was_signal_received()
    stopping.tell()
    assert not signals.was_signal_received()
    with pytest.raises(DestinationUnreachable), stopping.heeded_by_dlt():
        raise AssertionError("nothing begins any more")


def test_sigterm_ends_a_wait_for_the_database(loaded: Project) -> None:
    """Prevents a run that holds its locks for an hour because another one has the file."""
    due = threading.Event()
    lock = loaded.database.with_name(f".{loaded.database.name}.database.lock")
    held = filelock.FileLock(lock, thread_local=False)

    def hold(info: RequestInfo) -> None:
        if info.path == "/labels":
            held.acquire()
            due.set()

    loaded.sandbox.intercept = hold
    try:
        begun = time.monotonic()
        code, text = loaded.terminate(due, "Waiting: another run is loading the dataset", IDENTITY)
        assert time.monotonic() - begun < PATIENCE
    finally:
        held.release()
    assert code != 0
    assert "RUN_SUCCESS" not in text
    loaded.sandbox.intercept = None
    assert loaded.materialize(IDENTITY, warehouse={"lock_timeout": 1}).success
