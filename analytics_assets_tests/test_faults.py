"""Faults of the API and of the destination: one resource's trouble costs only itself."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import orjson
import pytest
from dagster import AssetCheckSeverity

from analytics_assets.sandbox import Options, Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS, in_group
from analytics_assets_tests.conftest import SMALL
from analytics_assets_tests.faults import (
    API,
    KINDS,
    PAGE_SIZE,
    RETRIES,
    Body,
    Fault,
    change_everything,
    error_reply,
    everything,
    execute,
    hanging_on,
    inject,
    real_body,
    rows_of,
    run_logged,
    state_of,
    without_details,
)
from analytics_assets_tests.harness import ALL_TABLES, Project, failure_of, materialized
from analytics_assets_tests.requests_made import requests_by_name

GATED = tuple(
    endpoint.name
    for endpoint in ENDPOINTS
    if endpoint.feature and not (endpoint.parent and not BY_NAME[endpoint.parent.resource].feature)
)
"""What a workspace may lack as a whole: with the list that it hangs on, if it does on any."""
PAGED = tuple(name for name in KINDS if name != "labels")


class Case(NamedTuple):
    """A fault, what its message must say, and how often the request is sent."""

    fault: Callable[[str], Fault]
    says: tuple[str, ...]
    attempts: int = 1
    kinds: tuple[str, ...] = KINDS


def reply(status: int, **options: Any) -> Callable[[str], Fault]:
    """Answer with an error as the API writes it."""
    return lambda _: lambda *_: replace(error_reply(status), **options)


def edit(change: Callable[[Body, str], None]) -> Callable[[str], Fault]:
    """Answer with the real body, changed."""

    def fault_for(name: str) -> Fault:
        def fault(body: Body, _: RequestInfo) -> Body:
            change(body, name)
            return body

        return fault

    return fault_for


def repeat_cursor(body: Body, _: str) -> None:
    """Point every page at the same next page."""
    body["data"]["pagination"]["next"] = body["data"]["pagination"]["current"]


def same_page_for_ever(_: str) -> Fault:
    """Serve one page again and again, of each month its own, under an ever-new cursor."""
    first: dict[str, Body] = {}

    def fault(body: Body, info: RequestInfo) -> Body:
        page = first.setdefault(info.params.get("period", ""), body)
        pagination = {"current": "here", "next": f"made-up-{info.number}", "totalEntries": 10**6}
        return {"data": {**page["data"], "pagination": pagination}}

    return fault


def empty_pages_for_ever(name: str) -> Fault:
    """Serve empty pages that promise more."""

    def fault(body: Body, info: RequestInfo) -> Body:
        rows_of(name, body).clear()
        body["data"]["pagination"] = {"next": f"made-up-{info.number}"}
        return body

    return fault


def drop_list(body: Body, name: str) -> None:
    """Rename the list."""
    body["data"]["items"] = body["data"].pop(BY_NAME[name].data_selector.removeprefix("data."))


def list_as_object(body: Body, name: str) -> None:
    """Serve the records by number in place of a list."""
    rows = rows_of(name, body)
    body["data"][BY_NAME[name].data_selector.removeprefix("data.")] = {
        str(number): row for number, row in enumerate(rows)
    }


def full_page_without_pagination(body: Body, name: str) -> None:
    """Forget the pagination of a page that is full."""
    rows = rows_of(name, body)
    rows += [dict(rows[0]) for _ in range(PAGE_SIZE - len(rows))]
    del body["data"]["pagination"]


def declared_type(body: Body, name: str) -> None:
    """Change the type of a declared column."""
    wire = {"sources": "enabled", "labels": "description", "audit_events": "timestamp"}
    for row in rows_of(name, body):
        row[wire.get(name, BY_NAME[name].counters[0].field if BY_NAME[name].monthly else "")] = {
            "changed": "type"
        }


def null_key(body: Body, name: str) -> None:
    """Take the key out of a record."""
    rows_of(name, body)[0].pop(BY_NAME[name].primary_key[0])


def not_an_object(body: Body, name: str) -> None:
    """Put text in place of a record."""
    rows_of(name, body)[0] = "record"


def deep(name: str) -> Fault:
    """Nest a value so deeply that no parser takes it."""

    def fault(body: Body, _: RequestInfo) -> Reply:
        rows_of(name, body)[0]["newField"] = "@"
        text = orjson.dumps(body).replace(b'"@"', b"[" * 5000 + b"]" * 5000)
        return Reply(body=text)

    return fault


def rather_deep(name: str) -> Fault:
    """Nest a value so deeply that it parses but cannot be walked."""

    def fault(body: Body, _: RequestInfo) -> Reply:
        rows_of(name, body)[0]["settings"] = "@"
        text = orjson.dumps(body).replace(b'"@"', b'{"a":' * 900 + b"1" + b"}" * 900)
        return Reply(body=text)

    return fault


CASES: Mapping[str, Case] = {
    "HTTP 500": Case(reply(500), ("HTTP 500", "run the asset again"), RETRIES + 1),
    "HTTP 503 with a page of HTML": Case(
        lambda _: lambda *_: Reply(503, b"<html>", {"Content-Type": "text/html"}),
        ("HTTP 503", "run the asset again"),
        RETRIES + 1,
    ),
    "HTTP 404": Case(reply(404), ("HTTP 404", "ANALYTICS_API_BASE_URL"), 1, KINDS[:3]),
    "HTTP 422": Case(reply(422), ("HTTP 422", "no such luck", "trying again will not help")),
    "HTTP 418": Case(reply(418), ("HTTP 418", "not documented")),
    "not JSON": Case(
        lambda _: lambda body, _: Reply(body=orjson.dumps(body)[:-10]),
        ("is not JSON", "retries"),
        RETRIES + 1,
    ),
    "cut off": Case(
        lambda _: lambda body, _: Reply(body=orjson.dumps(body), truncate=True),
        ("the connection to 127.0.0.1", "check ANALYTICS_API_BASE_URL and the network"),
        RETRIES + 1,
    ),
    "dropped": Case(
        lambda _: lambda *_: Reply(drop=True),
        ("the connection to 127.0.0.1", "network"),
        RETRIES + 1,
    ),
    "repeating cursor": Case(edit(repeat_cursor), ("cursor of the next page repeats",), 1, PAGED),
    "same page for ever": Case(
        same_page_for_ever, ("the same page comes again and again",), 3, PAGED
    ),
    "empty pages for ever": Case(empty_pages_for_ever, ("empty pages keep promising",), 3, PAGED),
    "no list": Case(edit(drop_list), ("has no list 'data.",)),
    "list is an object": Case(edit(list_as_object), ("is not a list",)),
    "null body": Case(lambda _: lambda *_: Reply(body=b"null"), ("has no 'data' object",)),
    "full page without pagination": Case(
        edit(full_page_without_pagination), ("without 'data.pagination'",), 1, PAGED
    ),
    "type of a declared column": Case(edit(declared_type), ("row ", "expected ", "an object")),
    "no key": Case(edit(null_key), ("which is part of the key",)),
    "not an object": Case(edit(not_an_object), ("is text, not an object",)),
    "too deep to parse": Case(deep, ("is not JSON",), RETRIES + 1),
    "too deep to walk": Case(rather_deep, ("nested too deeply",), 1, ("sources",)),
}


def count_answers(project: Project) -> Counter[str]:
    """Count the answers that are injected from now on, by the month asked for."""
    counts: Counter[str] = Counter()
    fault = project.sandbox.intercept
    assert fault is not None

    def intercept(info: RequestInfo) -> Reply | None:
        answer = fault(info)
        if answer:
            counts[info.params.get("period", "")] += 1
        return answer

    project.sandbox.intercept = intercept
    return counts


def neighbours(kind: str) -> set[str]:
    """Return two other lists of a group, which a fault of one must not touch."""
    return set(sorted({*without_details(BY_NAME[kind].group)} - {kind, "workspace"})[:2])


@pytest.mark.parametrize(
    ("fault", "kind"), [(fault, kind) for fault, case in CASES.items() for kind in case.kinds]
)
def test_a_fault_costs_only_its_own_asset(loaded: Project, fault: str, kind: str) -> None:
    """Prevents that a fault empties or shortens a table, moves its state or stops the others.

    What hangs on the asset falls with it.
    """
    case, group = CASES[fault], BY_NAME[kind].group
    others = neighbours(kind)
    own = [kind, *hanging_on(kind)]
    before, state = [everything(loaded, name) for name in own], state_of(loaded, kind)
    change_everything(loaded, group)
    inject(loaded, kind, case.fault(kind))
    faulty = count_answers(loaded)

    result = loaded.materialize(*others, *own, api=API)

    assert set(materialized(result)) == others
    message = failure_of(result)
    assert all(f"{name} (GET {BY_NAME[name].path}): " in message for name in own)
    assert all(words in message for words in case.says), message
    assert not any(other + " (GET" in message for other in others)
    assert [everything(loaded, name) for name in own] == before
    assert state_of(loaded, kind) == state
    loaded.assert_equal(others)
    assert case.attempts <= max(faulty.values()) <= max(case.attempts, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_run_makes_up_for_a_fault(loaded: Project, kind: str) -> None:
    """Prevents that what a failed run did not load is never asked for again."""
    group = BY_NAME[kind].group
    change_everything(loaded, group)
    inject(loaded, kind, reply(500)(kind), page=0)
    assert not loaded.materialize(kind, api=API).success
    loaded.sandbox.intercept = None
    assert loaded.materialize(kind).success
    loaded.assert_equal([kind])


def refuse_new_rows(project: Project, table: str) -> None:
    """Give a table a constraint that no further load can satisfy."""
    sql = "SELECT sql FROM duckdb_tables() WHERE schema_name = 'analytics' AND table_name = ?"
    [(definition,)] = project.query(sql, table)
    ids = project.query(f"SELECT DISTINCT _dlt_load_id FROM analytics.{table}")
    known = ", ".join(f"'{load_id}'" for (load_id,) in ids)
    end = definition.rindex(")")
    execute(project, f"ALTER TABLE analytics.{table} RENAME TO moved")
    execute(project, f"{definition[:end]}, CHECK (_dlt_load_id IN ({known})));")
    execute(project, f"INSERT INTO analytics.{table} SELECT * FROM analytics.moved")
    execute(project, "DROP TABLE analytics.moved")


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_that_cannot_be_loaded_costs_only_itself(loaded: Project, kind: str) -> None:
    """Prevents that one table the destination refuses takes the whole package with it."""
    group = BY_NAME[kind].group
    others = neighbours(kind)
    change_everything(loaded, group)
    state = state_of(loaded, kind)
    refuse_new_rows(loaded, kind)
    before = everything(loaded, kind)

    result = loaded.materialize(*others, kind)

    assert set(materialized(result)) == others
    message = failure_of(result)
    assert f"{kind} (GET {BY_NAME[kind].path}): the destination did not take its rows" in message
    assert everything(loaded, kind) == before
    assert state_of(loaded, kind) == state
    loaded.assert_equal(others)


def test_a_column_changed_by_hand_costs_only_its_table(loaded: Project) -> None:
    """Prevents that a table is left half merged when a value does not fit its column."""
    change_everything(loaded, "inventory")
    execute(loaded, "ALTER TABLE analytics.sources DROP COLUMN name")
    execute(loaded, "ALTER TABLE analytics.sources ADD COLUMN name INTEGER")
    before = everything(loaded, "sources")
    result = loaded.materialize(*without_details("inventory"))
    assert "the column name is bigint where text belongs" in failure_of(result)
    others = {*without_details("inventory")} - {"sources"}
    assert set(materialized(result)) == others
    assert everything(loaded, "sources") == before
    loaded.assert_equal(others)


def test_faults_of_several_assets_are_all_named(loaded: Project) -> None:
    """Prevents that the first failure hides the rest."""
    paths = {BY_NAME[name].path: status for name, status in (("sources", 500), ("spaces", 422))}
    loaded.sandbox.intercept = lambda info: (
        Reply(paths[info.path], b"{}") if info.path in paths else None
    )
    names = without_details("inventory")
    message = failure_of(loaded.materialize(*names, api=API))
    number = len(names)
    assert f"2 of {number} assets failed, {number - 2} loaded" in message
    assert "sources (GET /sources): HTTP 500" in message
    assert "spaces (GET /spaces): HTTP 422" in message


@contextmanager
def other_host() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Run a second server; yield its address and the headers it receives."""
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"data":{}}')

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(loaded: Project, status: int) -> None:
    """Prevents that the token travels to another host."""
    with other_host() as (url, seen):
        target = f"{url}/sources"
        inject(loaded, "sources", lambda *_: Reply(status, b"", {"Location": target}), page=0)
        result = loaded.materialize("sources", "warehouses")
        message = failure_of(result)
        assert f"HTTP {status}: a redirect to {url.removeprefix('http://')}" in message
        assert set(materialized(result)) == {"warehouses"}
        assert seen == []


