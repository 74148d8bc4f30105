"""What runs by itself: schedules, retries, freshness, and the sensor on the audit trail.

The sensor is asked as Dagster's daemon asks it (``evaluate_tick``), against a real HTTP server.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import time_machine
from dagster import (
    AssetKey,
    DagsterInstance,
    DagsterRunStatus,
    DefaultScheduleStatus,
    DefaultSensorStatus,
    ExecuteInProcessResult,
    RunConfig,
    RunRequest,
    SensorEvaluationContext,
    SensorResult,
    build_schedule_context,
    build_sensor_context,
    instance_for_test,
    validate_run_config,
)

from analytics_assets.definitions import defs
from analytics_assets.orchestration.freshness import freshness_policy, longest_gap, ticks
from analytics_assets.orchestration.retries import (
    LIMIT_TAG,
    NUMBER_TAG,
    RETRY_TAGS,
    WILL_RETRY_TAG,
    backoff_seconds,
    retries_left,
)
from analytics_assets.orchestration.schedules import DEFAULT_CRON
from analytics_assets.reports.catalogue import reports
from analytics_assets.sandbox import Options, Reply, RequestInfo
from analytics_assets.segment import audit_trail as audit
from analytics_assets.segment.audit_trail import Cursor, assets_of
from analytics_assets.segment.endpoints import ENDPOINTS, GROUPS, in_group
from analytics_assets.segment.errors import SettingError
from analytics_assets_tests.conftest import SMALL
from analytics_assets_tests.following import Follower, run_key, selected, stamp, start
from analytics_assets_tests.harness import (
    ALL_ASSETS,
    Project,
    environment,
    failure_of,
    materialized,
    own_definitions,
    own_sensor,
    own_specs,
)
from analytics_assets_tests.requests_made import expected_requests, requests_by_name

HERE = Path(__file__).parent
CONTRACT = json.loads((HERE / "data" / "wire_contract.json").read_text(encoding="utf-8"))
AUDIT = "/audit-events"
NOW = datetime.now(timezone.utc)

# By the heading of the contract; the types in EXCEPT differ from the rest under their heading.
CONCERNED = {
    "audiences": "audiences",
    "computed_traits": "computed_traits",
    "credentials": "warehouses",
    "destination_filters": "destination_filters",
    "destinations": "destinations destination_subscriptions",
    "groups": "",
    "labels": "labels",
    "profiles_warehouses": "",
    "reverse_etl_models": "reverse_etl_models",
    "sources": "sources",
    "sources (tracking plan connections)": "sources",
    "space_filters": "",
    "transformations": "transformations",
    "users": "users",
    "warehouses": "warehouses warehouse_connected_sources",
    "warehouses (selective sync)": "warehouses warehouse_connected_sources",
}
OWN = {name: r.get("audit_events", ()) for name, r in CONTRACT["resources"].items()}
EXCEPT = {
    "Policy Created": "users roles groups",
    "Policy Deleted": "users roles groups",
    "User Policy Updated": "users roles",
    "User Group Policy Updated": "roles groups",
    "User Group Created": "groups group_users group_invites",
    "User Group Deleted": "groups group_users group_invites",
}
EVENTS: dict[str, set[str]] = {}
for heading, kinds in CONTRACT["audit_event_types"].items():
    for event_type in kinds:
        found = EVENTS.setdefault(event_type, set())
        found.update(EXCEPT.get(event_type, CONCERNED[heading]).split())
        if event_type not in EXCEPT:
            found.update(name for name, types in OWN.items() if event_type in types)
DOCUMENTED = sorted((event_type, " ".join(sorted(names))) for event_type, names in EVENTS.items())
# Spellings of the app's own list, and examples of the API's reference.
SEEN_ELSEWHERE = [
    ("Integrations Created", "destinations destination_subscriptions"),
    ("Warehouses Deleted", "warehouses"),
    ("Destination Filters Modified", "destination_filters"),
    ("Audience Run Failed", "audiences"),
    ("Source Function Deleted", "functions"),
    ("Tracking Plan Modified", "tracking_plans tracking_plan_rules tracking_plan_sources"),
    ("Source Connected To Space", "sources spaces"),
    ("Source Connected to Tracking Plan", "sources tracking_plan_sources"),
    ("Source Disconnected From Tracking Plan", "sources tracking_plan_sources"),
    ("Space Created", "spaces"),
    ("User Added via SSO", "users"),
    ("Engage Warehouse Source Created", "sources"),
    ("Violations Detected", ""),
]


@pytest.fixture
def follower(start: Callable[..., Project]) -> Follower:
    """Return the sensor after its first look, so that only what a test does is new."""
    follower = Follower(start(Options(scale=SMALL, counts={"audit_events": 0})))
    follower.tick()
    return follower


# Jobs and schedules.


def jobs_of_rows() -> dict[str, set[str]]:
    """Work out from the paths which job loads which assets: a parent in the path makes it daily."""
    details = {endpoint.name for endpoint in ENDPOINTS if "{" in endpoint.path}
    groups: dict[str, set[str]] = {
        group: {e.name for e in in_group(group)} - details for group in GROUPS
    }
    return {**groups, "details": details, "reports": set(reports())}


@pytest.mark.parametrize("name", DEFAULT_CRON)
def test_the_next_tick_of_every_schedule_requests_a_valid_run(name: str) -> None:
    """A schedule whose run cannot start is noticed by nobody until the data is old."""
    repository = defs.get_repository_def()
    schedule = repository.get_schedule_def(f"{name}_schedule")
    assert schedule.default_status == DefaultScheduleStatus.STOPPED
    assert isinstance(schedule.cron_schedule, str)
    tick = ticks(schedule.cron_schedule, days=3)[0]
    with (
        instance_for_test() as instance,
        build_schedule_context(
            instance=instance, scheduled_execution_time=tick, repository_def=repository
        ) as context,
    ):
        data = schedule.evaluate_tick(context)
    assert data.run_requests is not None
    (request,) = data.run_requests
    job = repository.get_job(schedule.job_name)
    loaded = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
    assert loaded == jobs_of_rows()[name]
    assert validate_run_config(job, dict(request.run_config)) is not None


@pytest.mark.unit
def test_schedules_do_not_start_together() -> None:
    """Schedules of the same minute queue for one database and one rate limit."""
    minutes = [schedule.cron_schedule.split()[0] for schedule in schedules({}).values()]
    assert len(set(minutes)) == len(DEFAULT_CRON)


@pytest.mark.unit
def test_every_asset_is_loaded_by_one_job() -> None:
    """An asset that no job loads grows old; one that two load costs its requests twice."""
    found = [name for names in jobs_of_rows().values() for name in names]
    assert sorted(found) == sorted(ALL_ASSETS)
    assert len(jobs_of_rows()["details"]) == 10


def test_the_details_job_loads_what_the_hourly_jobs_leave_out(project: Project) -> None:
    """A request for each of two hundred destinations, every hour, uses up somebody's rate limit."""
    result = execute(project, "inventory_job", instance=DagsterInstance.ephemeral())
    assert result.success
    details = jobs_of_rows()["details"]
    made = requests_by_name(project.sandbox.requests)
    assert set(made) == set(materialized(result)) == jobs_of_rows()["inventory"]
    project.sandbox.clear()
    result = execute(project, "details_job", instance=DagsterInstance.ephemeral())
    assert result.success
    assert set(materialized(result)) == details
    parents = {e.parent.resource for e in ENDPOINTS if e.parent}
    made = requests_by_name(project.sandbox.requests)
    assert made == expected_requests(project, names=details | parents)
    project.assert_equal(details)


