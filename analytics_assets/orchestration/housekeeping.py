"""What a run spares its process: searches for garbage, and Dagster's index opened anew.

Both are as they were when the run ends.
"""

from __future__ import annotations

import atexit
import gc
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Final

from dagster import DagsterInstance

ALLOCATIONS: Final = 20_000
"""New objects between two searches for garbage; Python's own 700 are fewer than a page has."""


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


@contextmanager
def index_open(instance: DagsterInstance) -> Iterator[None]:
    """Keep the SQLite file open that Dagster opens and closes for each event of an asset or check.

    The last connection to leave it copies SQLite's log into it, deletes the log and waits for the
    disk. With one more, which does nothing, that happens once. The file of the run itself is left
    alone: the UI follows a run by the changes of that file.
    """
    path_for_shard = getattr(instance.event_log_storage, "path_for_shard", None)
    with ExitStack() as stack:
        if path_for_shard and (file := Path(path_for_shard("index"))).is_file():
            with suppress(sqlite3.Error):
                index = stack.enter_context(closing(sqlite3.connect(file, timeout=1)))
                index.execute("SELECT 1 FROM sqlite_master").close()  # it opens no sooner
        yield
