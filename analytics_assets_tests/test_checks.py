"""The asset checks: each passes on good data, and says what is wrong with data made bad for it."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    AssetSelection,
    DagsterInstance,
    ExecuteInProcessResult,
    TableMetadataValue,
    define_asset_job,
    instance_for_test,
)

from analytics_assets.orchestration.check_results import check_specs
from analytics_assets.sandbox import Options, Reply, RequestInfo, Sandbox
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS, in_group
from analytics_assets.warehouse.checks.values import values_at
from analytics_assets_tests.conftest import SMALL, project_for
from analytics_assets_tests.harness import (
    ALL_TABLES,
    Project,
    environment,
    failure_of,
    materialized,
)

Evaluations = Mapping[tuple[str, str], AssetCheckEvaluation]
ONCE = {"retries": 0}
ALL_CHECKS = {(e.name, spec.name) for e in ENDPOINTS for spec in check_specs(e, AssetKey(e.name))}


@pytest.fixture(scope="module")
def instance() -> Iterator[DagsterInstance]:
    """Return a Dagster instance that remembers the first load."""
    with DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture(scope="module")
def loaded(
    tmp_path_factory: pytest.TempPathFactory, instance: DagsterInstance
) -> Iterator[tuple[Project, ExecuteInProcessResult]]:
    """Load a small workspace once for all tests of the module."""
    with Sandbox(Options(scale=SMALL)) as sandbox:
        sandbox.clock = sandbox.clock()  # today's usage grows by the minute
        project = project_for(sandbox, tmp_path_factory.mktemp("checks"))
        yield project, project.materialize(instance=instance)


@pytest.fixture
def copy(loaded: tuple[Project, ExecuteInProcessResult], tmp_path: Path) -> Project:
    """Return a project with a database of its own that holds what was loaded."""
    project, _ = loaded
    database = tmp_path / "warehouse.duckdb"
    shutil.copy(project.database, database)
    return replace(
        project, folder=tmp_path, env={**project.env, "ANALYTICS_DUCKDB_PATH": str(database)}
    )


def change(project: Project, *statements: str) -> None:
    """Change the tables behind the project's back."""
    with duckdb.connect(str(project.database)) as connection:
        connection.execute("SET TimeZone = 'UTC'; USE analytics")
        for statement in statements:
            connection.execute(statement)


def check(project: Project, instance: DagsterInstance, *assets: str) -> Evaluations:
    """Run the checks of assets, and nothing else."""
    from analytics_assets.definitions import defs

    keys = [AssetKey(name) for name in assets or ALL_TABLES]
    selection = AssetSelection.checks_for_assets(*keys)
    job = define_asset_job("checks_alone", selection=selection)
    definitions = type(defs)(
        assets=defs.assets, resources=defs.resources, executor=defs.executor, jobs=[job]
    )
    with environment(project.env):
        result = definitions.resolve_job_def("checks_alone").execute_in_process(
            instance=instance, raise_on_error=False
        )
    assert failure_of(result) == ""
    assert materialized(result) == {}
    return evaluations(result)


def evaluations(result: ExecuteInProcessResult) -> Evaluations:
    """Return what the checks of a run said."""
    return {
        (one.asset_key.to_user_string(), one.check_name): one
        for one in result.get_asset_check_evaluations()
    }


def failed(found: Evaluations) -> set[tuple[str, str]]:
    """Return the checks that failed."""
    return {key for key, one in found.items() if not one.passed}


def text(one: AssetCheckEvaluation) -> str:
    """Return the message of an evaluation."""
    assert one.description
    return one.description


def test_every_check_runs_with_the_load_and_passes(
    loaded: tuple[Project, ExecuteInProcessResult],
) -> None:
    """Prevents a check that is declared and never run, or that cries wolf on good data."""
    _, result = loaded
    assert failure_of(result) == ""
    found = evaluations(result)
    assert found.keys() == ALL_CHECKS
    assert failed(found) == set(), [text(found[key]) for key in failed(found)]


def test_checks_run_alone(copy: Project, instance: DagsterInstance) -> None:
    """Prevents that a look at the tables asks the API, needs a token, or loads anything."""
    copy.sandbox.clear()
    del copy.env["ANALYTICS_API_TOKEN"]
    found = check(copy, instance)
    assert found.keys() == ALL_CHECKS
    assert failed(found) == set()
    assert copy.sandbox.requests == []


