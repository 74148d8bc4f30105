"""Reports: what they say is true, on every destination, and no trouble of one is another's."""

from __future__ import annotations

import json
import logging
import math
import re
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from dagster import (
    AssetKey,
    DagsterInstance,
    ExecuteInProcessResult,
    MaterializeResult,
    MetadataValue,
    TableMetadataValue,
    evaluate_automation_conditions,
)
from sqlglot import exp
from sqlglot.lineage import lineage

from analytics_assets.definitions import defs
from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.reports import ReportPages, parameters, report_results
from analytics_assets.orchestration.resources import Warehouse
from analytics_assets.reports.answers import Parameters, answer, set_parameters
from analytics_assets.reports.catalogue import FOLDER, read_report, reports, tables
from analytics_assets.reports.model import Report, ReportError
from analytics_assets.reports.run import ReportOutcome, run_reports
from analytics_assets.sandbox import Options, Reply, RequestInfo, Sandbox, story
from analytics_assets.sandbox.cli import plan_of
from analytics_assets.sandbox.ledger import UsageLedger, months_back, next_month
from analytics_assets.segment.endpoints import ENDPOINTS
from analytics_assets.segment.errors import SettingError
from analytics_assets.warehouse.own_tables import READABLE, filled_by
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets_tests.conftest import SMALL, on_postgres, project_for
from analytics_assets_tests.faults import execute
from analytics_assets_tests.harness import (
    ALL_ASSETS,
    Project,
    Row,
    environment,
    failure_of,
    materialized,
    sort_rows,
)
from analytics_assets_tests.reports_expected import EXPECTED, World
from analytics_assets_tests.test_charts import shapes
from analytics_assets_tests.test_destinations import FilesProject
from analytics_assets_tests.test_metadata import LARGEST_CHART, picture

ROOT = Path(__file__).resolve().parent.parent
GATED = frozenset(endpoint.name for endpoint in ENDPOINTS if endpoint.feature)
PLAN = {"ANALYTICS_PLAN_MTU": "2_500_000", "ANALYTICS_PLAN_API_CALLS": "1"}
ROUNDED = frozenset({"forecast_month_end", "forecast_low", "forecast_high"})
"""Figures that are rounded from sums which may be added up in another order."""
COUNTED = frozenset({("shared_credentials", "places")})
"""Columns that count what is redacted, and show nothing of it."""
every_report = pytest.mark.parametrize("name", sorted(EXPECTED))
HEAD = "-- question: Q?\n-- description: D.\n-- key: id\n-- column id text: Identifier.\n"


def world(project: Project, off: frozenset[str] = frozenset()) -> World:
    """Return what there is to know of a project's sandbox."""
    sandbox = project.sandbox

    def served(name: str) -> list[Mapping[str, Any]]:
        return [] if name in off else list(sandbox.workspace.records(name))

    now = sandbox.clock()
    first = months_back(now.date(), 12)
    start = datetime(first.year, first.month, 1, tzinfo=timezone.utc)
    limits = [int(project.env[name]) if name in project.env else None for name in PLAN]
    return World(served, now, start, sandbox.workspace.secrets(), *limits)


def assert_report(project: Project, name: str, expected: World) -> None:
    """Assert that a report says, row by row, what plain Python does."""
    wanted = sort_rows(reports()[name], EXPECTED[name](expected))
    found = project.rows(name)
    assert len(found) == len(wanted), name
    for row, other in zip(found, wanted, strict=True):
        for column in reports()[name].table_columns:
            left, right = row[column.name], other.get(column.name)
            assert alike(column.name, left, right), f"{name}: {row}, expected {other}"


def alike(column: str, left: Any, right: Any) -> bool:
    """Compare two values; fractions may differ in their last digits."""
    if isinstance(left, float) and isinstance(right, (int, float)):
        return math.isclose(left, right, rel_tol=1e-9)
    if column in ROUNDED and left is not None and right is not None:
        return bool(abs(left - right) <= 1)
    return bool(left == right)


