"""The groups of a run are read side by side and loaded one after the other."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

import filelock
import pytest
from dagster import AssetKey, DagsterInstance, ExecuteInProcessResult

from analytics_assets.orchestration.retries import NO_RETRY_TAG
from analytics_assets.sandbox import Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME, in_group
from analytics_assets.segment.model import Group
from analytics_assets_tests.harness import PATIENCE, Project, failure_of, materialized

CATALOG = [endpoint.name for endpoint in in_group("catalog")]
IDENTITY = [endpoint.name for endpoint in in_group("identity")]


def asked(project: Project, group: Group) -> list[RequestInfo]:
    """Return the answered requests for the resources of a group."""
    paths = {endpoint.path for endpoint in in_group(group)}
    return [info for info in project.sandbox.requests if info.path in paths]


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


def moments(result: ExecuteInProcessResult, instance: DagsterInstance) -> Mapping[str, float]:
    """Return when each asset was materialized, by name."""
    return {
        str(entry.dagster_event.asset_key and entry.dagster_event.asset_key.to_user_string()): (
            entry.timestamp
        )
        for entry in instance.all_logs(result.run_id)
        if entry.dagster_event and entry.dagster_event.is_step_materialization
    }


def test_all_groups_are_asked_for_before_the_first_is_loaded(project: Project) -> None:
    """Prevents that the API's latency adds up, group after group, while nobody asks for anything.

    The answer that inventory waits for comes only after the other groups have been asked for.
    """
    seen: set[str] = set()
    others = {path for group in ("catalog", "identity", "usage") for path in _paths(group)}

    def intercept(info: RequestInfo) -> Reply | None:
        seen.add(info.path)
        return Reply(503) if info.path == "/spaces" and not others <= seen else None

    project.sandbox.intercept = intercept
    result = project.materialize(api={"retries": 10, "backoff_factor": 0.2})
    assert failure_of(result) == ""
    project.assert_equal()


def _paths(group: Any) -> set[str]:
    """Return the paths of the lists of a group that stand by themselves."""
    return {endpoint.path for endpoint in in_group(group) if not endpoint.parent}


def test_a_group_is_reported_as_soon_as_it_is_loaded(project: Project) -> None:
    """Prevents that a slow list keeps the assets of other groups from those who wait for them."""
    arrived: list[float] = []

    def intercept(info: RequestInfo) -> Reply | None:
        if info.path != "/labels" or len(arrived) > 2:
            return None
        arrived.append(info.arrived_at)
        return Reply(503)

    project.sandbox.intercept = intercept
    instance = DagsterInstance.ephemeral()
    result = project.materialize(
        "group:catalog", "group:identity", api={"backoff_factor": 2}, instance=instance
    )
    assert failure_of(result) == ""
    when = moments(result, instance)
    assert max(when[name] for name in CATALOG) < min(when[name] for name in IDENTITY)


def test_a_run_asks_for_each_page_once(project: Project) -> None:
    """Prevents that something is asked for twice, or starts from a state that is old.

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
    for endpoint in filter(lambda endpoint: endpoint.monthly, in_group("usage")):
        asked_for = [i.params["period"] for i in asked(project, "usage") if i.path == endpoint.path]
        assert len(set(asked_for)) == 2
    events = [info for info in asked(project, "identity") if info.path == "/audit-events"]
    assert 0 < len(events) <= 2
    assert all("startTime" in info.params for info in events)


def test_a_refusal_of_a_whole_group_costs_that_group_only(project: Project) -> None:
    """Prevents that a token without one permission is taken for one that is not accepted."""
    paths = _paths("identity")
    project.sandbox.intercept = lambda info: Reply(401, b"{}") if info.path in paths else None
    result = project.materialize("group:catalog", "group:identity")
    text = failure_of(result)
    for name in ("users", "roles", "labels"):
        assert f"{name} (GET {BY_NAME[name].path}): HTTP 401" in text
    assert set(materialized(result)) == set(CATALOG)
    project.assert_equal(CATALOG)


def test_a_retry_takes_up_the_missing_assets_only(project: Project) -> None:
    """Prevents that one broken list makes the retry of a run load all the others again."""
    hold(project, "/labels", Reply(500))
    instance = DagsterInstance.ephemeral()
    first = project.materialize(instance=instance, api={"retries": 0})
    assert set(materialized(first)) == set(BY_NAME) - {"labels"}
    others = len(BY_NAME) - 1
    assert failure_of(first).startswith(f"1 of {others + 1} assets failed, {others} loaded.")
    project.sandbox.intercept = None
    project.sandbox.clear()
    failed = {
        key for key in map(AssetKey, BY_NAME) if not instance.get_latest_materialization_event(key)
    }
    assert failed == {AssetKey("labels")}
    assert failure_of(project.materialize("labels", instance=instance)) == ""
    assert {info.path for info in project.sandbox.requests} == {"/", "/labels"}


@pytest.mark.parametrize(
    "said", ["", "Materialized value catalog_"], ids=["while loading", "while waiting"]
)
def test_sigterm_ends_all_readings(loaded: Project, said: str) -> None:
    """Prevents that a stopped run hangs on a group under way, or leaves its lock behind.

    It ends before it has had the answer.
    """
    held = 10 * PATIENCE
    arrived = hold(loaded, "/labels", Reply(delay=held))
    config = json.dumps({"resources": {"api": {"config": {"timeout": held}}}})
    words = ("group:catalog or group:identity", "--config-json", config)
    code, text = loaded.terminate(arrived, said, *words)
    assert code != 0
    assert loaded.sandbox.count("/labels") == 0, text[-3000:]
    assert list((loaded.folder / "tmp").glob("analytics_assets_*")) == []
    loaded.sandbox.intercept = None
    assert loaded.materialize("group:identity", warehouse={"lock_timeout": 1}).success
    loaded.assert_equal(IDENTITY)


def test_a_group_that_another_run_loads_comes_last_and_costs_only_itself(project: Project) -> None:
    """Prevents that a run which waits for one group loads none of the others meanwhile."""
    assert failure_of(project.materialize("group:catalog")) == ""
    lock = project.database.with_name(f".{project.database.name}.analytics.catalog.lock")
    instance = DagsterInstance.ephemeral()
    with filelock.FileLock(lock):
        result = project.materialize(
            "group:catalog", "group:identity", warehouse={"lock_timeout": 1}, instance=instance
        )
    assert set(materialized(result)) == set(IDENTITY)
    for name in CATALOG:
        said = f"{name} (GET {BY_NAME[name].path}): Gave up after 1 s of waiting: another run is"
        assert said in failure_of(result)
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert not NO_RETRY_TAG.keys() & run.tags.keys()
    project.assert_equal(IDENTITY)


def test_a_group_that_another_run_lets_go_of_is_loaded_after_the_others(project: Project) -> None:
    """Prevents that a group is left out because it was busy when the run began."""
    lock = filelock.FileLock(
        project.database.with_name(f".{project.database.name}.analytics.catalog.lock"),
        thread_local=False,
    )
    lock.acquire()
    project.sandbox.intercept = lambda info: lock.release() if info.path == "/labels" else None
    instance = DagsterInstance.ephemeral()
    result = project.materialize("group:catalog", "group:identity", instance=instance)
    assert failure_of(result) == ""
    when = moments(result, instance)
    assert max(when[name] for name in IDENTITY) < min(when[name] for name in CATALOG)
    project.assert_equal([*CATALOG, *IDENTITY])