def test_a_scheduled_run_loads_its_group_and_no_other(project: Project) -> None:
    """A job that selects too much reloads the workspace every hour."""
    result = execute(project, "identity_job", instance=DagsterInstance.ephemeral())
    assert result.success
    assert set(materialized(result)) == jobs_of_rows()["identity"]


def schedules(env: Mapping[str, str]) -> dict[str, Any]:
    """Build the schedules with these variables set."""
    with environment(env):
        return {schedule.name: schedule for schedule in own_definitions().schedules or ()}


@pytest.mark.unit
def test_cron_strings_come_from_the_environment() -> None:
    """A time that cannot be changed makes every installation ask the API at the same minute."""
    found = schedules({"ANALYTICS_CRON_USAGE": " 15 2 * * 1-5 ", "ANALYTICS_CRON_CATALOG": ""})
    assert found["usage_schedule"].cron_schedule == "15 2 * * 1-5"
    assert found["catalog_schedule"].cron_schedule == DEFAULT_CRON["catalog"]


@pytest.mark.unit
@pytest.mark.parametrize("cron", ["hourly", "61 * * * *", "* * * *", "* * * * * *", "*/90 * * * *"])
def test_a_bad_cron_string_is_named(cron: str) -> None:
    """Dagster's own message names no variable, so nobody knows where the text comes from."""
    with pytest.raises(SettingError, match=r"^ANALYTICS_CRON_IDENTITY is .+ five fields .+\.$"):
        schedules({"ANALYTICS_CRON_IDENTITY": cron})


