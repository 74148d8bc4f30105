"""Where the seconds of a run go: named spans.

No Dagster, no dlt. ``with span("load"): ...`` costs next to nothing unless a :func:`recording` is
open. Each span keeps its own time: what a span within it takes, in the same thread, is that one's.
So the spans of one thread never overlap, and those of the thread that records add up to its wall
time, less what no span covers. The thread that loads, and all others, run beside it and are kept
apart.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Final, Literal, get_args

SpanName = Literal[
    "import",
    "definitions",
    "instance",
    "plan",
    "wait",
    "read",
    "type",
    "stage",
    "compare",
    "extract",
    "normalize",
    "load",
    "mark",
    "check",
    "report",
    "chart",
    "events",
]
"""What each one covers, in the order of a run:

- ``import``: from the start of the process until Dagster and this project are imported, and what a
  run imports later. Only a profile that starts the process sees the first part.
- ``definitions``: building assets, jobs, schedules and sensors, and Dagster's repository of them.
- ``instance``: opening Dagster's instance, with its storage (a profile of the process only).
- ``plan``: locks, restoring dlt's state and schema, what to ask for.
- ``wait``: what the main thread has to wait for the next group to be loaded.
- ``read``: building the ``rest_api`` source and waiting for the API; in the threads that fetch, one
  span for each page: sending, waiting, receiving, parsing JSON.
- ``type``: a page checked, redacted and made an Arrow table, in the threads that fetch.
- ``stage``: typed pages written to disk, and keys that came twice found.
- ``compare``: what was read compared with the tables, with opening and closing the destination.
- ``extract``, ``normalize``: these steps of dlt's pipeline, from staged tables to load packages.
- ``load``: dlt's load step, with opening and closing the destination.
- ``mark``: marking rows as deleted, and counting.
- ``check``: asset checks and figures of the tables, with opening and closing the destination.
- ``report``: what reports read, and their answers; they are extracted and loaded like tables.
- ``chart``: charts of reports, and the import of what draws them.
- ``events``: storing the run's events and logs in Dagster's instance, and looking up earlier ones
  for each asset and check (a profile of the process only; else part of the span around it).
"""
SPANS: Final[tuple[SpanName, ...]] = get_args(SpanName)
_NOTHING: Final = nullcontext()


@dataclass
class Figures:
    """Seconds of wall time, seconds of the thread's CPU, and how many spans took them."""

    seconds: float = 0.0
    cpu: float = 0.0
    count: int = 0

    def add(self, seconds: float, cpu: float, count: int = 1) -> None:
        """Add the figures of one span, or of several."""
        self.seconds += seconds
        self.cpu += cpu
        self.count += count


class Recorder:
    """Adds up spans of all threads.

    Attributes:
        critical: figures by name, of the thread that made the recorder.
        loading: figures by name, of the threads that said that they load.
        aside: figures by name, of all other threads together.
    """

    def __init__(self) -> None:
        self.critical: dict[SpanName, Figures] = {}
        self.loading: dict[SpanName, Figures] = {}
        self.aside: dict[SpanName, Figures] = {}
        self._lock = threading.Lock()
        self._open = threading.local()
        self._open.lane = self.critical

    def add(self, name: SpanName, seconds: float, cpu: float) -> None:
        """Add a span of the current thread that was measured elsewhere."""
        lane = getattr(self._open, "lane", self.aside)
        with self._lock:
            lane.setdefault(name, Figures()).add(seconds, cpu)

    def load_here(self) -> None:
        """Take the spans of the current thread for those of the load."""
        self._open.lane = self.loading

    @contextmanager
    def span(self, name: SpanName) -> Iterator[None]:
        """Add what the block takes, without the spans within it."""
        outer: Figures | None = getattr(self._open, "within", None)
        within = self._open.within = Figures()
        start, cpu_start = perf_counter(), thread_time()
        try:
            yield
        finally:
            seconds, cpu = perf_counter() - start, thread_time() - cpu_start
            self._open.within = outer
            self.add(name, seconds - within.seconds, cpu - within.cpu)
            if outer:
                outer.add(seconds, cpu)


_recorder: Recorder | None = None


def span(name: SpanName) -> AbstractContextManager[None]:
    """Measure a block of code, if a :func:`recording` is open."""
    recorder = _recorder
    return recorder.span(name) if recorder else _NOTHING


def loading() -> None:
    """Say that the current thread is the one that loads."""
    if _recorder:
        _recorder.load_here()


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record the spans of this process, of all its threads, while the block runs.

    One recording at a time: an inner one takes over from an outer one until it ends.
    """
    global _recorder  # noqa: PLW0603 - threads of dlt's own must find it, so no context variable
    before, _recorder = _recorder, Recorder()
    try:
        yield _recorder
    finally:
        _recorder = before


@contextmanager
def recorded() -> Iterator[Recorder]:
    """Record the spans of the block, within the recording that is open already if there is one."""
    if _recorder is not None:
        yield _recorder
        return
    with recording() as recorder:
        yield recorder
