"""What a run spares its process, and that nothing of it is left behind."""

from __future__ import annotations

import gc
import weakref
from contextlib import suppress

from analytics_assets.orchestration.housekeeping import little_garbage_collection


class Knot:
    """Garbage that only a search can find."""

    def __init__(self) -> None:
        self.itself = self


def test_search_for_garbage_is_as_before_when_a_run_ends() -> None:
    """Prevents a host's process, in which a run was executed, from growing from then on."""
    before, knot = gc.get_threshold(), Knot()
    seen = weakref.ref(knot)
    with suppress(ValueError), little_garbage_collection():
        assert gc.get_freeze_count() > 0
        with little_garbage_collection():  # a second run beside it
            del knot
        assert gc.get_threshold()[0] > before[0]
        raise ValueError
    assert (gc.get_freeze_count(), gc.get_threshold()) == (0, before)
    gc.collect()
    assert seen() is None


def test_process_with_settings_of_its_own_keeps_them() -> None:
    """Prevents a host that has frozen its own objects, or searches never, from losing that."""
    before = gc.get_threshold()
    gc.freeze()
    try:
        with little_garbage_collection():
            assert gc.get_threshold() == before
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
    gc.disable()
    try:
        with little_garbage_collection():
            assert gc.get_freeze_count() == 0
    finally:
        gc.enable()
