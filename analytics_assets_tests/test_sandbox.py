"""The sandbox must answer as the service does, or everything tested against it proves nothing."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from analytics_assets.sandbox import RESOURCES as SANDBOX_ROWS
from analytics_assets.sandbox import Options, Reply, RequestInfo, Sandbox, Workspace, story
from analytics_assets.sandbox.audit import AuditWindow
from analytics_assets.sandbox.cli import SILENT, child_environment, split_command
from analytics_assets.sandbox.moments import Clock
from analytics_assets.sandbox.volume import VolumeQuery
from analytics_assets_tests.benchmarks.__main__ import COMPARED
from analytics_assets_tests.harness import Project, clean_environment
from analytics_assets_tests.wire import (
    CONTRACT,
    NAMES,
    PAGED,
    RESOURCES,
    USAGE,
    ask,
    check_record,
    connect,
    data,
    error,
    keys,
    period,
    slices,
    walk,
)

NOW = datetime(2026, 9, 16, 10, 30, tzinfo=timezone.utc)
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def company() -> Iterator[Sandbox]:
    """Serve the default company at a fixed moment; tests must not change it."""
    with Sandbox(Options(), now=NOW) as sandbox:
        yield sandbox


@pytest.fixture(scope="module")
def everything(company: Sandbox) -> dict[str, list[dict[str, Any]]]:
    """Read every list once over HTTP."""
    return {name: walk(company, name, 1000, **period(name)) for name in NAMES}


def served(sandbox: Sandbox, name: str) -> list[dict[str, Any]]:
    """Give what is served, in the order that a walk meets it."""
    if name in USAGE:
        return sandbox.workspace.usage(name, "2026-09-01")
    choice = RESOURCES[name].get("choice", {})
    if "window" in RESOURCES[name]:
        end = sandbox.clock() - timedelta(minutes=1)
        return sandbox.workspace.volume(VolumeQuery(end - timedelta(days=29), end))
    if not choice.get("required"):
        return sandbox.served(name)
    return sorted(
        sandbox.served(name), key=lambda row: choice["values"].index(row[choice["field"]])
    )


# ------------------------------------------------------------------------------- wire format


@pytest.mark.parametrize("name", NAMES)
def test_records_follow_the_contract(
    everything: dict[str, list[dict[str, Any]]], name: str
) -> None:
    """Prevents a sandbox easier than the service: a wrong type, a missing or null field."""
    assert everything[name]
    for record in everything[name]:
        check_record(name, record)


@pytest.mark.parametrize("size", [1000, 200, 7])
@pytest.mark.parametrize("name", NAMES)
def test_pages_hold_every_record_once(
    company: Sandbox, everything: dict[str, list[dict[str, Any]]], name: str, size: int
) -> None:
    """Prevents pages that overlap or leave gaps at one of the usual page sizes."""
    rows = everything[name] if size == 1000 else walk(company, name, size, **period(name))
    assert rows == everything[name]
    assert len(set(keys(name, rows))) == len(rows)
    assert rows == served(company, name)


def test_default_company_has_the_promised_size(
    everything: dict[str, list[dict[str, Any]]],
) -> None:
    """Prevents a quiet change of the size that benchmarks are compared by."""
    compared = [name for name in COMPARED if name not in USAGE]
    assert {name: len(everything[name]) for name in compared} == {
        "warehouses": 6,
        "sources": 120,
        "destinations": 200,
        "reverse_etl_models": 12,
        "catalog_destinations": 420,
        "catalog_sources": 380,
        "catalog_warehouses": 14,
        "users": 150,
        "labels": 60,
        "roles": 22,
        "audit_events": 4500,
        "transformations": 25,
        "spaces": 2,
    }
    wide = [len(json.dumps(row)) for row in everything["catalog_destinations"]]
    assert 5000 < sum(wide) / len(wide) < 8000


@pytest.mark.parametrize("name", PAGED)
def test_pagination_object(company: Sandbox, name: str) -> None:
    """Prevents a loader from relying on keys the service leaves out on some pages."""
    for path, needed, _ in slices(company, name):  # to one of more than a record
        words: dict[str, Any] = {"pagination_count": 1, **period(name), **needed}
        first = data(ask(company, path, **words))["pagination"]
        if first.get("next"):
            break
    if name != "audit_events":
        offset = RESOURCES[name].get("first_offset", 0)
        assert first["current"] == base64.b64encode(str(offset).encode()).decode()
    assert isinstance(first["next"], str)
    assert first.get("previous") is None
    assert ("totalEntries" in first) == RESOURCES[name].get("total", True)
    second = data(ask(company, path, pagination_cursor=first["next"], **words))["pagination"]
    assert second["current"] == first["next"]
    assert second["previous"] == first["current"]


def test_last_page_says_it_in_both_ways(company: Sandbox) -> None:
    """Prevents a loader that knows only one of the two ways to end a list."""
    ends = set()
    for name in PAGED:
        if name != "audit_events":
            path, needed, _ = next(slices(company, name))
            month = period(name, "2026-08-01")
            count = RESOURCES[name].get("page_limit", 1000)
            params: dict[str, Any] = {"pagination_count": count, **month, **needed}
            page = data(ask(company, path, **params))["pagination"]
            if page.get("next") is None:
                ends.add("null" if "next" in page else "missing")
    assert ends == {"null", "missing"}


@pytest.mark.parametrize("name", PAGED)
def test_pagination_can_be_written_in_three_ways(company: Sandbox, name: str) -> None:
    """Prevents that the official SDK, which writes one JSON parameter, gets page one for ever."""
    path, needed, _ = next(slices(company, name))
    rest: dict[str, Any] = {**period(name), **needed}
    first = data(ask(company, path, pagination_count=1, **rest))
    cursor = first["pagination"].get("next")
    given = {"count": 1} if cursor is None else {"count": 1, "cursor": cursor}
    ways: list[dict[str, object]] = [
        {f"pagination.{key}": value for key, value in given.items()},
        {f"pagination[{key}]": value for key, value in given.items()},
        {"pagination": json.dumps(given)},
    ]
    pages = [data(ask(company, path, query=urlencode({**way, **rest}))) for way in ways]
    assert pages[1:] == pages[:1] * 2
    assert cursor is None or pages[0]["pagination"]["current"] == cursor


@pytest.mark.parametrize("text", ["", "2", "[]", "{", '{"count":0}', '{"count":"x"}'])
def test_bad_pagination_in_one_parameter_is_refused(company: Sandbox, text: str) -> None:
    """Prevents a mistyped parameter from being taken for none, and the first page for all pages."""
    answer = ask(company, "/roles", query=urlencode({"pagination": text}))
    assert answer[0] == 422
    assert error(answer)["field"].startswith("pagination")


ONE = {row.name: row for row in SANDBOX_ROWS.values() if row.one}


@pytest.mark.parametrize("name", ONE)
def test_a_record_can_be_asked_for_alone(company: Sandbox, name: str) -> None:
    """Prevents a path that the service has from being not found, or from giving another record."""
    record = company.served(name)[-1]
    content = data(ask(company, f"{ONE[name].path}/{record['id']}"))
    beside = {"trackingPlanId"} if name == "sources" else set()
    assert set(content) == {ONE[name].one, *beside}
    assert content[ONE[name].one] == record
    assert ask(company, f"{ONE[name].path}/nobody")[0] == 404


def test_a_source_alone_names_its_plan(company: Sandbox) -> None:
    """Prevents a plan that differs from the one whose list names the source, or none at all."""
    plans = {row["id"]: row["trackingPlanId"] for row in company.served("tracking_plan_sources")}
    found = {
        row["id"]: data(ask(company, f"/sources/{row['id']}"))["trackingPlanId"]
        for row in company.served("sources")[:9]
    }
    assert found == {name: plans.get(name) for name in found}
    assert None in found.values()


def test_lists_of_one_record_each_are_the_flat_ones() -> None:
    """Prevents a flat list with identifiers whose records cannot be asked for alone."""
    flat = {n for n, row in SANDBOX_ROWS.items() if row.ids and not row.parent}
    assert set(ONE) == flat - {"roles"}


def test_labels_are_not_paginated(company: Sandbox) -> None:
    """Prevents the one list without pages from getting some."""
    content = data(ask(company, "/labels", pagination_count=1, pagination_cursor="nonsense"))
    assert list(content) == ["labels"]
    assert len(content["labels"]) == 60


def test_shapes_vary_as_in_the_wild(everything: dict[str, list[dict[str, Any]]]) -> None:
    """Prevents tame data: the keys and types that break loaders must be there."""
    text = json.dumps(everything["catalog_destinations"])
    assert all(f'"{key}"' in text for key in ("campaignId", "campaign_id", "@path", "@if"))
    options = [o for row in everything["catalog_destinations"] for o in row["options"]]
    kinds = {type(option.get("defaultValue", "")) for option in options}
    assert kinds >= {str, bool, int, float, dict, list, type(None)}
    assert {"defaultValue" in option for option in options} == {True, False}
    logos = [row["logos"] for row in everything["catalog_destinations"]]
    assert {logo.get("mark", 0) for logo in logos} >= {None, 0, ""}
    settings: dict[str, set[type]] = {}
    for row in everything["destinations"]:
        for key, value in row["settings"].items():
            settings.setdefault(key, set()).add(type(value))
    assert sum(len(types) > 1 for types in settings.values()) >= 4
    assert "\u2022" in json.dumps(everything["destinations"], ensure_ascii=False)
    assert any("gc-project" in row["settings"] for row in everything["warehouses"])
    assert any("name" not in row for row in everything["sources"])
    assert any("settings" not in row for row in everything["sources"])
    assert {len(row["writeKeys"]) for row in everything["sources"]} == {0, 1, 2}


def test_references_hold(everything: dict[str, list[dict[str, Any]]]) -> None:
    """Prevents joins over the loaded tables from coming out empty."""
    ids = {name: {row.get("id") for row in rows} for name, rows in everything.items()}
    catalog = {row["id"]: row for row in everything["catalog_destinations"]}
    for row in everything["destinations"]:
        assert row["sourceId"] in ids["sources"]
        assert row["metadata"] == catalog[row["metadata"]["id"]]
    for name in ("reverse_etl_models", "transformations", *USAGE[2:]):
        assert {row["sourceId"] for row in everything[name]} <= ids["sources"]
    roles = {row["id"]: row["name"] for row in everything["roles"]}
    for user in everything["users"]:
        for permission in user.get("permissions", []):
            assert roles[permission["roleId"]] == permission["roleName"]
    assert all(row["metadata"]["id"] in ids["catalog_sources"] for row in everything["sources"])


def test_personal_data_is_invented(everything: dict[str, list[dict[str, Any]]]) -> None:
    """Prevents addresses that could belong to somebody."""
    addresses = re.findall(r"[\w.+-]+@[\w.-]+", json.dumps(everything["users"]))
    assert len(addresses) == 150
    assert all(address.endswith("example.com") for address in addresses)


def test_secrets_are_served_and_are_all_of_them(
    company: Sandbox, everything: dict[str, list[dict[str, Any]]]
) -> None:
    """Prevents a leak test that searches for values which were never there."""
    repeated = ("tracking_plan_sources", "warehouse_connected_sources")
    own = {name: rows for name, rows in everything.items() if name not in repeated}
    text = json.dumps(own, ensure_ascii=False)
    secrets = company.workspace.secrets()
    assert len(secrets) > 200
    first, _ = (everything["destinations"][index] for index in story.SHARED_KEY)
    for secret in secrets:
        assert len(secret) >= 32
        assert text.count(secret) == (2 if secret == first["settings"]["apiKey"] else 1)
        assert "\u2022" not in secret
    hashed = [row.get("hashPropertiesConfiguration", {}) for row in everything["transformations"]]
    assert {row["key"] for row in hashed if "key" in row} <= secrets
    assert {key for row in everything["sources"] for key in row["writeKeys"]} <= secrets
    assert len({s for row in everything["sources"] for s in row["writeKeys"]}) > 100
    sources = {row["id"]: row for row in everything["sources"]}
    for name in repeated:
        rows = [
            {k: v for k, v in row.items() if k in sources[row["id"]]} for row in everything[name]
        ]
        assert rows == [sources[row["id"]] for row in rows]
        assert len({s for row in rows for s in row["writeKeys"]}) > 50


def test_audit_events_look_right(everything: dict[str, list[dict[str, Any]]]) -> None:
    """Prevents an audit trail without ties, with ids out of order, or with unknown types."""
    rows = everything["audit_events"]
    numbers = [int(row["id"].removeprefix("events/")) for row in rows]
    assert numbers == sorted(set(numbers))
    times = [row["timestamp"] for row in rows]
    assert times == sorted(times)
    assert len(set(times)) < len(times)
    assert all(len(stamp) == len("2026-09-16T10:30:00Z") for stamp in times)
    known = {kind for kinds in CONTRACT["audit_event_types"].values() for kind in kinds}
    assert {row["type"] for row in rows} == known
    for row in rows:
        person = row["actor"].startswith("user/")
        assert person or row["actor"].startswith("public-api-token/")
        assert person == ("actorEmail" in row)


def test_workspace_endpoint(company: Sandbox) -> None:
    """Prevents the cheap check of a token from failing against the sandbox."""
    assert set(data(ask(company, "/"))["workspace"]) == {"id", "name", "slug"}


# ------------------------------------------------------------------------------------ errors


@pytest.mark.parametrize("token", ["", "wrong", "\u00e9"])
def test_wrong_token_is_refused(company: Sandbox, token: str) -> None:
    """Prevents a client without the token from being served."""
    answer = ask(company, "/sources", token=token)
    assert answer[0] == 401
    assert error(answer)["type"]


def test_unknown_path(company: Sandbox) -> None:
    """Prevents a mistyped path from passing for an empty list."""
    answer = ask(company, "/sauces")
    assert (answer[0], error(answer)["type"]) == (404, "NotFound")


@pytest.mark.parametrize(
    ("path", "query", "name"),
    [
        ("/sources", "pagination.count=0", "pagination.count"),
        ("/sources", "pagination.count=1001", "pagination.count"),
        ("/sources", "pagination.count=ten", "pagination.count"),
        ("/sources", "pagination.cursor=nonsense", "pagination.cursor"),
        ("/sources", "pagination.cursor=MDA%3D", "pagination.cursor"),
        ("/sources", "pagination.cursor=LTE%3D", "pagination.cursor"),
        ("/audit-events", "pagination.cursor=MA%3D%3D", "pagination.cursor"),
        ("/audit-events", "startTime=yesterday", "startTime"),
        ("/audit-events", "endTime=2026-13-01T00:00:00Z", "endTime"),
        ("/usage/mtu/daily", "", "period"),
        ("/usage/mtu/daily", "period=2026-09", "period"),
        ("/usage/mtu/daily", "period=september", "period"),
    ],
)
def test_invalid_input_names_the_field(company: Sandbox, path: str, query: str, name: str) -> None:
    """Prevents a wrong request from being answered as if it were right."""
    answer = ask(company, path, query=query)
    assert answer[0] == 422
    assert (error(answer)["type"], error(answer)["field"]) == ("input-validation", name)


def test_missing_period_has_the_known_body(company: Sandbox) -> None:
    """Prevents the error body from drifting away from the published one."""
    assert error(ask(company, "/usage/api-calls/daily")) == {
        "type": "input-validation",
        "message": '"period" is required',
        "field": "period",
    }


def test_page_limit_and_missing_features() -> None:
    """Prevents the options for an older service and for a smaller plan from doing nothing."""
    off = frozenset({"spaces"})
    options = Options(page_limit=200, features_off=off, features_off_status=404)
    with Sandbox(options, now=NOW) as sandbox:
        assert ask(sandbox, "/users", pagination_count=200)[0] == 200
        answer = ask(sandbox, "/users", pagination_count=201)
        assert (answer[0], error(answer)["field"]) == (422, "pagination.count")
        assert ask(sandbox, "/spaces")[0] == 404
    with pytest.raises(ValueError, match="sauces"):
        Sandbox(Options(features_off=frozenset({"sauces"})))


# ------------------------------------------------------------------------------- audit trail


def bounds_of(sandbox: Sandbox) -> tuple[list[str], str, str]:
    """Give the times of ten events and the first and last of them."""
    times = [row["timestamp"] for row in sandbox.served("audit_events")[90:100]]
    return times, min(times), max(times)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("bounds", ["inclusive", "exclusive"])
@pytest.mark.parametrize("fractions", [False, True])
def test_audit_windows(order: Any, bounds: Any, fractions: bool) -> None:
    """Prevents a window that does not do what its option says, in any combination."""
    options = Options(
        counts={"audit_events": 300},
        audit_order=order,
        audit_bounds=bounds,
        audit_fractions=fractions,
    )
    with Sandbox(options, now=NOW) as sandbox:
        served = sandbox.served("audit_events")
        times = [row["timestamp"] for row in served]
        assert times == sorted(times, reverse=order == "desc")
        assert all(("." in stamp) == fractions for stamp in times)
        _, first, last = bounds_of(sandbox)
        inside = [
            row
            for row in served
            if (first <= row["timestamp"] <= last and bounds == "inclusive")
            or first < row["timestamp"] < last
        ]
        window = {"startTime": first, "endTime": last}
        assert walk(sandbox, "audit_events", 4, **window) == inside


def test_audit_chain_has_a_fixed_end() -> None:
    """Prevents new and expiring events from shifting the pages of a chain that has begun."""
    options = Options(counts={"audit_events": 30}, audit_order="desc")
    with Sandbox(options, now=NOW) as sandbox:
        served = sandbox.served("audit_events")
        page = data(ask(sandbox, "/audit-events", pagination_count=10))
        token = json.loads(base64.b64decode(page["pagination"]["next"]))
        assert set(token) == {"pageToken", "endTime"}
        sandbox.clock.shift(timedelta(days=20))
        added = sandbox.workspace.add_event(type="Source Created")
        cursor = page["pagination"]["next"]
        rest = data(ask(sandbox, "/audit-events", pagination_count=30, pagination_cursor=cursor))
        assert page["events"] + rest["events"] == served
        now_served = walk(sandbox, "audit_events", 200)
        assert now_served[0] == added
        assert now_served[1:] == [row for row in served if row in now_served]
        assert len(now_served) < len(served)


def test_added_events_take_their_place() -> None:
    """Prevents late events from being impossible to stage."""
    with Sandbox(Options(counts={"audit_events": 20}), now=NOW) as sandbox:
        before = sandbox.served("audit_events")
        late = sandbox.workspace.add_event(timestamp=before[4]["timestamp"])
        assert int(late["id"][7:]) == int(before[-1]["id"][7:]) + 1
        after = sandbox.served("audit_events")
        assert len(after) == 21
        assert [row for row in after if row != late] == before
        sandbox.workspace.remove("audit_events", late["id"])
        assert sandbox.served("audit_events") == before
        kind = before[0]["resourceType"]
        rows = walk(sandbox, "audit_events", 3, resourceType=kind)
        assert rows == [row for row in before if row["resourceType"] == kind]


def _same(moment: datetime) -> datetime:
    return moment


def test_events_do_not_depend_on_the_moment() -> None:
    """Prevents two runs on different days from disagreeing on the past."""
    events = [
        {row["id"]: row for row in Workspace(now=partial(_same, at)).records("audit_events")}
        for at in (NOW, NOW + timedelta(days=30))
    ]
    shared = set(events[0]) & set(events[1])
    assert len(shared) > 2500
    assert all(events[0][number] == events[1][number] for number in shared)


# ------------------------------------------------------------------------------------- usage


@pytest.mark.parametrize("name", USAGE)
def test_usage_is_cumulative_and_stops_now(company: Sandbox, name: str) -> None:
    """Prevents figures that fall within a month, or rows of days still to come."""
    fields = {"apiCalls"} if "api_calls" in name else {"anonymous", "identified"}
    rows = walk(company, name, 1000, period="2026-09-01")
    columns: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        columns.setdefault(row.get("sourceId"), []).append(row)
    days = [f"2026-09-{day:02d}T00:00:00.000Z" for day in range(1, 17)]
    for column in columns.values():
        assert [row["timestamp"] for row in column] == days
        for field in fields:
            figures = [int(row[field]) for row in column]
            assert figures == sorted(figures)
    assert len(walk(company, name, 1000, period="2026-02-10T05:00:00.000000Z")) == len(columns) * 28
    assert walk(company, name, 1000, period="2026-10-01") == []
    assert walk(company, name, 1000, period="2023-09-01") == []
    assert walk(company, name, 1000, period="2023-10-01") != []


@pytest.mark.parametrize("kind", ["api_calls", "mtu"])
def test_workspace_usage_is_the_sum_of_the_sources(company: Sandbox, kind: str) -> None:
    """Prevents totals that contradict the parts, on full days and today."""
    field = "apiCalls" if kind == "api_calls" else "neverIdentified"
    for month in ("2026-09-01", "2026-02-01"):
        sums: dict[str, int] = {}
        for row in company.workspace.usage(f"usage_{kind}_sources_daily", month):
            sums[row["timestamp"]] = sums.get(row["timestamp"], 0) + int(row[field])
        totals = company.workspace.usage(f"usage_{kind}_daily", month)
        assert {row["timestamp"]: int(row[field]) for row in totals} == sums


def test_usage_of_today_grows_and_then_stands() -> None:
    """Prevents a day that is over from changing, and today from standing still."""
    clock = Clock(lambda: NOW)
    workspace = Workspace(counts={"sources": 3}, now=clock)
    name = "usage_api_calls_sources_daily"
    seen = [workspace.usage(name, "2026-09-01")]
    for _ in range(3):
        clock.shift(timedelta(hours=6))
        seen.append(workspace.usage(name, "2026-09-01"))
    today = [
        [int(row["apiCalls"]) for row in rows if row["timestamp"].startswith("2026-09-16")]
        for rows in seen
    ]
    assert all(a < b < c for a, b, c in zip(*today[:3], strict=True))
    past = [[row for row in rows if row["timestamp"] < "2026-09-16"] for rows in seen]
    assert past[0] == past[1] == past[2] == past[3]
    much_later = Workspace(counts={"sources": 3}, now=lambda: NOW + timedelta(days=200))
    settled = {(r["sourceId"], r["timestamp"]): r for r in much_later.usage(name, "2026-09-01")}
    assert all(settled[(row["sourceId"], row["timestamp"])] == row for row in past[0])


def test_first_of_the_month_starts_anew() -> None:
    """Prevents a month from going on where the last one ended."""
    workspace = Workspace(counts={"sources": 3}, now=lambda: NOW)
    last = workspace.usage("usage_api_calls_daily", "2026-07-01")[-1]
    first = workspace.usage("usage_api_calls_daily", "2026-08-01")[0]
    assert int(first["apiCalls"]) * 10 < int(last["apiCalls"])


# ------------------------------------------------------------------- determinism and changes


def test_same_seed_same_company() -> None:
    """Prevents runs that cannot be repeated."""

    def everything(seed: int) -> dict[str, Any]:
        workspace = Workspace(seed, now=lambda: NOW, counts={"usage_months": 1, "sources": 9})
        return {name: workspace.records(name) for name in NAMES}

    one, two, other = everything(7), everything(7), everything(8)
    assert one == two
    assert all(one[name] != other[name] for name in NAMES if name not in {"labels", "spaces"})


def test_changes_show_at_once(company: Sandbox) -> None:
    """Prevents tests of changed data from testing the old data."""
    assert company.options.seed == 7
    with Sandbox(Options(counts={"users": 5}), now=NOW) as sandbox:
        workspace = sandbox.workspace
        users = sandbox.served("users")
        changed = {**users[1], "name": "Analyst 99"}
        added = {"id": "new", "name": "", "email": "new@example.com"}
        workspace.put("users", changed)
        workspace.put("users", added)
        workspace.remove("users", users[3]["id"])
        expected = [users[0], changed, users[2], users[4], added]
        assert walk(sandbox, "users", 2) == expected
        workspace.put("users", users[3])
        workspace.remove("users", "new")
        assert walk(sandbox, "users", 200)[-1] == users[3]
        with pytest.raises(KeyError):
            workspace.remove("users", "new")
        label = sandbox.served("labels")[2]
        workspace.remove("labels", (label["key"], label["value"]))
        assert label not in walk(sandbox, "labels", 1)
        catalog = sandbox.served("destinations")[0]["metadata"]
        workspace.put("catalog_destinations", {**catalog, "name": "Renamed"})
        assert walk(sandbox, "destinations", 1000)[0]["metadata"]["name"] == "Renamed"


def test_usage_can_be_restated_and_lost() -> None:
    """Prevents restatements and gaps in the history from being impossible to stage."""
    workspace = Workspace(counts={"sources": 2}, now=lambda: NOW)
    name = "usage_api_calls_sources_daily"
    before = workspace.usage(name, "2026-08-01")
    source = before[0]["sourceId"]
    workspace.restate(name, (source, "2026-08-01"), {"apiCalls": "1"})
    workspace.drop_day(name, "2026-08-02T00:00:00.000Z")
    after = workspace.usage(name, "2026-08-01")
    assert after[0] == {**before[0], "apiCalls": "1"}
    assert len(after) == len(before) - 2
    assert workspace.usage(name, "2026-07-01") == workspace.usage(name, "2026-07-15")
    with pytest.raises(ValueError, match="key"):
        workspace.restate(name, "2026-08-01", {})


def test_large_lists_are_cheap() -> None:
    """Prevents benchmarks over a million records from spending their time on inventing them."""
    counts = {"audit_events": 1_000_000, "catalog_destinations": 100_000, "usage_months": 1}
    started = time.monotonic()
    workspace = Workspace(counts=counts, now=lambda: NOW)
    events, total = workspace.audit_page(workspace.audit_window(), 500_000, 1000)
    wide, size = workspace.page("catalog_destinations", 99_000, 1000)
    assert time.monotonic() - started < 5
    assert (len(events), total, len(wide), size) == (1000, 1_000_000, 1000, 100_000)
    ids = {json.loads(row)["id"] for row in wide}
    slugs = {json.loads(row)["slug"] for row in wide}
    assert len(ids) == len(slugs) == 1000
    assert isinstance(workspace.audit_window(), AuditWindow)


def test_scale_and_counts() -> None:
    """Prevents a mistyped list name from leaving the size as it was."""
    workspace = Workspace(scale=2, counts={"roles": 0}, now=lambda: NOW)
    assert len(workspace.records("sources")) == 240
    assert len(workspace.records("catalog_sources")) == 380
    assert workspace.records("roles") == []
    with pytest.raises(ValueError, match="sauces"):
        Workspace(counts={"sauces": 1})
    with pytest.raises(ValueError, match="negative"):
        Workspace(counts={"users": -1})


# ------------------------------------------------------------------- limits, faults, records


@pytest.mark.parametrize("hint", ["header", "body", "reset"])
def test_rate_limit_and_its_hints(hint: Any) -> None:
    """Prevents a limiter that never refuses, gives the wrong hint, or misses impatience."""
    with Sandbox(Options(rate_limit=120, burst=2, retry_after=hint), now=NOW) as sandbox:
        answers = [ask(sandbox, "/roles") for _ in range(3)]
        assert [answer[0] for answer in answers] == [200, 200, 429]
        headers = answers[0][1]
        assert headers["x-ratelimit-consumed"] == "1"
        assert headers["x-ratelimit-remaining"] == "1"
        assert parsedate_to_datetime(headers["x-ratelimit-reset"]).tzinfo is not None
        refused = answers[2][1]
        millis = error(answers[2])["data"].get("msBeforeNext")
        assert ("retry-after" in refused) == (hint == "header")
        assert (millis is None) == (hint == "reset")
        assert ("x-ratelimit-reset" in refused) == (hint == "reset")
        assert sandbox.early_requests == 0
        time.sleep(0.1)
        ask(sandbox, "/roles")
        assert sandbox.early_requests == (1 if millis is None or millis > 200 else 0)
        sandbox.clear()
        assert (sandbox.early_requests, sandbox.count()) == (0, 0)


def test_patient_client_is_not_early() -> None:
    """Prevents a client that waits as told from being counted as impatient."""
    with Sandbox(Options(rate_limit=600, burst=1, retry_after="body"), now=NOW) as sandbox:
        answers = []
        for _ in range(6):
            answer = ask(sandbox, "/roles")
            answers.append(answer[0])
            if answer[0] == 429:
                time.sleep(error(answer)["data"]["msBeforeNext"] / 1000)
        assert 429 in answers
        assert sandbox.early_requests == 0


def test_fault_rate() -> None:
    """Prevents a test against random faults from meeting none, or others each time."""

    def run() -> list[int]:
        with Sandbox(Options(fault_rate=0.5), now=NOW) as sandbox:
            for _ in range(60):
                try:
                    ask(sandbox, "/roles")
                except (OSError, http.client.HTTPException):
                    continue
            return [info.status for info in sandbox.requests]

    statuses = run()
    assert set(statuses) == {0, 200, 429, 500, 502, 503, 504}
    assert 15 < statuses.count(200) < 45
    assert run() == statuses


def test_injected_faults_and_latency() -> None:
    """Prevents fault tests from passing because the fault never happened."""
    with Sandbox(Options(latency=0.05), now=NOW) as sandbox:
        replies: dict[int, Reply] = {
            1: Reply(503, b"busy", {"Content-Type": "text/plain"}),
            2: Reply(drop=True),
            3: Reply(200, b'{"data":', truncate=True),
            4: Reply(429, b"", {"Retry-After": "3"}, delay=0.1),
        }
        sandbox.intercept = lambda info: replies.get(info.number)
        answer = ask(sandbox, "/roles")
        assert (answer[0], answer[1]["content-type"], answer[2]) == (503, "text/plain", b"busy")
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            ask(sandbox, "/roles")
        with pytest.raises(http.client.IncompleteRead):
            ask(sandbox, "/roles")
        started = time.monotonic()
        assert ask(sandbox, "/roles")[0] == 429
        assert time.monotonic() - started >= 0.15
        assert ask(sandbox, "/roles")[0] == 200
        assert [info.status for info in sandbox.requests] == [503, 0, 200, 429, 200]
        assert sandbox.early_requests == 1


def test_stopping_does_not_wait_for_slow_answers(capfd: pytest.CaptureFixture[str]) -> None:
    """Prevents a test of slow answers from hanging at its end, or from spilling a traceback."""
    with Sandbox(Options(latency=30), now=NOW) as sandbox:
        connection = connect(sandbox)
        connection.request("GET", "/roles")
        time.sleep(0.1)
        started = time.monotonic()
    assert time.monotonic() - started < 2
    connection.close()
    assert capfd.readouterr().err == ""


def test_requests_are_recorded_without_the_token() -> None:
    """Prevents the token from reaching a test report through the log of requests."""
    with Sandbox(Options(), now=NOW) as sandbox:
        ask(sandbox, "/users", pagination_count=3)
        ask(sandbox, "/nowhere")
        info = sandbox.requests[0]
        assert isinstance(info, RequestInfo)
        assert (info.path, dict(info.params), info.status) == (
            "/users",
            {"pagination.count": "3"},
            200,
        )
        assert info.arrived_at < sandbox.requests[1].arrived_at
        assert (sandbox.count(), sandbox.count("/users")) == (2, 1)
        assert sandbox.token not in repr(sandbox.requests)


# ----------------------------------------------------------------------------------- command


def start(*words: str, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """Start the console script in a directory."""
    return subprocess.Popen(
        [sys.executable, "-m", "analytics_assets.sandbox", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], ([], [])),
        (["--seed", "3"], (["--seed", "3"], [])),
        (["dg", "--seed", "3"], ([], ["dg", "--seed", "3"])),
        (["--seed=3", "dg", "-x"], (["--seed=3"], ["dg", "-x"])),
        (["--port", "0", "dg", "--select", "*"], (["--port", "0"], ["dg", "--select", "*"])),
        (["--seed", "3", "--", "-odd"], (["--seed", "3"], ["-odd"])),
    ],
)  # fmt: skip
def test_command_keeps_its_own_options(words: list[str], expected: tuple[Any, Any]) -> None:
    """Prevents the options of the command from being taken for those of the sandbox."""
    assert split_command(words) == expected


def test_command_gets_the_sandbox_and_its_exit_code_is_passed(tmp_path: Path) -> None:
    """Prevents a failed command from passing for a success, and one without a service."""
    code = (
        "import json, os, sys, urllib.request as r\n"
        "url, token = (os.environ['ANALYTICS_API_' + n] for n in ('BASE_URL', 'TOKEN'))\n"
        "q = r.Request(url + '/users', headers={'Authorization': 'Bearer ' + token})\n"
        "users = json.load(r.build_opener(r.ProxyHandler({})).open(q))['data']['users']\n"
        "print(len(users), os.environ['ANALYTICS_DUCKDB_PATH'], sys.argv[1:])\n"
        "sys.exit(3)\n"
    )
    words = ["--seed", "4", "--scale", "0.50", "--count", "users=11", sys.executable, "-c", code]
    child = start(*words, "--select", "*", "--seed", "9", cwd=tmp_path)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (3, "")
    assert out.split(maxsplit=2) == [
        "11",
        f"analytics_sandbox_story{story.STORY}_seed4_scale0.5.duckdb",
        "['--select', '*', '--seed', '9']\n",
    ]


REAL = {
    "ANALYTICS_DESTINATION": "postgres",
    "ANALYTICS_DUCKDB_PATH": "mine.duckdb",
    "ANALYTICS_DATASET": "company",
    "ANALYTICS_TABLE_FORMAT": "delta",
    "ANALYTICS_API_TOKEN": "mine",
}
OWN = {
    "ANALYTICS_DESTINATION": "duckdb",
    "ANALYTICS_DUCKDB_PATH": f"analytics_sandbox_story{story.STORY}_seed7.duckdb",
    "ANALYTICS_DATASET": "analytics",
    "ANALYTICS_TABLE_FORMAT": "",
}


def test_environment_of_the_command() -> None:
    """Prevents invented rows among real ones because the real destination is still exported."""
    environment = child_environment("http://127.0.0.1:1", "t", {**REAL, "OTHER": "kept"}, "seed7")
    wanted = {**OWN, **SILENT, "ANALYTICS_API_TOKEN": "t", "OTHER": "kept"}
    assert environment == {**wanted, "ANALYTICS_API_BASE_URL": "http://127.0.0.1:1"}
    kept = child_environment("http://127.0.0.1:1", "t", REAL, "seed7", keep=True)
    wanted = {**REAL, **SILENT, "ANALYTICS_API_TOKEN": "t"}
    assert kept == {**wanted, "ANALYTICS_API_BASE_URL": "http://127.0.0.1:1"}
    proxied = child_environment(
        "http://127.0.0.1:1", "t", {"http_proxy": "http://p", "no_proxy": "a"}, "seed7"
    )
    assert (proxied["no_proxy"], proxied["NO_PROXY"]) == ("a,127.0.0.1", "127.0.0.1")


def test_nothing_leaves_the_machine(project: Project) -> None:
    """Prevents that Dagster or dlt tell their makers of a first try, which the page denies."""
    told: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Listener) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for name in SILENT:
            project.env.pop(name, None)
        url = f"http://127.0.0.1:{server.server_port}/told"
        program = [sys.executable, "-m", "analytics_assets.sandbox", "--scale", "0.05"]
        words = project.words("labels")
        done = project.command(*program, *words, RUNTIME__DLTHUB_TELEMETRY_ENDPOINT=url)
        server.shutdown()
    assert done.returncode == 0, done.stdout[-3000:]
    assert told == []


@pytest.mark.parametrize(("words", "expected"), [([], OWN), (["--keep-destination"], REAL)])
def test_the_destination_of_the_command(
    tmp_path: Path, words: list[str], expected: dict[str, str]
) -> None:
    """Prevents an option that is read but not heeded, or taken for the command."""
    names = list(OWN)
    code = f"import os; print([os.environ[name] for name in {names}])"
    child = start(*words, sys.executable, "-c", code, cwd=tmp_path, **REAL)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, err) == (0, "")
    assert out.strip() == str([expected[name] for name in names])


def test_the_printed_variables_load_into_a_database_of_their_own(tmp_path: Path) -> None:
    """Prevents that whoever pastes them loads invented rows among real ones.

    They are read from a pipe, while it serves.
    """
    child = start("--scale", "0.02", cwd=tmp_path, **REAL)
    assert child.stdout is not None
    lines = [child.stdout.readline() for _ in range(6)]
    try:
        load = "-m dagster asset materialize --select labels -m analytics_assets"
        script = "".join(lines) + f"{sys.executable} {load}"
        clean = {**clean_environment(tmp_path), **REAL, "TMPDIR": str(tmp_path)}
        done = subprocess.run(
            ["sh", "-c", script], cwd=tmp_path, env=clean, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr[-2000:]
    finally:
        child.terminate()
        child.communicate(timeout=20)
    own = f"analytics_sandbox_story{story.STORY}_seed7_scale0.02.duckdb"
    assert [path.name for path in tmp_path.glob("*.duckdb")] == [own]


SLOW_END = """
import ctypes, sys
libc = ctypes.CDLL(None)
if on_exit := getattr(libc, "on_exit", None):  # not every C library has it
    on_exit(libc.sleep, None)  # is called with the exit code when the interpreter is gone
