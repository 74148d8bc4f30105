"""Any JSON in place of any part of an answer: the right rows or a clear failure, nothing else."""

from __future__ import annotations

import copy
import json
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from analytics_assets.sandbox import Reply, Workspace
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.pages import Chain, next_cursor, unpack
from analytics_assets.segment.records import BadValue, RowTyper
from analytics_assets.segment.unfolding import unfolded
from analytics_assets_tests.faults import KINDS, everything, inject
from analytics_assets_tests.harness import Project, failure_of, materialized

NUMBERS = (
    st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 2**64, 10**30, 0])
    | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(max_size=8) | st.sampled_from(
    ["", "2024-02-30", "2024-01-01T00:00:00Z", "12", "-1", "9" * 25, "\x00", "id", "true"]
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
_workspace = Workspace(scale=0.02, counts={"audit_events": 10})
MONTH = date.today().replace(day=1)


def real_answer(name: str) -> dict[str, Any]:
    """Return an answer with three records."""
    endpoint = BY_NAME[name]
    rows = _workspace.usage(name, str(MONTH)) if endpoint.monthly else _workspace.records(name)
    name = endpoint.data_selector.removeprefix("data.")
    body: dict[str, Any] = {"data": {name: as_served(endpoint, rows[:3])}}
    if endpoint.paginated:
        body["data"]["pagination"] = {"current": "MA==", "next": None, "totalEntries": 3}
    return body


def as_served(endpoint: Endpoint, rows: list[Any]) -> Any:
    """Return records as an answer holds them: a single object bare, texts without a field."""
    if endpoint.strings:
        return [row[endpoint.strings] for row in rows]
    return rows[0] if endpoint.single else rows


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every part of a JSON value, down to the fields of a record."""
    found = [path]
    if len(path) < 4 and isinstance(value, (dict, list)):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            found += places(item, (*path, key))
    return found


def put(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return a copy of a JSON value with one part replaced."""
    if not path:
        return new
    changed = copy.deepcopy(value)
    inner = changed
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = new
    return changed


@st.composite
def answers(draw: st.DrawFn, names: tuple[str, ...]) -> tuple[str, Any]:
    """Draw an endpoint and an answer of it in which one or two parts are something else."""
    name = draw(st.sampled_from(names))
    body = real_answer(name)
    for _ in range(draw(st.integers(1, 2))):
        body = put(body, draw(st.sampled_from(places(body))), draw(JSON))
    if draw(st.booleans()) and isinstance(body, dict):
        rows = (body.get("data") or {}) if isinstance(body.get("data"), dict) else {}
        for records in rows.values():
            if isinstance(records, list) and records and isinstance(records[0], dict):
                records[0][draw(TEXTS)] = draw(JSON)
    return name, body


ALL = tuple(endpoint.name for endpoint in ENDPOINTS)


@pytest.mark.unit
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(answers(ALL))
def test_an_answer_is_taken_as_it_is_or_refused(case: tuple[str, Any]) -> None:
    """Prevents a wrong table, or a failure that nobody foresaw, whatever the API answers."""
    name, body = case
    endpoint = BY_NAME[name]
    try:
        found, pagination = unpack(endpoint, body)
        next_cursor(endpoint, Chain(), found, pagination, 200)
        records = [{endpoint.strings: text} for text in found] if endpoint.strings else found
        records = list(unfolded(endpoint, records))
        typer = RowTyper(endpoint, {}, redact=False)
        table = typer.undeclared.finished(typer.table(records))
    except (ResourceError, BadValue) as error:
        assert str(error)  # noqa: PT017 - either outcome is right
        return
    served = body["data"][endpoint.data_selector.removeprefix("data.")]
    assert found == ([served] if endpoint.single else served)
    assert table.num_rows == len(records)
    named = {oddity.column for oddity in typer.oddities.found()}
    for record, row in zip(records, table.to_pylist(), strict=True):
        for column in endpoint.columns:
            value = record.get(column.field)
            value = column.missing if value is None else value
            odd = row[column.name] is None and column.name in named
            assert odd or same(column.type, value, row[column.name])
        taken = [row[n] for n in row if n not in {c.name for c in endpoint.columns}]
        unknown = {w: v for w, v in record.items() if w not in {c.field for c in endpoint.columns}}
        assert sum(v is not None for v in taken) == sum(v is not None for v in unknown.values())


def same(kind: str, wire: Any, stored: Any) -> bool:
    """Tell whether a value was stored as it was sent."""
    if wire is None or stored is None:
        return wire is stored
    if kind == "json":
        return bool(json.loads(stored) == wire)
    if kind == "bigint":
        return bool(int(wire) == stored) and not isinstance(wire, bool)
    if kind == "timestamp":
        return isinstance(wire, (str, int, float)) and not isinstance(wire, bool)
    return bool(wire == stored) and type(wire) is type(stored)


@pytest.mark.unit
@settings(max_examples=100, deadline=None)
@given(JSON)
@example({"a": [10**40, -(2**70), 1.5]})
def test_free_form_json_is_exact(value: Any) -> None:
    """Prevents that numbers beyond 64 bits, or odd text, change within a JSON column."""
    typer = RowTyper(BY_NAME["sources"], {}, redact=False)
    row = {"id": "a", "settings": {"value": value}}
    table = typer.table([row])
    assert json.loads(table["settings"][0].as_py()) == {"value": value}


@pytest.mark.unit
def test_nesting_without_end_is_refused() -> None:
    """Prevents a crash on a value that is nested deeper than the stack."""
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    with pytest.raises(BadValue, match=r"row 0, column 'settings': nested too deeply"):
        RowTyper(BY_NAME["sources"], {}).table([{"id": "a", "settings": value}])


@pytest.mark.unit
@pytest.mark.parametrize("text", ["0x1F", " 5", "5 ", "5\n", "1_0", "", "-", "٣", "1e3", "9" * 25])
def test_a_counter_is_decimal_digits(text: str) -> None:
    """Prevents an invented count: Arrow reads hexadecimal text, Python spaces and underscores."""
    rows = [{"timestamp": "2026-01-01T00:00:00Z", "anonymous": value} for value in ("7", text)]
    with pytest.raises(BadValue, match="row 1, column 'anonymous': expected bigint"):
        RowTyper(BY_NAME["usage_mtu_daily"], {}).table(rows)


@pytest.mark.unit
def test_counters_are_read_as_they_are_written() -> None:
    """Prevents that signs, zeros, numbers or gaps among counters change them or fail a load."""
    values = ["+5", "-0", "007", None, 3, "-9223372036854775808", "9223372036854775807"]
    rows = [{"timestamp": f"2026-01-0{n}", "anonymous": v} for n, v in enumerate(values, 1)]
    table = RowTyper(BY_NAME["usage_mtu_daily"], {}).table(rows)
    assert table["anonymous"].to_pylist() == [5, 0, 7, None, 3, -(2**63), 2**63 - 1]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("second", "stored"),
    [(253_402_300_800, "1978-01-11T21:31:40.800000+00:00"), (-62_135_596_801, None), (2**62, None)],
)
def test_a_second_beyond_the_calendar_is_named(second: int, stored: str | None) -> None:
    """Prevents a time that no database can show, and one that is stored otherwise unsaid."""
    rows = [{"timestamp": f"2026-01-0{n}", "periodStart": v} for n, v in ((1, 0), (2, second))]
    typer = RowTyper(BY_NAME["usage_mtu_daily"], {})
    moment = typer.table(rows)["period_start"].to_pylist()[1]
    assert (moment and moment.isoformat()) == stored
    [oddity] = typer.oddities.found()
    assert (oddity.column, oddity.count, oddity.example) == ("period_start", 1, str(second))