@pytest.mark.parametrize("kind", ["sources", "usage_mtu_daily"])
def test_fewer_rows_than_promised_is_a_warning(loaded: Project, kind: str) -> None:
    """Prevents that a list which is cut short looks complete."""

    def fault(body: Body, _: RequestInfo) -> Body:
        body["data"]["pagination"]["totalEntries"] = 5000
        return body

    inject(loaded, kind, fault, page=0)
    result, log = run_logged(loaded, kind)
    assert result.success
    assert "but totalEntries says 5000" in str(materialized(result)[kind]["warnings"])
    assert f"{kind}: " in log
    assert "but totalEntries says 5000" in log


# Feature gates.


@pytest.mark.parametrize(
    "status", [403, *(pytest.param(s, marks=pytest.mark.heavy) for s in (401, 404))]
)
def test_missing_features_do_not_fail_the_run(start: Callable[..., Project], status: int) -> None:
    """Prevents that a workspace without a product can never have a green run, or has no table."""
    options = Options(scale=SMALL, features_off=frozenset(GATED), features_off_status=status)
    project = start(options)
    for _ in range(2):
        project.sandbox.clear()
        result, log = run_logged(project, "group:inventory", "group:identity")
        assert failure_of(result) == ""
        asked = requests_by_name(project.sandbox.requests)
        told = {
            one.asset_key.to_user_string(): one.description
            for one in result.get_asset_check_evaluations()
            if not one.passed and one.check_name == "read_whole"
            if one.severity == AssetCheckSeverity.WARN
        }
        assert set(told) == {*GATED}
        for name in GATED:
            endpoint = BY_NAME[name]
            assert f"{name} is not available to this workspace or token" in log
            assert f"HTTP {status}. It needs {endpoint.feature}" in str(told[name])
            assert materialized(result)[name]["available"] is False
            chains = 0 if endpoint.parent else len(getattr(endpoint.slice, "values", "1"))
            assert min(1, chains) <= asked[name] <= chains
            assert project.rows(name) == []
            columns = {column.name: column.type for column in endpoint.table_columns}
            assert types_of(project, name).keys() == columns.keys()
        wanted = {e.name for e in ENDPOINTS if e.group in ("inventory", "identity")} - {*GATED}
        project.assert_equal(wanted)


