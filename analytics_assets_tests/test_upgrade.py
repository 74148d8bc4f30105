"""A database that version 0.1 made goes on: nothing is read, renamed, marked or lost anew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dagster import ExecuteInProcessResult

from analytics_assets.sandbox import Sandbox
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.warehouse.own_tables import RECORD_CHANGES
from analytics_assets_tests.conftest import project_for
from analytics_assets_tests.faults import run_logged, state_of
from analytics_assets_tests.harness import (
    ALL_TABLES,
    Project,
    Row,
    assert_same,
    expected_rows,
    failure_of,
    materialized,
    sort_rows,
)
from analytics_assets_tests.requests_made import expected_requests, requests_by_name
from analytics_assets_tests.timetravel import USAGE, at, months_asked
from analytics_assets_tests.upgrade import FIRST, OPTIONS, happen, restore

NOW = FIRST + timedelta(days=2)
"""A day after version 0.1 loaded last; the tests stand still at it, whatever the day is."""
AGAIN = [date(2026, 4, 1), date(2026, 5, 1)]
"""The months of usage that the load asks for."""
Columns = dict[str, dict[str, str]]


@dataclass
class Upgraded:
    """The database before and after the first load of this version."""

    project: Project
    result: ExecuteInProcessResult
    log: str
    rows: dict[str, list[Row]]
    columns: Columns
    newest: datetime
    state: dict[str, Any]
    left: str
    removed: str


@pytest.fixture(scope="module")
def upgraded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    """Load everything into the database of version 0.1, a day later."""
    with Sandbox(OPTIONS, now=FIRST) as sandbox:
        project = project_for(sandbox, tmp_path_factory.mktemp("upgrade"))
        users = sandbox.served("users")
        happen(sandbox)
        restore(project)
        tables = project.tables()
        rows = {name: project.rows(name, live=False) for name in tables}
        columns = columns_of(project)
        [(newest,)] = project.query("SELECT max(timestamp) FROM analytics.audit_events")
        state = {name: state_of(project, name) for name in tables}
        with at(project, NOW):
            destination = sandbox.served("destinations")[0]["id"]
            sandbox.workspace.remove("destinations", destination)
            sandbox.workspace.add_event(type="Source Created")
            result, log = run_logged(project)
            yield Upgraded(
                project, result, log, rows, columns, newest, state, users[1]["id"], destination
            )


def columns_of(project: Project) -> Columns:
    """Return name and type of the columns of each table, dlt's own among them."""
    found: Columns = {}
    for table, column, kind in project.query(
        "SELECT table_name, column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'analytics' ORDER BY ALL"
    ):
        found.setdefault(table, {})[column] = kind
    return found


def test_everything_is_loaded_on(upgraded: Upgraded) -> None:
    """Prevents that a state or schema of the version before stops the first load of this one."""
    assert failure_of(upgraded.result) == ""
    assert set(materialized(upgraded.result)) == ALL_TABLES
    assert upgraded.project.tables() == {*ALL_TABLES, RECORD_CHANGES.name}
    lists = {name for name in ALL_TABLES if not BY_NAME[name].monthly} - {"audit_events"}
    upgraded.project.assert_equal(lists)
    assert_same("audit_events", upgraded.project.rows("audit_events"), audit_events(upgraded))
    for name in USAGE:
        assert_same(name, upgraded.project.rows(name), usage(upgraded, name))


def usage(upgraded: Upgraded, name: str) -> list[Row]:
    """Return the usage that should be there: two months as served now, those before as they were.

    The sandbox of today tells another history than that of version 0.1.
    """
    again = upgraded.project.expected_usage(name, AGAIN)
    kept = [row for row in upgraded.rows[name] if row["timestamp"].date() < AGAIN[0]]
    assert kept
    return sort_rows(BY_NAME[name], kept + again)


def audit_events(upgraded: Upgraded) -> list[Row]:
    """Return the events that should be there: those read again as served now, the others kept."""
    since = upgraded.newest - timedelta(minutes=15)
    served = expected_rows(BY_NAME["audit_events"], upgraded.project.sandbox.served("audit_events"))
    again = [row for row in served if row["timestamp"] >= since]
    kept = [dict(row) for row in upgraded.rows["audit_events"] if row["timestamp"] < since]
    for row in kept:
        row["actor_kind"], _, row["actor_id"] = row["actor"].partition("/")
    return sort_rows(BY_NAME["audit_events"], kept + again)


