"""Lists that may not be whole: their rows are loaded, nothing is marked, and a check says why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from dagster import AssetCheckSeverity, ExecuteInProcessResult

from analytics_assets.sandbox import Options, Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.conftest import on_postgres
from analytics_assets_tests.faults import real_body, rows_of
from analytics_assets_tests.harness import Project, failure_of, materialized
from analytics_assets_tests.test_destinations import FilesProject

Start = Callable[..., Project]
Body = dict[str, Any]
SERVERS = pytest.mark.parametrize("kind", ["duckdb", "postgres"])
COUNTS = {"sources": 10, "roles": 8, "labels": 9, "groups": 4, "tracking_plans": 5}
GROUPS, MEMBERS = "groups", "group_users"


@pytest.fixture
def build(start: Start, request: pytest.FixtureRequest) -> Start:
    """Return a function that points a project at a destination by name."""

    def build_project(kind: str = "duckdb", **counts: int) -> Project:
        project = start(Options(scale=0.1, counts={**COUNTS, **counts}))
        if kind == "postgres":
            return on_postgres(project, request.getfixturevalue("postgres"))
        if kind == "files":
            files = {
                "ANALYTICS_DESTINATION": "filesystem",
                "DESTINATION__FILESYSTEM__BUCKET_URL": str(project.folder / "lake"),
            }
            return FilesProject(project.sandbox, project.folder, {**project.env, **files})
        return project

    return build_project


def load(project: Project, *names: str, page_size: int = 3, **options: Any) -> Any:
    """Load, in small pages, and require that all went well."""
    api = {"page_size": page_size, "retries": 0}
    result = project.materialize(*names, api=api, **options)
    assert failure_of(result) == ""
    return result


def marked(project: Project, name: str) -> list[Any]:
    """Return the keys of the rows that are marked as deleted."""
    rows = project.rows(name, live=False)
    keys = BY_NAME[name].key_columns
    return [tuple(row[key] for key in keys) for row in rows if row["deleted_at"] is not None]


def warning(result: ExecuteInProcessResult, name: str) -> str:
    """Return what the check of a whole list says, empty if it passed."""
    [one] = [
        one
        for one in result.get_asset_check_evaluations()
        if one.check_name == "read_whole" and one.asset_key.to_user_string() == name
    ]
    assert one.severity == AssetCheckSeverity.WARN
    return "" if one.passed else str(one.description)


def edit(project: Project, name: str, change: Callable[[Body], None]) -> None:
    """Change what the last page of a list says."""

    def intercept(info: RequestInfo) -> Reply | None:
        if info.path != BY_NAME[name].path:
            return None
        body = orjson.loads(real_body(project.sandbox, info))
        if not (body["data"].get("pagination") or {}).get("next"):
            change(body)
        return Reply(body=orjson.dumps(body))

    project.sandbox.intercept = intercept


def cut(name: str, to: int) -> Callable[[Body], None]:
    """Serve fewer records than ``totalEntries`` says."""
    return lambda body: rows_of(name, body).__delitem__(slice(to, None))


def next_page(body: Body) -> None:
    """Name a next page, in a list that has none."""
    body["data"]["pagination"] = {"current": "a", "next": "b"}


def next_page_outside(body: Body) -> None:
    """Name a next page beside the data."""
    body["pagination"] = {"current": "a", "next": "b"}


def with_errors(body: Body) -> None:
    """Tell of an error in an answer that has data."""
    body["errors"] = [{"type": "partial", "message": "half of it"}]


def tells_nothing(body: Body) -> None:
    """Leave out all that tells whether the page is the last."""
    body["data"]["pagination"] = {}


def no_pagination(body: Body) -> None:
    """Leave out what tells that the page is the last."""
    del body["data"]["pagination"]


def cut_and_count(name: str, to: int, total: Any) -> Callable[[Body], None]:
    """Serve fewer records, and write their number in another way."""

    def change(body: Body) -> None:
        del rows_of(name, body)[to:]
        body["data"]["pagination"] = {"current": "a", "totalEntries": total}

    return change


def repeat(name: str, count: int) -> Callable[[Body], None]:
    """Serve the first records once more in place of the last, so that the number is right."""

    def change(body: Body) -> None:
        rows = rows_of(name, body)
        rows[-count:] = rows[:count]

    return change


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("sources", cut_and_count("sources", 6, "10"), "6 rows came, but totalEntries says 10"),
        ("sources", cut_and_count("sources", 6, 10.0), "6 rows came, but totalEntries says 10"),
        ("labels", cut_and_count("labels", 6, "9"), "6 rows came, but totalEntries says 9"),
        (
            "sources",
            cut_and_count("sources", 6, {"about": 10}),
            "totalEntries is no whole number, so there may be more",
        ),
        (
            "sources",
            cut_and_count("sources", 6, "9" * 5000),
            "totalEntries is no whole number, so there may be more",
        ),
        (
            "labels",
            next_page_outside,
            "the answer has 'pagination' beside 'data', so there may be more",
        ),
        ("labels", with_errors, "the answer has 'errors' beside 'data', so there may be more"),
        ("sources", tells_nothing, "'data.pagination' tells nothing, so there may be more"),
        ("sources", repeat("sources", 4), "4 of 10 rows came twice, so others may be missing"),
        ("labels", repeat("labels", 3), "3 of 9 rows came twice, so others may be missing"),
    ],
)
def test_what_is_written_otherwise_proves_as_much(
    build: Start, name: str, change: Callable[[Body], None], says: str
) -> None:
    """Prevents that living rows are marked because a count is text, or counts a row twice."""
    project = build()
    load(project, name, page_size=1000)
    edit(project, name, change)
    result = load(project, name, page_size=1000)
    assert warning(result, name) == f"{says}, so nothing is marked as deleted this time."
    assert marked(project, name) == []


@SERVERS
@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("sources", cut("sources", 6), "6 rows came, but totalEntries says 10"),
        ("labels", next_page, "the answer names a next page, which this list is not known for"),
        ("roles", no_pagination, "a page came without 'data.pagination', so there may be more"),
    ],
)
def test_a_list_that_may_not_be_whole_marks_nothing(
    build: Start, kind: str, name: str, change: Callable[[Body], None], says: str
) -> None:
    """Prevents that rows which were not served count as deleted, or that nobody hears of it."""
    project = build(kind)
    assert warning(load(project, name, page_size=1000), name) == ""
    record = project.sandbox.served(name)[-1]
    key = tuple(record[wire] for wire in BY_NAME[name].primary_key)
    field = "slug" if name == "sources" else "description"
    first = project.sandbox.served(name)[0]
    project.sandbox.workspace.put(name, {**first, field: "changed"})
    if name != "sources":
        project.sandbox.workspace.remove(name, key)
    edit(project, name, change)
    result = load(project, name, page_size=1000)
    assert warning(result, name) == f"{says}, so nothing is marked as deleted this time."
    assert marked(project, name) == []
    assert "changed" in str(project.rows(name))
    project.sandbox.intercept = None
    assert warning(load(project, name, page_size=1000), name) == ""
    assert marked(project, name) == ([] if name == "sources" else [key])
    project.assert_equal([name])


def remove_before_page_two(project: Project, name: str, key: str) -> None:
    """Remove a record after the page that it stands on has been served."""

    def intercept(info: RequestInfo) -> None:
        if info.path == BY_NAME[name].path and "pagination.cursor" in info.params:
            project.sandbox.intercept = None
            project.sandbox.workspace.remove(name, key)

    project.sandbox.intercept = intercept


@SERVERS
def test_a_living_neighbour_of_a_removed_row_is_not_marked(build: Start, kind: str) -> None:
    """Prevents that a row which slid to a page that was read already counts as deleted.

    Roles have no total that would tell of it.
    """
    project = build(kind)
    load(project, "roles")
    first = project.sandbox.served("roles")[0]["id"]
    remove_before_page_two(project, "roles", first)
    result = load(project, "roles")
    assert "a second look at roles shows that it changes" in warning(result, "roles")
    assert marked(project, "roles") == []
    assert warning(load(project, "roles"), "roles") == ""
    assert marked(project, "roles") == [(first,)]
    project.assert_equal(["roles"])


@SERVERS
def test_children_of_a_parent_that_slid_past_are_not_marked(build: Start, kind: str) -> None:
    """Prevents that the members of a living group are marked as the group was on no page."""
    project = build(kind)
    load(project, GROUPS, MEMBERS)
    groups = [record["id"] for record in project.sandbox.served(GROUPS)]
    remove_before_page_two(project, GROUPS, groups[0])
    result = load(project, MEMBERS, config={"expect_fewer_rows": True})
    assert "a second look at groups shows that it changes" in warning(result, MEMBERS)
    assert marked(project, MEMBERS) == []
    load(project, MEMBERS, config={"expect_fewer_rows": True})
    assert {group for group, _ in marked(project, MEMBERS)} == {groups[0]}
    project.assert_equal([MEMBERS])


def test_a_second_look_is_taken_only_where_it_proves_something(build: Start) -> None:
    """Prevents that every load costs twice the requests, or that a second look is not counted."""
    project = build()
    load(project, "roles")
    project.sandbox.clear()
    assert materialized(load(project, "roles"))["roles"]["requests"] == 3
    assert project.sandbox.count("/roles") == 3  # nothing is missing
    project.sandbox.workspace.remove("roles", project.sandbox.served("roles")[-1]["id"])
    project.sandbox.clear()
    assert materialized(load(project, "roles"))["roles"]["requests"] == 6
    assert project.sandbox.count("/roles") == 6  # three pages, seen twice
    project.sandbox.workspace.remove("roles", project.sandbox.served("roles")[-1]["id"])
    project.sandbox.clear()
    load(project, "roles", page_size=1000)
    assert project.sandbox.count("/roles") == 1  # one page is of one moment
    assert len(marked(project, "roles")) == 2


def test_a_second_look_that_fails_marks_nothing(build: Start) -> None:
    """Prevents that a fault after the reading fails the asset, or lets rows be marked unproved."""
    project = build()
    load(project, "roles")
    project.sandbox.workspace.remove("roles", project.sandbox.served("roles")[-1]["id"])
    project.sandbox.clear()
    project.sandbox.intercept = lambda _: (
        Reply(500) if project.sandbox.count("/roles") >= 3 else None
    )
    result = load(project, "roles")
    assert "a second look at roles failed (HTTP 500" in warning(result, "roles")
    assert marked(project, "roles") == []


def replace_all(project: Project, name: str, keep: int) -> None:
    """Put other records in the place of all but a few."""
    for number, record in enumerate(project.sandbox.served(name)[keep:]):
        project.sandbox.workspace.remove(name, record["id"])
        project.sandbox.workspace.put(name, {**record, "id": f"other{number}"})


@SERVERS
def test_a_list_of_other_keys_is_refused(build: Start, kind: str) -> None:
    """Prevents that as many rows of another workspace take the place of all there are."""
    project = build(kind, roles=22)
    load(project, "roles")
    before = project.rows("roles", live=False)
    replace_all(project, "roles", keep=10)
    result = project.materialize("roles")
    assert "of the 22 rows that were there before 12 are gone, so nothing" in failure_of(result)
    assert project.rows("roles", live=False) == before
    load(project, "roles", config={"expect_fewer_rows": True})
    assert len(marked(project, "roles")) == 12
    project.assert_equal(["roles"])


def test_a_short_list_may_change_with_a_warning(build: Start) -> None:
    """Prevents a failure each time that the last invitations are accepted, and silence as well."""
    project = build()
    load(project, "roles")
    replace_all(project, "roles", keep=1)
    result = load(project, "roles")
    said = "of the 8 rows that were there before 7 are gone; so short a list is loaded all the same"
    assert warning(result, "roles") == f"{said}."
    assert len(marked(project, "roles")) == 7
    for record in project.sandbox.served("roles"):
        project.sandbox.workspace.remove("roles", record["id"])
    assert "the list has 0 rows where 8 were" in warning(load(project, "roles"), "roles")


@SERVERS
def test_slow_erosion_is_compared_with_more_than_the_last_run(build: Start, kind: str) -> None:
    """Prevents that a list which loses just less than half each time wastes away without a word."""
    project = build(kind, roles=22)
    load(project, "roles")
    records = project.sandbox.served("roles")

    def leave(number: int) -> None:
        for record in project.sandbox.served("roles")[number:]:
            project.sandbox.workspace.remove("roles", record["id"])

    leave(12)
    load(project, "roles")
    leave(7)
    result = project.materialize("roles")
    assert "the list has 7 rows where 22 were in the last 30 days, so" in failure_of(result)
    assert len(project.rows("roles")) == 12
    load(project, "roles", config={"expect_fewer_rows": True})
    leave(5)
    load(project, "roles")  # what was accepted is what is compared with
    assert len(project.rows("roles")) == 5
    assert len(records) == 22


def test_plain_files_keep_the_rows_of_a_list_that_may_not_be_whole(build: Start) -> None:
    """Prevents that rows which did not come are lost where files are replaced as a whole."""
    project = build("files")
    load(project, "sources", page_size=1000)
    before = project.rows("sources")
    edit(project, "sources", cut("sources", 6))
    result = project.materialize("sources")
    assert "6 rows came, but totalEntries says 10, and plain files" in failure_of(result)
    assert project.rows("sources") == before
