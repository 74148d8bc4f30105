"""The main job: what lands equals what the API serves, through Dagster's front doors."""

from __future__ import annotations

import inspect
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timezone
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from dagster import DagsterInstance, ExecuteInProcessResult, TableSchema

import analytics_assets.segment.reading_session
from analytics_assets.docs.costs import cost_of
from analytics_assets.sandbox import Options, Sandbox
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS, in_group
from analytics_assets.segment.reading_session import Progress
from analytics_assets_tests.conftest import SMALL, project_for
from analytics_assets_tests.harness import (
    ALL_ASSETS,
    ALL_TABLES,
    Project,
    failure_of,
    materialized,
    snake,
)
from analytics_assets_tests.requests_made import expected_requests, periods, requests_by_name

SQL_TYPES = {
    "text": "VARCHAR",
    "bool": "BOOLEAN",
    "bigint": "BIGINT",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "json": "JSON",
}
SHORTER_THIS_MONTH = {"usage_api_calls_sources_daily", "usage_mtu_sources_daily"}
"""Lists of which the documents tell more requests than it takes: the month is not over."""
DLT_COLUMNS = {"_dlt_load_id", "_dlt_id"}
DLT_TABLES = {"_dlt_loads", "_dlt_pipeline_state", "_dlt_version"}
Start = Callable[..., Project]


@dataclass(frozen=True)
class Loaded:
    """A first load of everything, made once for the tests that only look at what it left."""

    project: Project
    result: ExecuteInProcessResult
    asked: Counter[str]

    def copy(self, folder: Path) -> Project:
        """Return a project on a copy of the database, so that a test may load into it."""
        shutil.copy(self.project.database, folder / "warehouse.duckdb")
        env = {**self.project.env, "ANALYTICS_DUCKDB_PATH": str(folder / "warehouse.duckdb")}
        return replace(self.project, folder=folder, env=env)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    """Load a small workspace once."""
    with Sandbox(Options(scale=SMALL), now=datetime.now(timezone.utc)) as sandbox:
        project = project_for(sandbox, tmp_path_factory.mktemp("loaded"))
        result = project.materialize()
        assert failure_of(result) == ""
        yield Loaded(project, result, requests_by_name(project.sandbox.requests))


def column_types(project: Project, table: str) -> dict[str, str]:
    """Return the SQL type of each column of a table."""
    found = project.query(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = 'analytics' AND table_name = ?",
        table,
    )
    return dict(found)


def log_lines(instance: DagsterInstance, result: ExecuteInProcessResult) -> list[tuple[float, str]]:
    """Return time and text of everything the run told the event log."""
    entries = instance.all_logs(result.run_id)
    return [(entry.timestamp, entry.user_message) for entry in entries]


def test_the_whole_workspace_lands_exactly(start: Start) -> None:
    """Prevents rows that are lost, invented or altered on the way from the API to the table."""
    project = start(Options())
    done = project.run("*")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "|[WARNING]|" not in done.stdout, done.stdout[-3000:]  # dlt's, of what is meant so
    assert project.tables() == ALL_ASSETS
    project.assert_equal()
    made = requests_by_name(project.sandbox.requests)
    assert made == expected_requests(project)
    told = {endpoint.name: cost_of(endpoint).first for endpoint in ENDPOINTS}
    assert {name for name in told if told[name] != made[name]} <= SHORTER_THIS_MONTH


def test_a_second_run_changes_nothing(loaded: Loaded, tmp_path: Path) -> None:
    """Prevents duplicates and drift when nothing has changed."""
    project = loaded.copy(tmp_path)
    before = {name: project.rows(name, live=False) for name in ALL_TABLES}
    columns = {name: column_types(project, name) for name in ALL_TABLES}
    result = project.materialize()
    assert set(materialized(result)) == ALL_TABLES
    assert {name: project.rows(name, live=False) for name in ALL_TABLES} == before
    assert {name: column_types(project, name) for name in ALL_TABLES} == columns


# selections


def test_a_comma_selection_of_the_command_line_loads_exactly_that(start: Start) -> None:
    """Prevents that the newcomer's command loads, or asks for, more than what was selected."""
    project = start(ANALYTICS_USAGE_START=periods(2)[0][:7])
    done = project.run("users,usage_mtu_daily")
    assert done.returncode == 0, done.stdout[-3000:]
    assert project.tables() == {"users", "usage_mtu_daily"}
    expected = expected_requests(project, months=2, names=("users", "usage_mtu_daily"))
    assert requests_by_name(project.sandbox.requests) == expected
    project.assert_equal(["users"])
    months = [date.fromisoformat(period) for period in periods(2)]
    assert project.rows("usage_mtu_daily") == project.expected_usage("usage_mtu_daily", months)


