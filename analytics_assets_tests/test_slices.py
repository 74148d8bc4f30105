"""Lists that are asked for in slices: by value, by parent; and what a failed slice costs."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from math import ceil
from typing import Any

import orjson
import pytest
from dagster import DagsterInstance

from analytics_assets.orchestration.retries import NO_RETRY_TAG
from analytics_assets.sandbox import Options, Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS, in_group
from analytics_assets.segment.model import Endpoint, Parent, Values
from analytics_assets.warehouse import plan
from analytics_assets_tests.conftest import on_postgres
from analytics_assets_tests.faults import error_reply, run_logged
from analytics_assets_tests.harness import (
    Project,
    Row,
    expected_rows,
    failure_of,
    materialized,
)
from analytics_assets_tests.test_destinations import FilesProject

PLANS, RULES = "tracking_plans", "tracking_plan_rules"
GROUPS, MEMBERS = "groups", "group_users"
COUNTS = {PLANS: 5, GROUPS: 4, "functions": 9}
PAGE = 2
API = {"page_size": PAGE, "retries": 0}

Build = Callable[..., Project]


@pytest.fixture
def build(start: Callable[..., Project], postgres: str) -> Build:
    """Return a function that points a project at a destination by name."""

    def build_project(kind: str, **options: Any) -> Project:
        counts = {**COUNTS, **options.pop("counts", {})}
        project = start(Options(scale=0.1, counts=counts, **options))
        if kind == "postgres":
            return on_postgres(project, postgres)
        if kind == "duckdb":
            return project
        settings = {
            "ANALYTICS_DESTINATION": "filesystem",
            "DESTINATION__FILESYSTEM__BUCKET_URL": str(project.folder / f"lake{uuid.uuid4().hex}"),
        }
        if kind == "delta":
            settings["ANALYTICS_TABLE_FORMAT"] = "delta"
        return FilesProject(project.sandbox, project.folder, {**project.env, **settings})

    return build_project


SERVERS = pytest.mark.parametrize("kind", ["duckdb", "postgres"])
EVERYWHERE = pytest.mark.parametrize(
    "kind", ["duckdb", "postgres", "files", pytest.param("delta", marks=pytest.mark.heavy)]
)


def is_child(info: RequestInfo) -> bool:
    """Tell whether a request is one for the rules of a plan."""
    return info.path.endswith("/rules")


def plan_of(info: RequestInfo) -> str:
    """Return the plan whose rules a request asks for."""
    return info.path.split("/")[2]


def marked(project: Project, table: str) -> list[Row]:
    """Return the rows that are marked as deleted."""
    return [row for row in project.rows(table, live=False) if row.get("deleted_at") is not None]


def load(project: Project, *names: str, **options: Any) -> None:
    """Load, and require that all went well."""
    assert failure_of(project.materialize(*names, api=API, **options)) == ""


# What landed.


@EVERYWHERE
def test_slices_land_as_served_and_follow_changes(build: Build, kind: str) -> None:
    """Prevents lost, doubled or stale rows of lists that hang on others, or come by value."""
    project = build(kind)
    names = (PLANS, RULES, GROUPS, MEMBERS, "functions", "workspace")
    load(project, *names)
    project.assert_equal(names)
    workspace = project.sandbox.workspace
    first, second = (record["id"] for record in workspace.records(PLANS)[:2])
    rule = next(r for r in workspace.records(RULES) if r["trackingPlanId"] == second)
    workspace.put(RULES, {**rule, "version": 99}, parent=second)
    workspace.remove(PLANS, first)
    workspace.remove("functions", workspace.records("functions")[0]["id"])
    load(project, *names, config={"expect_fewer_rows": True})
    shrunk = (PLANS, RULES, "functions") if kind == "delta" else ()
    project.assert_equal(name for name in names if name not in shrunk)
    for name in shrunk:  # Delta merges and marks nothing, so that what is gone stays
        expected = expected_rows(BY_NAME[name], served(project, name))
        landed = project.rows(name)
        assert len(landed) > len(expected)
        assert all(row in landed for row in expected)
    if kind in ("duckdb", "postgres"):
        assert {row["tracking_plan_id"] for row in marked(project, RULES)} == {first}
        assert [row["id"] for row in marked(project, PLANS)] == [first]
        assert len(marked(project, "functions")) == 1
    before = project.rows(RULES, live=False)
    load(project, *names)
    assert project.rows(RULES, live=False) == before


@SERVERS
def test_the_same_child_of_two_parents_makes_two_rows(build: Build, kind: str) -> None:
    """Prevents that a person who is in two groups is kept in one of them only."""
    project = build(kind)
    workspace = project.sandbox.workspace
    person = workspace.records("users")[0]
    groups = [record["id"] for record in workspace.records(GROUPS)[:2]]
    for group in groups:
        record = {name: person[name] for name in ("id", "name", "email")}
        workspace.put(MEMBERS, record, parent=group)
    load(project, MEMBERS)
    found = [row for row in project.rows(MEMBERS) if row["id"] == person["id"]]
    assert {row["user_group_id"] for row in found} >= set(groups)
    project.assert_equal([MEMBERS])


@SERVERS
def test_an_empty_parent_list_makes_an_empty_table(build: Build, kind: str) -> None:
    """Prevents that a workspace without plans has no table of rules, which views stand on."""
    project = build(kind, counts={PLANS: 0})
    load(project, PLANS, RULES)
    assert RULES in project.tables()
    assert project.rows(RULES) == []


# What it asks for.


def test_a_child_alone_reads_its_parent_and_nothing_else(build: Build) -> None:
    """Prevents that the selection of one asset loads another, or asks for more than it needs."""
    project = build("duckdb")
    result = project.materialize(RULES, api=API)
    assert set(materialized(result)) == {RULES}
    assert project.tables() == {RULES}
    paths = {info.path for info in project.sandbox.requests}
    plans = {f"/tracking-plans/{record['id']}/rules" for record in served(project, PLANS)}
    assert paths == {"/", "/tracking-plans", *plans}


def test_a_parent_alone_asks_for_nothing_of_its_children(build: Build) -> None:
    """Prevents that a short list costs a request for each of its rows."""
    project = build("duckdb")
    load(project, PLANS, GROUPS)
    assert {info.path for info in project.sandbox.requests} == {"/", "/tracking-plans", "/groups"}


def served(project: Project, name: str) -> list[dict[str, Any]]:
    """Return what the sandbox serves of a list."""
    return project.sandbox.workspace.records(name)


def test_requests_are_pages_of_chains_of_slices(build: Build) -> None:
    """Prevents that a list is walked twice: the parent for itself and again for its children."""
    project = build("duckdb")
    load(project, PLANS, RULES, GROUPS, MEMBERS, "functions", "workspace")
    asked = Counter(info.path for info in project.sandbox.requests)
    assert asked["/"] == 1
    for parent, child in ((PLANS, RULES), (GROUPS, MEMBERS)):
        way = BY_NAME[child].parent
        assert way is not None
        assert asked[BY_NAME[parent].path] == pages(len(served(project, parent)))
        children = Counter(record[way.param] for record in served(project, child))
        for record in served(project, parent):
            path = BY_NAME[child].path.replace(f"{{{way.param}}}", record["id"])
            assert asked[path] == pages(children[record["id"]])
    kinds = Counter(record["resourceType"] for record in served(project, "functions"))
    values = BY_NAME["functions"].slice
    assert isinstance(values, Values)
    assert asked["/functions"] == sum(pages(kinds[value]) for value in values.values)


def pages(rows: int) -> int:
    """Return the requests that so many rows take: at least one."""
    return max(1, ceil(rows / PAGE))


@pytest.mark.heavy
@pytest.mark.parametrize("name", [e.name for e in ENDPOINTS if e.parent and e.rate_limit])
def test_a_rate_limit_of_its_own_is_kept_and_holds_up_nobody(build: Build, name: str) -> None:
    """Prevents refusals of rules at 200 a minute, and that other lists wait for them."""
    endpoint = BY_NAME[name]
    assert endpoint.parent
    limit = endpoint.rate_limit or 0
    counts = {endpoint.parent.resource: limit + 20, "audiences": 1, "computed_traits": 1}
    project = build("duckdb", counts=counts, rate_limits=True)
    without = {e.name for e in ENDPOINTS if e.parent and e.rate_limit} - {name}
    names = [e.name for e in in_group("inventory") if e.name not in without]
    result = project.materialize(*names, api={"retries": 0})
    assert failure_of(result) == ""
    project.assert_equal([name])
    asked = project.sandbox.requests
    assert all(info.status == 200 for info in asked)
    moments = sorted(info.arrived_at for info in asked if info.resource == name)
    assert len(moments) == limit + 20
    assert all(late - early > 59.9 for early, late in zip(moments, moments[limit:], strict=False))
    others = [info.arrived_at for info in asked if info.resource != name]
    assert max(others) < moments[limit]


# What a failure costs.


@SERVERS
def test_a_parent_that_fails_half_way_costs_its_children_no_row(build: Build, kind: str) -> None:
    """Prevents that rows of plans that were not reached are marked as deleted."""
    project = build(kind)
    load(project, PLANS, RULES, "sources")
    before = {name: project.rows(name, live=False) for name in (PLANS, RULES)}
    project.sandbox.intercept = lambda info: (
        Reply(500)
        if info.path == "/tracking-plans" and "pagination.cursor" in info.params
        else None
    )
    result = project.materialize(PLANS, RULES, "sources", api=API)
    text = failure_of(result)
    assert f"{PLANS} (GET /tracking-plans): HTTP 500" in text
    assert f"its parent list {PLANS} was not read whole" in text
    assert set(materialized(result)) == {"sources"}
    assert {name: project.rows(name, live=False) for name in (PLANS, RULES)} == before


@EVERYWHERE
def test_a_chain_that_fails_fails_the_whole_list_alone(build: Build, kind: str) -> None:
    """Prevents that the rules of one plan vanish because their page could not be read."""
    project = build(kind)
    load(project, PLANS, RULES)
    before = project.rows(RULES, live=False)
    broken = served(project, PLANS)[2]["id"]
    project.sandbox.workspace.put(PLANS, {**served(project, PLANS)[0], "name": "Renamed"})
    project.sandbox.intercept = lambda info: (
        Reply(500) if is_child(info) and plan_of(info) == broken else None
    )
    result = project.materialize(PLANS, RULES, api=API)
    assert f"{RULES} (GET {BY_NAME[RULES].path}): trackingPlanId {broken}: HTTP 500" in failure_of(
        result
    )
    assert set(materialized(result)) == {PLANS}
    assert project.rows(RULES, live=False) == before
    project.assert_equal([PLANS])


@SERVERS
def test_the_children_of_a_parent_that_went_meanwhile_are_gone(build: Build, kind: str) -> None:
    """Prevents that one plan deleted during a run fails all rules, or keeps its own for ever."""
    project = build(kind)
    load(project, PLANS, RULES)
    gone = served(project, PLANS)[1]["id"]

    def remove_when_asked(info: RequestInfo) -> Reply | None:
        if is_child(info) and plan_of(info) == gone:
            project.sandbox.intercept = None
            project.sandbox.workspace.remove(PLANS, gone)
        return None

    project.sandbox.intercept = remove_when_asked
    one_page = {**API, "page_size": 1000}  # the list of plans is whole before any of them goes
    assert failure_of(project.materialize(PLANS, RULES, api=one_page)) == ""
    project.assert_equal([RULES])
    assert {row["tracking_plan_id"] for row in marked(project, RULES)} == {gone}
    assert marked(project, PLANS) == []  # it was there when the list was read
    load(project, PLANS, RULES)
    assert [row["id"] for row in marked(project, PLANS)] == [gone]


@SERVERS
def test_paths_not_found_while_their_parents_stand_are_a_failure(build: Build, kind: str) -> None:
    """Prevents that a moved path looks like the deletion of every rule there is."""
    project = build(kind)
    load(project, PLANS, RULES)
    before = project.rows(RULES, live=False)
    project.sandbox.intercept = lambda info: Reply(404) if is_child(info) else None
    result = project.materialize(PLANS, RULES, api=API)
    assert f"{RULES} (GET {BY_NAME[RULES].path}): trackingPlanId" in failure_of(result)
    assert "HTTP 404" in failure_of(result)
    assert set(materialized(result)) == {PLANS}
    assert project.rows(RULES, live=False) == before


def test_paths_not_found_of_a_table_never_loaded_are_a_missing_feature(build: Build) -> None:
    """Prevents that a workspace whose plan lacks the feature fails every night."""
    project = build("duckdb")
    project.sandbox.intercept = lambda info: error_reply(404) if is_child(info) else None
    result, log = run_logged(project, PLANS, RULES, api=API)
    assert failure_of(result) == ""
    assert f"{RULES} is not available to this workspace or token" in log
    assert materialized(result)[RULES]["available"] is False
    assert project.rows(RULES) == []


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_child_may_be_a_feature_of_its_own(build: Build, status: int) -> None:
    """Prevents that a workspace without subscriptions fails, or cannot load its destinations."""
    name = "destination_subscriptions"
    project = build("duckdb", features_off=frozenset({name}), features_off_status=status)
    result, log = run_logged(project, "destinations", name, api={"retries": 0})
    assert failure_of(result) == ""
    assert f"{name} is not available to this workspace or token" in log
    assert f"HTTP {status}. It needs Destination Subscriptions" in log
    assert materialized(result)[name]["available"] is False
    assert set(materialized(result)) == {"destinations", name}


def test_a_child_of_an_unavailable_parent_is_unavailable(build: Build) -> None:
    """Prevents that the lack of one feature warns for the parent and fails for its children."""
    project = build("duckdb", features_off=frozenset({PLANS}))
    result, log = run_logged(project, PLANS, RULES, "sources", api=API)
    assert failure_of(result) == ""
    for name in (PLANS, RULES):
        assert f"{name} is not available to this workspace or token" in log
        assert materialized(result)[name]["available"] is False
        assert project.rows(name) == []
    assert "available" not in materialized(result)["sources"]


def test_a_child_whose_parent_fails_for_a_moment_can_be_retried(build: Build) -> None:
    """Prevents that a passing fault of the parent takes the retries away from its children."""
    project = build("duckdb")
    project.sandbox.intercept = lambda info: Reply(503) if info.path == "/tracking-plans" else None
    with DagsterInstance.ephemeral() as instance:
        result = project.materialize(RULES, api=API, instance=instance)
        assert "HTTP 503" in failure_of(result)
        run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert not NO_RETRY_TAG.keys() & run.tags.keys()


@SERVERS
@pytest.mark.parametrize("names", [(PLANS, RULES), (RULES,)], ids=["together", "alone"])
def test_the_children_of_a_list_that_was_refused_are_not_loaded(
    build: Build, kind: str, names: tuple[str, ...]
) -> None:
    """Prevents that rules of living plans are marked because the list of plans came cut short."""
    project = build(kind)
    load(project, PLANS, RULES)
    before = project.rows(RULES, live=False)
    plans = served(project, PLANS)[:2]
    body = {"data": {"trackingPlans": plans, "pagination": {"totalEntries": 2}}}
    project.sandbox.intercept = lambda info: (
        Reply(body=orjson.dumps(body)) if info.path == "/tracking-plans" else None
    )
    result = project.materialize(*names, api=API, warehouse={"guarded_rows": 5})
    assert f"its parent list {PLANS} is not loaded (the list has 2 rows" in failure_of(result)
    assert materialized(result) == {}
    assert project.rows(RULES, live=False) == before


@SERVERS
def test_a_list_that_changes_while_it_is_read_marks_nothing(build: Build, kind: str) -> None:
    """Prevents that a living row which slid to the page before is marked as deleted."""
    project = build(kind)
    load(project, "sources")
    first = served(project, "sources")[0]["id"]

    def remove_after_the_first_page(info: RequestInfo) -> Reply | None:
        if "pagination.cursor" in info.params:
            project.sandbox.intercept = None
            project.sandbox.workspace.remove("sources", first)
        return None

    project.sandbox.intercept = remove_after_the_first_page
    result, log = run_logged(project, "sources", api=API)
    assert failure_of(result) == ""
    assert "sources: the list changed while it was read" in log
    assert marked(project, "sources") == []
    load(project, "sources")
    assert [row["id"] for row in marked(project, "sources")] == [first]
    project.assert_equal(["sources"])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_refusal_after_a_page_is_a_failure(build: Build, status: int) -> None:
    """Prevents that a fault half-way through a list passes for a missing feature, run green."""
    project = build("duckdb")
    project.sandbox.intercept = lambda info: (
        Reply(status) if "pagination.cursor" in info.params else None
    )
    result = project.materialize(PLANS, RULES, api=API)
    assert f"{PLANS} (GET /tracking-plans): HTTP {status}" in failure_of(result)
    assert materialized(result) == {}


def test_a_refused_value_among_others_is_a_failure(build: Build) -> None:
    """Prevents that the functions of one kind vanish because the token may not see them."""
    project = build("duckdb")
    project.sandbox.intercept = lambda info: (
        Reply(403) if info.params.get("resourceType") == "SOURCE" else None
    )
    result = project.materialize("functions", api=API)
    assert "functions (GET /functions): resourceType SOURCE: HTTP 403" in failure_of(result)
    project.sandbox.intercept = lambda info: error_reply(403) if info.path == "/functions" else None
    result, log = run_logged(project, "functions", "sources", api=API)
    assert failure_of(result) == ""
    assert "functions is not available to this workspace or token" in log


@SERVERS
def test_what_came_of_a_parent_that_went_half_way_does_not_count(build: Build, kind: str) -> None:
    """Prevents that the first page of a plan's rules stays when the plan goes before the second."""
    project = build(kind)
    load(project, PLANS, RULES)
    rules = Counter(record["trackingPlanId"] for record in served(project, RULES))
    # The last one: its rules are asked for after the whole list of plans has been read, so that its
    # removal does not move another plan between two pages of that list.
    gone = served(project, PLANS)[-1]["id"]
    assert rules[gone] > PAGE

    def remove_at_the_second_page(info: RequestInfo) -> Reply | None:
        if is_child(info) and plan_of(info) == gone and "pagination.cursor" in info.params:
            project.sandbox.intercept = None
            project.sandbox.workspace.remove(PLANS, gone)
        return None

    project.sandbox.intercept = remove_at_the_second_page
    load(project, PLANS, RULES)
    assert Counter(row["tracking_plan_id"] for row in marked(project, RULES)) == {gone: rules[gone]}
    project.assert_equal([RULES])