DAY = "(SELECT date_trunc('month', max(timestamp)) - INTERVAL 20 DAY FROM {table})"
"""A day in the midst of the month before."""
BAD = [
    pytest.param(
        "sources",
        ["INSERT INTO sources SELECT * FROM sources ORDER BY id LIMIT 1"],
        "key_unique_and_not_null",
        r"1 key \(id\) in more than one row: \w+ in 2 rows\. Materialize sources again",
        id="duplicate-key",
    ),
    pytest.param(
        "labels",
        ["INSERT INTO labels SELECT * FROM labels", "UPDATE labels SET description = NULL"],
        "key_unique_and_not_null",
        r"\d+ keys \(key, value\) in more than one row: \S+ / \S+ in 2 rows",
        id="duplicate-pair",
    ),
    pytest.param(
        "spaces",
        ["ALTER TABLE spaces ALTER COLUMN id DROP NOT NULL", "UPDATE spaces SET id = NULL"],
        "key_unique_and_not_null",
        r"\d+ rows? without a complete key \(id\)\. Delete what has no key",
        id="null-key",
    ),
    pytest.param(
        "users",
        ["DELETE FROM users WHERE id NOT IN (SELECT min(id) FROM users)"],
        "row_count_not_halved",
        r"users has 1 live rows where the last materialization left 15: less than half",
        id="fallen-count",
    ),
    pytest.param(
        "users",
        ["UPDATE users SET deleted_at = now()"],
        "row_count_not_halved",
        r"users has 0 live rows where the last materialization left 15",
        id="all-marked-as-deleted",
    ),
    pytest.param(
        "roles",
        ["ALTER TABLE roles ADD COLUMN colour VARCHAR"],
        "columns_as_declared",
        r"In roles, 1 column that no load has made: colour; drop it, or leave it and this warning",
        id="added-column",
    ),
    pytest.param(
        "roles",
        ["ALTER TABLE roles DROP COLUMN description"],
        "columns_as_declared",
        r"1 declared column not in the table: description; materialize the asset again",
        id="vanished-column",
    ),
    pytest.param(
        "roles",
        ["UPDATE roles SET description = NULL"],
        "columns_as_declared",
        r"1 column that held values before and hold none any more: description",
        id="emptied-column",
    ),
    pytest.param(
        "usage_api_calls_daily",
        [f"DELETE FROM usage_api_calls_daily WHERE timestamp = {DAY}"],
        "no_missing_day",
        r"1 day without a row between \S+ and \S+: \d{4}-\d\d-\d\d\. Load the months again, with"
        r" the run config start_month: \d{4}-\d\d, end_month",
        id="missing-day",
    ),
    pytest.param(
        "usage_mtu_daily",
        ["DELETE FROM usage_mtu_daily WHERE timestamp > now() - INTERVAL 5 DAY"],
        "no_missing_day",
        r"4 days without a row between \S+ and \S+: (\S+, ){3}\.\.\.",
        id="missing-days-at-the-end",
    ),
    pytest.param(
        "usage_mtu_sources_daily",
        [f"DELETE FROM usage_mtu_sources_daily WHERE timestamp = {DAY}"],
        "no_missing_day",
        r"1 day without a row",
        id="missing-day-of-all-sources",
    ),
    pytest.param(
        "usage_api_calls_daily",
        [
            "INSERT INTO usage_api_calls_daily SELECT * REPLACE (timestamp + INTERVAL 1 HOUR AS"
            f" timestamp) FROM usage_api_calls_daily WHERE timestamp = {DAY}"
        ],
        "no_missing_day",
        r"1 day with more than one row: \d{4}-\d\d-\d\d",
        id="two-rows-for-a-day",
    ),
    pytest.param(
        "usage_api_calls_daily",
        [f"UPDATE usage_api_calls_daily SET api_calls = 7 WHERE timestamp = {DAY}"],
        "never_falls_within_month",
        r"fall within a month 1 time: api_calls on \S+ is 7 after \d+\. That is right if a"
        r" source was moved to another workspace, .+; if none was: Load the months again",
        id="fallen-counter",
    ),
    pytest.param(
        "usage_mtu_sources_daily",
        [
            f"UPDATE usage_mtu_sources_daily SET identified = -1 WHERE timestamp = {DAY} AND"
            " source_id = (SELECT min(source_id) FROM usage_mtu_sources_daily)"
        ],
        "never_falls_within_month",
        r"fall within a month 1 time: identified on \S+, source_id \w+ is -1 after \d+",
        id="fallen-counter-of-a-source",
    ),
    pytest.param(
        "destinations",
        ["UPDATE destinations SET source_id = 'gone' WHERE id = (SELECT min(id) FROM {table})"],
        "references_hold",
        r"source_id: 1 value \(in 1 row\) not among the live rows of sources\.id: gone\."
        r" Materialize destinations and sources and catalog_destinations together",
        id="orphan",
    ),
    pytest.param(
        "destinations",
        ["UPDATE sources SET deleted_at = now()"],
        "references_hold",
        r"source_id: \d+ values \(in \d+ rows\) not among the live rows of sources\.id",
        id="orphan-of-a-deleted-row",
    ),
    pytest.param(
        "sources",
        ["DELETE FROM catalog_sources"],
        "references_hold",
        r"metadata\.id: \d+ values? \(in \d+ rows\) not among the live rows of catalog_sources\.id",
        id="orphan-by-json",
    ),
    pytest.param(
        "users",
        ["DELETE FROM roles"],
        "references_hold",
        r"permissions\[\]\.roleId: \d+ values \(in \d+ rows\) not among the live rows of roles\.id",
        id="orphan-within-a-json-list",
    ),
]


