"""Reading the next group of a run while the one before it is loaded: sooner, otherwise the same."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import filelock
import pytest
from dagster import DagsterInstance

from analytics_assets.orchestration.resources import AnalyticsApi, Warehouse
from analytics_assets.sandbox import Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME, in_group
from analytics_assets.segment.errors import TokenRejected
from analytics_assets.segment.model import Group
from analytics_assets.segment.settings import LoadOptions
from analytics_assets.warehouse.ahead import ReadAhead
from analytics_assets.warehouse.load import LoadRequest, Outcome
from analytics_assets_tests.harness import (
    Project,
    environment,
    materialized,
    steps_failed,
)

LOG = logging.getLogger(__name__)
CATALOG = ["catalog_destinations", "catalog_sources", "catalog_warehouses"]
IDENTITY = ["users", "roles", "labels", "audit_events"]
PATIENCE = 60


def request(group: Group) -> LoadRequest:
    """Return what a run of the whole group asks for, by the environment."""
    names = tuple(endpoint.name for endpoint in in_group(group))
    return LoadRequest(
        group, names, AnalyticsApi().settings(), Warehouse().settings(), LoadOptions()
    )


@contextmanager
def reading_ahead(project: Project) -> Iterator[ReadAhead]:
    """Yield the loads of a run, in the environment of ``project``."""
    ahead = ReadAhead()
    with environment(project.env):
        try:
            yield ahead
        finally:
            ahead.close()


def asked(project: Project, group: Group) -> list[RequestInfo]:
    """Return the answered requests for the resources of a group."""
    paths = {endpoint.path for endpoint in in_group(group)}
    return [info for info in project.sandbox.requests if info.path in paths]


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def hold(project: Project, path: str, reply: Reply) -> threading.Event:
    """Let ``reply`` answer for a path; return what is set when it has been asked for."""
    arrived = threading.Event()

    def intercept(info: RequestInfo) -> Reply | None:
        if info.path != path:
            return None
        arrived.set()
        return reply

    project.sandbox.intercept = intercept
    return arrived


def lock_of(project: Project, group: Group) -> filelock.FileLock:
    """Return the lock that a run of a group holds."""
    return filelock.FileLock(
        project.database.with_name(f".{project.database.name}.analytics.{group}.lock")
    )


def all_loaded(outcomes: list[Outcome]) -> bool:
    """Tell whether every asset was loaded."""
    return all(outcome.loaded for outcome in outcomes)


def test_the_next_group_is_read_before_this_one_is_loaded(project: Project) -> None:
    """Prevents that the API's latency adds up, group after group, while nobody asks for anything.

    Nothing is loaded until the sandbox has answered every request of the next group.
    """
    with reading_ahead(project) as ahead:
        catalog, identity = request("catalog"), request("identity")
        with ahead.loading(catalog, identity, LOG) as load:
            wait_for(lambda: len({info.path for info in asked(project, "identity")}) == 4)
            assert all_loaded(load.load())
        with ahead.loading(identity, None, LOG) as load:
            before = len(project.sandbox.requests)
            assert all_loaded(load.load())
    assert len(project.sandbox.requests) == before
    project.assert_equal([*CATALOG, *IDENTITY])


def test_a_run_asks_for_each_page_once(project: Project) -> None:
    """Prevents that what was read ahead is asked for again, or starts from a state that is old.

    The second run must ask for two months of each usage resource and for new audit events only.
    """
    assert project.materialize().success
    requests = [(info.path, *sorted(info.params.items())) for info in project.sandbox.requests]
    assert len(requests) == len(set(requests))
    project.assert_equal()
    project.sandbox.clear()
    project.sandbox.workspace.add_event(type="Source Created")
    assert project.materialize().success
    project.assert_equal()
    for endpoint in in_group("usage"):
        asked_for = [i.params["period"] for i in asked(project, "usage") if i.path == endpoint.path]
        assert len(set(asked_for)) == 2
    events = [info for info in asked(project, "identity") if info.path == "/audit-events"]
    assert 0 < len(events) <= 2
    assert all("startTime" in info.params for info in events)


def test_a_run_of_all_reads_ahead(project: Project) -> None:
    """Prevents that Dagster's run never uses it: the requests come before the step's own start."""
    offset = time.time() - time.monotonic()
    instance = DagsterInstance.ephemeral()
    result = project.materialize(instance=instance)
    assert result.success
    starts = {
        entry.step_key: entry.timestamp
        for entry in instance.all_logs(result.run_id)
        if entry.dagster_event and entry.dagster_event.is_step_start
    }
    groups: tuple[Group, ...] = ("identity", "inventory", "usage")
    for group in groups:
        first = min(info.arrived_at for info in asked(project, group)) + offset
        assert first < starts[group], group


def test_a_group_that_another_run_loads_is_left_to_its_own_turn(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """Prevents that a run waits for the next group's lock before it loads what it has read."""
    caplog.set_level(logging.DEBUG)
    with reading_ahead(project) as ahead:
        catalog, identity = request("catalog"), request("identity")
        with lock_of(project, "identity"), ahead.loading(catalog, identity, LOG) as load:
            assert all_loaded(load.load())
        assert "The group identity is not read ahead: Gave up after 0 s" in caplog.text
        assert asked(project, "identity") == []
        with ahead.loading(identity, None, LOG) as load:
            assert all_loaded(load.load())
    project.assert_equal([*CATALOG, *IDENTITY])


