"""What loads change is kept, once, as it was before and as it is after."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import time_machine

from analytics_assets.sandbox import Options, Reply, Sandbox
from analytics_assets_tests.conftest import SMALL, on_postgres
from analytics_assets_tests.faults import execute
from analytics_assets_tests.harness import Project, Row, failure_of, fingerprint, materialized
from analytics_assets_tests.test_destinations import FilesProject
from analytics_assets_tests.test_healing import by_hand

NAMES = ("sources", "tracking_plans", "tracking_plan_rules", "labels", "audit_events")
REPORTS = ("history", "changes")
OPTIONS = Options(scale=SMALL, counts={"tracking_plans": 2, "tracking_plan_rules": 9})
SECRET = "Yb7mQ2vTzK9dR4wXs8LpJ3hN6cFgA1eU"
KINDS = ("duckdb", "postgres", "files", pytest.param("delta", marks=pytest.mark.heavy))


@pytest.fixture(params=KINDS)
def project(start: Callable[..., Project], request: pytest.FixtureRequest) -> Project:
    """Return a project on each destination, once loaded."""
    project = start(OPTIONS)
    if request.param == "postgres":
        project = on_postgres(project, request.getfixturevalue("postgres"))
    elif request.param != "duckdb":
        place = {"DESTINATION__FILESYSTEM__BUCKET_URL": str(project.folder / "lake")}
        place |= {"ANALYTICS_TABLE_FORMAT": "delta"} if request.param == "delta" else {}
        env = {**project.env, **place, "ANALYTICS_DESTINATION": "filesystem"}
        project = FilesProject(project.sandbox, project.folder, env)
    load(project)
    return project


def load(project: Project) -> Mapping[str, Any]:
    """Load the lists, answer the report; return what its page shows."""
    result = project.materialize(*NAMES, *REPORTS)
    assert failure_of(result) == ""
    return materialized(result)["history"]


def told(project: Project) -> list[tuple[str, ...]]:
    """Return what the report tells, without times and events."""
    columns = ("asset", "key", "what", "column_name", "before", "after")
    return sorted(tuple(row[column] or "" for column in columns) for row in project.rows("history"))


def assert_told_row_by_row(project: Project) -> None:
    """Assert that ``changes`` has a row for each row that ``history`` tells of, and its columns."""
    expected: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for row in project.rows("history"):
        columns = expected[row["asset"], row["key"], row["what"], row["moment"], row["name"]]
        columns += filter(None, [row["column_name"]])
    found = {
        (row["thing_kind"], row["thing_id"], row["what"], row["moment"], row["thing_name"]): row
        for row in project.rows("changes")
        if row["told_by"] == "load"
    }
    assert {place: row["changed_columns"] for place, row in found.items()} == {
        place: ", ".join(sorted(columns)) or None for place, columns in expected.items()
    }
    assert len({row["id"] for row in project.rows("changes")}) == len(project.rows("changes"))


def change(sandbox: Sandbox) -> tuple[Row, Row, Row]:
    """Change a source, take one away, change a rule; return them as they were."""
    first, second, third = sandbox.served("sources")[1:4]
    settings = {"apiKey": SECRET, "rate": 1.0, "b": 1, "a": 2}
    sandbox.workspace.put("sources", {**first, "slug": "renamed", "settings": settings})
    sandbox.workspace.remove("sources", second["id"])
    sandbox.workspace.put("sources", {**third, "id": "new-source"})
    rule = sandbox.served("tracking_plan_rules")[0]
    sandbox.workspace.put("tracking_plan_rules", {**rule, "createdAt": "2020-01-01T00:00:00.000Z"})
    label = sandbox.served("labels")[2]
    sandbox.workspace.put("labels", {**label, "description": "Told anew"})
    return first, second, rule


def test_what_changes_is_told_once(project: Project) -> None:
    """Prevents a change that is lost, told twice, or told of what stays the same."""
    clock = project.sandbox.clock
    began = max(datetime.now(timezone.utc), clock())
    assert load(project)["dagster/row_count"] == 0
    assert "record_changes" not in project.tables()
    first, second, rule = change(project.sandbox)
    # not the present moment: the clock of a machine may be set back meanwhile, by a minute or so
    clock.freeze(began + timedelta(seconds=1))
    event = project.sandbox.workspace.add_event(
        type="Source Modified", resourceId=first["id"], resourceType="source"
    )
    assert load(project)["dagster/row_count"] == len(told(project))
    delta = project.env.get("ANALYTICS_TABLE_FORMAT") == "delta"  # which keeps what has gone
    rows = told(project)
    rule_key = [rule["trackingPlanId"], rule["type"], rule.get("key", ""), str(rule["version"])]
    expected = [
        ("sources", first["id"], "changed", "settings"),
        ("sources", first["id"], "changed", "slug"),
        ("sources", "new-source", "appeared", ""),
        (
            "tracking_plan_rules",
            json.dumps(rule_key, separators=(",", ":")),
            "changed",
            "created_at",
        ),
    ]
    label = project.sandbox.served("labels")[2]
    label_key = json.dumps([label["key"], label["value"]], separators=(",", ":"))
    expected.append(("labels", label_key, "changed", "description"))
    if not delta:
        expected.append(("sources", second["id"], "vanished", ""))
    assert [row[:4] for row in rows] == sorted(expected)
    by_column = {row[3]: row[4:] for row in rows if row[2] == "changed"}
    assert by_column["slug"] == (first["slug"], "renamed")
    settings = json.loads(by_column["settings"][1])
    assert settings == {"apiKey": fingerprint(SECRET), "rate": 1.0, "b": 1, "a": 2}
    [row] = [row for row in project.rows("history") if row["column_name"] == "slug"]
    what = (row["event_id"], row["event"], row["events"])
    assert what == (event["id"], event["type"], 1), f"{row['since']} {row['moment']} {event}"
    minute = timedelta(minutes=1)  # by which clocks may differ
    assert row["since"] - minute < row["event_moment"] <= row["moment"] + minute
    load(project)
    assert told(project) == rows
    assert_told_row_by_row(project)


def test_a_clock_that_was_set_back_hides_nothing(project: Project) -> None:
    """Prevents columns that reports take for empty: dlt's newest schema is then an old one."""
    change(project.sandbox)
    with time_machine.travel(datetime.now(timezone.utc) - timedelta(minutes=5)):
        load(project)
    assert len(told(project)) > 0
    assert_told_row_by_row(project)
    checks = project.materialize(*NAMES, *REPORTS).get_asset_check_evaluations()
    failed = [f"{c.asset_key}: {c.check_name}: {c.description}" for c in checks if not c.passed]
    assert [text for text in failed if "column" in text] == []