def test_no_load_file_is_written_twice(start: Start) -> None:
    """Prevents that dlt writes every table anew because a column is missing or out of place."""
    project = start(Options(scale=0.02))
    names = ("sources", "labels", "users", "group_users", "usage_mtu_daily")
    for _ in range(2):
        log = project.run(",".join(names), RUNTIME__LOG_LEVEL="INFO")
        assert log.returncode == 0, log.stdout[-2000:]
        assert "must be rewritten" not in log.stdout
        assert log.stdout.count("directly imported without normalization") >= len(names)


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        ("group:catalog", {endpoint.name for endpoint in in_group("catalog")}),
        ("sources", {"sources"}),
    ],
)
def test_a_selection_loads_exactly_that(project: Project, selection: str, names: set[str]) -> None:
    """Prevents that a subset of a group costs requests or tables of its neighbours."""
    result = project.materialize(selection)
    assert failure_of(result) == ""
    assert set(materialized(result)) == names
    assert project.tables() == names
    assert requests_by_name(project.sandbox.requests) == expected_requests(project, names=names)
    project.assert_equal(names)


# changes in the API's data


def test_a_changed_record_is_updated_and_a_new_one_added(project: Project) -> None:
    """Prevents stale values, and duplicates of a record that has changed."""
    project.materialize("roles", "labels")
    role, label = project.sandbox.served("roles")[0], project.sandbox.served("labels")[0]
    project.sandbox.workspace.put("roles", {**role, "name": "Renamed"})
    project.sandbox.workspace.put("roles", {"id": "new", "name": "New", "description": "x"})
    project.sandbox.workspace.put("labels", {**label, "description": "Described anew"})
    assert failure_of(project.materialize("roles", "labels")) == ""
    project.assert_equal(["roles", "labels"])
    assert "Renamed" in {row["name"] for row in project.rows("roles")}


def test_restated_usage_is_updated_with_its_neighbours(start: Start) -> None:
    """Prevents a restated day that leaves the next day's own figure as it was."""
    project = start(ANALYTICS_USAGE_START=periods(2)[0][:7])
    months = [date.fromisoformat(period) for period in periods(2)]
    project.materialize("usage_api_calls_daily")
    row = project.sandbox.workspace.usage("usage_api_calls_daily", periods(2)[0])[3]
    more = str(int(row["apiCalls"]) + 1)
    project.sandbox.workspace.restate("usage_api_calls_daily", row["timestamp"], {"apiCalls": more})
    assert failure_of(project.materialize("usage_api_calls_daily")) == ""
    expected = project.expected_usage("usage_api_calls_daily", months)
    assert project.rows("usage_api_calls_daily") == expected
    assert int(more) in {landed["api_calls"] for landed in expected}


def test_a_new_field_arrives_as_a_column_of_its_type(project: Project) -> None:
    """Prevents fields that the API adds later from being dropped or split over tables."""
    project.materialize("roles")
    role = project.sandbox.served("roles")[-1]
    added = {
        "newText": "Grüße, 'quoted' \"twice\"\n",
        "newWhole": 9_007_199_254_740_993,
        "newFraction": 0.1,
        "newFlag": False,
        "newObject": {"camelCase": [1, {"deep__er": None}], "empty": {}},
        "newList": ["a", 1, None],
    }
    project.sandbox.workspace.put("roles", {**role, **added, "newNull": None})
    result = project.materialize("roles")
    assert failure_of(result) == ""
    types = column_types(project, "roles")
    assert {name: kind for name, kind in types.items() if name.startswith("new_")} == {
        "new_text": "VARCHAR",
        "new_whole": "BIGINT",
        "new_fraction": "DOUBLE",
        "new_flag": "BOOLEAN",
        "new_object": "JSON",
        "new_list": "JSON",
    }
    rows = {row["id"]: row for row in project.rows("roles")}
    landed = rows.pop(role["id"])
    new = {wire: landed[snake(wire)] for wire in added}
    assert new == added
    assert all(row["new_text"] is None for row in rows.values())
    assert project.tables() == {"roles"}
    schema = materialized(result)["roles"]["dagster/column_schema"]
    assert {"new_text", "new_object"} <= {column.name for column in schema.columns}


