"""One odd value, or a field nobody asked for: stored or named, and nothing else is harmed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import datetime, timezone
from typing import Any

import pytest
from dagster import AssetCheckEvaluation, DagsterInstance, ExecuteInProcessResult

from analytics_assets.sandbox import Options, Reply, RequestInfo
from analytics_assets_tests.conftest import on_postgres
from analytics_assets_tests.faults import Body, inject, rows_of, run_logged
from analytics_assets_tests.harness import Project, Row, failure_of, materialized
from analytics_assets_tests.postgres import PostgresProject
from analytics_assets_tests.test_checks import check

HALF = "\ud83d"
BOTH = pytest.mark.parametrize("kind", ["duckdb", "postgres"])
SECRET = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"

Build = Callable[[str], Project]


@pytest.fixture
def build(start: Callable[..., Project], postgres: str) -> Build:
    """Return a function that points a project with a small workspace at a destination."""

    def build_project(kind: str) -> Project:
        project = start(Options(scale=0.02, counts={"sources": 5, "audit_events": 30}))
        return on_postgres(project, postgres) if kind == "postgres" else project

    return build_project


class Raw(str):
    """JSON that is served as it is written here."""


def serve(
    project: Project, name: str, change: Callable[[list[Row]], object], *, before: bytes = b""
) -> None:
    """Serve the records of a list with changes that no ordinary writer of JSON would make."""

    def fault(body: Body, _: RequestInfo) -> Reply:
        change(rows_of(name, body))
        raw: list[str] = []

        def kept(value: Any) -> Any:
            if isinstance(value, Raw):
                raw.append(value)
                return f"@{len(raw) - 1}@"
            if isinstance(value, dict):
                return {key: kept(item) for key, item in value.items()}
            return [kept(item) for item in value] if isinstance(value, list) else value

        text = json.dumps(kept(body))
        text = re.sub(r'"@(\d+)@"', lambda found: raw[int(found[1])], text)
        return Reply(body=before + text.encode("utf-8", "surrogateescape"))

    inject(project, name, fault, page=0)


def warned(result: ExecuteInProcessResult) -> dict[tuple[str, str], str]:
    """Return the checks that did not pass, and what they say."""
    return {
        (one.asset_key.to_user_string(), one.check_name): said(one)
        for one in result.get_asset_check_evaluations()
        if not one.passed
    }


def said(one: AssetCheckEvaluation) -> str:
    """Return the message of a check, which must be a warning."""
    assert one.severity.value == "WARN", one.description
    return str(one.description)


def by_id(project: Project, table: str) -> dict[str, Row]:
    """Return the rows of a table by their identifier."""
    return {row["id"]: row for row in project.rows(table)}


def ids(project: Project, name: str) -> list[str]:
    """Return the identifiers that are served, in order."""
    return [record["id"] for record in project.sandbox.served(name)]


@BOTH
def test_odd_characters_and_numbers_cost_at_most_themselves(build: Build, kind: str) -> None:
    """Prevents that half an emoji, U+0000 or a long number refuses a list, or poisons a column."""
    project = build(kind)
    first, second, third, *_ = names = ids(project, "sources")
    settings = {
        "text": f"a{HALF}b",
        "nul": "a\x00b",
        HALF: 1,
        "\udc00": 2,
        "huge": Raw("1e999"),
        "long": Raw("0.12345678901234567890123"),
        "int": 10**30,
        "longest": Raw("1" * 5000),
    }

    def change(rows: list[Row]) -> None:
        rows[0] |= {"name": f"a{HALF}b", "settings": settings}
        rows[1] |= {"name": "a\x00b", "settings": {"apiToken": f"{SECRET}{HALF}"}}
        rows[2] |= {"name": Raw('"a\udcffb"')}  # a byte that is no UTF-8

    serve(project, "sources", change, before=b"\xef\xbb\xbf")
    result = project.materialize("sources", "labels")
    assert failure_of(result) == ""
    rows = by_id(project, "sources")
    assert sorted(rows) == sorted(names)
    nul = "\x00" if kind == "duckdb" else "\ufffd"
    assert [rows[name]["name"] for name in (first, second, third)] == [
        "a\ufffdb",
        f"a{nul}b",
        "a\ufffdb",
    ]
    stored = rows[first]["settings"]
    assert stored == {
        "text": "a\ufffdb",
        "nul": f"a{nul}b",
        "\\ud83d": 1,
        "\\udc00": 2,
        "huge": "1E+999",
        "long": pytest.approx(0.12345678901234568),
        "int": 10**30,
        "longest": "1" * 5000,
    }
    exact = project.query(
        f"SELECT CAST(settings AS VARCHAR) FROM {dataset(project)}.sources"
        " WHERE position('longest' IN CAST(settings AS VARCHAR)) > 0"
    )
    assert "0.12345678901234567890123" in exact[0][0]
    found = warned(result)
    assert found.keys() == {("sources", "values_fit")}
    text = found["sources", "values_fit"]
    count = 2 if kind == "duckdb" else 3
    assert f"name: {count} values half characters and U+0000 became U+FFFD (such as a" in text
    assert "settings: 1 value numbers beyond the range of a double became text" in text
    assert SECRET[:12] not in text
    project.assert_equal(["labels"])


def dataset(project: Project) -> str:
    """Return the schema of the tables."""
    return project.env.get("ANALYTICS_DATASET", "analytics")


@BOTH
def test_keys_with_odd_characters_stay_apart(build: Build, kind: str) -> None:
    """Prevents that two records become one because their keys differ in what cannot be stored."""
    project = build(kind)

    def change(rows: list[Row]) -> None:
        rows[:] = [{"key": f"k{odd}", "value": "v"} for odd in ("", HALF, "\udc00", "\x00")]

    serve(project, "labels", change)
    result = project.materialize("labels", "sources")
    assert failure_of(result) == ""
    nul = "k\x00" if kind == "duckdb" else "k\\u0000"
    assert sorted(row["key"] for row in project.rows("labels")) == sorted(
        ["k", "k\\ud83d", "k\\udc00", nul]
    )
    assert "became their escapes" in warned(result)["labels", "values_fit"]
    project.assert_equal(["sources"])


TIMES: dict[Any, str | None] = {
    "2016-12-31T23:59:60Z": "2017-01-01T00:00:00",
    "2026-01-01T24:00:00Z": "2026-01-02T00:00:00",
    "0001-01-01T00:00:00+01:00": "0001-01-01T00:00:00",
    "9999-12-31T23:59:59-01:00": "9999-12-31T23:59:59.999999",
    "0000-01-01T00:00:00Z": "0001-01-01T00:00:00",
    "0000-00-00 00:00:00": None,
    "soon": None,
    "": None,
    1735689600123: "2025-01-01T00:00:00.123000",
    2**70: None,
    None: None,
}


@BOTH
def test_odd_times_cost_at_most_themselves(build: Build, kind: str) -> None:
    """Prevents that one time that is none refuses all events, or ends a run with a traceback."""
    project = build(kind)
    served = ids(project, "audit_events")
    odd = dict(zip(served, TIMES, strict=False))

    def change(rows: list[Row]) -> None:
        for row in rows:
            if row["id"] in odd:
                row["timestamp"] = odd[row["id"]]

    serve(project, "audit_events", change)
    for _ in range(2):
        result = project.materialize("audit_events", "users")
        assert failure_of(result) == ""
        rows = project.query(
            f"SELECT id, CAST(timestamp AT TIME ZONE 'UTC' AS VARCHAR)"
            f" FROM {dataset(project)}.audit_events"
        )
        stored = {id_: text and text.replace(" ", "T") for id_, text in rows}
        assert sorted(stored) == sorted(served)
        for id_, value in odd.items():
            wanted = TIMES[value]
            assert (stored[id_] or "").removesuffix("000") == (wanted or "").removesuffix("000")
    project.sandbox.intercept = None
    project.sandbox.workspace.add_event(type="Source Created")
    assert failure_of(project.materialize("audit_events")) == ""
    assert len(project.rows("audit_events")) == len(served) + 1
    project.assert_equal(["users"])


def test_odd_times_are_named(build: Build) -> None:
    """Prevents that a time is bent or lost and nobody is told; also when checks run alone."""
    project = build("duckdb")
    with DagsterInstance.ephemeral() as instance:

        def change(rows: list[Row]) -> None:
            rows[0]["timestamp"], rows[1]["timestamp"] = "soon", None

        serve(project, "audit_events", change)
        result = project.materialize("audit_events", instance=instance)
        text = warned(result)["audit_events", "values_fit"]
        assert "timestamp: 1 value not to be read as times, became null (such as soon)" in text
        assert "timestamp: 1 value without a value in the column that loads go by" in text
        alone = check(project, instance, "audit_events")
        assert str(alone["audit_events", "values_fit"].description) == text
        project.sandbox.intercept = None
        assert warned(project.materialize("audit_events", instance=instance)) == {}


@pytest.mark.parametrize("value", ["31/12/2026", None, Raw('"\ufffd"')])
def test_a_column_of_no_time_at_all_is_a_change(build: Build, value: Any) -> None:
    """Prevents a table whose times all become null because the API writes them otherwise now."""
    project = build("duckdb")
    serve(
        project,
        "audit_events",
        lambda rows: [row.update(timestamp=value) for row in rows],
    )
    result = project.materialize("audit_events", "labels")
    count = len(project.sandbox.served("audit_events"))  # of 30 those that are no 90 days old
    assert f"(GET /audit-events): none of the {count} values of 'timestamp' is a time" in (
        failure_of(result)
    )
    assert set(materialized(result)) == {"labels"}
    assert "audit_events" not in project.tables()


def test_milliseconds_in_all_events_are_read(build: Build) -> None:
    """Prevents a refusal of what can be told apart for certain: no second lies that far ahead."""
    project = build("duckdb")
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc)

    def change(rows: list[Row]) -> None:
        for row in rows:
            row["timestamp"] = int(moment.timestamp() * 1000)

    serve(project, "audit_events", change)
    result = project.materialize("audit_events")
    assert failure_of(result) == ""
    assert {row["timestamp"] for row in project.rows("audit_events")} == {moment}
    count = len(project.sandbox.served("audit_events"))  # of 30 those that are no 90 days old
    warning = warned(result)["audit_events", "values_fit"]
    assert f"{count} values milliseconds in place" in warning


def undeclared(project: Project, table: str = "sources") -> list[Row]:
    """Return what a table holds in columns that are not declared, in order of the records."""
    from analytics_assets.segment.endpoints import BY_NAME

    known = {column.name for column in BY_NAME[table].table_columns} - {"id"}
    order = {name: number for number, name in enumerate(ids(project, table))}
    rows = sorted(project.rows(table), key=lambda row: order[row["id"]])
    return [
        {name: value for name, value in row.items() if name not in known and value is not None}
        for row in rows
    ]


def columns_of(project: Project, field_values: list[Any], field: str = "newField") -> list[Row]:
    """Serve a field with a value for each of the first sources; load, return what is stored."""

    def change(rows: list[Row]) -> None:
        for row, value in zip(rows, field_values, strict=False):
            row[field] = value

    serve(project, "sources", change)
    result = project.materialize("sources", "labels")
    assert failure_of(result) == ""
    project.assert_equal(["labels"])
    text = warned(result)["sources", "columns_as_declared"]
    return [{**row, "said": text} for row in undeclared(project)[: len(field_values)]]


def parsed(project: Project, value: Any) -> Any:
    """Parse JSON text; PostgreSQL's driver, or the harness, has parsed some of it."""
    as_text = isinstance(value, str) and not isinstance(project, PostgresProject)
    return json.loads(value) if as_text else value


