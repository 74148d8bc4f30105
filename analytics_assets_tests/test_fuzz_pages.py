"""Whole pages of arbitrary JSON records: each list is stored or refused, alone and in words."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from string import ascii_lowercase

import pytest
from dagster import DagsterInstance, ExecuteInProcessResult
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from analytics_assets.sandbox import Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.redaction import Redactor
from analytics_assets_tests.faults import Template, everything
from analytics_assets_tests.harness import Project, Row, failure_of, materialized
from analytics_assets_tests.test_bad_input import DEBUG_WORDS
from analytics_assets_tests.test_fuzz import NUMBERS
from analytics_assets_tests.test_redaction import SECRETS, secrets_of, without_marks
from analytics_assets_tests.test_secrets import files_with, tables_with

LISTS = (
    "sources",
    "destinations",
    "warehouses",
    "spaces",
    "reverse_etl_models",
    "transformations",
    "tracking_plans",
    "roles",
)
WITNESS = "labels"
ROUNDS = 2
"""Loads, one after the other into the same tables."""
PAGES_A_LIST = 5
"""Pages of each list in a load."""
_LONG_ENOUGH = 12
"""Characters of a secret that come nowhere by chance."""

PLANTED = [
    case
    for case in SECRETS
    if case["redact"] == "shape_and_key"
    and isinstance(case["value"], dict)
    and any(len(secret) >= _LONG_ENOUGH for secret in secrets_of(case["value"]))
]
CHARACTERS = st.characters(exclude_categories=[]) | st.sampled_from("\x00\ud83d\udc00aA_1 ")
TEXTS = st.text(CHARACTERS, max_size=8) | st.sampled_from(
    ["", "2016-12-31T23:59:60Z", "0001-01-01T00:00:00+01:00", "2024-01-01T24:00:00Z", "soon", "1"]
)
NAMES = TEXTS | st.sampled_from(
    [
        "createdAt",
        "created_at",
        "deletedAt",
        "_dltId",
        "_dlt_id",
        "",
        "__",
        "xmin",
        "d",
        "s",
        "k" * 300,
        "new",
    ]
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
_RIGHT = {
    "text": TEXTS,
    "bool": st.booleans(),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "timestamp": TEXTS | st.integers(0, 2**45),
}


@st.composite
def records(draw: st.DrawFn, endpoint: Endpoint) -> Row:
    """Draw a record: its key, a few declared fields of their type or of any, and any others."""
    row: Row = {}
    for column in endpoint.columns:
        if column.name == "workspace_id":
            continue  # rows of another workspace are another matter
        if column.field in endpoint.primary_key:
            row[column.field] = draw(st.text(CHARACTERS, min_size=1, max_size=3))
        elif draw(st.booleans()):
            row[column.field] = draw(st.none() | _RIGHT.get(column.type, JSON))
    if draw(st.integers(0, 99)) == 13:
        row[draw(st.sampled_from([column.field for column in endpoint.columns]))] = draw(JSON)
    row |= draw(st.dictionaries(NAMES, JSON, max_size=3))
    if draw(st.integers(0, 3)) == 0:
        row["newSettings"] = without_marks(draw(st.sampled_from(PLANTED))["value"])
    return row


PAGES = st.fixed_dictionaries(
    {name: st.lists(records(BY_NAME[name]), min_size=1, max_size=4) for name in LISTS}
)
Pages = Mapping[str, Sequence[list[Row]]]
"""Pages of each list."""


@pytest.mark.parametrize(
    "pages", [200, pytest.param(2000, marks=pytest.mark.heavy)], ids=lambda pages: f"{pages} pages"
)
def test_every_page_is_stored_or_refused(template: Template, tmp_path: Path, pages: int) -> None:
    """Prevents that any record, name or value ends a run, spoils another list or leaks a secret."""
    home = tmp_path / "home"
    home.mkdir()
    planted = {
        secret
        for case in PLANTED
        for secret in secrets_of(case["value"])
        if len(secret) >= _LONG_ENOUGH and secret not in ascii_lowercase
    }
    with (
        template.project(tmp_path) as project,
        DagsterInstance.local_temp(str(home)) as instance,
    ):
        for number, served in enumerate(drawn(pages)):
            if number % ROUNDS == 0:
                shutil.copy(template.database, project.database)
            try:
                check_load(project, instance, served)
            except AssertionError as error:
                raise AssertionError(f"{error}\nServed: {json.dumps(served)}") from error
            assert tables_with(project, planted) == []
    assert files_with(planted, [tmp_path]) == []


def drawn(pages: int) -> list[Pages]:
    """Draw so many pages, and return what each load is served of every list."""
    found: list[dict[str, list[Row]]] = []

    @settings(
        max_examples=-(-pages // len(LISTS)),
        deadline=None,
        database=None,
        phases=[Phase.generate],  # to shrink would take as long again, many times
        suppress_health_check=list(HealthCheck),
    )
    @given(PAGES)
    def draw(page: dict[str, list[Row]]) -> None:
        found.append(page)

    draw()
    parts = [found[at : at + PAGES_A_LIST] for at in range(0, len(found), PAGES_A_LIST)]
    return [
        {name: with_keys_of_their_own(name, [page[name] for page in part]) for name in LISTS}
        for part in parts
    ]


def with_keys_of_their_own(name: str, pages: Iterable[list[Row]]) -> list[list[Row]]:
    """Leave out records whose key came before: a list that repeats itself is not believed whole."""
    [key] = BY_NAME[name].primary_key
    seen: set[str] = set()
    kept = []
    for page in pages:
        own = []
        for record in page:
            name = kept_key(str(record[key]))  # it may be no text, and then refuse the list
            if name not in seen:
                seen.add(name)
                own.append(record)
        kept += [own] if own else []
    return kept


def check_load(project: Project, instance: DagsterInstance, served: Pages) -> None:
    """Load a few pages of each list; each is all there, or as it was and named as failed."""
    before = {name: everything(project, name) for name in LISTS}
    project.sandbox.intercept = lambda info: answer(served, info)
    result = project.materialize(
        *LISTS,
        WITNESS,
        config={"expect_fewer_rows": True},
        api={"retries": 0},
        instance=instance,
    )
    loaded = set(materialized(result))
    assert WITNESS in loaded
    project.assert_equal([WITNESS])
    failed = failures(result)
    assert loaded | failed == {*LISTS, WITNESS}
    assert not loaded & failed
    for name in LISTS:
        if name in failed:
            now = everything(project, name)  # a column may have come before the rows were refused
            assert [row[: len(old)] for row, old in zip(now, before[name], strict=True)] == before[
                name
            ]
        else:
            assert_stored(project, BY_NAME[name], [*chain.from_iterable(served[name])])


def answer(served: Pages, info: RequestInfo) -> Reply | None:
    """Serve pages in place of a list."""
    name = next((name for name in LISTS if BY_NAME[name].path == info.path), None)
    if name is None:
        return None
    pages, number = served[name], int(info.params.get("pagination.cursor", "0"))
    wrapper, _, field = BY_NAME[name].data_selector.rpartition(".")
    pagination = {"current": str(number), "totalEntries": sum(map(len, pages))}
    if number + 1 < len(pages):
        pagination["next"] = str(number + 1)
    body = {wrapper: {field: pages[number], "pagination": pagination}}
    return Reply(body=json.dumps(body).encode())


def failures(result: ExecuteInProcessResult) -> set[str]:
    """Return the assets that failed; each must have one sentence, and nothing to debug in it."""
    for event in result.all_events:
        if event.is_step_failure:
            shown = event.step_failure_data.error_display_string
            assert not any(word in shown for word in DEBUG_WORDS), shown
    lines = failure_of(result).splitlines()
    assert result.success == (not lines)
    names = [line.partition(" (GET ")[0] for line in lines[1:]]
    assert len(names) == len(set(names))
    return set(names)


def assert_stored(project: Project, endpoint: Endpoint, records: Sequence[Row]) -> None:
    """Assert that each record has its row, with the texts that were served."""
    [key] = endpoint.primary_key
    last = {kept_key(record[key]): record for record in records}
    [key] = endpoint.key_columns
    names = [key, *(c.name for c in endpoint.columns if c.type == "text" and c.name != key)]
    found = project.query(
        f"SELECT {', '.join(names)} FROM analytics.{endpoint.name} WHERE deleted_at IS NULL"
    )
    rows = {values[0]: dict(zip(names, values, strict=True)) for values in found}
    assert len(rows) == len(found)
    assert rows.keys() == last.keys()
    for name, record in last.items():
        for column in endpoint.columns:
            value = record.get(column.field)
            if column.type == "text" and not column.redacted and isinstance(value, str):
                wanted = re.sub("[\ud800-\udfff]", "\ufffd", value)
                stored = rows[name][column.name]
                assert column.name == key or stored == Redactor().by_shape(wanted)


def kept_key(value: str) -> str:
    """Spell a key as it is stored."""
    return re.sub("[\ud800-\udfff]", lambda half: f"\\u{ord(half[0]):04x}", value)