@pytest.mark.parametrize(("asset", "statements", "name", "message"), BAD)
def test_bad_data_fails_its_check(
    copy: Project,
    instance: DagsterInstance,
    asset: str,
    statements: list[str],
    name: str,
    message: str,
) -> None:
    """Prevents a check that stays green on the fault it is there for, or names it obscurely."""
    change(copy, *(statement.format(table=asset) for statement in statements))
    found = check(copy, instance, asset)
    one = found[asset, name]
    assert not one.passed
    assert re.search(message, text(one)), text(one)
    warns = name in {"columns_as_declared", "references_hold", "never_falls_within_month"}
    assert one.severity == (AssetCheckSeverity.WARN if warns else AssetCheckSeverity.ERROR)
    if name != "row_count_not_halved":
        offenders = one.metadata["first_offenders"]
        assert isinstance(offenders, TableMetadataValue)
        assert 0 < len(offenders.records) <= 10


@pytest.mark.parametrize(
    ("asset", "statement", "way_back"),
    [
        ("audit_events", "DELETE FROM {table} WHERE id = (SELECT min(id) FROM {table})", "audit_s"),
        ("usage_mtu_daily", f"DELETE FROM {{table}} WHERE timestamp = {DAY}", "start_month and"),
        (
            "events_volume",
            "DELETE FROM {table} WHERE time = (SELECT max(time) FROM {table})",
            "start_month and",
        ),
    ],
    ids=["audit", "usage", "volume"],
)
def test_rows_taken_from_a_history_are_told(
    copy: Project, instance: DagsterInstance, asset: str, statement: str, way_back: str
) -> None:
    """Prevents that rows which no load brings back are missed by nobody."""
    change(copy, statement.format(table=asset))
    one = check(copy, instance, asset)[asset, "row_count_not_halved"]
    assert (one.passed, one.severity) == (False, AssetCheckSeverity.WARN)
    assert "nothing but a hand removes any of a history. To have them back, set " in text(one)
    assert way_back in text(one)


def test_a_pause_of_one_source_is_no_missing_day(copy: Project, instance: DagsterInstance) -> None:
    """Prevents an alarm for a source that was created, deleted or silent within the window."""
    table = "usage_api_calls_sources_daily"
    one_source = f"source_id = (SELECT min(source_id) FROM {table})"
    change(copy, f"DELETE FROM {table} WHERE {one_source} AND day(timestamp) < 20")
    assert failed(check(copy, instance, table)) == {(table, "row_count_not_halved")}


def test_usage_outlives_its_source(copy: Project, instance: DagsterInstance) -> None:
    """Prevents a lasting warning about the history of every source that was ever deleted."""
    change(copy, "UPDATE sources SET deleted_at = now()")
    found = check(copy, instance, "usage_mtu_sources_daily")
    assert failed(found) == set()