from analytics_assets.sandbox.cli import main
sys.exit(main([sys.executable, "-c", "raise SystemExit(1)"]))
"""


def test_the_server_ends_before_the_interpreter(tmp_path: Path) -> None:
    """Prevents a crash of the whole process, after all went well, when it takes long to end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SLOW_END],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"")


def test_no_thread_is_left_behind() -> None:
    """Prevents a server that is still at work when the interpreter ends: its process crashes."""
    before = set(threading.enumerate())
    with Sandbox(Options(scale=0.02)) as sandbox:
        assert data(ask(sandbox, "/"))
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) <= before


def test_a_client_that_does_not_read_is_cut() -> None:
    """Prevents a sandbox that cannot be stopped, and a thread that outlives it."""
    before = set(threading.enumerate())
    with Sandbox(Options()) as sandbox, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        place = urlsplit(sandbox.url)
        client.connect((place.hostname, place.port))
        path = "/catalog/destinations?pagination.count=200"
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {sandbox.token}\r\n\r\n"
        client.sendall(60 * head.encode())
        time.sleep(0.5)
        begun = time.monotonic()
        sandbox.__exit__(None, None, None)
        assert time.monotonic() - begun < 5
        assert set(threading.enumerate()) <= before


def test_command_not_found(tmp_path: Path) -> None:
    """Prevents a traceback where one sentence helps."""
    child = start("no-such-command-here", cwd=tmp_path)
    out, err = child.communicate(timeout=20)
    assert child.returncode == 127
    assert (out, err.count("\n")) == ("", 1)
    assert "no-such-command-here" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command(tmp_path: Path, number: signal.Signals) -> None:
    """Prevents a command that goes on after the sandbox was told to stop."""
    code = (
        "import signal, time\n"
        f"signal.signal({int(number)}, signal.SIG_DFL)\n"
        "print('up', flush=True)\n"
        "time.sleep(60)\n"
    )
    child = start(sys.executable, "-c", code, cwd=tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    child.send_signal(number)
    child.communicate(timeout=20)
    assert child.returncode == 128 + number


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serving_prints_the_variables_and_stops(tmp_path: Path, number: signal.Signals) -> None:
    """Prevents output that cannot be read by a shell, and a server that cannot be stopped."""
    started = time.monotonic()
    child = start("--rate-limit", "600", "--burst", "5", cwd=tmp_path)
    assert child.stdout is not None
    lines = [child.stdout.readline().strip() for _ in range(6)]
    assert time.monotonic() - started < 5
    assert re.fullmatch(r"export ANALYTICS_API_BASE_URL=http://127\.0\.0\.1:\d+", lines[0])
    assert lines[1].startswith("export ANALYTICS_API_TOKEN=")
    assert lines[2:] == [f"export {name}={value or chr(39) * 2}" for name, value in OWN.items()]
    child.send_signal(number)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize(
    "words",
    [["--count", "users"], ["--count", "sauces=1"], ["--fault-rate", "2"], ["--odd"]],
)
def test_wrong_options_are_refused(tmp_path: Path, words: list[str]) -> None:
    """Prevents a mistyped option from being ignored."""
    child = start(*words, cwd=tmp_path)
    out, err = child.communicate(timeout=20)
    assert (child.returncode, out) == (2, "")
    assert "error:" in err
    assert "Traceback" not in err
