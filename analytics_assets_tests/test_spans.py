"""Spans: each second counted once, in the thread that took it; the profile leaves nothing out."""

from __future__ import annotations

import threading
import time

import pytest

from analytics_assets.sandbox import Options, Sandbox
from analytics_assets.segment.spans import SPANS, Recorder, loading, recording, span
from analytics_assets_tests.benchmarks.profile import OTHER, measure_spans, print_table
from analytics_assets_tests.conftest import SMALL

PAUSE = 0.05


def total(recorder: Recorder) -> float:
    """Return the seconds of all spans of the recording thread."""
    return sum(figures.seconds for figures in recorder.critical.values())


def test_span_within_another_is_not_counted_twice() -> None:
    """Prevents shares that exceed the whole: a load would count its marks and events as well."""
    start = time.perf_counter()
    with recording() as recorder, span("load"):
        with span("mark"):
            time.sleep(PAUSE)
            with span("events"):
                time.sleep(PAUSE)
        with span("mark"):
            time.sleep(PAUSE)
    wall = time.perf_counter() - start
    found = recorder.critical
    assert {name: figures.count for name, figures in found.items()} == {
        "load": 1,
        "mark": 2,
        "events": 1,
    }
    assert found["mark"].seconds >= 2 * PAUSE
    assert PAUSE <= found["events"].seconds <= wall - 2 * PAUSE
    assert 0 <= found["load"].seconds <= wall - 3 * PAUSE
    assert total(recorder) <= wall
    assert sum(figures.cpu for figures in found.values()) < PAUSE  # it slept


def test_span_that_raises_is_counted_and_closed() -> None:
    """Prevents a failed load from hiding its time, or from swallowing all spans after it."""
    with recording() as recorder:
        with pytest.raises(ValueError, match="broken"), span("load"), span("mark"):
            raise ValueError("broken")
        with span("check"):
            time.sleep(PAUSE)
    assert set(recorder.critical) == {"load", "mark", "check"}
    assert recorder.critical["check"].seconds >= PAUSE


def test_threads_are_kept_apart_from_the_one_that_records() -> None:
    """Prevents thread seconds, which run side by side, from being taken for wall time."""
    threads, rounds = 8, 50

    def work() -> None:
        for _ in range(rounds):
            with span("read"), span("type"):
                pass
        with span("type"):
            time.sleep(PAUSE)

    with recording() as recorder, span("read"):
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    assert set(recorder.critical) == {"read"}
    assert recorder.critical["read"].count == 1
    assert recorder.critical["read"].seconds >= PAUSE  # what runs elsewhere is not taken off
    assert recorder.aside["read"].count == threads * rounds
    assert recorder.aside["type"].count == threads * (rounds + 1)
    assert recorder.aside["type"].seconds >= threads * PAUSE


def test_thread_that_loads_is_kept_apart_from_those_that_read() -> None:
    """Prevents the seconds of a load from disappearing among those of thirty threads that read."""

    def load() -> None:
        loading()
        with span("load"), span("mark"):
            pass

    def read() -> None:
        with span("read"):
            pass

    with recording() as recorder:
        for work in (load, read):
            worker = threading.Thread(target=work)
            worker.start()
            worker.join()
        with span("wait"):
            pass
    assert set(recorder.loading) == {"load", "mark"}
    assert set(recorder.critical) == {"wait"}
    assert set(recorder.aside) == {"read"}
    loading()  # nobody records: nothing to say


def test_nothing_is_recorded_unless_somebody_asks() -> None:
    """Prevents a recording that goes on after its end, and figures of one run in another's."""
    with recording() as outer:
        with recording() as inner, span("plan"):
            pass
        with span("load"):
            pass
    with span("mark"):
        pass
    assert set(inner.critical) == {"plan"}
    assert set(outer.critical) == {"load"}
    assert span("mark") is span("check")  # the same nothing: no object is made


def test_profile_names_every_span_and_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Prevents a span that code moved elsewhere has lost, and time that is counted twice or not."""
    with Sandbox(Options(scale=SMALL)) as sandbox:
        profile = measure_spans(sandbox)
    reading = {"type", "stage"}
    lists = {"read", "check", "mark", "compare"}
    reports = {"extract", "normalize", "load"}  # reports are loaded by the main thread
    beside = reading | lists
    assert set(profile.critical) == {*SPANS, OTHER} - beside
    assert set(profile.loading) == lists | reports
    assert {"read", "type", "stage"} <= set(profile.aside)
    other = profile.critical[OTHER]
    assert 0 <= other.seconds <= profile.wall / 3
    assert 0 <= other.cpu <= profile.cpu / 2
    print_table([profile])
    rows = [line.split("|")[1:3] for line in capsys.readouterr().out.splitlines()[2:]]
    named = {name.strip(): float(seconds) for name, seconds in rows if seconds.strip()}
    assert set(named) == {*SPANS, OTHER, "process"} - beside
    assert sum(named.values()) == pytest.approx(2 * named["process"], abs=0.01 * len(named))
