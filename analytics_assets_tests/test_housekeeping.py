"""What a run spares its process, and that nothing of it is left behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from dagster import AssetKey, AssetMaterialization, DagsterInstance

from analytics_assets.orchestration.housekeeping import index_open, little_garbage_collection


class Knot:
    """Garbage that only a search can find."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def usual_search() -> Iterator[None]:
    """Search for garbage as Python does by itself; the tests do so less often."""
    before = gc.get_threshold()
    gc.unfreeze()
    gc.set_threshold(700, 10, 10)
    yield
    gc.freeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("usual_search")
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


@pytest.mark.usefixtures("usual_search")
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


def test_index_is_opened_once_and_the_file_of_a_run_is_left_alone(tmp_path: Path) -> None:
    """Prevents a wait for the disk with each event, and a run whose page in the UI stands still.

    The page follows the changes of the file of the run, to which a connection that is held open
    would keep SQLite from writing.
    """
    with DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.report_runless_asset_event(AssetMaterialization("lists"))
        [index] = tmp_path.rglob("index.db")
        assert len([*index.parent.iterdir()]) == 2  # the other one is that of no run
        with suppress(ValueError), index_open(instance):
            instance.report_runless_asset_event(AssetMaterialization("lists"))
            assert {file.name for file in index.parent.glob("*-wal")} == {"index.db-wal"}
            raise ValueError
        assert not [*index.parent.glob("*-wal")]
        assert len(instance.fetch_materializations(AssetKey("lists"), limit=9).records) == 2


def test_instance_without_files_has_nothing_held_open() -> None:
    """Prevents runs on PostgreSQL, or in memory, from failing for want of a file."""
    with DagsterInstance.ephemeral() as instance, index_open(instance):
        assert instance.get_runs() == []