def test_a_new_field_on_a_later_page_arrives(start: Start) -> None:
    """Prevents columns that only the first page, or the first file, decides about."""
    project = start(Options(counts={"roles": 9}))
    last = project.sandbox.served("roles")[-1]
    project.sandbox.workspace.put("roles", {**last, "lateField": "late", "lateNested": [1]})
    assert failure_of(project.materialize("roles", api={"page_size": 2})) == ""
    rows = {row["id"]: row for row in project.rows("roles")}
    assert len(rows) == 9
    assert rows[last["id"]]["late_field"] == "late"
    assert [row["late_field"] for row in rows.values()].count(None) == 8
    assert column_types(project, "roles")["late_nested"] == "JSON"


@pytest.mark.parametrize(("first", "then"), [(1, 2.5), (2.5, 1)], ids=["int-float", "float-int"])
def test_whole_and_fractional_numbers_share_a_new_column(
    start: Start, first: float, then: float
) -> None:
    """Prevents a variant column, or a failed load, when a number is whole only by chance."""
    project = start(Options(counts={"roles": 6}))
    roles = project.sandbox.served("roles")
    project.sandbox.workspace.put("roles", {**roles[0], "score": first})
    project.sandbox.workspace.put("roles", {**roles[5], "score": then})
    assert failure_of(project.materialize("roles", api={"page_size": 2})) == ""
    types = column_types(project, "roles")
    assert types["score"] == "DOUBLE"
    assert not [name for name in types if "__" in name]
    scores = {row["id"]: row["score"] for row in project.rows("roles")}
    assert (scores[roles[0]["id"]], scores[roles[5]["id"]]) == (first, then)


# requests


@pytest.mark.parametrize(
    ("page_size", "selection"), [(7, ()), (200, ("group:catalog", "group:usage"))]
)
def test_the_requests_are_as_many_as_there_are_pages(
    start: Start, page_size: int, selection: tuple[str, ...]
) -> None:
    """Prevents needless requests, also where a list ends exactly with a page."""
    counts = {"users": 14, "roles": 7, "spaces": 0, "sources": 10, "audit_events": 40}
    options = Options(scale=0.02, counts=counts)
    project = start(options, ANALYTICS_USAGE_START=periods(2)[0][:7])
    result = project.materialize(*selection, api={"page_size": page_size})
    assert failure_of(result) == ""
    names = project.tables()
    expected = expected_requests(project, page_size, months=2, names=names)
    assert requests_by_name(project.sandbox.requests) == expected
    assert {name: figures["pages"] for name, figures in materialized(result).items()} == {
        name: expected[name] for name in names
    }
    project.assert_equal(name for name in names if not BY_NAME[name].monthly)


def test_the_first_load_asks_for_each_month_once(loaded: Loaded) -> None:
    """Prevents months that are asked for twice, or pages that are smaller than they could be."""
    assert loaded.asked == expected_requests(loaded.project)
    asked = [
        info.params["period"]
        for info in loaded.project.sandbox.requests[: loaded.asked.total()]
        if info.path == BY_NAME["usage_mtu_daily"].path
    ]
    assert sorted(asked) == periods(13)


def test_the_older_page_size_is_used_when_the_api_refuses_more(start: Start) -> None:
    """Prevents a failed load, or one refusal per page, where the API takes no more than 200."""
    project = start(Options(scale=SMALL, page_limit=200))
    names = [endpoint.name for endpoint in in_group("catalog")]
    with DagsterInstance.ephemeral() as instance:
        result = project.materialize("group:catalog", instance=instance)
        lines = [text for _, text in log_lines(instance, result) if "200 instead" in text]
    assert failure_of(result) == ""
    assert len(lines) == 1
    assert "1000" in lines[0]
    project.assert_equal(names)
    refused = [info for info in project.sandbox.requests if info.status == 422]
    good = requests_by_name(info for info in project.sandbox.requests if info.status == 200)
    assert 1 <= len(refused) <= len(names)
    assert good == expected_requests(project, 200, 1, names)
    pages = [i for i in project.sandbox.requests if i.status == 200 and i.path != "/"]
    assert {i.params["pagination.count"] for i in pages} == {"200"}


# tables


