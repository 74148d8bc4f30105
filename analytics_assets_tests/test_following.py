"""The sensor loses nothing: runs that fail, that wait, that are under way, a token that is refused.

The runs that it requests are run in this process, on a real HTTP server and a real database.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime, timezone

import pytest
import time_machine
from dagster import AssetKey, DagsterInstance, RunRequest

from analytics_assets.definitions import defs
from analytics_assets.orchestration.loads import loaded_since
from analytics_assets.orchestration.run_tags import GROUPS_TAG, SAW_TAG, TRIGGER_TAG, WORKSPACE_TAG
from analytics_assets.sandbox import Options, Reply
from analytics_assets_tests.conftest import SMALL
from analytics_assets_tests.following import Follower, Tick, selected, start
from analytics_assets_tests.harness import Project

LABELS = {"labels", "audit_events"}
SPACES = {"spaces", "audit_events"}


@pytest.fixture
def follower(start: Callable[..., Project]) -> Follower:
    """Return the sensor after its first look, so that only what a test does is new."""
    follower = Follower(start(Options(scale=SMALL, counts={"audit_events": 0})))
    follower.tick()
    return follower


def requested(tick: Tick) -> RunRequest:
    """Return the one run that a tick requests."""
    [request] = tick.run_requests
    assert isinstance(request, RunRequest)
    return request


def queue(follower: Follower, request: RunRequest) -> str:
    """Put a requested run into the queue, as the daemon does; return its id."""
    tags = {**request.tags, "dagster/run_key": str(request.run_key)}
    job = defs.resolve_implicit_global_asset_job_def()
    return follower.instance.create_run_for_job(job, tags=tags).run_id


def at(moment: float) -> time_machine.travel:
    """Travel to a moment."""
    return time_machine.travel(datetime.fromtimestamp(moment, timezone.utc))


def later(seconds: float) -> time_machine.travel:
    """Travel to so many seconds from now."""
    return at(time.time() + seconds)


def due(follower: Follower) -> float:
    """Return when the labels are requested again."""
    assert follower.cursor
    moment: float = json.loads(follower.cursor)["wanted"]["labels"][2]
    return moment


def test_a_change_is_requested_until_it_is_loaded(follower: Follower) -> None:
    """A cursor that moves with the request says "Nothing has changed" while a table is old."""
    sandbox = follower.project.sandbox
    follower.happen("Label Created")
    sandbox.intercept = lambda info: Reply(422) if info.path == "/labels" else None
    assert not start(follower.project, requested(follower.tick()), follower.instance).success
    for pause in (120, 240, 480):
        moment = due(follower)
        with at(moment - 9):
            tick = follower.tick()
            assert tick.run_requests == []
            assert tick.skip_message == "Not loaded yet, and requested again later: labels."
        with at(moment + 1):
            assert selected(follower.tick()) == {"labels"}
        assert pause <= due(follower) - moment < pause + 30
    sandbox.intercept = None
    with at(due(follower)):
        again = requested(follower.tick())
    assert start(follower.project, again, follower.instance).success
    follower.project.assert_equal(["labels"])
    with later(5000):
        assert follower.tick().skip_message == "Nothing has changed."


def test_a_change_during_a_run_is_added_to_the_next_request(follower: Follower) -> None:
    """A run a minute behind a long one: 33 were queued, and loaded the same nine times over."""
    follower.happen("Label Created")
    run_id = queue(follower, requested(follower.tick()))
    for kind in ("Space Created", "Space Modified"):
        follower.happen(kind)
        tick = follower.tick()
        assert tick.run_requests == []
        assert f"Run {run_id} waits in the queue" in tick.skip_message
    run = follower.instance.get_run_by_id(run_id)
    assert run is not None
    follower.instance.report_run_canceled(run)
    with later(61):
        assert selected(follower.tick()) == LABELS | SPACES


def test_what_a_run_has_loaded_that_began_later_is_not_requested(follower: Follower) -> None:
    """A schedule that has just loaded the table makes the request a waste."""
    follower.happen("Label Created")
    request = requested(follower.tick())
    assert follower.instance.get_runs_count() == 0  # as if the daemon had died just then
    assert request.run_key
    with later(1):
        assert follower.project.materialize(*LABELS, instance=follower.instance).success
    with later(120):
        assert follower.tick().run_requests == []


def test_a_load_counts_from_when_its_run_began(project: Project) -> None:
    """A list that was read before the change is old, however late its rows were committed."""
    instance = DagsterInstance.ephemeral()
    result = project.materialize("labels", instance=instance)
    record = instance.get_run_record_by_id(result.run_id)
    assert record
    assert record.start_time
    keys = [AssetKey("labels"), AssetKey("spaces")]
    assert loaded_since(instance, keys, record.start_time) == {AssetKey("labels")}
    assert loaded_since(instance, keys, record.start_time + 0.001) == frozenset()


def test_a_refused_token_pauses_the_sensor_and_loses_nothing(follower: Follower) -> None:
    """A token that was revoked for a minute looked like a quiet day, with two tables missing."""
    sandbox, project = follower.project.sandbox, follower.project
    follower.happen("Label Created")
    request = requested(follower.tick())
    sandbox.intercept = lambda _: Reply(401, b"{}")
    assert not start(project, request, follower.instance).success
    with later(120):
        tick = follower.tick()
        assert tick.run_requests == []
        assert tick.skip_message.startswith("Paused, nothing is requested: The audit trail cannot")
        sandbox.intercept = None
        follower.happen("Space Created")
        again = requested(follower.tick())
    assert start(project, again, follower.instance).success
    project.assert_equal(["labels", "spaces"])


def test_a_run_says_what_it_is_for(follower: Follower) -> None:
    """In a list of a hundred runs of one job, nobody finds the one that a change has started."""
    follower.happen("Label Created")
    tags = requested(follower.tick()).tags
    assert tags[TRIGGER_TAG] == "audit trail"
    assert tags[WORKSPACE_TAG] == "analytics"
    assert tags[GROUPS_TAG] == "identity"
    assert tags[SAW_TAG] == "1 Label Created"


def test_a_cursor_of_version_0_1_goes_on(follower: Follower) -> None:
    """An upgrade that refuses the cursor stops the sensor until somebody resets it."""
    follower.happen("Label Created")
    tick = follower.tick('{"newest": "2026-01-01T00:00:00.000Z", "seen": []}')
    assert selected(tick) >= LABELS


@pytest.mark.parametrize("wanted", ["3", '{"labels": 1}', '["labels"]', "null"])
def test_a_foreign_note_of_what_is_wanted_is_refused(follower: Follower, wanted: str) -> None:
    """A cursor edited by hand must not end in a stack trace."""
    foreign = f'{{"newest": "2026-01-01T00:00:00.000Z", "seen": [], "wanted": {wanted}}}'
    assert "reset it" in follower.tick(foreign).skip_message