@pytest.mark.unit
@pytest.mark.parametrize("second", [253_402_300_800, -62_135_596_801, 2**62, True])
def test_a_second_beyond_the_calendar_is_no_key(second: int) -> None:
    """Prevents a key that is bent, so that two records share it; or a boolean taken for a time."""
    rows = [{"timestamp": "2026-01-01"}, {"timestamp": second}]
    with pytest.raises(BadValue, match="row 1, column 'timestamp': expected timestamp"):
        RowTyper(BY_NAME["usage_mtu_daily"], {}).table(rows)


@pytest.mark.unit
def test_unix_seconds_become_times() -> None:
    """Prevents that the first and last second, or a gap, are lost on the quick way."""
    values = [253_402_300_799, -62_135_596_800, None, 0]
    rows = [{"timestamp": f"2026-01-0{n}", "periodStart": v} for n, v in enumerate(values, 1)]
    stored = RowTyper(BY_NAME["usage_mtu_daily"], {}).table(rows)["period_start"].to_pylist()
    years = [moment and moment.year for moment in stored]
    assert years == [9999, 1, None, 1970]
    empty = [{"timestamp": "2026-01-01", "periodStart": None}]
    assert RowTyper(BY_NAME["usage_mtu_daily"], {}).table(empty)["period_start"].null_count == 1


@settings(
    max_examples=8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(answers(KINDS))
@example(
    (
        "sources",
        {
            "data": {
                "sources": [{"id": "a", "settings": {"n": 10**30}}],
                "pagination": {"current": "MA=="},
            }
        },
    )
)
@example(("labels", {"data": {"labels": [{"key": "a\x00", "value": "b", "new": 2**63}]}}))
def test_a_table_is_right_or_untouched(loaded: Project, case: tuple[str, Any]) -> None:
    """Prevents, through the whole pipeline, a wrong table, a hang or a crash without a message."""
    name, body = case
    endpoint = BY_NAME[name]
    inject(loaded, name, lambda *_: Reply(body=json.dumps(body).encode()), page=0)
    before = everything(loaded, name)
    config = {"expect_fewer_rows": True}
    result = loaded.materialize(name, config=config, api={"retries": 0})
    if not result.success:
        assert f"{name} (GET {endpoint.path}): " in failure_of(result)
        assert everything(loaded, name) == before
        return
    assert set(materialized(result)) == {name}
    records = body["data"][endpoint.data_selector.removeprefix("data.")]
    keys = {tuple(record[wire] for wire in endpoint.primary_key) for record in records}
    proved = {c.check_name: c.passed for c in result.get_asset_check_evaluations()}["read_whole"]
    if endpoint.full_list and proved:
        assert len(loaded.rows(name)) == len(keys)