def test_a_dropped_state_makes_no_failure_of_a_missing_feature(
    start: Callable[..., Project],
) -> None:
    """Prevents that a table which was never filled counts as loaded before, once nobody knows."""
    project = start(Options(scale=SMALL, features_off=frozenset({"audit_events", "audiences"})))
    for _ in range(2):
        result = project.materialize("audit_events", "audiences", "roles")
        assert failure_of(result) == ""
        assert materialized(result)["audit_events"]["available"] is False
        execute(project, "DROP TABLE analytics._dlt_pipeline_state")
    project = start(Options(scale=SMALL))
    assert failure_of(project.materialize("roles")) == ""
    execute(project, "DROP TABLE analytics._dlt_pipeline_state")
    roles = BY_NAME["roles"].path
    project.sandbox.intercept = lambda info: error_reply(404) if info.path == roles else None
    assert "roles (GET /roles): HTTP 404" in failure_of(project.materialize("roles", "labels"))


def types_of(project: Project, name: str) -> dict[str, str]:
    """Return the columns of a table, without dlt's own, with their types."""
    found = project.query(
        "SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = ?", name
    )
    return {column: kind for column, kind in found if not column.startswith("_dlt")}


def test_a_missing_feature_leaves_the_table_that_a_load_would_make(
    start: Callable[..., Project], loaded: Project
) -> None:
    """Prevents views that break, or a feature that is missing for ever once it was."""
    project = start(Options(scale=SMALL, features_off=frozenset(GATED)))
    project.env["ANALYTICS_DUCKDB_PATH"] = str(project.folder / "other.duckdb")
    assert project.materialize(*GATED, "sources").success
    for name in GATED:
        expected = {n: t for n, t in types_of(loaded, name).items() if n != "new_field"}
        assert types_of(project, name) == expected
    project.sandbox.intercept = lambda info: Reply(body=real_body(loaded.sandbox, info))
    result = project.materialize("spaces")
    assert failure_of(result) == ""
    assert "available" not in materialized(result)["spaces"]
    assert project.rows("spaces") == loaded.rows("spaces")
    project.sandbox.intercept = None
    assert "ANALYTICS_EXCLUDE=spaces" in failure_of(project.materialize("spaces", "sources"))
    assert project.rows("spaces") == loaded.rows("spaces")


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_has_been_loaded_before_is_no_missing_feature(loaded: Project, status: int) -> None:
    """Prevents that a lost permission leaves tables to grow old, each run green."""
    inject(loaded, "spaces", reply(status)("spaces"), page=0)
    before = everything(loaded, "spaces")
    result = loaded.materialize("group:inventory")
    said = failure_of(result)
    assert f"spaces (GET /spaces): HTTP {status}" in said
    assert "if the workspace no longer has Spaces, leave the asset out with" in said
    assert "ANALYTICS_EXCLUDE=spaces" in said
    assert everything(loaded, "spaces") == before
    lost = {"spaces", *hanging_on("spaces")}
    assert set(materialized(result)) == {e.name for e in in_group("inventory")} - lost


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"{}",
        b'{"message": "Forbidden"}',
        b'{"errors": [{"code": "403", "detail": "blocked by proxy"}]}',
        b'{"errors": [{}]}',
    ],
)
@pytest.mark.parametrize("status", [403, 404])
def test_an_answer_that_is_not_the_api_s_is_no_missing_feature(
    project: Project, status: int, body: bytes
) -> None:
    """Prevents that what a proxy or gateway refuses passes for a product that is not there."""
    inject(project, "spaces", lambda *_: Reply(status, body), page=0)
    result = project.materialize("spaces", "sources")
    assert f"spaces (GET /spaces): HTTP {status}: the answer has not the form" in failure_of(result)
    assert set(materialized(result)) == {"sources"}