def test_what_comes_back_is_told(project: Project) -> None:
    """Prevents that a thing which was gone for a while passes for one that was always there."""
    source = project.sandbox.served("sources")[1]
    project.sandbox.workspace.remove("sources", source["id"])
    load(project)
    project.sandbox.workspace.put("sources", {**source, "slug": "back"})
    load(project)
    assert_told_row_by_row(project)
    found = [(what, column) for _, _, what, column, *_ in told(project)]
    changed, went = [("changed", "slug")], [("returned", ""), ("vanished", "")]
    if project.env.get("ANALYTICS_TABLE_FORMAT") == "delta":  # which keeps what has gone
        assert found == changed
    elif isinstance(project, FilesProject):  # which know nothing any more of what has gone
        assert found == went
    else:
        assert found == changed + went


def test_a_field_of_any_name_is_compared(start: Callable[..., Project]) -> None:
    """Prevents that a column which is called like one of the comparison's own is never told of."""
    project = start(OPTIONS)
    names = ("asset", "came", "content", "held", "key", "live", "new", "old", "staged", "what")
    source = project.sandbox.served("sources")[1]
    for value in ("one", "two"):
        changed = {**source, **dict.fromkeys(names, value)}
        project.sandbox.workspace.put("sources", changed)
        assert failure_of(project.materialize("sources", "history")) == ""
    assert [row[3] for row in told(project)] == sorted(names)
    assert {row[4:] for row in told(project)} == {("one", "two")}


def test_a_failed_list_changes_nothing(start: Callable[..., Project]) -> None:
    """Prevents changes that are told of a list which was not loaded."""
    project = start(OPTIONS)
    load(project)
    change(project.sandbox)
    project.sandbox.intercept = lambda i: Reply(500) if i.path == "/sources" else None
    result = project.materialize("sources", "tracking_plans", "history", api={"retries": 0})
    assert "sources (GET /sources)" in failure_of(result)
    assert "record_changes" not in project.tables()


def test_personal_values_are_forgotten(start: Callable[..., Project]) -> None:
    """Prevents that a name which is blanked in its table lives on in what was changed."""
    project = start(OPTIONS, ANALYTICS_FORGET_DAYS="1")
    names = ("users", "roles", "history")
    assert failure_of(project.materialize(*names)) == ""
    user = project.sandbox.served("users")[1]
    project.sandbox.workspace.put("users", {**user, "name": "Somebody Else"})
    role = project.sandbox.served("roles")[1]
    project.sandbox.workspace.put("roles", {**role, "name": "Another Role"})
    assert failure_of(project.materialize(*names)) == ""
    assert len(told(project)) == 2
    long_ago = datetime.now(timezone.utc) - timedelta(days=2)
    execute(project, f"UPDATE analytics.record_changes SET moment = '{long_ago.isoformat()}'")
    assert failure_of(project.materialize(*names)) == ""
    assert [row[0] for row in told(project)] == ["roles"]


def test_a_dropped_table_is_made_again(start: Callable[..., Project]) -> None:
    """Prevents that whoever drops what was recorded can load nothing that changes any more."""
    project = start(OPTIONS)
    load(project)
    source = project.sandbox.served("sources")[1]
    for slug in ("one", "two"):
        project.sandbox.workspace.put("sources", {**source, "slug": slug})
        load(project)
        assert [row[4:] for row in told(project)] == [(source["slug"], slug)]
        execute(project, "DROP TABLE analytics.record_changes")
        source = {**source, "slug": slug}