@pytest.mark.parametrize("odd", ["..", ".", "", 7, None])
def test_an_identifier_that_fits_no_path_costs_the_children_only(build: Build, odd: Any) -> None:
    """Prevents that one odd record ends the reading of its whole group, with a library's words."""
    project = build("duckdb")
    record = {**served(project, GROUPS)[0], "id": odd}
    body = {"data": {"userGroups": [record], "pagination": {"current": "MA=="}}}
    project.sandbox.intercept = lambda info: (
        Reply(body=orjson.dumps(body)) if info.path == "/groups" else None
    )
    result = project.materialize(MEMBERS, "labels", api=API)
    assert failure_of(result).endswith(
        f"a record of its parent {GROUPS} has no 'id' fit for a path"
    )
    assert set(materialized(result)) == {"labels"}


@pytest.mark.parametrize("identifier", ["a b", "a%b", "a?b#c", "\N{SNOWMAN}", "{x}"])
def test_any_other_identifier_goes_into_a_path(build: Build, identifier: str) -> None:
    """Prevents that an identifier is cut on its way into the request, or leads elsewhere."""
    project = build("duckdb")
    workspace = project.sandbox.workspace
    person = {name: served(project, "users")[0][name] for name in ("id", "name", "email")}
    workspace.put(GROUPS, {**served(project, GROUPS)[0], "id": identifier})
    workspace.put(MEMBERS, person, parent=identifier)
    load(project, MEMBERS)
    project.assert_equal([MEMBERS])


