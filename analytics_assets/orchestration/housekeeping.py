"""What a run spares its process, until it ends."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

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