@dataclass(frozen=True)
class Answered:
    """Everything loaded and answered once, for the tests that only look at it."""

    project: Project
    result: ExecuteInProcessResult


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Answered]:
    """Load a workspace of the usual size, and answer all."""
    now = datetime.now(timezone.utc)
    with Sandbox(Options(), now=now) as sandbox:
        plan = plan_of(sandbox.workspace)
        project = project_for(sandbox, tmp_path_factory.mktemp("reports"), **plan)
        result = project.materialize("*")
        assert failure_of(result) == ""
        yield Answered(project, result)


# what they say


def test_every_report_has_its_plain_python() -> None:
    """Prevents a report that nobody has worked out by other means."""
    assert EXPECTED.keys() == reports().keys()


@every_report
def test_a_report_says_what_is_true(answered: Answered, name: str) -> None:
    """Prevents rows that are missing, doubled or wrong, at the usual size."""
    assert answered.project.rows(name) or name == "history"  # a first load changes nothing
    assert_report(answered.project, name, world(answered.project))


def test_everything_is_materialized_in_one_run(answered: Answered) -> None:
    """Prevents reports that a run of everything leaves out, or lists that it does."""
    assert set(materialized(answered.result)) == ALL_ASSETS
    assert answered.project.tables() == ALL_ASSETS


@pytest.mark.parametrize(
    "kind", ["postgres", *(pytest.param(k, marks=pytest.mark.heavy) for k in ("files", "delta"))]
)
def test_they_say_the_same_on_every_destination(
    start: Callable[..., Project], request: pytest.FixtureRequest, kind: str
) -> None:
    """Prevents a report that works in DuckDB's own file only; also when answered again."""
    project = start(Options(scale=SMALL), **PLAN)
    if kind == "postgres":
        project = on_postgres(project, request.getfixturevalue("postgres"))
    else:
        place = {"DESTINATION__FILESYSTEM__BUCKET_URL": str(project.folder / "lake")}
        place |= {"ANALYTICS_TABLE_FORMAT": "delta"} if kind == "delta" else {}
        env = {**project.env, **place, "ANALYTICS_DESTINATION": "filesystem"}
        project = FilesProject(project.sandbox, project.folder, env)
    assert failure_of(project.materialize("*")) == ""
    assert failure_of(project.materialize("group:reports")) == ""
    for name in EXPECTED:
        assert_report(project, name, world(project))


def test_an_empty_workspace(start: Callable[..., Project]) -> None:
    """Prevents a report that fails for want of rows, when somebody has just begun."""
    names = [e.name for e in ENDPOINTS if not (e.monthly or e.single or e.parent)]
    project = start(Options(counts={**dict.fromkeys(names, 0), "usage_months": 0}))
    assert failure_of(project.materialize("*")) == ""
    for name in EXPECTED:
        assert_report(project, name, world(project))


def test_without_any_optional_feature(start: Callable[..., Project]) -> None:
    """Prevents a report that needs a feature which the workspace lacks: its columns are empty."""
    project = start(Options(scale=SMALL, features_off=GATED))
    result = project.materialize("*")
    assert failure_of(result) == ""
    for name in EXPECTED:
        assert_report(project, name, world(project, GATED))


def test_reports_alone_need_neither_token_nor_tables(project: Project) -> None:
    """Prevents a schedule of reports that asks the API, or fails before anything was loaded."""
    del project.env["ANALYTICS_API_TOKEN"]
    result = project.materialize("group:reports")
    assert failure_of(result) == ""
    assert set(materialized(result)) == reports().keys()
    assert project.sandbox.requests == []
    assert all(project.rows(name) == [] for name in reports())
    assert "there is no table" in str(materialized(result)["changes"]["warnings"])
    checks = {str(one.description) for one in result.get_asset_check_evaluations() if one.passed}
    assert checks == set()
    told = [str(one.description) for one in result.get_asset_check_evaluations()]
    assert all(re.fullmatch(r"There is no table \w+.* materialize it, and .*", t) for t in told)


