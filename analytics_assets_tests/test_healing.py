"""What was dropped or changed by hand: the next run makes it good, or says what to do."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dlt
import psycopg2
import pytest
from dagster import ExecuteInProcessResult
from dlt.common.versioned_state import compress_state, decompress_state

from analytics_assets.sandbox import Options, Sandbox
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.months import shift
from analytics_assets_tests.conftest import on_postgres, project_for
from analytics_assets_tests.faults import execute
from analytics_assets_tests.harness import (
    Project,
    assert_same,
    environment,
    expected_rows,
    failure_of,
    materialized,
)
from analytics_assets_tests.postgres import PostgresProject
from analytics_assets_tests.timetravel import assert_usage

OPTIONS = Options(counts={"sources": 6, "users": 8, "labels": 5, "audit_events": 40})
FIRST_MONTH = shift(datetime.now(timezone.utc).date().replace(day=1), -2)
NAMES = ("sources", "labels", "usage_mtu_daily", "audit_events", "users")
Templates = dict[str, Project]
ON_A_SERVER = pytest.mark.parametrize(
    "project", [pytest.param("postgres", id="server")], indirect=True
)
"""What DuckDB does not know; the name of the case keeps it in CI."""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory, postgres: str) -> Iterator[Templates]:
    """Load five tables into both destinations, once: lists, usage, audit events."""
    with Sandbox(OPTIONS, now=datetime.now(timezone.utc)) as sandbox:
        first = sandbox.workspace.records("sources")[0]
        sandbox.workspace.put("sources", {**first, "newField": 5})
        duckdb = project_for(
            sandbox,
            tmp_path_factory.mktemp("healing"),
            ANALYTICS_USAGE_START=f"{FIRST_MONTH:%Y-%m}",
        )
        on_server(postgres, "CREATE DATABASE loaded")
        server = on_postgres(duckdb, named(postgres, "loaded"))
        for project in (duckdb, server):
            assert failure_of(load(project)) == ""
        yield {"duckdb": duckdb, "postgres": server}


@pytest.fixture(params=["duckdb", "postgres"])
def project(
    template: Templates, postgres: str, tmp_path: Path, request: pytest.FixtureRequest
) -> Project:
    """Return a project with a database of its own that holds what was loaded."""
    loaded = template[request.param]
    loaded.sandbox.clear()
    if request.param == "duckdb":
        database = tmp_path / "warehouse.duckdb"
        shutil.copy(loaded.database, database)
        env = {**loaded.env, "ANALYTICS_DUCKDB_PATH": str(database)}
        return replace(loaded, folder=tmp_path, env=env)
    name = f"copy_{uuid.uuid4().hex[:8]}"
    on_server(postgres, f"CREATE DATABASE {name} TEMPLATE loaded")
    url = named(postgres, name)
    return replace(loaded, env={**loaded.env, "DESTINATION__POSTGRES__CREDENTIALS": url})


def named(url: str, database: str) -> str:
    """Return the address of another database on the same server."""
    return f"{url.rpartition('/')[0]}/{database}"


def on_server(url: str, statement: str) -> None:
    """Run a statement that must not stand in a transaction."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    with closing(connection), connection.cursor() as cursor:
        cursor.execute(statement)


def load(project: Project, *names: str, **options: Any) -> ExecuteInProcessResult:
    """Load what these tests are about."""
    return project.materialize(*(names or NAMES), **options)


def by_hand(project: Project, *statements: str) -> None:
    """Change the database; ``{a}`` is the dataset, ``{s}`` that of the staging tables."""
    for statement in statements:
        sql = statement.format(a=project.dataset, s=f"{project.dataset}_staging")
        if isinstance(project, PostgresProject):
            with psycopg2.connect(project.url) as connection, connection.cursor() as cursor:
                cursor.execute(sql)
        else:
            execute(project, sql)


def assert_whole(project: Project, result: ExecuteInProcessResult, *names: str) -> None:
    """Assert that a run loaded all and its checks pass, and that the next one changes nothing."""
    assert failure_of(result) == ""
    loaded = set(names or NAMES)
    assert set(materialized(result)) == loaded
    failed = [c.description for c in result.get_asset_check_evaluations() if not c.passed]
    assert all("does not declare: new_field" in str(text) for text in failed), failed
    assert_right(project)
    before = {name: project.rows(name, live=False) for name in NAMES}
    assert failure_of(load(project)) == ""
    assert {name: project.rows(name, live=False) for name in NAMES} == before