@pytest.mark.unit
@pytest.mark.parametrize("seconds", ["0", "-5", "1.5", "soon", "86401", "9" * 40])
def test_a_bad_sensor_interval_is_named(seconds: str) -> None:
    """An interval of nothing asks the API without a pause."""
    with (
        environment({"ANALYTICS_SENSOR_SECONDS": seconds}),
        pytest.raises(SettingError, match=r"^ANALYTICS_SENSOR_SECONDS is"),
    ):
        own_sensor()


@pytest.mark.unit
def test_the_sensor_is_off_and_looks_once_a_minute_unless_told_otherwise() -> None:
    """A sensor that starts by itself spends somebody's rate limit unasked."""
    with environment({}):
        sensor = own_sensor()
    assert sensor.default_status == DefaultSensorStatus.STOPPED
    assert sensor.minimum_interval_seconds == 60
    with environment({"ANALYTICS_SENSOR_SECONDS": "5"}):
        assert own_sensor().minimum_interval_seconds == 5


# Freshness.


@pytest.mark.unit
@pytest.mark.parametrize(
    ("cron", "hours"),
    [
        ("7 * * * *", 1),
        ("22 4 * * *", 24),
        ("15 2 * * 1-5", 72),
        ("0 9-17 * * *", 16),
        ("0 0 1 * *", 31 * 24),
        ("0 0 1-13 * *", 19 * 24),
        ("0 * 1 * *", 30 * 24 + 1),
        ("0 0 29 2 *", 1461 * 24),
    ],
)
def test_freshness_fits_the_schedule(cron: str, hours: int) -> None:
    """A window shorter than the gap between two runs is an alarm every night or weekend."""
    assert longest_gap(cron) == timedelta(hours=hours)
    policy: Any = freshness_policy(cron)
    assert policy.warn_window.to_timedelta() == timedelta(hours=hours + 1)
    assert policy.fail_window.to_timedelta() == timedelta(hours=2 * hours + 1)


@pytest.mark.unit
def test_every_asset_has_the_freshness_policy_of_its_job() -> None:
    """An asset without one can stop being loaded unseen; an hourly one on a daily asset alarms."""
    jobs = {name: job for job, names in jobs_of_rows().items() for name in names}
    for spec in own_specs():
        cron = DEFAULT_CRON[jobs[spec.key.to_user_string()]]
        assert spec.freshness_policy == freshness_policy(cron), spec.key


# Retries.


def execute(
    project: Project, job: str, *, instance: DagsterInstance, tags: Mapping[str, str] | None = None
) -> ExecuteInProcessResult:
    """Run one of the project's own jobs in this process, with its tags."""
    with environment(project.env):
        return defs.resolve_job_def(job).execute_in_process(
            instance=instance,
            tags=dict(tags or {}),
            run_config=RunConfig(resources={"api": {"config": {"backoff_factor": 0}}}),
            raise_on_error=False,
        )