def test_a_column_that_is_not_there_is_told(start: Callable[..., Project]) -> None:
    """Prevents a check that passes over a column somebody has dropped: it counts as empty."""
    project = start(Options(scale=SMALL))
    assert failure_of(project.materialize("sources")) == ""
    execute(project, "ALTER TABLE analytics.sources DROP COLUMN enabled")
    result = project.materialize("idle_sources")
    assert failure_of(result) == ""
    [check] = result.get_asset_check_evaluations()
    assert not check.passed
    assert "here is no column sources.enabled, so what would come from it is" in str(
        check.description
    )


def test_names_of_what_has_gone(loaded: Project) -> None:
    """Prevents an audit trail in which deleted things and people have no name any more."""
    source = next(s for s in loaded.sandbox.served("sources") if s.get("name"))
    user = next(u for u in loaded.sandbox.served("users") if u["name"])
    event = loaded.sandbox.workspace.add_event(
        type="Source Deleted", resourceId=source["id"], resourceType="source",
        resourceName="", actor=f"user/{user['id']}", actorEmail=None,
    )  # fmt: skip
    loaded.sandbox.workspace.remove("sources", source["id"])
    loaded.sandbox.workspace.remove("users", user["id"])
    result = loaded.materialize("sources", "users", "audit_events", "changes")
    assert failure_of(result) == ""
    [row] = [row for row in loaded.rows("changes") if row["id"] == event["id"]]
    assert (row["who"], row["has_left"]) == (user["name"], True)
    assert (row["thing_name"], row["thing_has_gone"]) == (source["name"], True)


# the story of the sandbox


def people(rows: list[Row]) -> set[str]:
    """Return the people of some rows."""
    return {row["person_id"] for row in rows}


def test_what_is_planted_is_found_and_nothing_else(answered: Answered) -> None:
    """Prevents findings that nobody planted, which would teach readers to overlook the others."""
    project, company = answered.project, answered.project.sandbox.workspace.company
    assert_governance(project)
    found = {row["source_id"] for row in project.rows("idle_sources")}
    assert found == {company.id_at("sources", index) for index in story.IDLE_SOURCES}
    [risk] = project.rows("catalog_risk")
    assert risk["id"] == company.id_at("destinations", story.DEPRECATED_DESTINATION)
    assert (risk["risk"], risk["enabled"]) == ("deprecated", True)
    shared = project.rows("shared_credentials")
    assert {row["id"] for row in shared} == {
        company.id_at("destinations", index) for index in story.SHARED_KEY
    }
    silent = [row for row in project.rows("access_review") if row["days_inactive"] is None]
    assert people([row for row in silent if row["status"] == "MEMBER"]) == {
        company.id_at("users", story.SILENT_ADMINISTRATOR)
    }
    assert people([row for row in silent if row["administrator"]]) == {
        company.id_at("users", story.SILENT_ADMINISTRATOR)
    }
    above = {row["meter"]: row["above_plan"] for row in project.rows("month_forecast")}
    assert above == {"api_calls": True, "mtu": False}
    alarms = [row for row in project.rows("cost_drivers") if row["meter"] == "api_calls"]
    spikes = [
        r["source_id"] for r in alarms if r["usual_day"] and r["last_day"] > 3 * r["usual_day"]
    ]
    assert spikes == [company.id_at("sources", story.SPIKE[0])]
    late = [row for row in alarms if row["enabled"] and row["last_used"] < row["as_of"]]
    assert [row["source_id"] for row in late] == [company.id_at("sources", story.SILENT_SOURCE)]
    checks = {
        check.check_name: (check.passed, check.severity.value)
        for check in answered.result.get_asset_check_evaluations()
        if check.asset_key.to_user_string() in reports()
    }
    assert checks == {
        "administrators_are_seen": (False, "WARN"),
        "no_shared_credentials": (False, "WARN"),
        "no_silent_sources": (True, "WARN"),
        "no_source_fell_silent": (False, "WARN"),
        "no_spike": (False, "WARN"),
        "nothing_deprecated_in_use": (False, "WARN"),
        "within_plan": (False, "WARN"),
    }
    shown = materialized(answered.result)
    assert shown["access_review"]["inactive_administrators"] == 1
    assert shown["idle_sources"]["idle_sources"] == len(story.IDLE_SOURCES)