def assert_right(project: Project, *names: str) -> None:
    """Assert that tables hold what is served: all months, all events, all live rows."""
    for name in names or NAMES:
        if BY_NAME[name].monthly:
            assert_usage(project, FIRST_MONTH, [name])
        else:
            rows = expected_rows(BY_NAME[name], project.sandbox.served(name))
            assert_same(name, [{"new_field": None, **row} for row in project.rows(name)],
                        [{"new_field": None, **row} for row in rows])  # fmt: skip


HEALS = {
    "tables": [
        "DROP TABLE {a}.sources",
        "DROP TABLE {a}.usage_mtu_daily",
        "DROP TABLE {a}.audit_events",
    ],
    "columns": [
        "ALTER TABLE {a}.sources DROP COLUMN slug",
        "ALTER TABLE {a}.sources DROP COLUMN new_field",
        "ALTER TABLE {a}.usage_mtu_daily DROP COLUMN identified",
        "ALTER TABLE {a}.audit_events DROP COLUMN type",
        "ALTER TABLE {a}.labels DROP COLUMN _dlt_load_id",
        "ALTER TABLE {a}.users DROP COLUMN deleted_at",
    ],
    "columns of dlt's": [
        "ALTER TABLE {a}.sources DROP COLUMN _dlt_load_id",
        "ALTER TABLE {a}.sources DROP COLUMN deleted_at",
        "ALTER TABLE {a}.usage_mtu_daily DROP COLUMN _dlt_load_id",
        "ALTER TABLE {a}.audit_events DROP COLUMN _dlt_load_id",
    ],
    "rows of a month": [
        "DELETE FROM {a}.usage_mtu_daily WHERE extract(month FROM timestamp) <> "
        "(SELECT extract(month FROM max(timestamp)) FROM {a}.usage_mtu_daily)"
    ],
    "rows of a day": [
        "DELETE FROM {a}.usage_mtu_daily WHERE timestamp = (SELECT min(timestamp) + INTERVAL '40'"
        " DAY FROM {a}.usage_mtu_daily)"
    ],
    "rows of histories": ["DELETE FROM {a}.audit_events", "DELETE FROM {a}.usage_mtu_daily"],
    "staging": [
        "DROP TABLE {s}.sources",
        "ALTER TABLE {s}.users DROP COLUMN email",
        "ALTER TABLE {s}.labels ALTER COLUMN description TYPE bigint USING NULL",
        "DROP TABLE {s}.audit_events",
    ],
    "staging versions": ["DROP TABLE {s}._dlt_version"],
    "staging dataset": ["DROP SCHEMA {s} CASCADE"],
    "loads": ["DROP TABLE {a}._dlt_loads"],
    "state": ["DROP TABLE {a}._dlt_pipeline_state"],
    "versions": ["DROP TABLE {a}._dlt_version"],
    "versions and a list": ["DROP TABLE {a}._dlt_version", "DROP TABLE {a}.usage_mtu_daily"],
    "dataset": ["DROP SCHEMA {a} CASCADE"],
    "unreadable state": ["UPDATE {a}._dlt_pipeline_state SET state = 'nonsense'"],
    "unreadable schema": ["UPDATE {a}._dlt_version SET schema = '{{'"],
}


@pytest.mark.parametrize("case", HEALS)
def test_what_was_dropped_is_there_again(project: Project, case: str) -> None:
    """Prevents that what is dropped by hand fails every run for ever, or leaves a hole."""
    by_hand(project, *HEALS[case])
    assert_whole(project, load(project))


