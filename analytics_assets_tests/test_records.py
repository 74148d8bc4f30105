"""Records become typed rows without loss, or are refused by the name of row and field."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.model import Column, Endpoint
from analytics_assets.segment.parts import with_parts
from analytics_assets.segment.records import BadValue, RowTyper
from analytics_assets.segment.times import parse_timestamp
from analytics_assets_tests.harness import assert_same, comparable, expected_rows

pytestmark = pytest.mark.unit
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
BIG = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=8)
WORDS = st.sampled_from(["", "plain", "two words", "\N{SNOWMAN}"])
"""Text that does not read like a credential."""
SECRETS = st.binary(max_size=8).map(lambda seed: hashlib.sha256(seed).hexdigest())
"""Long random ones, which are stored as fingerprints."""
HARMLESS = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "enabled", "mode"]), inner)
    ),
    max_leaves=5,
)
MOMENTS = st.datetimes(datetime(1900, 1, 1), datetime(2999, 1, 1)).map(
    lambda moment: moment.isoformat() + "Z"
)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "bool": st.booleans(),
    "bigint": BIG | BIG.map(str),
    "double": NUMBERS,
    "timestamp": MOMENTS,
    "json": HARMLESS.filter(lambda value: value is not None),
}
WRONG: dict[str, st.SearchStrategy[Any]] = {
    "text": st.integers() | NUMBERS | st.booleans() | st.just([]) | st.just({}),
    "bool": st.integers() | NUMBERS | TEXTS | st.just([]) | st.just({}),
    "bigint": st.booleans() | st.sampled_from(["", "x", "1.5", 0.5, 2**63, str(2**63), [], {}]),
    "double": st.booleans() | TEXTS | st.just([]) | st.just({}),
    "timestamp": st.booleans() | st.sampled_from([[], {}]),
}
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "bool": st.booleans(),
    "bigint": BIG,
    "double": NUMBERS,
    "json": st.lists(st.integers(), max_size=3),
}
"""Values of a field that is not declared, by the type that its column takes."""


def value_of(column: Column) -> st.SearchStrategy[Any]:
    """Return what a field may hold; a secret is a text, or a list of them."""
    if not column.secret:
        return VALUES[column.type]
    return st.lists(SECRETS, max_size=3) if column.type == "json" else SECRETS


def record_of(endpoint: Endpoint) -> st.SearchStrategy[dict[str, Any]]:
    """Return records of an endpoint, in which what is no key may be null or left out."""
    required = {c.field: value_of(c) for c in endpoint.columns if c.field in endpoint.primary_key}
    optional = {
        c.field: st.none() | value_of(c)
        for c in endpoint.columns
        if c.field not in endpoint.primary_key
    }
    return st.fixed_dictionaries(required, optional=optional)


@st.composite
def pages(draw: st.DrawFn) -> tuple[Endpoint, list[dict[str, Any]]]:
    """Draw an endpoint and some of its records, no two with the same key."""
    endpoint = draw(st.sampled_from(ENDPOINTS))
    rows = draw(
        st.lists(
            record_of(endpoint),
            max_size=4,
            unique_by=lambda row: repr(expected_rows(endpoint, [row])[0][endpoint.key_columns[0]]),
        )
    )
    return endpoint, rows


@given(pages())
def test_a_page_comes_back_value_by_value(page: tuple[Endpoint, list[dict[str, Any]]]) -> None:
    """Prevents that any value the API may send is rounded, cut, moved or masked by mistake."""
    endpoint, rows = page
    table = RowTyper(endpoint, {}).table(rows)
    assert table.column_names == [column.name for column in endpoint.columns]
    landed = comparable(endpoint, with_parts(endpoint, table).to_pylist(), live=False)
    assert_same(endpoint.name, landed, expected_rows(endpoint, rows))


@st.composite
def mistakes(draw: st.DrawFn) -> tuple[Endpoint, list[dict[str, Any]], int, str]:
    """Draw a page in which one field of one record holds a value of another type.

    Not a secret: of that a fingerprint is stored, whatever it is.
    """
    endpoint = draw(st.sampled_from(ENDPOINTS))
    rows = draw(st.lists(record_of(endpoint), min_size=1, max_size=3))
    number = draw(st.integers(0, len(rows) - 1))
    fit = [c for c in endpoint.columns if c.type in WRONG and not c.secret]
    column = draw(st.sampled_from(fit))
    wrong = draw(WRONG[column.type])
    rows[number][column.field] = wrong
    return endpoint, rows, number, column.name


@given(mistakes(), st.integers(0, 10**6))
def test_a_wrong_value_is_named_by_row_and_column(
    mistake: tuple[Endpoint, list[dict[str, Any]], int, str], first_row: int
) -> None:
    """Prevents a coerced value, and a message that leaves one to search a list of thousands."""
    endpoint, rows, number, column = mistake
    named = rf"^row {first_row + number}, column '{column}': expected "
    with pytest.raises(BadValue, match=named):
        RowTyper(endpoint, {}).table(rows, first_row)


@given(st.sampled_from(ENDPOINTS), st.booleans(), st.data())
def test_a_record_without_its_key_is_refused(
    endpoint: Endpoint, left_out: bool, data: st.DataObject
) -> None:
    """Prevents a row that no later load can find again."""
    row = data.draw(record_of(endpoint))
    needed = [c for c in endpoint.columns if c.field in endpoint.primary_key and c.missing is None]
    column = data.draw(st.sampled_from(needed))
    row[column.field] = None
    if left_out:
        del row[column.field]
    with pytest.raises(BadValue, match=rf"^row 7 has no '{column.name}', which is part of the key"):
        RowTyper(endpoint, {}).table([row], first_row=7)


@given(
    st.sampled_from(sorted(KINDS)).flatmap(
        lambda kind: st.tuples(
            st.just(kind), st.lists(st.lists(st.none() | KINDS[kind], max_size=3), max_size=3)
        )
    )
)
def test_a_field_that_is_not_declared_keeps_its_type(case: tuple[str, list[list[Any]]]) -> None:
    """Prevents that a new field is lost, or gets another type on a later page."""
    kind, found = case
    typer = RowTyper(BY_NAME["labels"], {})
    for values in found:
        rows = [{"key": str(n), "value": "", "newField": v} for n, v in enumerate(values)]
        table = typer.undeclared.finished(typer.table(rows))
        if any(value is not None for value in values):
            assert comparable_values(kind, table["new_field"].to_pylist()) == values
        else:
            assert "new_field" not in table.column_names
    seen = any(value is not None for values in found for value in values)
    assert typer.undeclared.types() == ({"new_field": kind} if seen else {})


def comparable_values(kind: str, values: list[Any]) -> list[Any]:
    """Parse what is stored as JSON."""
    return [json.loads(v) if kind == "json" and v is not None else v for v in values]


ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(datetime(1900, 1, 1), datetime(2999, 1, 1), timezones=ZONES))
def test_a_time_is_read_whatever_its_zone_and_fraction(moment: datetime) -> None:
    """Prevents a time that is off by its zone, or by what stands after the second."""
    assert parse_timestamp(moment.isoformat()) == moment
    assert parse_timestamp(moment.isoformat(" ").replace(".", ",")) == moment
    whole = moment.replace(microsecond=0)
    assert parse_timestamp(whole.timestamp()) == whole
    naive = moment.astimezone(timezone.utc).replace(tzinfo=None)
    assert parse_timestamp(naive.isoformat()) == moment