def assert_governance(project: Project) -> None:
    """Assert that the gaps in governance are those that are planted."""
    at = project.sandbox.workspace.company.id_at
    gaps: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in project.rows("governance_gaps"):
        gaps[row["gap"]].add((row["source_id"] or row["tracking_plan_id"], row["event"]))
    source, event = story.UNPLANNED_EVENT
    assert gaps == {
        "source without plan": {(at("sources", n), "") for n in story.UNGOVERNED_SOURCES},
        "plan without source": {(at("tracking_plans", story.PLAN_WITHOUT_SOURCE), "")},
        "unplanned events let through": {(at("sources", n), "") for n in story.OPEN_SOURCES},
        "unplanned event": {(at("sources", source), event)},
    }


# forecast


def test_the_forecast_is_close_and_its_range_honest() -> None:
    """Prevents a forecast that misleads: on day 10, over 20 companies with weekly seasons, growth
    and 10 % noise a day, its median error is under 5 % and the truth in the range in 90 %.
    """
    errors, inside = [], []
    for seed in range(20):
        for month in (date(2026, 2, 1), date(2026, 6, 1), date(2026, 11, 1)):
            days = days_of_a_company(seed, month)
            truth = sum(used for day, used in days.items() if day >= month)
            row = forecast_on(days, month + timedelta(days=10))
            errors.append(abs(row["forecast_month_end"] / truth - 1))
            inside.append(row["forecast_low"] <= truth <= row["forecast_high"])
    assert statistics.median(errors) < 0.05
    assert statistics.mean(inside) >= 0.9


def days_of_a_company(seed: int, month: date) -> dict[date, int]:
    """Return the API calls of one source, over a month and the four before."""
    days = {}
    for back in range(4, -1, -1):
        first = months_back(month, back)
        ledger = UsageLedger(seed, ["only"])
        end = datetime.combine(next_month(first), datetime.min.time(), timezone.utc)
        before = 0
        for row in map(json.loads, ledger.rows("usage_api_calls_daily", first, end)):
            total = int(row["apiCalls"])
            days[date.fromisoformat(row["timestamp"][:10])] = total - before
            before = total
    return days