def test_where_only_a_pool_keeps_runs_apart_nothing_is_read_ahead(
    project: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """Prevents rows marked as deleted that another run has just brought.

    Two runs of a group are kept apart by Dagster's pool where the destination has no locks, and
    a run enters it when the step begins.
    """
    caplog.set_level(logging.DEBUG)
    project.env["ANALYTICS_DESTINATION"] = "filesystem"
    project.env["DESTINATION__FILESYSTEM__BUCKET_URL"] = "memory://lake"
    with reading_ahead(project) as ahead:
        catalog, identity = request("catalog"), request("identity")
        with ahead.loading(catalog, identity, LOG) as load:
            assert all_loaded(load.load())
    assert "not read ahead: the destination 'filesystem' has no locks" in caplog.text
    assert asked(project, "identity") == []


def test_a_group_that_is_not_loaded_after_all_is_let_go(project: Project) -> None:
    """Prevents that a run that ends early waits for the API, keeps a lock, or leaves a folder."""
    arrived = hold(project, "/labels", Reply(delay=120))
    with reading_ahead(project) as ahead:
        with ahead.loading(request("catalog"), request("identity"), LOG) as load:
            assert all_loaded(load.load())
            assert arrived.wait(PATIENCE)
        began = time.monotonic()
        ahead.close()
        assert time.monotonic() - began < 10
    with lock_of(project, "identity").acquire(timeout=0):
        pass
    assert list((project.folder / "tmp").glob("analytics_assets_*")) == []


def test_another_group_than_expected_is_loaded(project: Project) -> None:
    """Prevents that a run whose steps come in another order loads the wrong rows, or waits."""
    arrived = hold(project, "/labels", Reply(delay=120))
    with reading_ahead(project) as ahead:
        with ahead.loading(request("catalog"), request("identity"), LOG) as load:
            assert all_loaded(load.load())
            assert arrived.wait(PATIENCE)
        project.sandbox.intercept = None
        for following in (request("inventory"), request("identity")):
            with ahead.loading(following, None, LOG) as load:
                assert all_loaded(load.load())
    project.assert_equal([name for name in BY_NAME if not BY_NAME[name].monthly])


def test_a_refusal_of_the_next_group_is_its_own(project: Project) -> None:
    """Prevents that trouble met while reading ahead costs the group that is being loaded."""
    paths = {endpoint.path for endpoint in in_group("identity")}
    project.sandbox.intercept = lambda info: Reply(401, b"{}") if info.path in paths else None
    with reading_ahead(project) as ahead:
        with ahead.loading(request("catalog"), request("identity"), LOG) as load:
            assert all_loaded(load.load())
        with (
            pytest.raises(TokenRejected, match="does not accept the token"),
            ahead.loading(request("identity"), request("inventory"), LOG),
        ):
            pass
    project.sandbox.clear()
    result = project.materialize("group:catalog", "group:identity")
    assert set(steps_failed(result)) == {"identity"}
    assert set(materialized(result)) == set(CATALOG)
    project.assert_equal(CATALOG)


@pytest.mark.parametrize("pause", [0, 5], ids=["while loading", "while waiting"])
def test_sigterm_ends_the_reading_ahead_too(loaded: Project, pause: float) -> None:
    """Prevents that a stopped run hangs on the group it read ahead, or leaves its lock behind."""
    arrived = hold(loaded, "/labels", Reply(delay=120))
    code, took, text = loaded.terminate(arrived, pause, "group:catalog or group:identity")
    assert code != 0
    assert took < 20, text[-3000:]
    assert list((loaded.folder / "tmp").glob("analytics_assets_*")) == []
    loaded.sandbox.intercept = None
    assert loaded.materialize("group:identity", warehouse={"lock_timeout": 1}).success
    loaded.assert_equal(IDENTITY)