THEIRS = {
    "rows": "CREATE TABLE analytics.record_changes AS SELECT 1 AS id, 'mine' AS note",
    "empty": "CREATE TABLE analytics.record_changes (id bigint, note varchar)",
    "view": "CREATE VIEW analytics.record_changes AS SELECT 1 AS id",
}


@pytest.mark.parametrize(("case", "known"), [("rows", True), ("empty", False), ("view", True)])
def test_a_table_of_somebody_elses_costs_no_list(
    start: Callable[..., Project], capfd: pytest.CaptureFixture[str], case: str, known: bool
) -> None:
    """Prevents that a user's table of that name is altered, or fails every list that changes."""
    project = start(OPTIONS, ANALYTICS_FORGET_DAYS="1")
    assert failure_of(project.materialize("labels", "sources")) == ""
    if known:
        relabel(project, "before")
        execute(project, "DROP TABLE analytics.record_changes")
    execute(project, THEIRS[case])
    before = project.query("SELECT * FROM analytics.record_changes")
    capfd.readouterr()
    relabel(project, "after")
    told = [line for line in capfd.readouterr().err.splitlines() if "is not recorded" in line]
    [line] = told
    assert "record_changes" in line
    assert "rename" in line
    assert project.query("SELECT * FROM analytics.record_changes") == before
    execute(project, f"DROP {'VIEW' if case == 'view' else 'TABLE'} analytics.record_changes")
    relabel(project, "at last")
    assert project.query("SELECT before, after FROM analytics.record_changes") == [
        ("after", "at last")
    ]


def relabel(project: Project, text: str, other: str = "sources") -> None:
    """Change a label; load it and another list."""
    label = project.sandbox.served("labels")[2]
    project.sandbox.workspace.put("labels", {**label, "description": text})
    result = project.materialize("labels", other)
    assert failure_of(result) == ""
    assert text in {row["description"] for row in project.rows("labels")}


def test_dropped_columns_are_made_again(start: Callable[..., Project]) -> None:
    """Prevents that a column which was dropped by hand fails every list that changes."""
    project = start(OPTIONS, ANALYTICS_FORGET_DAYS="1")
    assert failure_of(project.materialize("labels", "sources")) == ""
    relabel(project, "one")
    for column in ("since", "asset", "is_personal", "_dlt_load_id"):
        execute(project, f"ALTER TABLE analytics.record_changes DROP COLUMN {column}")
    relabel(project, "two")
    columns = "after, since IS NULL, asset, is_personal, _dlt_load_id = ''"
    assert project.query(f"SELECT {columns} FROM analytics.record_changes ORDER BY after") == [
        ("one", True, None, None, True),
        ("two", False, "labels", False, False),
    ]


def test_a_changed_type_costs_no_list(
    start: Callable[..., Project], capfd: pytest.CaptureFixture[str]
) -> None:
    """Prevents that a type which was changed by hand fails every list that changes."""
    project = start(OPTIONS)
    assert failure_of(project.materialize("labels", "sources")) == ""
    relabel(project, "one")
    execute(project, "ALTER TABLE analytics.record_changes ALTER COLUMN moment TYPE varchar")
    capfd.readouterr()
    relabel(project, "two")
    assert (
        "is not recorded. record_changes: in its table the column moment is text where timestamp"
        " belongs; give it the type that it had, or drop the table" in capfd.readouterr().err
    )


@pytest.mark.heavy
@pytest.mark.parametrize(("refused", "tries"), [("record_changes", 5), ("users", 1)])
def test_a_package_that_fails_costs_no_change(
    start: Callable[..., Project],
    postgres: str,
    capfd: pytest.CaptureFixture[str],
    refused: str,
    tries: int,
) -> None:
    """Prevents a change that is lost, or told twice, when each table is loaded by itself.

    The table that is refused at first, as often as dlt tries it within a package, waits until that
    has merged, or told, the rest.
    """
    project = on_postgres(start(OPTIONS), postgres)
    assert failure_of(project.materialize("labels", "users")) == ""
    relabel(project, "before", "users")
    user = project.sandbox.served("users")[1]
    project.sandbox.workspace.put("users", {**user, "name": "Somebody Else"})
    by_hand(
        project,
        "CREATE SEQUENCE {a}.tries",
        "CREATE FUNCTION {a}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF nextval('{{a}}.tries') <= {tries} THEN"
        " PERFORM pg_sleep(1); RAISE 'not now' USING ERRCODE = '22000'; END IF;"
        " RETURN NULL; END $$",
        f"CREATE TRIGGER refuse BEFORE INSERT ON {{a}}.{refused} EXECUTE FUNCTION {{a}}.refuse()",
    )
    relabel(project, "after", "users")
    assert "Loading identity as one package failed" in capfd.readouterr().err
    found = project.query(
        f"SELECT asset, before, after FROM {project.dataset}.record_changes"
        " WHERE after <> 'before' ORDER BY asset"
    )
    assert found == [("labels", "before", "after"), ("users", user["name"], "Somebody Else")]
