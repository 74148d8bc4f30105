"""The official example responses, byte for byte: input that nobody here wrote."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from math import ceil
from pathlib import Path
from typing import Any

import orjson
import pytest
from dagster import ExecuteInProcessResult

from analytics_assets.sandbox import Options, Reply, RequestInfo, Sandbox
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.model import Endpoint, Parent, Values, Window
from analytics_assets_tests.conftest import project_for
from analytics_assets_tests.harness import (
    ALL_TABLES,
    Project,
    Row,
    assert_same,
    expected_rows,
    failure_of,
    materialized,
    records,
    unfolded,
    with_daily,
)

MONTH = "2021-02"
"""The month of the usage in the examples, as the billing periods in them say."""
EXAMPLES = {
    # the usage shows the layout of a formatter where the time belongs, the volume another month
    path.stem: path.read_bytes()
    .replace(b"2006-01-02T", f"{MONTH}-02T".encode())
    .replace(b'"time": "2023-01-', f'"time": "{MONTH}-'.encode())
    for path in sorted((Path(__file__).parent / "data" / "examples").glob("*.json"))
}
WITHOUT_EXAMPLE = {"spaces"}
SPACE = {"id": "spaceId", "name": "Default Space", "slug": "default-space"}
"""The space that the examples of its audiences and computed traits name."""
PATHS = [(re.sub(r"\{\w+\}", r"[^/]+", endpoint.path), endpoint) for endpoint in ENDPOINTS]


def asked_for(info: RequestInfo) -> Endpoint:
    """Return the endpoint that a request is for."""
    return next(endpoint for path, endpoint in PATHS if re.fullmatch(path, info.path))


def served(endpoint: Endpoint) -> list[dict[str, Any]]:
    """Return the records of the example of an endpoint, none if there is no example."""
    body = EXAMPLES.get(endpoint.name)
    if endpoint.name == "spaces":
        return [SPACE]
    return records(endpoint, body) if body else []


def chains(endpoint: Endpoint) -> dict[str, list[dict[str, Any]]]:
    """Return the records that are served to each walk over a list, by its value or parent."""
    way = endpoint.slice
    if isinstance(way, Values):
        return {v: [r for r in served(endpoint) if r[way.param] == v] for v in way.values}
    if isinstance(way, Parent):
        parents = [record[way.field] for record in served(BY_NAME[way.resource])]
        return {p: [{way.param: p, **r} for r in served(endpoint)] for p in parents}
    if isinstance(way, Window):  # those of the month that is asked for
        return {str(number): served(endpoint) for number in range(ceil(28 / way.days))}
    return {"": served(endpoint)}


def next_cursor(body: bytes) -> str | None:
    """Return the cursor that an envelope names."""
    cursor: str | None = json.loads(body)["data"].get("pagination", {}).get("next")
    return cursor


def page(endpoint: Endpoint, rows: Sequence[Any], **pagination: Any) -> bytes:
    """Write an envelope; without ``next`` it is the last page."""
    data: dict[str, Any] = {endpoint.data_selector.removeprefix("data."): rows}
    return orjson.dumps({"data": {**data, "pagination": {"current": "MA==", **pagination}}})


def example(info: RequestInfo) -> Reply:
    """Answer with the official example; there is nothing behind its ``next``.

    A list that is asked for by value has one for the value that its records hold.
    """
    endpoint = asked_for(info)
    way, body = endpoint.slice, EXAMPLES.get(endpoint.name)
    other = isinstance(way, Values) and not chains(endpoint)[info.params[way.param]]
    if body is None or other:
        return Reply(body=page(endpoint, [] if other else served(endpoint)))
    cursor = info.params.get("pagination.cursor")
    if cursor is None:
        return Reply(body=body)
    assert cursor == next_cursor(body)
    return Reply(body=page(endpoint, []))


def expected(endpoint: Endpoint) -> list[Row]:
    """Work out what the table should hold."""
    walked = [row for chain in chains(endpoint).values() for row in chain]
    rows = expected_rows(endpoint, unfolded(endpoint, walked))
    return with_daily(endpoint, rows) if endpoint.monthly else rows


@pytest.fixture(scope="module")
def loaded(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Project, ExecuteInProcessResult]]:
    """Load the examples once; usage for one month, as they hold one page of one month."""
    options = Options(scale=0.01, counts={"usage_months": 1})
    with Sandbox(options, now=datetime.now(timezone.utc)) as sandbox:
        sandbox.intercept = example
        project = project_for(sandbox, tmp_path_factory.mktemp("examples"))
        window = {"start_month": MONTH, "end_month": MONTH}
        yield project, project.materialize(config=window)


@pytest.mark.unit
def test_there_is_an_example_of_most_resources() -> None:
    """Prevents that examples are lost from the tests without anybody noticing."""
    assert set(EXAMPLES) == ALL_TABLES - WITHOUT_EXAMPLE


@pytest.mark.parametrize("name", [endpoint.name for endpoint in ENDPOINTS])
def test_the_example_lands_value_by_value(
    loaded: tuple[Project, ExecuteInProcessResult], name: str
) -> None:
    """Prevents a table that is right only for records that this project invented itself."""
    project, result = loaded
    assert failure_of(result) == ""
    assert project.tables() == ALL_TABLES
    assert_same(name, project.rows(name), expected(BY_NAME[name]))
    (count,) = project.query(f"SELECT count(*) FROM analytics.{name}")[0]
    assert materialized(result)[name]["dagster/row_count"] == count


def test_the_next_page_of_an_example_is_asked_for_once(
    loaded: tuple[Project, ExecuteInProcessResult],
) -> None:
    """Prevents a reader that drops the cursor, alters it, or follows it for ever."""
    project, _ = loaded
    asked = Counter(asked_for(info).name for info in project.sandbox.requests)
    more = {name for name, body in EXAMPLES.items() if next_cursor(body)}
    walks = {endpoint.name: chains(endpoint).values() for endpoint in ENDPOINTS}
    assert asked == {
        name: sum(2 if name in more and rows else 1 for rows in found)
        for name, found in walks.items()
    }
    headers = {(asked_for(info), info.headers["accept"]) for info in project.sandbox.requests}
    assert headers == {(e, f"application/vnd.segment.{e.stage}+json") for e in ENDPOINTS}
    cursors = {
        asked_for(info).name: info.params["pagination.cursor"]
        for info in project.sandbox.requests
        if "pagination.cursor" in info.params
    }
    assert cursors == {name: next_cursor(EXAMPLES[name]) for name in more}


def test_values_written_down_by_hand(loaded: tuple[Project, ExecuteInProcessResult]) -> None:
    """Prevents a mistake that the comparison shares with the code it checks."""
    project, _ = loaded
    assert project.query(
        "SELECT id, name, email, permissions, deleted_at FROM analytics.users ORDER BY id"
    ) == [
        ("i2VTJURQprNfqdwjLFPWYx", "Sloth", "sloth@segment.com", None, None),
        ("sgJDWk3K21k6LE3tLU9nRK", "", "papi@segment.com", None, None),
    ]
    assert project.query("SELECT key, value, description FROM analytics.labels ORDER BY 1, 2") == [
        ("environment", "dev", ""),
        ("environment", "prod", ""),
        ("type", "web", "labels source as web"),
    ]
    moment = datetime(2022, 3, 4, 21, 29, 22, tzinfo=timezone.utc)
    assert project.query("SELECT id, timestamp FROM analytics.audit_events ORDER BY id") == [
        ("events/145876976", moment),
        ("events/145876978", moment),
    ]
    assert project.query(
        "SELECT id, metadata ->> '$.slug', write_keys::VARCHAR LIKE '%3YdEudTwjouyC5WPjpbTik%'"
        " FROM analytics.sources WHERE id = 'qQEHquLrjRDN9j1ByrChyn'"
    ) == [("qQEHquLrjRDN9j1ByrChyn", "ios", False)]
    last = served(BY_NAME["usage_mtu_daily"])[-1]
    assert project.query(
        "SELECT timestamp, period_start, period_end, anonymous, daily_anonymous, identified"
        " FROM analytics.usage_mtu_daily"
    ) == [
        (
            datetime(2021, 2, 2, 15, 4, 5, tzinfo=timezone.utc),
            datetime(2021, 2, 1, tzinfo=timezone.utc),
            datetime(2021, 3, 1, tzinfo=timezone.utc),
            int(last["anonymous"]),
            int(last["anonymous"]),
            int(last["identified"]),
        )
    ]


def test_sliced_values_written_down_by_hand(
    loaded: tuple[Project, ExecuteInProcessResult],
) -> None:
    """Prevents a mistake about children, kinds and single objects that the comparison shares."""
    project, _ = loaded
    assert project.query("SELECT id, slug, name, deleted_at FROM analytics.workspace") == [
        ("9aQ1Lj62S4bomZKLF4DPqW", "papi-e2e", "papi e2e", None)
    ]
    assert project.query(
        "SELECT tracking_plan_id, type, key, version, json_schema ->> '$.type', deprecated_at"
        " FROM analytics.tracking_plan_rules"
    ) == [
        (
            "tp_sprout_rVGCC6WdrNxjCf6JpCHP",
            "TRACK",
            "New Tracking Plan Rule",
            1,
            "object",
            datetime(2021, 2, 2, 15, 4, 5, tzinfo=timezone.utc),
        )
    ]
    assert project.query("SELECT id, resource_type FROM analytics.functions") == [
        ("sfnc_wXzcDGFR3KmjLDrtSawNHf", "SOURCE")
    ]
    assert project.query("SELECT count(*) FROM analytics.group_users") == [(0,)]
    days = [datetime(2021, 2, day, tzinfo=timezone.utc) for day in (1, 2)]
    assert project.query(
        "SELECT source_id, source_slug, event_type, event_name, time, count"
        " FROM analytics.events_volume ORDER BY time"
    ) == [("", None, "", "", days[0], 15637147), ("", None, "", "", days[1], 16867499)]


@pytest.mark.parametrize("pages", [1, 2], ids=["within a page", "on the next page"])
def test_a_key_that_comes_twice_ends_as_one_row(project: Project, pages: int) -> None:
    """Prevents duplicates when a record moves while the list is read; the last one counts."""
    roles = BY_NAME["roles"]
    first, second, other = (
        {"id": "r1", "name": "before", "description": "d"},
        {"id": "r1", "name": "after", "description": None},
        {"id": "r0", "name": "other", "description": ""},
    )
    bodies: dict[str | None, bytes]
    if pages == 1:
        bodies = {None: page(roles, [first, other, second])}
    else:
        bodies = {None: page(roles, [first, other], next="Mg=="), "Mg==": page(roles, [second])}
    project.sandbox.intercept = lambda info: Reply(
        body=bodies[info.params.get("pagination.cursor")]
    )
    result = project.materialize("roles")
    assert failure_of(result) == ""
    assert_same("roles", project.rows("roles"), expected_rows(roles, [other, second]))
    figures = materialized(result)["roles"]
    assert (figures["dagster/row_count"], figures["rows_loaded"]) == (2, 2)