def forecast_on(days: Mapping[date, int], today: date) -> Row:
    """Answer the report of one day."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(
            "CREATE TABLE usage_mtu_daily (timestamp TIMESTAMPTZ, daily_identified BIGINT,"
            " daily_never_identified BIGINT);"
            "CREATE TABLE usage_api_calls_daily (timestamp TIMESTAMPTZ, daily_api_calls BIGINT)"
        )
        rows = [(day, used) for day, used in days.items() if day < today]
        connection.executemany("INSERT INTO usage_api_calls_daily VALUES (?, ?)", rows)
        moment = datetime(today.year, today.month, today.day, 12, tzinfo=timezone.utc)
        set_parameters(connection, Parameters(moment))
        [row] = answer(connection, reports()["month_forecast"]).to_pylist()
    return dict(row)


@pytest.mark.parametrize("today", [date(2026, 3, 1), date(2026, 3, 2), date(2026, 3, 31)])
def test_a_forecast_at_the_edges_of_a_month(today: date) -> None:
    """Prevents a forecast that fails, or is far off, on the first day of a month or its last."""
    days = days_of_a_company(3, date(2026, 3, 1))
    row = forecast_on(days, today)
    assert row["days_passed"] == today.day - 1
    truth = sum(used for day, used in days.items() if day >= date(2026, 3, 1))
    assert abs(row["forecast_month_end"] / truth - 1) < 0.1


@pytest.mark.unit
@pytest.mark.parametrize("text", ["many", "-1", "0", "0.5", "9" * 30, "nan"])
@pytest.mark.parametrize("name", ["PLAN_MTU", "INACTIVE_DAYS", "SILENT_DAYS", "SPIKE_FACTOR"])
def test_a_bad_limit_is_named(name: str, text: str) -> None:
    """Prevents a plan or threshold that is silently left out."""
    with (
        environment({f"ANALYTICS_{name}": text}),
        pytest.raises(SettingError, match=rf"^ANALYTICS_{name} is .+\.$"),
    ):
        parameters(Deployment())


@pytest.mark.unit
def test_thresholds_are_settings() -> None:
    """Prevents checks that warn too early or too late for a team, and cannot be told."""
    names = ("INACTIVE_DAYS", "SILENT_DAYS", "SPIKE_FACTOR")
    values = ("30", "2", "1.5")
    with environment({f"ANALYTICS_{n}": v for n, v in zip(names, values, strict=True)}):
        told = parameters(Deployment())
    assert (told.inactive_days, told.silent_days, told.spike_factor) == (30, 2, 1.5)


@pytest.mark.unit
def test_each_workspace_has_a_plan_of_its_own() -> None:
    """Prevents that two workspaces of one code location are held to the same plan."""
    with environment({"ANALYTICS_PLAN_MTU": "5", "ANALYTICS_PLAN_API_CALLS": "6"}):
        told = parameters(Deployment(plan_mtu=7))
    assert (told.plan_mtu, told.plan_api_calls) == (7, 6)


# one's trouble


def test_a_failed_table_is_read_as_it_was(loaded: Project) -> None:
    """Prevents that one broken list takes the reports with it, or that nobody is told."""

    def broken(info: RequestInfo) -> Reply | None:
        return Reply(500) if info.path == "/users" else None

    loaded.sandbox.intercept = broken
    result = loaded.materialize("users", "roles", "access_review", "changes", api={"retries": 0})
    assert "users (GET /users)" in failure_of(result)
    shown = materialized(result)
    assert shown.keys() == {"roles", "access_review", "changes"}
    assert shown["access_review"]["dagster/row_count"] > 0
    assert "users failed in this run and was read as it was" in shown["access_review"]["warnings"]


def test_a_report_that_fails_costs_no_other(loaded: Project) -> None:
    """Prevents that one report without an answer takes the others with it."""
    broken = read_report("broken", HEAD + "SELECT CAST(name AS BIGINT) AS id FROM users")
    settings = WarehouseSettings(duckdb_path=loaded.database)
    told = Parameters(datetime.now(timezone.utc))
    with environment(loaded.env):
        first, second = run_reports(
            [broken, reports()["changes"]], settings, told, logging.getLogger(__name__)
        )
    assert re.match(r"the report could not be answered: ConversionException: ", str(first.failure))
    assert not first.loaded
    assert second.loaded
    assert loaded.rows("changes")


def test_checks_run_without_their_reports(loaded: Project) -> None:
    """Prevents checks that can be asked for only together with a new table."""
    result = loaded.materialize("check:shared_credentials/no_shared_credentials")
    assert failure_of(result) == ""
    assert materialized(result) == {}
    [check] = result.get_asset_check_evaluations()
    assert not check.passed
    assert str(check.description).startswith("2 of 2 rows: a credential stands in several places")


# what they read


def tables_named(report: Report) -> set[str]:
    """Return the tables that a report names, by a look at its text."""
    body = re.sub(r"--.*", "", report.sql)
    return set(re.findall(r"(?:FROM|JOIN)\s+(\w+)", body)) & READABLE.keys()


@pytest.mark.unit
@every_report
def test_the_lineage_is_what_the_sql_names(name: str) -> None:
    """Prevents lineage in the UI that is not true."""
    node = defs.resolve_asset_graph().get(AssetKey(name))
    lists = {each for table in tables_named(reports()[name]) for each in filled_by(table)}
    assert {key.to_user_string() for key in node.parent_keys} == lists
    assert reports()[name].reads.keys() == tables_named(reports()[name])


@pytest.mark.unit
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "SELECT id FROM userz", "reads userz, which is no table of endpoints.py"),
        (HEAD + "SELECT ident AS id FROM users", "names a column that its tables do not have"),
        (HEAD + "SELECT u.ident AS id FROM users u", "names a column that its tables do not"),
        (HEAD + "SELECT name FROM users", "selects name, and its header describes id"),
        (HEAD + "SELECT id FROM", "cannot be parsed"),
        (HEAD + "DROP TABLE users", "is not one SELECT"),
        (HEAD.replace("key: id", "key: ident") + "SELECT id FROM users", "names ident as its key"),
        (HEAD.replace("-- question: Q?\n", "") + "SELECT id FROM users", "has no question"),
        (HEAD.replace("id text", "id string") + "SELECT id FROM users", "describes the column"),
        (HEAD + "-- colunm x text: X.\nSELECT id FROM users", "header line that says nothing"),
        (HEAD + "-- warn odd: true\nSELECT id FROM users", "describes the check 'odd'"),
        (HEAD + "-- key: name\nSELECT id FROM users", "says 'key' twice"),
    ],
)
def test_a_report_that_cannot_work_says_so(text: str, said: str) -> None:
    """Prevents a report that fails in the night instead of at once, or with a traceback."""
    with pytest.raises(ReportError, match=r"^reports/mine\.sql .+\.$") as caught:
        read_report("mine", text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.unit
def test_a_report_that_changes_is_proved_again() -> None:
    """Prevents that what was once found out about a file outlives a change of it, or damage."""
    kept = FOLDER / "__pycache__" / "mine.lineage.json"
    for text in ("SELECT id FROM users", "SELECT id FROM users", "SELECT id FROM roles"):
        assert read_report("mine", HEAD + text).reads == {text.split()[-1]: ("id",)}
        assert kept.exists()
    for damage in (b"", b"{", b"[]", kept.read_bytes().replace(b"reads", b"weeds")):
        kept.write_bytes(damage)
        assert read_report("mine", HEAD + "SELECT id FROM roles").reads == {"roles": ("id",)}
    with pytest.raises(ReportError, match="names a column"):
        read_report("mine", HEAD + "SELECT ident AS id FROM roles")


def test_dg_refuses_a_report_that_cannot_work(tmp_path: Path) -> None:
    """Prevents that a mistake in a report is seen only when it runs."""
    shutil.copytree(ROOT / "analytics_assets", tmp_path / "analytics_assets")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    place = tmp_path / "analytics_assets" / "reports" / "mine.sql"
    place.write_text(HEAD + "SELECT id FROM userz", encoding="utf-8")
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dg")), "check", "defs"],
        cwd=tmp_path,
        env={"PATH": "", "HOME": str(tmp_path), "PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "reports/mine.sql reads userz, which is no table of endpoints.py." in done.stdout


@pytest.mark.unit
def test_the_example_for_developers_is_a_report() -> None:
    """Prevents that the first report somebody writes by the README is refused."""
    text = (ROOT / "analytics_assets" / "README.md").read_text("utf-8")
    [code] = [c for c in re.findall(r"```sql\n(.*?)```", text, re.DOTALL) if "question" in c]
    assert read_report("mine", code).reads.keys() == {"labels"}


# marks


@pytest.mark.unit
@every_report
def test_marks_carry_over(name: str) -> None:
    """Prevents people and secrets in a report's columns that nobody has marked."""
    report = reports()[name]
    schema = {table: dict(columns) for table, columns in tables().items()}
    for column in report.table_columns:
        made_of = lineage(column.name, report.sql, schema=schema, dialect="duckdb")
        sources = {
            READABLE[node.source.name].table_columns[place]
            for node in made_of.walk()
            if isinstance(node.source, exp.Table) and node.source.name in READABLE
            for place, other in enumerate(READABLE[node.source.name].table_columns)
            if other.name == node.name.rpartition(".")[2]
        }
        assert column.personal or not any(each.personal for each in sources), column.name
        redacted = (name, column.name) not in COUNTED and any(each.redacted for each in sources)
        assert column.redacted or not redacted, column.name