def test_a_deleted_row_refers_to_nothing(copy: Project, instance: DagsterInstance) -> None:
    """Prevents a warning about rows that the workspace no longer has."""
    change(copy, "UPDATE destinations SET source_id = 'gone', deleted_at = now() WHERE id ="
           " (SELECT min(id) FROM destinations)")  # fmt: skip
    assert failed(check(copy, instance, "destinations")) == set()


def test_what_is_not_loaded_yet_is_no_orphan(copy: Project, instance: DagsterInstance) -> None:
    """Prevents warnings while only one group has been loaded so far."""
    change(copy, "DROP TABLE catalog_destinations")
    found = check(copy, instance, "destinations")
    assert failed(found) == set()
    assert "no table catalog_destinations yet" in text(found["destinations", "references_hold"])


def test_checks_before_the_first_load(project: Project, instance: DagsterInstance) -> None:
    """Prevents a stack trace in place of the advice to load; a missing feature is no fault."""
    found = check(project, instance, "users", "audit_events", "usage_mtu_sources_daily")
    assert {asset for asset, _ in failed(found)} == {"users", "usage_mtu_sources_daily"}
    assert "materialize the asset first" in text(found["users", "key_unique_and_not_null"])


def test_a_failed_resource_takes_no_other_check_with_it(start: Callable[..., Project]) -> None:
    """Prevents that one resource's trouble hides what is known of the others."""
    project = start()

    def refuse(request: RequestInfo) -> Reply | None:
        return Reply(status=500) if request.path == "/users" else None

    project.sandbox.intercept = refuse
    result = project.materialize("group:identity", api={"retries": 0})
    assert "users (GET /users)" in failure_of(result)
    found = evaluations(result)
    assert {asset for asset, _ in found} == {endpoint.name for endpoint in in_group("identity")}
    assert {asset for asset, _ in failed(found)} == {"users"}


def test_a_failed_resource_says_why_in_its_own_checks(start: Callable[..., Project]) -> None:
    """Prevents "Execution failed" where people look, with the reason in a log somewhere else."""
    project = start()

    def refuse(request: RequestInfo) -> Reply | None:
        return Reply(status=500) if request.path == "/users" else None

    project.sandbox.intercept = refuse
    found = evaluations(project.materialize("users", "roles", api={"retries": 0}))
    mine = {key: one for key, one in found.items() if key[0] == "users"}
    assert mine.keys() == {key for key in ALL_CHECKS if key[0] == "users"}
    assert all(text(one).startswith("Not run: HTTP 500") for one in mine.values())
    assert {(one.passed, one.severity) for one in mine.values()} == {
        (False, AssetCheckSeverity.WARN)
    }


def test_a_list_refused_for_its_length_fails_the_check_of_it(start: Callable[..., Project]) -> None:
    """Prevents that the check on halved lists is the one thing silent about a halved list."""
    project = start()
    with DagsterInstance.ephemeral() as instance:
        project.materialize("users", instance=instance)
        for user in project.sandbox.served("users")[1:]:
            project.sandbox.workspace.remove("users", user["id"])
        guarded = {"guarded_rows": 15}
        found = evaluations(project.materialize("users", instance=instance, warehouse=guarded))
    halved = found["users", "row_count_not_halved"]
    assert (halved.passed, halved.severity) == (False, AssetCheckSeverity.ERROR)
    assert text(halved).startswith("The list has 1 rows where 15 were before, so nothing was load")
    others = [one for key, one in found.items() if key != ("users", "row_count_not_halved")]
    assert all(text(one).startswith("Not run: the list has 1 rows where 15") for one in others)
    assert len(found) == len([key for key in ALL_CHECKS if key[0] == "users"])


def test_a_run_that_fails_as_a_whole_says_so_in_every_check(project: Project) -> None:
    """Prevents that a refused token leaves twenty checks with "Execution failed"."""
    project.env["ANALYTICS_API_TOKEN"] = "not-the-token"
    found = evaluations(project.materialize("users", "roles", "access_review"))
    reports = {key for key in found if key[0] == "access_review"}
    assert reports
    assert found.keys() - reports == {key for key in ALL_CHECKS if key[0] in ("users", "roles")}
    assert all("does not accept the token" in text(one) for one in found.values())
    assert failed(found) == found.keys()