@BOTH
@pytest.mark.parametrize(
    "values",
    [
        [1, "two", {"a": 3}],
        [1, 1.5, True],
        ["text", ["list"], 2**64],
        [2**53 + 1, 1.5, None],
        [Raw("1e999"), 1, Raw("0.12345678901234567890123")],
    ],
)
def test_a_field_of_several_types_is_kept_as_json(
    build: Build, kind: str, values: list[Any]
) -> None:
    """Prevents that a field nobody asked for refuses a list because its values are of all kinds."""
    project = build(kind)
    rows = columns_of(project, values)
    stored = [parsed(project, row.get("new_field")) for row in rows]
    usual = [json.loads(v) if isinstance(v, Raw) else v for v in values]
    assert [str(v) if v != "1E+999" else "inf" for v in stored] == [str(v) for v in usual]
    assert "so they are kept as JSON text" in rows[0]["said"]


@BOTH
def test_a_field_that_changes_its_type_between_loads_keeps_a_column(
    build: Build, kind: str
) -> None:
    """Prevents a refusal on the second day, and a column that holds the one thing or the other."""
    project = build(kind)
    assert [row["new_field"] for row in columns_of(project, [1, 2])] == [1, 2]
    rows = columns_of(project, ["one", {"a": 2}])
    assert [parsed(project, row["new_field_2"]) for row in rows] == ["one", {"a": 2}]
    assert all("new_field" not in row for row in rows)
    assert "new_field holds other values of earlier loads" in rows[0]["said"]
    rows = columns_of(project, [3, 4])
    assert [parsed(project, row["new_field_2"]) for row in rows] == [3, 4]
    assert all("new_field" not in row for row in rows)