def test_previews_hide_people_and_fingerprints(answered: Answered) -> None:
    """Prevents that people show up in the event log, which everybody may read."""
    shown: dict[str, Mapping[str, MetadataValue[Any]]] = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in answered.result.get_asset_materialization_events()
        if event.asset_key
    }
    cells = []
    for name in reports().keys() - {"history"}:  # which has nothing to show yet
        preview = shown[name]["preview"]
        assert isinstance(preview, TableMetadataValue)
        cells += [dict(record.data) for record in preview.records]
    text = json.dumps(cells)
    for user in answered.project.sandbox.served("users"):
        assert user["email"] not in text
        assert not user["name"] or user["name"] not in text
    assert "sha256:" not in text


def test_no_secret_is_in_an_answer(answered: Answered) -> None:
    """Prevents that a report tells what the tables keep to themselves."""
    answers = json.dumps([answered.project.rows(name) for name in reports()], default=str)
    secrets = answered.project.sandbox.workspace.secrets()
    assert secrets
    assert not [secret for secret in secrets if secret in answers]


def test_pages_carry_the_figures_of_the_business(answered: Answered) -> None:
    """Prevents a plots tab that shows how long it took and nothing else."""
    shown = materialized(answered.result)
    for name, report in reports().items():
        for figure in report.header.figures:
            assert isinstance(shown[name][figure], (int, float)), f"{name}: {figure}"
    forecast = {row["meter"]: row for row in answered.project.rows("month_forecast")}
    assert shown["month_forecast"]["month_to_date"] == forecast["api_calls"]["month_to_date"]
    assert shown["shared_credentials"]["shared_credentials"] == 1