def will_retry(project: Project, job: str = "inventory_job") -> bool:
    """Run a job that fails; return whether it is retried when its pause is over."""
    with instance_for_test(overrides={"run_retries": {"enabled": True}}) as instance:
        result = execute(project, job, instance=instance)
        assert not result.success
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.tags["dagster/will_retry"] == "false"  # by Dagster, which would not wait
        with time_machine.travel(datetime.now(timezone.utc) + timedelta(seconds=61)):
            requested = retries(instance)
        assert run.tags[WILL_RETRY_TAG] == str(bool(requested)).lower()
        return bool(requested)


def retries(instance: DagsterInstance) -> list[RunRequest]:
    """Return the retries that are requested now."""
    sensor = next(s for s in defs.sensors or () if s.name == "retries")
    with build_sensor_context(instance=instance, definitions=defs) as context:
        result = sensor(context)
    assert isinstance(result, SensorResult)
    return list(result.run_requests or ())


@pytest.mark.parametrize("status", [429, 500, 503, 0])
def test_a_fault_that_can_pass_is_retried(project: Project, status: int) -> None:
    """An outage of a minute at night must not cost the data of the hour."""

    def fault(info: RequestInfo) -> Reply | None:
        if info.path != "/sources":
            return None
        headers = {"Retry-After": "0"} if status == 429 else {}
        return Reply(status, headers=headers, drop=not status)

    project.sandbox.intercept = fault
    assert will_retry(project)


@pytest.mark.parametrize(
    "env",
    [
        {"ANALYTICS_API_TOKEN": "not-the-token"},
        {"ANALYTICS_API_TOKEN": ""},
        {"ANALYTICS_API_BASE_URL": "ftp://example.com"},
        {"ANALYTICS_DUCKDB_PATH": "analytics.duckdb"},
    ],
    ids=["bad token", "no token", "bad URL", "bad database"],
)
def test_a_fault_that_cannot_pass_is_not_retried(project: Project, env: dict[str, str]) -> None:
    """Retries of a bad token lock accounts and hide the mistake for an hour."""
    project.env.update(env)
    assert not will_retry(project)


def test_a_changed_api_is_not_retried(project: Project) -> None:
    """An answer that cannot be read is no better the next time."""
    project.sandbox.intercept = lambda info: Reply(422, b"{}") if info.path == "/sources" else None
    assert not will_retry(project)


def test_a_run_started_by_hand_fails_at_once(project: Project) -> None:
    """Somebody who waits for a run must see its failure, not a run that begins again."""
    project.sandbox.intercept = lambda info: Reply(503) if info.path == "/labels" else None
    with instance_for_test(overrides={"run_retries": {"enabled": True}}) as instance:
        result = project.materialize("labels", instance=instance)
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        assert run.tags["dagster/will_retry"] == run.tags[WILL_RETRY_TAG] == "false"
        with time_machine.travel(datetime.now(timezone.utc) + timedelta(hours=1)):
            assert retries(instance) == []


@pytest.mark.unit
def test_backoff_doubles_and_ends() -> None:
    """Retries without a pause are over before the fault is."""
    tags = dict(RETRY_TAGS)
    waits = [backoff_seconds({**tags, NUMBER_TAG: str(n)}) for n in range(4)]
    assert waits == [60, 120, 240, 480]
    assert backoff_seconds({**tags, NUMBER_TAG: "63"}) == 3600
    assert backoff_seconds({**tags, NUMBER_TAG: "many"}) == 0
    assert backoff_seconds({NUMBER_TAG: "1"}) == 0
    assert [retries_left({**tags, NUMBER_TAG: str(n)}) for n in range(4)] == [3, 2, 1, 0]
    assert retries_left({**tags, LIMIT_TAG: "many"}) == retries_left({}) == 0