REFUSED = {
    "view": (
        [
            "ALTER TABLE {a}.labels RENAME TO kept",
            "CREATE VIEW {a}.labels AS SELECT * FROM {a}.kept",
        ],
        "labels is a view in the dataset '{a}'; rename or drop it, and the next run makes",
        ["DROP VIEW {a}.labels"],
    ),
    "view of usage": (
        ["DROP TABLE {a}.usage_mtu_daily", "CREATE VIEW {a}.usage_mtu_daily AS SELECT 1 AS x"],
        "usage_mtu_daily is a view in the dataset '{a}'; rename or drop it, and the next run",
        ["DROP VIEW {a}.usage_mtu_daily"],
    ),
    "column that must be filled": (
        [
            "ALTER TABLE {a}.labels ADD COLUMN colour varchar DEFAULT 'x'",
            "ALTER TABLE {a}.labels ALTER COLUMN colour SET NOT NULL",
            "ALTER TABLE {a}.labels ALTER COLUMN colour DROP DEFAULT",
        ],
        "its table has the column colour that must hold a value and that no load fills; drop it,",
        ["ALTER TABLE {a}.labels DROP COLUMN colour"],
    ),
    "key": (
        ["ALTER TABLE {a}.labels DROP COLUMN value"],
        "its table has lost the column value, part of the key; put it back, or drop the table,",
        ["DROP TABLE {a}.labels"],
    ),
    "type": (
        ["ALTER TABLE {a}.labels ALTER COLUMN description TYPE bigint USING NULL"],
        "in its table the column description is bigint where text belongs; give it the type that",
        ["ALTER TABLE {a}.labels ALTER COLUMN description TYPE varchar"],
    ),
    "type in usage": (
        ["ALTER TABLE {a}.usage_mtu_daily ALTER COLUMN identified TYPE varchar"],
        "in its table the column identified is text where bigint belongs; give it the type that",
        ["DROP TABLE {a}.usage_mtu_daily"],
    ),
    "other table": (
        ["DROP TABLE {a}.labels", "CREATE TABLE {a}.labels (id bigint, colour varchar)"],
        "the dataset '{a}' holds a table labels of somebody else's; rename it, or load into",
        ["DROP TABLE {a}.labels"],
    ),
    "other table in staging": (
        ["DROP TABLE {s}.labels", "CREATE TABLE {s}.labels (id bigint)"],
        "the dataset '{s}', in which dlt puts rows before it merges them, holds another table",
        ["DROP TABLE {s}.labels"],
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_heal_fails_its_own_asset_and_says_how(project: Project, case: str) -> None:
    """Prevents that one table which nobody can heal costs the others, or is written into."""
    statements, sentence, way_out = REFUSED[case]
    by_hand(project, *statements)
    result = load(project)
    name = next(name for name in NAMES if name in statements[0])
    place = {"a": project.dataset, "s": f"{project.dataset}_staging"}
    assert failure_of(result).splitlines()[1:] == [failure_of(result).splitlines()[-1]]
    assert f"{name} (GET {BY_NAME[name].path}): {sentence.format(**place)}" in failure_of(result)
    assert set(materialized(result)) == set(NAMES) - {name}
    assert_right(project, *set(NAMES) - {name})
    paths = {info.path for info in project.sandbox.requests}
    assert BY_NAME[name].path not in paths
    checks = [c for c in result.get_asset_check_evaluations() if c.asset_key.path == [name]]
    assert checks
    assert all(str(check.description).startswith("Not run: ") for check in checks)
    by_hand(project, *way_out)
    assert_whole(project, load(project))


@ON_A_SERVER
def test_columns_that_fill_themselves_are_left_alone(project: Project) -> None:
    """Prevents that a number or a value which the server makes refuses the list."""
    by_hand(
        project,
        "ALTER TABLE {a}.labels ADD COLUMN n bigint GENERATED ALWAYS AS IDENTITY",
        "ALTER TABLE {a}.labels ADD COLUMN m bigserial",
        "ALTER TABLE {a}.labels ADD COLUMN k text GENERATED ALWAYS AS (upper(key)) STORED NOT NULL",
    )
    assert failure_of(load(project, "labels")) == ""


def test_a_row_put_there_by_hand_is_marked(project: Project) -> None:
    """Prevents that a row which no load has brought stays live for ever."""
    by_hand(
        project,
        "ALTER TABLE {a}.users ALTER COLUMN _dlt_load_id DROP NOT NULL",
        "UPDATE {a}.users SET id = 'by hand', _dlt_load_id = NULL"
        " WHERE id = (SELECT min(id) FROM {a}.users)",
    )
    assert failure_of(load(project, "users")) == ""
    assert_right(project, "users")


@ON_A_SERVER
@pytest.mark.parametrize(
    "swallow",
    [
        "CREATE RULE gone AS ON INSERT TO {a}.labels DO INSTEAD NOTHING",
        "CREATE FUNCTION {a}.nothing() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER gone BEFORE INSERT ON {a}.labels"
        " FOR EACH ROW EXECUTE FUNCTION {a}.nothing()",
    ],
    ids=["rule", "trigger"],
)
def test_rows_that_the_database_swallows_are_missed(project: Project, swallow: str) -> None:
    """Prevents a green run that left nothing, or less than was served, in a table."""
    by_hand(project, swallow)
    text = failure_of(load(project, "labels", "users"))
    assert re.search(
        r"labels \(GET /labels\): of 5 rows that were loaded 0 are in the table; ", text
    )
    by_hand(
        project,
        "DROP RULE IF EXISTS gone ON {a}.labels",
        "DROP TRIGGER IF EXISTS gone ON {a}.labels",
    )
    assert_whole(project, load(project))


@ON_A_SERVER
def test_a_materialized_view_is_named(project: Project) -> None:
    """Prevents the server's own words for what no list of tables shows."""
    by_hand(
        project,
        "ALTER TABLE {a}.labels RENAME TO kept",
        "CREATE MATERIALIZED VIEW {a}.labels AS SELECT * FROM {a}.kept",
    )
    text = failure_of(load(project))
    assert f"labels (GET /labels): labels is a view in the dataset '{project.dataset}'; ren" in text
    assert len(text.splitlines()) == 2
    by_hand(project, "DROP MATERIALIZED VIEW {a}.labels")
    assert_whole(project, load(project))


def edit_state(project: Project, group: str, change: Callable[[Any], object]) -> None:
    """Change what is remembered of a group, in the destination."""
    table = f"{project.dataset}._dlt_pipeline_state"
    where = f"WHERE pipeline_name = 'analytics_assets_{group}'"
    [(text,)] = project.query(f"SELECT max(state) FROM {table} {where}")
    state: Any = decompress_state(text)
    change(state)
    by_hand(project, f"UPDATE {table} SET state = '{compress_state(state)}' {where}")


def of(group: str, name: str, **values: Any) -> Callable[[Any], object]:
    """Return what sets values in the state of a resource."""
    return lambda state: state["sources"][group]["resources"][name].update(values)


AHEAD = "2099-01-01"
EDITED: Mapping[str, tuple[str, Callable[[Any], object]]] = {
    "no day": ("usage", of("usage", "usage_mtu_daily", newest_day="tomorrow")),
    "a day to come": ("usage", of("usage", "usage_mtu_daily", newest_day=AHEAD)),
    "a month to come": ("usage", of("usage", "usage_mtu_daily", due_months=["2099-03-01"])),
    "no first of a month": ("usage", of("usage", "usage_mtu_daily", due_months=["2026-03-15"])),
    "year one": ("usage", of("usage", "usage_mtu_daily", first_month="0001-01-01")),
    "no time": ("identity", of("identity", "audit_events", position="soon")),
    "a time to come": ("identity", of("identity", "audit_events", position=f"{AHEAD}T00:00:00Z")),
    "a time without a zone": ("identity", of("identity", "audit_events", position="2026-01-01")),
    "a time in year one": (
        "identity",
        of("identity", "audit_events", position="0001-01-01T00:00:00+00:00"),
    ),
    "a peak that is text": ("identity", of("identity", "labels", peak="x")),
    "a peak without a day": ("identity", of("identity", "labels", peak={"rows": 5})),
    "a peak to come": ("identity", of("identity", "labels", peak={"rows": 10**9, "day": AHEAD})),
    "a resource that is text": (
        "identity",
        lambda state: state["sources"]["identity"]["resources"].update(labels="x"),
    ),
    "resources in a list": (
        "identity",
        lambda state: state["sources"]["identity"].update(resources=[]),
    ),
    "a source that is a list": ("identity", lambda state: state["sources"].update(identity=[])),
    "sources in a list": ("identity", lambda state: state.update(sources=[])),
}


IN_CI = ("a month to come", "a time to come", "a peak that is text", "sources in a list")


@pytest.mark.parametrize(
    "case", [c if c in IN_CI else pytest.param(c, marks=pytest.mark.heavy) for c in EDITED]
)
def test_a_state_that_makes_no_sense_is_forgotten(project: Project, case: str) -> None:
    """Prevents that an edited state ends every run in a traceback, or is believed."""
    by_hand(project, "DELETE FROM {a}.audit_events WHERE type <> 'x'")
    edit_state(project, *EDITED[case])
    if EDITED[case][0] == "usage" or "peak" in case or "text" in case:  # the events stay loaded
        edit_state(project, "identity", of("identity", "audit_events", position="soon"))
    assert_whole(project, load(project))


@pytest.mark.parametrize(
    ("table", "column"), [("_dlt_loads", "status"), ("_dlt_version", "schema")]
)
def test_a_table_of_dlts_that_is_broken_is_named(project: Project, table: str, column: str) -> None:
    """Prevents that a column of dlt's own tables is taken for a server that is down."""
    by_hand(project, f"ALTER TABLE {{a}}.{table} DROP COLUMN {column}")
    assert failure_of(load(project)) == (
        f"The table {table} of the dataset '{project.dataset}', in which dlt keeps what it has"
        f" loaded, has lost the column {column}; drop it, and the next run makes it again."
    )
    assert project.sandbox.requests == []
    by_hand(project, f"DROP TABLE {{a}}.{table}")
    assert_whole(project, load(project))


def test_a_table_of_somebody_elses_is_left_alone(
    start: Callable[..., Project], postgres: str
) -> None:
    """Prevents the destination's complaint about a column of dlt's, after the fact."""
    duckdb = start(OPTIONS)
    for project in (duckdb, on_postgres(duckdb, postgres)):
        rows = "SELECT 1 AS id, 'mine' AS name"
        by_hand(project, "CREATE SCHEMA {a}", f"CREATE TABLE {{a}}.groups AS {rows}")
        result = project.materialize("groups", "labels")
        sentence = f"the dataset '{project.dataset}' holds a table groups of somebody else's"
        assert f"groups (GET /groups): {sentence}" in failure_of(result)
        assert set(materialized(result)) == {"labels"}
        assert project.query(f"SELECT * FROM {project.dataset}.groups") == [(1, "mine")]


def test_the_tables_of_a_plain_script_are_refused_in_one_sentence(
    start: Callable[..., Project], postgres: str
) -> None:
    """Prevents fourteen complaints of the database, or clear-text write keys that go unnoticed."""
    served = start(OPTIONS, ANALYTICS_USAGE_START=f"{FIRST_MONTH:%Y-%m}")
    for project in (served, on_postgres(served, postgres)):
        load_plainly(project)
        before = project.tables()
        assert "sources__write_keys" in before
        project.sandbox.clear()
        text = failure_of(load(project))
        assert "\n" not in text
        assert text.startswith(
            f"The dataset '{project.dataset}' holds tables that another dlt pipeline made:"
            " sources, users, labels (sources__write_keys holds secrets in clear text)."
        )
        assert project.tables() == before
        assert project.sandbox.requests == []
        by_hand(project, "DROP SCHEMA {a} CASCADE")
        assert_whole(project, load(project))


def load_plainly(project: Project) -> None:
    """Load as a script of dlt's own would, with its defaults: child tables, a row id."""
    lists = ("sources", "labels", "users")
    with environment(project.env):
        pipeline = dlt.pipeline(
            "segment",
            destination=dlt_destination(project),
            dataset_name=project.dataset,
            pipelines_dir=str(project.folder / f"plain_{project.dataset}"),
        )
        pipeline.run([dlt.resource(project.sandbox.served(name), name=name) for name in lists])


def dlt_destination(project: Project) -> Any:
    """Return where a project loads to, for dlt."""
    if isinstance(project, PostgresProject):
        return dlt.destinations.postgres(project.url)
    return dlt.destinations.duckdb(str(project.database))


on_each = pytest.mark.parametrize(
    "project", ["duckdb", pytest.param("postgres", marks=pytest.mark.heavy)], indirect=True
)
REFUSED_REPORTS = {
    "other table": (
        ["CREATE TABLE {a}.idle_sources AS SELECT 1 AS id, 'mine' AS name"],
        "the dataset '{a}' holds a table idle_sources of somebody else's; rename it, or load into"
        " another dataset, with ANALYTICS_DATASET",
        "DROP TABLE {a}.idle_sources",
    ),
    "empty table": (
        ["CREATE TABLE {a}.idle_sources (id bigint, name varchar)"],
        "the dataset '{a}' holds a table idle_sources of somebody else's; rename it, or load into"
        " another dataset, with ANALYTICS_DATASET",
        "DROP TABLE {a}.idle_sources",
    ),
    "table of another dlt pipeline": (
        ["CREATE TABLE {a}.idle_sources AS SELECT 'x' AS source_id, '1' AS _dlt_load_id"],
        "the dataset '{a}' holds a table idle_sources of somebody else's; rename it, or load into"
        " another dataset, with ANALYTICS_DATASET",
        "DROP TABLE {a}.idle_sources",
    ),
    "view": (
        ["CREATE VIEW {a}.idle_sources AS SELECT 1 AS id"],
        "idle_sources is a view in the dataset '{a}'; rename or drop it, and the next run makes"
        " the table",
        "DROP VIEW {a}.idle_sources",
    ),
    "other table in staging": (
        ["CREATE TABLE {s}.idle_sources AS SELECT 1 AS id"],
        "the dataset '{s}', in which dlt puts rows before it merges them, holds another table"
        " idle_sources; rename or drop it, and the next run makes its own",
        "DROP TABLE {s}.idle_sources",
    ),
}


@on_each
@pytest.mark.parametrize("case", REFUSED_REPORTS)
def test_a_report_writes_into_no_table_of_somebody_elses(project: Project, case: str) -> None:
    """Prevents that a user's table of that name is altered, or costs the other reports.

    And that the checks of the report stay what they were, as if all were well.
    """
    statements, sentence, way_out = REFUSED_REPORTS[case]
    by_hand(project, *statements)
    place = {"a": project.dataset, "s": f"{project.dataset}_staging"}
    theirs = f"SELECT * FROM {place['s' if 'staging' in case else 'a']}.idle_sources"
    before = project.query(theirs)
    result = project.materialize("idle_sources", "governance_gaps")
    expected = f"idle_sources (report): {sentence.format(**place)}; nothing was loaded"
    assert failure_of(result).splitlines()[1:] == [expected]
    assert set(materialized(result)) == {"governance_gaps"}
    assert project.query(theirs) == before
    [check] = [
        check
        for check in result.get_asset_check_evaluations()
        if check.asset_key.path == ["idle_sources"]
    ]
    assert check.description == f"Not run: {expected.removeprefix('idle_sources (report): ')}."
    by_hand(project, way_out)
    assert failure_of(project.materialize("idle_sources", "governance_gaps")) == ""


HEALED_REPORTS = {
    "table": (["DROP TABLE {a}.idle_sources"], "dropped: idle_sources."),
    "columns": (
        [
            "ALTER TABLE {a}.idle_sources DROP COLUMN name",
            "ALTER TABLE {a}.idle_sources DROP COLUMN source_id",
            "ALTER TABLE {a}.idle_sources DROP COLUMN _dlt_load_id",
        ],
        "dropped before: the columns _dlt_load_id, name, source_id.",
    ),
    "type": (
        ["ALTER TABLE {a}.idle_sources ALTER COLUMN name TYPE bigint USING NULL"],
        "dropped or changed before: the column name.",
    ),
    "staging table": (["DROP TABLE {s}.idle_sources"], ""),
    "staging columns": (
        [
            "ALTER TABLE {s}.idle_sources DROP COLUMN _dlt_load_id",
            "ALTER TABLE {s}.idle_sources ALTER COLUMN name TYPE bigint USING NULL",
        ],
        "",
    ),
    "both": (["DROP TABLE {a}.idle_sources", "DROP SCHEMA {s} CASCADE"], "dropped: idle_sources."),
    "state and table": (
        ["DROP TABLE {a}._dlt_pipeline_state", "DROP TABLE {a}.idle_sources"],
        "dropped: idle_sources.",
    ),
}


@on_each
@pytest.mark.parametrize("case", HEALED_REPORTS)
def test_the_table_of_a_report_is_whole_again(
    project: Project, case: str, capfd: pytest.CaptureFixture[str]
) -> None:
    """Prevents a report that fails for ever because its table was dropped or altered by hand."""
    statements, warning = HEALED_REPORTS[case]
    assert failure_of(project.materialize("idle_sources", "governance_gaps")) == ""
    before = project.rows("idle_sources")
    assert before
    by_hand(project, *statements)
    for warned in (warning, ""):
        capfd.readouterr()
        result = project.materialize("idle_sources", "governance_gaps")
        assert failure_of(result) == ""
        assert project.rows("idle_sources") == before
        told = [line for line in capfd.readouterr().err.splitlines() if "ade again, as" in line]
        assert len([line for line in told if "idle_sources" in line]) == bool(warned)
        assert warned in "".join(told)