@pytest.mark.parametrize("name", ["changes", "cost_drivers", "month_forecast"])
def test_pages_carry_a_chart(answered: Answered, name: str) -> None:
    """Prevents a page without its picture, or one that swells the event log."""
    shown = materialized(answered.result)[name]
    assert next(iter(shown)) == "chart"
    svg = picture(str(shown["chart"]))
    assert len(svg) < LARGEST_CHART
    assert shapes(svg)


def test_a_chart_that_cannot_be_drawn(caplog: pytest.LogCaptureFixture) -> None:
    """Prevents that what only adorns a page fails a report whose rows are loaded."""
    report = reports()["month_forecast"]
    nothing = pa.Table.from_pylist([{column.name: None for column in report.table_columns}])
    outcome = ReportOutcome(report, answer=nothing, load_id="1")
    pages = ReportPages(Warehouse(), AssetIndex({report.name: AssetKey(report.name)}), {}, ())
    [result] = report_results([outcome], pages, logging.getLogger(__name__))
    assert isinstance(result, MaterializeResult)
    assert result.metadata
    assert "chart" not in result.metadata
    assert "month_forecast: no chart for its page: TypeError" in caplog.text


# when they are due


def requested(instance: DagsterInstance, cursor: Any = None) -> tuple[set[str], Any]:
    """Ask the automation conditions as Dagster's daemon does; return what they request."""
    found = evaluate_automation_conditions(defs, instance, cursor=cursor)
    due = {
        result.key.to_user_string()
        for result in found.results
        if isinstance(result.key, AssetKey) and result.true_subset.size
    }
    return due, found.cursor


def test_they_are_due_when_a_table_of_theirs_was_loaded_without_them(loaded: Project) -> None:
    """Prevents reports that stay old, or that run again after a run that brought them along."""
    with DagsterInstance.ephemeral() as instance:
        _, cursor = requested(instance)
        assert failure_of(loaded.materialize("users", "changes", instance=instance)) == ""
        due, cursor = requested(instance, cursor)
        read = {
            n: {t for r in report.reads for t in filled_by(r)} for n, report in reports().items()
        }
        assert due == {name for name, lists in read.items() if "users" in lists} - {"changes"}
        assert failure_of(loaded.materialize(*due, instance=instance)) == ""
        assert requested(instance, cursor)[0] == set()


def test_the_reports_are_a_folder() -> None:
    """Prevents a package that is built without its SQL."""
    assert {file.stem for file in FOLDER.glob("*.sql")} == reports().keys()