def test_a_retry_waits_outside_and_loads_what_is_missing(project: Project) -> None:
    """A pause inside the run holds the pool: a run of a second waited a minute behind one."""
    project.sandbox.intercept = lambda info: Reply(503) if info.path == "/labels" else None
    now = datetime.now(timezone.utc)
    with instance_for_test() as instance, time_machine.travel(now) as clock:
        failed = execute(project, "identity_job", instance=instance)
        assert not failed.success
        for number, pause in enumerate([60, 120, 240], start=1):
            clock.shift(pause - 1)
            assert retries(instance) == []
            clock.shift(2)
            [request] = retries(instance)
            assert [key.to_user_string() for key in request.asset_selection or ()] == ["labels"]
            assert request.tags[NUMBER_TAG] == str(number)
            project.sandbox.clear()
            begun = time.monotonic()
            failed = start(project, request, instance)
            assert time.monotonic() - begun < 30  # it does not wait a second time
            assert project.sandbox.count("/labels") > 0
        clock.shift(3600)
        assert retries(instance) == []


def test_what_a_later_run_has_loaded_is_not_retried(project: Project) -> None:
    """A retry of what is there costs requests, and the queue."""
    with instance_for_test() as instance:
        project.sandbox.intercept = lambda info: Reply(503) if info.path == "/labels" else None
        assert not execute(project, "identity_job", instance=instance).success
        project.sandbox.intercept = None
        assert project.materialize("labels", instance=instance).success
        with time_machine.travel(datetime.now(timezone.utc) + timedelta(seconds=61)):
            assert retries(instance) == []


def test_a_run_that_was_lost_is_retried_as_a_whole(project: Project) -> None:
    """A worker that is killed tells nobody whether trying again is any use."""
    with environment(project.env), instance_for_test() as instance:
        job = defs.resolve_job_def("identity_job")
        run = instance.create_run_for_job(job, tags=dict(job.run_tags))
        instance.report_run_failed(run, "It was lost.")
        with time_machine.travel(datetime.now(timezone.utc) + timedelta(seconds=61)):
            [request] = retries(instance)
    names = {key.to_user_string() for key in request.asset_selection or ()}
    assert names == jobs_of_rows()["identity"]


@pytest.mark.parametrize("status", [DagsterRunStatus.NOT_STARTED, DagsterRunStatus.STARTED])
def test_a_schedule_does_not_queue_behind_its_own_run(status: DagsterRunStatus) -> None:
    """Behind a long run, hourly runs of the same lists pile up and are all worked off."""
    repository = defs.get_repository_def()
    schedule = repository.get_schedule_def("identity_schedule")
    job = repository.get_job("identity_job")
    tags = {**job.run_tags, "dagster/schedule_name": schedule.name}
    with (
        instance_for_test() as instance,
        build_schedule_context(instance=instance, repository_def=repository) as context,
    ):
        run = instance.create_run_for_job(job, status=status, tags=tags)
        data = schedule.evaluate_tick(context)
        if status == DagsterRunStatus.STARTED:
            assert data.run_requests
            return
        assert not data.run_requests
        assert data.skip_message == f"The run before, {run.run_id}, has not begun: it will do."
        with time_machine.travel(datetime.now(timezone.utc) + timedelta(days=1)):
            assert schedule.evaluate_tick(context).run_requests


# The sensor: which assets.


@pytest.mark.unit
@pytest.mark.parametrize(("kind", "names"), DOCUMENTED + SEEN_ELSEWHERE, ids=lambda v: v or "-")
def test_an_event_concerns_exactly_its_assets(kind: str, names: str) -> None:
    """A type that maps to nothing leaves a table old; one that maps to all is a full reload."""
    assert assets_of(kind) == frozenset(names.split())


def test_every_documented_type_requests_a_run_of_exactly_its_assets(follower: Follower) -> None:
    """The table of types is right, yet what the sensor requests is something else."""
    for kind, names in DOCUMENTED:
        follower.happen(kind)
        assert selected(follower.tick()) == {*names.split(), "audit_events"}, kind
        assert follower.requests == 1


@pytest.mark.unit
@pytest.mark.parametrize(
    ("resource", "name"),
    [
        ("source", "sources"),
        ("warehouse", "warehouses"),
        ("storage_destination", "warehouses"),
        ("storageDestination", "warehouses"),
        ("integration", "destinations"),
        ("destination", "destinations"),
        ("model", "reverse_etl_models"),
        ("reverse-etl-model", "reverse_etl_models"),
        ("transformation", "transformations"),
        ("space", "spaces"),
        ("user", "users"),
        ("role", "roles"),
        ("label", "labels"),
        ("function", "functions"),
        ("tracking_plan", "tracking_plans"),
        ("destination_filter", "destination_filters"),
        ("audience", "audiences"),
    ],
)
def test_an_unknown_type_goes_by_its_resource_type(resource: str, name: str) -> None:
    """New event names appear without notice; the table they concern must not grow old."""
    assert assets_of("Something New Happened", resource) == frozenset([name])