@pytest.mark.parametrize("names", [("group:inventory", "group:usage"), ("spaces",)])
def test_nothing_found_at_all_is_a_wrong_address(project: Project, names: tuple[str, ...]) -> None:
    """Prevents a failure for each list, or a missing feature, where the address is wrong."""
    project.sandbox.intercept = lambda _: error_reply(404)
    result = project.materialize(*names)
    said = failure_of(result)
    assert said.startswith("Nothing that was asked for is at http://127.0.0.1:")
    assert said.endswith("(HTTP 404). Check ANALYTICS_API_BASE_URL.")
    assert "\n" not in said
    assert materialized(result) == {}


@pytest.mark.parametrize("status", [401, 403, 404])
def test_the_same_refusal_of_another_resource_fails_it(loaded: Project, status: int) -> None:
    """Prevents that a missing permission passes as a missing feature."""
    inject(loaded, "users", reply(status)("users"), page=0)
    result = loaded.materialize("group:identity")
    message = failure_of(result)
    assert f"users (GET /users): HTTP {status}" in message
    assert "ANALYTICS_API" in message or "give it the role" in message
    others = {endpoint.name for endpoint in in_group("identity")} - {"users"}
    assert set(materialized(result)) == others


@pytest.mark.parametrize("status", [401, 403, 404])
def test_one_gated_asset_alone(project: Project, status: int) -> None:
    """Prevents that a run of only a missing feature reads as a rejected token or wrong address."""
    inject(project, "spaces", reply(status)("spaces"), page=0)
    result, log = run_logged(project, "spaces")
    assert result.success
    assert materialized(result)["spaces"]["available"] is False
    assert "spaces is not available" in log