def test_a_run_that_is_retried_leaves_its_checks_to_the_retry(project: Project) -> None:
    """Prevents a retry that loads the rows and leaves the checks red: Dagster skips old results."""
    project.sandbox.intercept = lambda info: Reply(500) if info.path == "/users" else None
    retried = {"run_retries": {"enabled": True, "max_retries": 2}}
    with instance_for_test(overrides=retried) as instance:
        found = evaluations(project.materialize("users", "roles", instance=instance, api=ONCE))
    assert {asset for asset, _ in found} == {"roles"}


def test_a_shorter_list_that_was_expected_is_a_warning(start: Callable[..., Project]) -> None:
    """Prevents an alarm for what the operator has asked for, and a silent loss as well."""
    project = start(Options(scale=SMALL))
    with DagsterInstance.ephemeral() as instance:
        project.materialize("users", "roles", instance=instance)
        for user in project.sandbox.served("users")[1:]:
            project.sandbox.workspace.remove("users", user["id"])
        config = {"expect_fewer_rows": True}
        found = evaluations(project.materialize("users", config=config, instance=instance))
        assert found["users", "row_count_not_halved"].severity == AssetCheckSeverity.WARN
        assert "expect_fewer_rows" in text(found["users", "row_count_not_halved"])
        again = evaluations(project.materialize("users", instance=instance))
    assert failed(again) == set()


def test_a_run_of_some_assets_checks_these_alone(copy: Project, instance: DagsterInstance) -> None:
    """Prevents that a run of one asset waits for, or reports on, tables it has not touched."""
    found = evaluations(copy.materialize("roles", instance=instance))
    assert {asset for asset, _ in found} == {"roles"}


def specs_of(name: str) -> list[AssetCheckSpec]:
    """Return the checks of an asset."""
    return check_specs(BY_NAME[name], AssetKey(name))


@pytest.mark.unit
def test_specs_follow_the_endpoints() -> None:
    """Prevents a new endpoint without checks."""
    assert {name for name, _ in ALL_CHECKS} == ALL_TABLES
    usage = {spec.name for spec in specs_of("usage_mtu_sources_daily")}
    assert usage >= {"no_missing_day", "never_falls_within_month", "references_hold"}
    assert {spec.name for spec in specs_of("labels")} == {
        "read_whole",
        "key_unique_and_not_null",
        "row_count_not_halved",
        "columns_as_declared",
        "values_fit",
    }


@pytest.mark.unit
@pytest.mark.parametrize(
    ("document", "path", "values"),
    [
        ({"id": "a"}, ["id"], ["a"]),
        ({"id": {"deeper": 1}}, ["id"], []),
        ([{"roleId": "a"}, {"roleId": "b"}, {}, "odd"], ["[]", "roleId"], ["a", "b", None]),
        ({"roleId": "a"}, ["[]", "roleId"], []),
        (None, ["id"], []),
    ],
)
def test_values_at_a_path(document: object, path: list[str], values: list[object]) -> None:
    """Prevents that JSON of another shape than documented ends a check."""
    assert list(values_at(document, path)) == values


def test_a_first_load_has_nothing_to_compare_with(
    loaded: tuple[Project, ExecuteInProcessResult],
) -> None:
    """Prevents a first run that fails for want of an earlier one."""
    one = evaluations(loaded[1])["users", "row_count_not_halved"]
    assert text(one) == "15 live rows; no earlier count to compare with."


def test_yesterday_is_due(copy: Project, instance: DagsterInstance) -> None:
    """Prevents that a schedule which has stopped goes unnoticed."""
    today = copy.sandbox.clock().date()
    change(copy, f"DELETE FROM usage_mtu_daily WHERE timestamp >= '{today}'")
    fewer = {("usage_mtu_daily", "row_count_not_halved")}
    assert failed(check(copy, instance, "usage_mtu_daily")) == fewer
    yesterday = today - timedelta(days=1)
    change(copy, f"DELETE FROM usage_mtu_daily WHERE timestamp >= '{yesterday}'")
    found = check(copy, instance, "usage_mtu_daily")
    assert failed(found) == fewer | {("usage_mtu_daily", "no_missing_day")}
    assert f": {yesterday}. Load" in text(found["usage_mtu_daily", "no_missing_day"])