@BOTH
def test_whole_numbers_fit_where_numbers_are(build: Build, kind: str) -> None:
    """Prevents a new column for every 2 that comes where a 1.5 was."""
    project = build(kind)
    assert [row["new_field"] for row in columns_of(project, [1.5, 2])] == [1.5, 2.0]
    assert [row["new_field"] for row in columns_of(project, [3, 4])] == [3.0, 4.0]


@BOTH
def test_names_that_clash_or_cannot_be_used_get_another(build: Build, kind: str) -> None:
    """Prevents that a name takes a column of ours, is cut by the database, or refuses the list."""
    project = build(kind)
    names = ["createdAt", "created_at", "deletedAt", "", "__", "_dltId", "_dlt_load_id", "xmin"]
    long = ["k" * 300, "k" * 299 + "l", "\N{SNOWMAN}" * 40, HALF, "a'b\"c", SECRET]
    names += ["slug_", "NAME", *long]

    def change(rows: list[Row]) -> None:
        rows[0] |= {name: f"value {number}" for number, name in enumerate(names)}

    for round_ in range(2):
        serve(project, "sources", change)
        result = project.materialize("sources", "labels")
        assert failure_of(result) == "", round_
        row = undeclared(project)[0]
        row.pop("id")
        assert sorted(row.values()) == sorted(f"value {n}" for n in range(len(names)))
        assert all(len(name) <= 63 for name in row)
        assert (row["created_at"], row["created_at_2"]) == ("value 0", "value 1")
        assert row["deleted_at_2"] == "value 2"
        assert row["field"] == "value 3"
        text = warned(result)["sources", "columns_as_declared"]
        assert "the field deletedAt: the name deleted_at is taken" in text
        assert SECRET.lower() not in text.lower()
    columns = {name for row in undeclared(project) for name in row}
    assert not any(SECRET.lower() in name for name in columns)