def test_a_rejected_token_is_one_clear_error(loaded: Project) -> None:
    """Prevents that a bad token is retried, asked with again, or looks like a fault per list."""
    loaded.env["ANALYTICS_API_TOKEN"] = "not-the-token"
    before = {name: everything(loaded, name) for name in ALL_TABLES}
    result = loaded.materialize()
    assert "does not accept the token" in failure_of(result)
    assert "ANALYTICS_API_TOKEN" in failure_of(result)
    assert materialized(result) == {}
    asked = [(info.path, *sorted(info.params.items())) for info in loaded.sandbox.requests]
    assert len(asked) == len(set(asked))
    assert {name: everything(loaded, name) for name in ALL_TABLES} == before


# Rate limits.


def limited_once(path: str, answer: Callable[[], Reply]) -> Callable[[RequestInfo], Reply | None]:
    """Refuse the first request under a path."""
    done: list[RequestInfo] = []

    def intercept(info: RequestInfo) -> Reply | None:
        if info.path != path or done:
            return None
        done.append(info)
        return answer()

    return intercept


def in_body(ms: object) -> bytes:
    """Write the body of a 429."""
    data = {"msBeforeNext": ms}
    return orjson.dumps(
        {"errors": [{"type": "RequestError", "message": "slow down", "data": data}]}
    )


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lambda: Reply(429, in_body(100), {"Retry-After": "1"}), {1.0}),
        (lambda: Reply(429, in_body(700)), {0.7}),
        (
            lambda: Reply(
                429, b"", {"X-RateLimit-Reset": formatdate(time.time() + 2, usegmt=True)}
            ),
            {1.0, 2.0, 3.0, 4.0},
        ),
        (lambda: Reply(429, in_body("soon"), {"Retry-After": "\u00b2"}), {0.0}),
        (
            lambda: Reply(
                429, in_body(None), {"Retry-After": formatdate(time.time() + 2, usegmt=True)}
            ),
            {1.0, 2.0, 3.0, 4.0},
        ),
    ],
    ids=["Retry-After", "msBeforeNext", "X-RateLimit-Reset", "nonsense", "Retry-After date"],
)
def test_a_rate_limit_is_waited_for(
    loaded: Project, answer: Callable[[], Reply], told: set[float]
) -> None:
    """Prevents that the next request comes too early, or the wait is taken from the wrong place.

    Dates have whole seconds, and the server writes its own anew once a second, or later if busy.
    """
    loaded.sandbox.intercept = limited_once("/labels", answer)
    result, log = run_logged(loaded, "labels")
    assert result.success
    asked = [info for info in loaded.sandbox.requests if info.path == "/labels"]
    first, second = (info.arrived_at for info in asked)
    waits = re.findall(r"Waiting ([\d.]+) s before the next request: rate limit .* /labels", log)
    (seconds,) = map(float, waits)
    assert seconds in told
    assert second - first >= seconds - 0.05
    assert materialized(result)["labels"]["seconds_waited"] >= seconds - 0.1


