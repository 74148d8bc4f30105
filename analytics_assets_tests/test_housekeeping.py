"""What a run spares its process, and that nothing of it is left behind."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue

import pytest
from dagster import AssetKey, AssetMaterialization, DagsterInstance, job

from analytics_assets.orchestration.housekeeping import (
    ARROW_POOL,
    event_files_open,
    little_garbage_collection,
)
from analytics_assets_tests.harness import Project

POOL_AFTER_A_RUN = """
import os, sys
{before}
from analytics_assets import defs
assert "pyarrow" not in sys.modules or {before!r}
keys = [key for key in defs.resolve_all_asset_keys() if key.path[-1] == "labels"]
ran = defs.resolve_implicit_global_asset_job_def().execute_in_process(asset_selection=keys)
import pyarrow
print("pool", ran.success, pyarrow.default_memory_pool().backend_name, os.environ.get({name!r}))
"""


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


@pytest.mark.parametrize(
    ("before", "given", "pool", "left"),
    [
        ("", {}, "system", "None"),
        ("", {ARROW_POOL: "mimalloc"}, "mimalloc", "mimalloc"),
        ("import pyarrow; pyarrow.default_memory_pool()", {}, "mimalloc", "None"),
    ],
)
def test_memory_of_arrow_goes_back(
    project: Project, before: str, given: dict[str, str], pool: str, left: str
) -> None:
    """Prevents a tenth more memory, and a host whose own choice a run takes back."""
    code = POOL_AFTER_A_RUN.format(before=before, name=ARROW_POOL)
    project.env |= given
    done = project.command(sys.executable, "-c", code)
    assert f"pool True {pool} {left}\n" in done.stdout


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


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[DagsterInstance]:
    """Return an instance whose storage is files, as that of a laptop."""
    with DagsterInstance.local_temp(str(tmp_path)) as found:
        found.report_runless_asset_event(AssetMaterialization("lists"))
        yield found


def logs_of(instance: DagsterInstance) -> set[str]:
    """Return the names of SQLite's logs, one for each file of events that is open."""
    [index] = Path(instance.root_directory).rglob("index.db")
    return {file.name for file in index.parent.glob("*-wal")}


def test_files_of_events_are_opened_once(instance: DagsterInstance) -> None:
    """Prevents a wait for the disk with each event, and logs that are left behind."""
    run = instance.create_run_for_job(nothing)
    instance.report_engine_event("begun", run)
    with suppress(ValueError), event_files_open(instance, run.run_id):
        instance.report_runless_asset_event(AssetMaterialization("lists"))
        instance.report_engine_event("told", run)
        assert logs_of(instance) == {"index.db-wal", f"{run.run_id}.db-wal"}
        raise ValueError
    assert logs_of(instance) == set()
    assert len(instance.fetch_materializations(AssetKey("lists"), limit=9).records) == 2
    assert [event.message for event in instance.all_logs(run.run_id)] == [
        "begun",
        "told",
    ]


def test_page_of_a_run_does_not_stand_still(instance: DagsterInstance, tmp_path: Path) -> None:
    """Prevents a page of the UI that shows nothing until the run has ended.

    It follows the changes of the file of the run, to which SQLite writes only now and then.
    """
    run, seen = instance.create_run_for_job(nothing), Queue[str]()
    instance.report_engine_event("before", run)
    with (
        event_files_open(instance, run.run_id),
        DagsterInstance.local_temp(str(tmp_path)) as webserver,
    ):
        webserver.watch_event_logs(run.run_id, None, lambda event, _: seen.put(event.message))
        for number in range(3):
            instance.report_engine_event(f"event {number}", run)
            while seen.get(timeout=10) != f"event {number}":
                pass


def test_run_of_another_place_is_left_alone(instance: DagsterInstance) -> None:
    """Prevents a run from failing whose file of events is not there, as where it was deleted."""
    with event_files_open(instance, "d2e1a9f0-0000-4000-8000-000000000000"):
        assert instance.get_runs() == []
    assert not [*Path(instance.root_directory).rglob("d2e1a9f0-*")]


def test_instance_without_files_has_nothing_held_open() -> None:
    """Prevents runs on PostgreSQL, or in memory, from failing for want of a file."""
    with DagsterInstance.ephemeral() as instance, event_files_open(instance, "any"):
        assert instance.get_runs() == []


@job
def nothing() -> None:
    """Do nothing."""