def test_a_second_look_that_fails_is_told_as_such(build: Build) -> None:
    """Prevents that the failure of the parent's list is blamed on a path of the children."""
    project = build("duckdb")
    looks: list[RequestInfo] = []

    def fault(info: RequestInfo) -> Reply | None:
        if info.path == "/tracking-plans" and "pagination.cursor" not in info.params:
            looks.append(info)
            return Reply(403) if len(looks) > 1 else None
        return Reply(404) if is_child(info) else None

    project.sandbox.intercept = fault
    result = project.materialize(PLANS, RULES, api=API)
    assert f"a second look at {PLANS} failed (HTTP 403" in failure_of(result)
    assert set(materialized(result)) == {PLANS}


# Rows of the table that cannot work.


@pytest.fixture
def broken_row(monkeypatch: pytest.MonkeyPatch) -> Callable[[Endpoint], None]:
    """Return a function that puts a row in the place of the one of its name."""

    def put(endpoint: Endpoint) -> None:
        monkeypatch.setattr(plan, "BY_NAME", {**BY_NAME, endpoint.name: endpoint})

    return put


RULES_ROW, FUNCTIONS_ROW = BY_NAME[RULES], BY_NAME["functions"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            replace(RULES_ROW, slice=Parent("nothing", "trackingPlanId")),
            "its parent 'nothing' is no resource of the group inventory",
        ),
        (
            replace(RULES_ROW, slice=Parent("users", "trackingPlanId")),
            "its parent 'users' is no resource of the group inventory",
        ),
        (
            replace(RULES_ROW, slice=Parent(PLANS, "trackingPlanId", field="nosuch")),
            "a record of its parent tracking_plans has no 'nosuch' fit for a path",
        ),
        (
            replace(RULES_ROW, path="/tracking-plans/rules"),
            "its path '/tracking-plans/rules' has no place for {trackingPlanId}",
        ),
        (
            replace(RULES_ROW, path="/nosuch/{trackingPlanId}/rules", feature=None),
            "HTTP 404",
        ),
        (
            replace(FUNCTIONS_ROW, slice=Values("resourceType", ())),
            "it is asked for once for each value of resourceType, and endpoints.py names no value",
        ),
        (replace(FUNCTIONS_ROW, path="/nosuch", feature=None), "HTTP 404"),
    ],
    ids=["no parent", "other group", "no field", "no place", "no path", "no values", "no list"],
)
def test_a_row_that_cannot_work_is_one_sentence(
    build: Build, broken_row: Callable[[Endpoint], None], row: Endpoint, said: str
) -> None:
    """Prevents that a mistake in one row is a traceback, or costs another asset."""
    project = build("duckdb")
    broken_row(row)
    result = project.materialize(PLANS, RULES, "functions", "sources", api={"retries": 0})
    text = failure_of(result)
    assert said in text
    assert f"{row.name} (GET {row.path}): " in text
    assert text.startswith("1 of 4 assets failed, 3 loaded.")
    assert "Traceback" not in text
    assert set(materialized(result)) == {PLANS, RULES, "functions", "sources"} - {row.name}