def test_a_wait_beyond_the_cap_fails_at_once(loaded: Project) -> None:
    """Prevents that a run hangs for hours because the API says so."""
    loaded.sandbox.intercept = limited_once(
        "/labels", lambda: Reply(429, b"", {"Retry-After": "3600"})
    )
    result, log = run_logged(loaded, "labels", "roles", api={"max_wait": 5})
    assert "before the next request" not in log
    message = failure_of(result)
    assert "labels (GET /labels): the API asks to wait 3600 s" in message
    assert "max_wait (5 s)" in message
    assert set(materialized(result)) == {"roles"}
    assert loaded.sandbox.count("/labels") == 1


@pytest.mark.parametrize(
    "hint",
    [
        "header",
        pytest.param("body", marks=pytest.mark.heavy),
        pytest.param("reset", marks=pytest.mark.heavy),
    ],
)
def test_a_limiter_is_never_disturbed(start: Callable[..., Project], hint: str) -> None:
    """Prevents that threads of a run send requests before they may, or give up under a limit."""
    options = Options(
        scale=0.05,
        counts={"catalog_destinations": 60, "catalog_sources": 40, "audit_events": 400},
        rate_limit=900,
        burst=20,
        retry_after=hint,  # type: ignore[arg-type]
    )
    project = start(options)
    result, log = run_logged(project, api={"page_size": 20})
    assert failure_of(result) == ""
    assert project.sandbox.count() > 100
    assert project.sandbox.early_requests == 0
    assert "before the next request" in log
    project.assert_equal()