def test_an_unknown_event_is_told_and_loads_the_trail_only(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown type that reloads everything makes a chatty product area expensive."""
    told: list[str] = []
    log = logging.getLogger(__name__)
    monkeypatch.setattr(log, "warning", told.append)
    monkeypatch.setattr(SensorEvaluationContext, "log", log)
    follower.happen("Gadget Turned", resourceType="gadget")
    follower.happen("Regulation Deleted", resourceType="regulation")
    assert selected(follower.tick()) == {"audit_events"}
    (text,) = told
    assert "'Gadget Turned' on a 'gadget'" in text


@pytest.mark.unit
@pytest.mark.parametrize("resource", ["", "profiles_warehouse", "warehouse", "space", "user"])
def test_an_event_that_reading_itself_writes_concerns_no_asset(resource: str) -> None:
    """To read profiles warehouses may write this event: a sensor that loads for it feeds itself."""
    for kind in ("Profiles Sync Warehouse Retrieved", "Profiles Sync Warehouses Retrieved"):
        assert assets_of(kind, resource) == frozenset()


@pytest.mark.unit
def test_a_table_belongs_to_the_types_of_its_row_alone() -> None:
    """A resource that can change needs event types in its row, or the sensor never loads it."""
    without = {endpoint.name for endpoint in ENDPOINTS if not endpoint.event_types}
    apart = {e.name for e in ENDPOINTS if e.group in ("catalog", "usage") or e.cursor or e.single}
    assert without == apart


def test_a_change_of_a_tracking_plan_asks_for_what_it_concerns(follower: Follower) -> None:
    """A changed rule that makes the sensor read every destination is a full load every minute."""
    project = follower.project
    follower.happen("Tracking Plan Modified", resourceType="tracking_plan")
    names = selected(follower.tick()) - {"audit_events"}
    assert names == {"tracking_plans", "tracking_plan_rules", "tracking_plan_sources"}
    project.sandbox.clear()
    assert failure_of(project.materialize(*names)) == ""
    assert requests_by_name(project.sandbox.requests) == expected_requests(project, names=names)
    project.assert_equal(names)


# The sensor: which events.


def test_a_quiet_workspace_costs_one_request_a_tick(follower: Follower) -> None:
    """A sensor that costs as much as a load has no use."""
    cursor = follower.cursor
    for _ in range(3):
        result = follower.tick()
        assert result.run_requests == []
        assert result.skip_message == "Nothing has changed."
        assert follower.requests == 1
    assert follower.cursor == cursor


def test_several_events_make_one_run(follower: Follower) -> None:
    """A run per event queues dozens of loads of the same table."""
    for kind in ("Source Created", "Source Modified", "Label Created", "Source Deleted"):
        follower.happen(kind)
    result = follower.tick()
    assert selected(result) == {"sources", "tracking_plan_sources", "labels", "audit_events"}
    assert follower.tick().run_requests == []


def test_the_same_news_have_the_same_key_and_other_news_another(follower: Follower) -> None:
    """A daemon that dies after the request and asks again must not start a second run."""
    before = follower.cursor
    follower.happen("Source Created")
    first, again = follower.tick(before), follower.tick(before)
    assert run_key(first) == run_key(again)
    late = follower.happen("Source Created", timestamp=stamp(follower, minutes=-5))
    assert late["id"]
    assert run_key(follower.tick()) != run_key(first)


def test_a_late_event_is_found_once(follower: Follower) -> None:
    """An event that arrives after newer ones is lost if only newer ones are asked for."""
    follower.happen("Label Created")
    follower.tick()
    follower.happen("Source Created", timestamp=stamp(follower, minutes=-10))
    assert selected(follower.tick()) == {"sources", "audit_events"}
    assert follower.tick().run_requests == []


def test_the_first_look_takes_recent_changes_and_not_the_whole_history(
    start: Callable[..., Project],
) -> None:
    """A first look at 90 days of events is a full reload; one that starts now loses a change."""
    follower = Follower(start(Options(scale=SMALL, counts={"audit_events": 0})))
    follower.happen("Space Created", timestamp=stamp(follower, hours=-2))
    follower.happen("Source Created", timestamp=stamp(follower, minutes=-5))
    assert selected(follower.tick()) == {"sources", "audit_events"}
    assert follower.tick().run_requests == []


def test_nothing_is_lost_while_the_sensor_is_off(follower: Follower) -> None:
    """The cursor is older than the overlap after a weekend; what happened since still counts."""
    sandbox = follower.project.sandbox
    old = Cursor(sandbox.clock() - timedelta(days=3)).to_json()
    follower.happen("Space Created", timestamp=stamp(follower, days=-2))
    assert selected(follower.tick(old)) == {"spaces", "audit_events"}


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("bounds", ["inclusive", "exclusive"])
def test_hundreds_of_events_in_one_second_over_several_pages(
    start: Callable[..., Project], order: Any, bounds: Any
) -> None:
    """Events of the same second are lost or repeated where a page or a tick ends among them."""
    options = Options(
        scale=SMALL, counts={"audit_events": 0}, audit_order=order, audit_bounds=bounds
    )
    follower = Follower(start(options), page_size=100)
    follower.tick()
    moment = stamp(follower, seconds=1)
    for _ in range(250):
        follower.happen("Source Created", timestamp=moment)
    follower.project.sandbox.clock = timedelta(seconds=5)
    assert selected(follower.tick()) == {"sources", "audit_events"}
    assert follower.requests == 3
    assert follower.tick().run_requests == []
    follower.project.sandbox.workspace.add_event(type="Label Created", timestamp=moment)
    assert selected(follower.tick()) == {"labels", "audit_events"}
    assert follower.tick().run_requests == []


def test_more_events_than_can_be_read_refresh_everything_that_events_concern(
    follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that never gets to its end would be given up and begun again for ever."""
    monkeypatch.setattr(audit, "PAGING_SECONDS", -1)
    crowded = Follower(follower.project, page_size=10)
    crowded.cursor = Cursor(datetime.now(timezone.utc) - timedelta(days=30)).to_json()
    for _ in range(30):
        crowded.happen("Label Created", timestamp=stamp(follower, days=-20))
    result = crowded.tick()
    assert selected(result) == {e.name for e in ENDPOINTS if e.event_types} | {"audit_events"}
    assert crowded.requests == 1
    assert crowded.tick().run_requests == []


def test_a_page_size_the_api_refuses_is_no_obstacle(start: Callable[..., Project]) -> None:
    """The older API takes 200 at most; a sensor that insists on 1000 never works there."""
    options = Options(scale=SMALL, counts={"audit_events": 0}, page_limit=200)
    follower = Follower(start(options))
    follower.tick()
    assert follower.cursor
    follower.happen("Source Created")
    assert selected(follower.tick()) == {"sources", "audit_events"}


def test_the_cursor_stays_small(follower: Follower) -> None:
    """A cursor that collects every id ever seen outgrows the database's column."""
    for minute in range(60):
        follower.happen("Source Modified", timestamp=stamp(follower, minutes=minute - 60))
    follower.tick()
    assert follower.cursor
    assert len(json.loads(follower.cursor)["seen"]) <= 16


# The sensor: failures.


def answer(status: int, headers: Mapping[str, str] | None = None, body: bytes = b"{}") -> Any:
    """Return a fault that answers every request so."""
    return lambda _: Reply(status, body, dict(headers or {}))


FAULTS = {
    "no audit feature, 403": (answer(403), "lacks Audit Trail"),
    "no audit feature, 404": (answer(404), "lacks Audit Trail"),
    "no audit feature, 401": (answer(401), "token is not accepted"),
    "down": (answer(503), "HTTP 503"),
    "gateway": (answer(502, {"Content-Type": "text/html"}, b"<html>"), "HTTP 502"),
    "dropped": (lambda _: Reply(drop=True), "the connection to 127.0.0.1"),
    "no answer": (lambda _: Reply(delay=3), "timed out"),
    "long rate limit": (answer(429, {"Retry-After": "60"}), "asks to wait 60 s"),
    "not JSON": (answer(200, body=b"<html>"), "not JSON"),
    "no list": (answer(200, body=b'{"data":{}}'), "no list 'data.events'"),
    "refused": (answer(422), "HTTP 422"),
    "moved": (answer(302, {"Location": "https://example.com/"}), "redirect"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failed_look_is_skipped_with_its_reason(follower: Follower, fault: str) -> None:
    """A failure that moves the cursor loses events; one without a reason is a riddle."""
    sandbox = follower.project.sandbox
    follower = prepared(follower, timeout=0.3 if fault == "no answer" else 30)
    cursor = follower.cursor
    follower.happen("Source Created")
    sandbox.intercept, reason = FAULTS[fault]
    result = follower.tick()
    assert result.run_requests == []
    assert result.skip_message is not None
    assert reason in result.skip_message
    assert sandbox.token not in result.skip_message
    assert result.cursor == cursor
    assert follower.requests <= 2
    sandbox.intercept = None
    assert selected(follower.tick()) == {"sources", "audit_events"}


def prepared(follower: Follower, **api: Any) -> Follower:
    """Return the same sensor with other settings."""
    other = Follower(follower.project, **api)
    other.cursor = follower.cursor
    return other


@pytest.mark.parametrize(
    ("env", "reason"),
    [
        ({"ANALYTICS_API_TOKEN": "not-the-token"}, "token is not accepted"),
        ({"ANALYTICS_API_TOKEN": ""}, "No API token"),
        ({"ANALYTICS_API_BASE_URL": "ftp://example.com"}, "not an http(s) address"),
        ({"ANALYTICS_API_BASE_URL": "http://127.0.0.1:9"}, "the connection to 127.0.0.1:9 failed"),
    ],
    ids=["bad token", "no token", "bad URL", "nobody there"],
)
def test_bad_settings_are_skipped_with_their_reason(
    follower: Follower, env: dict[str, str], reason: str
) -> None:
    """A mistake in the settings must read as one, in the list of ticks."""
    cursor = follower.cursor
    follower.project.env.update(env)
    result = follower.tick()
    assert result.run_requests == []
    assert reason in (result.skip_message or "")
    assert result.cursor == cursor


def test_a_first_look_that_fails_leaves_no_cursor(project: Project) -> None:
    """A cursor from a look that saw nothing would hide what happened before the next."""
    follower = Follower(project)
    project.sandbox.intercept = answer(503)
    assert follower.tick().cursor is None


@pytest.mark.parametrize("cursor", ["yesterday", "{}", '{"newest": 3, "seen": []}', "[]", "null"])
def test_a_foreign_cursor_is_skipped_with_its_reason(follower: Follower, cursor: str) -> None:
    """A cursor edited by hand must not end in a stack trace, nor in a reload."""
    result = follower.tick(cursor)
    assert "reset it" in (result.skip_message or "")
    assert result.cursor == cursor
    assert follower.requests == 0


@pytest.mark.unit
def test_a_cursor_survives_writing() -> None:
    """What is read back differs by a rounding, and an event at its edge comes twice."""
    cursor = Cursor(datetime(2026, 1, 2, 3, 4, 5, 678000, timezone.utc), frozenset({"events/1"}))
    assert Cursor.from_json(cursor.to_json()) == cursor


@pytest.mark.unit
def test_the_sensor_can_start_its_run() -> None:
    """A selection outside of what the sensor targets is refused by the daemon, tick after tick."""
    sensor = own_sensor()
    target = sensor.asset_selection
    assert target is not None
    keys = target.resolve(defs.resolve_asset_graph())
    assert {AssetKey(e.name) for e in ENDPOINTS if e.event_types} < keys