@BOTH
def test_objects_in_fields_of_any_name_load(build: Build, kind: str) -> None:
    """Prevents that DuckDB takes a JSON column for the table that a statement calls the same."""
    project = build(kind)
    names = ["d", "S", "t", "source", "target", "sources", "analytics", "key", "order", "excluded"]

    def change(rows: list[Row]) -> None:
        for row in rows:
            row |= {name: {"id": name} for name in names}

    for round_ in range(2):
        serve(project, "sources", change)
        assert failure_of(project.materialize("sources")) == "", round_
        row = undeclared(project)[0]
        row.pop("id")
        assert sorted(parsed(project, value)["id"] for value in row.values()) == sorted(names)


@BOTH
def test_a_column_stays_with_its_field(build: Build, kind: str) -> None:
    """Prevents that two fields of one name in snake_case change places when one is not there."""
    project = build(kind)
    columns_of(project, ["a", "b"], "foo_bar")

    def change(rows: list[Row]) -> None:
        rows[0] |= {"fooBar": "other", "foo_bar": "a"}

    serve(project, "sources", change)
    assert failure_of(project.materialize("sources")) == ""
    row = undeclared(project)[0]
    assert (row["foo_bar"], row["foo_bar_2"]) == ("a", "other")
    [row] = columns_of(project, ["alone"], "fooBar")
    assert "foo_bar" not in row
    assert row["foo_bar_2"] == "alone"