def test_no_month_is_asked_for_again(upgraded: Upgraded) -> None:
    """Prevents that the upgrade reads thirteen months of usage anew, because its state is lost."""
    for name in USAGE:
        assert months_asked(upgraded.project, name) == [f"{month:%Y-%m}" for month in AGAIN]
        assert upgraded.state[name]
        now = state_of(upgraded.project, name).keys()
        assert now - {"due_months"} == upgraded.state[name].keys()


def test_the_audit_trail_goes_on_where_it_stopped(upgraded: Upgraded) -> None:
    """Prevents that the upgrade reads the whole trail again, or skips a part of it."""
    asked = [i for i in upgraded.project.sandbox.requests if i.path == "/audit-events"]
    starts = {datetime.fromisoformat(i.params["startTime"].replace("Z", "+00:00")) for i in asked}
    assert starts == {upgraded.newest - timedelta(minutes=15)}
    kept = {row["id"] for row in upgraded.rows["audit_events"]}
    now = {row["id"] for row in upgraded.project.rows("audit_events")}
    assert kept < now


def test_it_costs_no_more_requests_than_any_load(upgraded: Upgraded) -> None:
    """Prevents any other full reload: all but usage and the trail are one walk, as always."""
    lists = [name for name in ALL_TABLES if BY_NAME[name].full_list]
    expected = expected_requests(upgraded.project, names=lists)
    made = requests_by_name(upgraded.project.sandbox.requests)
    assert {name: made[name] for name in lists} == expected
    assert made.keys() <= ALL_TABLES


def test_names_and_types_stay(upgraded: Upgraded) -> None:
    """Prevents that what reads the tables of version 0.1 breaks: a column moves, or changes."""
    now = columns_of(upgraded.project)
    assert upgraded.columns["sources"]["new_field"] == "BIGINT"
    kept = {t: {c: now[t].get(c) for c in columns} for t, columns in upgraded.columns.items()}
    assert kept == upgraded.columns
    added = {t: now[t].keys() - columns.keys() for t, columns in upgraded.columns.items()}
    assert {t: names for t, names in added.items() if names} == {
        "audit_events": {"actor_kind", "actor_id"}
    }
    new = {*ALL_TABLES, RECORD_CHANGES.name} - upgraded.rows.keys()
    assert now.keys() - upgraded.columns.keys() == new


def test_deletions_are_marked_and_kept(upgraded: Upgraded) -> None:
    """Prevents that every row of the version before looks deleted, or none ever does again."""
    before = {row["id"]: row["deleted_at"] for row in upgraded.rows["users"]}
    assert {key for key, moment in before.items() if moment} == {upgraded.left}
    for name in upgraded.rows:
        if not BY_NAME[name].full_list:
            continue
        key = BY_NAME[name].key_columns
        gone = {
            tuple(row[part] for part in key): row["deleted_at"]
            for row in upgraded.project.rows(name, live=False)
            if row["deleted_at"]
        }
        if name == "users":
            assert gone == {(upgraded.left,): before[upgraded.left]}
        else:
            assert gone.keys() == ({(upgraded.removed,)} if name == "destinations" else set())


def test_the_workspace_is_taken_over(upgraded: Upgraded) -> None:
    """Prevents that a dataset of version 0.1 stays nobody's, without a word."""
    said = f"from now on it belongs to the workspace 'Harbor Supply' (harbor-supply, id {owner()})"
    assert upgraded.log.count(said) == 1


def owner(seed: int = OPTIONS.seed) -> str:
    """Return the id of the workspace that a sandbox serves."""
    return str(Sandbox(replace(OPTIONS, seed=seed)).workspace.describe()["id"])


def test_another_workspace_is_refused(tmp_path: Path) -> None:
    """Prevents that the first token after the upgrade, whosever it is, decides whose rows stay."""
    with Sandbox(replace(OPTIONS, seed=8), now=FIRST) as sandbox:
        project = project_for(sandbox, tmp_path)
        restore(project)
        before = {name: project.rows(name, live=False) for name in project.tables()}
        with at(project, NOW):
            result = project.materialize("users")
        text = failure_of(result)
        assert f"holds the workspace {owner()}, and the token belongs to" in text
        assert owner(8) in text
        assert {name: project.rows(name, live=False) for name in project.tables()} == before
        assert [info.path for info in sandbox.requests] == ["/"]


def test_a_second_load_changes_nothing(upgraded: Upgraded) -> None:
    """Prevents that the first load of this version leaves something that the next one trips on."""
    project = upgraded.project
    before = {name: project.rows(name, live=False) for name in ALL_TABLES}
    result, log = run_logged(project)
    assert failure_of(result) == ""
    assert "belongs to the workspace" not in log
    assert {name: project.rows(name, live=False) for name in ALL_TABLES} == before