def test_an_empty_workspace_makes_every_table(start: Start) -> None:
    """Prevents missing tables or columns, and a failed run, where there is nothing to load."""
    names = [e.name for e in ENDPOINTS if not e.monthly and not e.single]
    project = start(Options(counts={**dict.fromkeys(names, 0), "usage_months": 0}))
    result = project.materialize()
    assert failure_of(result) == ""
    assert project.tables() == ALL_TABLES
    for endpoint in ENDPOINTS:
        expected = {c.name: SQL_TYPES[c.type] for c in endpoint.table_columns}
        types = column_types(project, endpoint.name)
        assert {n: t for n, t in types.items() if n not in DLT_COLUMNS} == expected, endpoint.name
        alone = endpoint.single and not endpoint.parent
        assert len(project.rows(endpoint.name, live=False)) == alone, endpoint.name
    figures = materialized(result)
    assert set(figures) == ALL_TABLES
    for name, values in figures.items():
        rows = int(BY_NAME[name].single and not BY_NAME[name].parent)
        assert (values["rows_loaded"], values["dagster/row_count"]) == (rows, rows)
    # and the same again, then with rows
    assert failure_of(project.materialize("roles", "usage_mtu_daily")) == ""
    project.sandbox.workspace.put("roles", {"id": "a", "name": "A", "description": ""})
    assert failure_of(project.materialize("roles")) == ""
    project.assert_equal(["roles"])


def test_every_asset_is_one_table_with_the_declared_types(loaded: Loaded) -> None:
    """Prevents child tables, variant columns and columns that dlt typed by itself."""
    project = loaded.project
    found = project.query("SELECT schema_name, table_name FROM duckdb_tables()")
    here = {table for schema, table in found if schema == "analytics"}
    assert here == ALL_TABLES | DLT_TABLES
    # dlt's staging dataset holds the same tables, between loads without rows
    assert {table for _, table in found} <= ALL_TABLES | DLT_TABLES
    for endpoint in ENDPOINTS:
        types = column_types(project, endpoint.name)
        expected = {c.name: SQL_TYPES[c.type] for c in endpoint.table_columns}
        assert {name: types.get(name) for name in expected} == expected, endpoint.name
        undeclared = set(types) - set(expected) - DLT_COLUMNS
        assert not [name for name in undeclared if "__" in name], endpoint.name


# what Dagster shows


def test_every_materialization_carries_true_figures(loaded: Loaded) -> None:
    """Prevents figures in the UI that differ from the tables they describe."""
    figures = materialized(loaded.result)
    assert set(figures) == ALL_TABLES
    for name, values in figures.items():
        (count,) = loaded.project.query(f"SELECT count(*) FROM analytics.{name}")[0]
        assert values["dagster/row_count"] == count, name
        assert values["rows_loaded"] == count, name
        assert values["pages"] == loaded.asked[name], name
        assert values["dagster/table_name"] == f"analytics.{name}"
        schema = values["dagster/column_schema"]
        assert isinstance(schema, TableSchema)
        described = {column.name: column for column in schema.columns}
        stored = set(column_types(loaded.project, name))
        assert {column.name for column in BY_NAME[name].table_columns} <= set(described)
        assert set(described) - DLT_COLUMNS == stored - DLT_COLUMNS
        assert all(described[column.name].description for column in BY_NAME[name].table_columns)


def test_a_later_load_counts_the_table_and_what_it_loaded(project: Project) -> None:
    """Prevents a row count that is really the number of rows of this run."""
    events = project.sandbox.served("audit_events")
    project.materialize("audit_events")
    project.sandbox.workspace.add_event()
    (values,) = materialized(project.materialize("audit_events")).values()
    assert values["dagster/row_count"] == len(events) + 1
    assert 1 <= values["rows_loaded"] < len(events)


def test_progress_reaches_the_event_log_while_reading(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a long extraction that looks like a hang."""
    assert 1 <= inspect.signature(Progress).parameters["every"].default <= 10
    monkeypatch.setattr(
        analytics_assets.segment.reading_session, "Progress", partial(Progress, every=0.3)
    )
    project = start(Options(latency=0.05, counts={"users": 40, "roles": 10}))
    with DagsterInstance.ephemeral() as instance:
        result = project.materialize("users", "roles", api={"page_size": 2}, instance=instance)
        lines = log_lines(instance, result)
    assert failure_of(result) == ""
    told = [(moment, text) for moment, text in lines if text.startswith("Read so far")]
    assert len(told) >= 2
    moments = [moment for moment, _ in told]
    assert all(b - a > 0.25 for a, b in pairwise(moments))
    assert "users" in told[0][1]
    assert "roles" in told[0][1]
    first = int(told[0][1].split("users ")[1].split(" / ")[1].split(" rows")[0])
    assert 0 < first < 40  # written while pages were still to come