@BOTH
def test_fields_without_end_are_left_out(build: Build, kind: str) -> None:
    """Prevents a table of more columns than the destination takes, and a refusal."""
    project = build(kind)

    def change(rows: list[Row]) -> None:
        rows[0] |= {f"f{number:04}": number for number in range(2000)}

    serve(project, "sources", change)
    result = project.materialize("sources", "labels")
    assert failure_of(result) == ""
    row = undeclared(project)[0]
    assert (len(row), row["f0000"], row["f0199"]) == (201, 0, 199)
    text = warned(result)["sources", "columns_as_declared"]
    assert "left out are f0200, f0201, f0202 and 798 more: more than 200 fields are not" in text


def test_an_undeclared_value_without_end_is_left_out(build: Build) -> None:
    """Prevents that a field nobody asked for refuses a list because it is nested too deeply."""
    project = build("duckdb")
    deep = Raw('{"a":' * 900 + "1" + "}" * 900)

    def change(rows: list[Row]) -> None:
        rows[0]["newObject"], rows[1]["newObject"] = deep, {"a": 1}

    serve(project, "sources", change)
    result = project.materialize("sources", "labels")
    assert failure_of(result) == ""
    assert [row.get("new_object") for row in undeclared(project)[:2]] == [None, {"a": 1}]
    text = warned(result)["sources", "values_fit"]
    assert "new_object: 1 value nested too deeply, left out (such as ***)" in text


def test_no_secret_is_shown_as_an_example(build: Build) -> None:
    """Prevents that what warns of an odd value gives it away."""
    project = build("duckdb")

    def change(rows: list[Row]) -> None:
        rows[0] |= {
            "name": f"Bearer {SECRET}{HALF}",
            "newToken": f"{SECRET}{HALF}",
            "settings": {"apiKey": SECRET + HALF},
            "writeKeys": [SECRET + HALF],
            SECRET: HALF,
        }

    serve(project, "sources", change)
    result, log = run_logged(project, "sources")
    assert failure_of(result) == ""
    shown = log + "".join(map(repr, result.all_events)) + repr(warned(result))
    assert "such as" in shown
    assert SECRET not in shown
    assert SECRET.encode() not in project.database.read_bytes()


def test_a_list_with_far_more_rows_than_it_says_ends(build: Build) -> None:
    """Prevents that a list whose cursors go on for ever is read for ever."""
    project = build("duckdb")

    def endless(body: Body, info: RequestInfo) -> Body:
        rows = rows_of("sources", body)
        rows[:] = [{**rows[0], "id": f"{info.number}-{n}"} for n in range(200)]
        body["data"]["pagination"] = {"next": f"made-up {info.number}", "totalEntries": 100}
        return body

    inject(project, "sources", endless, page=0)
    result = project.materialize("sources", "labels")
    assert "1400 rows have come although totalEntries says 100" in failure_of(result)
    assert set(materialized(result)) == {"labels"}


def test_a_cursor_that_fits_no_address_ends_its_list_alone(build: Build) -> None:
    """Prevents that half a character in a cursor or a parent's id ends the whole group."""
    project = build("duckdb")

    def change(rows: list[Row]) -> None:
        rows[0]["id"] += HALF

    serve(project, "groups", change)
    result = project.materialize("groups", "group_users", "labels")
    text = failure_of(result)
    assert "group_users (GET" in text
    assert "has no 'id' fit for a path" in text
    assert set(materialized(result)) == {"groups", "labels"}

    def odd_cursor(body: Body, _: RequestInfo) -> Reply:
        body["data"]["pagination"]["next"] = HALF
        return Reply(body=json.dumps(body).encode())

    inject(project, "sources", odd_cursor, page=0)
    result = project.materialize("sources", "labels")
    assert "'data.pagination.next' is not text" in failure_of(result)
    assert set(materialized(result)) == {"labels"}
