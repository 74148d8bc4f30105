"""What a run spares its process: searches for garbage, Dagster's files opened anew, and memory.

The first two are as they were when the run ends.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Final

from dagster import DagsterInstance

ALLOCATIONS: Final = 20_000
"""New objects between two searches for garbage; Python's own 700 are fewer than a page has."""
ARROW_POOL: Final = "ARROW_DEFAULT_MEMORY_POOL"
"""Names the allocator that Arrow uses, when it is first used in a process."""
NOTICE_SECONDS: Final = 0.3
"""How long the UI may take to notice an event."""


@contextmanager
def little_garbage_collection() -> Iterator[None]:
    """Look for garbage less often within the block, and not among what was there before it.

    Some 300,000 objects of Dagster, dlt and the definitions outlive each run. What is there when
    the process ends is left alone as well: the interpreter would look through it several times.
    A process that has such settings of its own keeps them.
    """
    if gc.get_freeze_count() or not gc.isenabled():
        yield
        return
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(max(before[0], ALLOCATIONS), *before[1:])
    atexit.unregister(gc.freeze)  # once is enough, however many runs there are
    atexit.register(gc.freeze)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def import_arrow() -> None:
    """Import Arrow so that it takes its memory from the C library.

    Its own allocator keeps some of it for each thread that ever held a table: a run has a dozen.
    A process that has named an allocator, or works with Arrow already, keeps what it has.
    """
    if "pyarrow" in sys.modules or ARROW_POOL in os.environ:
        return
    os.environ[ARROW_POOL] = "system"
    try:
        importlib.import_module("pyarrow")
    finally:
        os.environ.pop(ARROW_POOL, None)  # another run of the process may have done so


@contextmanager
def event_files_open(instance: DagsterInstance, run_id: str) -> Iterator[None]:
    """Keep the SQLite files open that Dagster opens and closes for each event: index and run.

    The last connection to leave such a file copies SQLite's log into it, deletes the log and waits
    for the disk. With one more, which does nothing, it does so every few megabytes and at the end.
    """
    path_for_shard = getattr(instance.event_log_storage, "path_for_shard", None)
    with ExitStack() as stack:
        if path_for_shard:
            index, run = (Path(path_for_shard(shard)) for shard in ("index", run_id))
            stack.enter_context(_open(index))
            stack.enter_context(_open(run))
            stack.enter_context(_seen_to_change(run))
        yield


@contextmanager
def _open(file: Path) -> Iterator[None]:
    """Hold a SQLite file open, if it is there and can be opened.

    A generator that is given up, as the one around this may be, is closed by any thread.
    """
    with ExitStack() as stack:
        if file.is_file():
            with suppress(sqlite3.Error):
                opened = sqlite3.connect(file, timeout=1, check_same_thread=False)
                stack.enter_context(closing(opened))
                opened.execute("SELECT 1 FROM sqlite_master").close()  # it opens no sooner
        yield


@contextmanager
def _seen_to_change(file: Path) -> Iterator[None]:
    """Touch a file whenever its log has grown: the UI follows a run by the changes of the file."""
    ended = Event()

    def touch() -> None:
        told = 0
        while not ended.wait(NOTICE_SECONDS):
            with suppress(OSError):  # the log may not be there yet, or the run be deleted
                if (grown := Path(f"{file}-wal").stat().st_mtime_ns) != told:
                    os.utime(file)
                    told = grown

    toucher = Thread(target=touch, name="analytics_assets_events", daemon=True)
    toucher.start()
    try:
        yield
    finally:
        ended.set()
        toucher.join()
