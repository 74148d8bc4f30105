"""What is special about single lists of the sandbox."""

from __future__ import annotations

import cProfile
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_assets.sandbox import Options, Sandbox, Workspace, story
from analytics_assets.sandbox.ledger import months_back
from analytics_assets_tests.wire import (
    RESOURCES,
    USAGE,
    ask,
    check,
    data,
    error,
    newest_window,
    walk,
)

NOW = datetime(2026, 9, 16, 10, 30, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def company() -> Iterator[Sandbox]:
    """Serve the default company at a fixed moment; tests must not change it."""
    with Sandbox(Options(), now=NOW) as sandbox:
        yield sandbox


def by(field: str, rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Put records with the same value of a field together."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row[field], []).append(row)
    return found


# ------------------------------------------------------------------------------------ groups


def test_members_are_users_of_the_workspace(company: Sandbox) -> None:
    """Prevents joins of groups and users from coming out empty, or members from coming twice."""
    users = {user["id"]: user for user in company.served("users")}
    members = by("userGroupId", company.served("group_users"))
    for group in company.served("groups"):
        own = members[group["id"]]
        assert 3 <= len(own) == group["memberCount"] <= 40
        assert len({row["id"] for row in own}) == len(own)
        for row in own:
            user = users[row["id"]]
            assert row == {
                "userGroupId": group["id"],
                **{key: user[key] for key in ("id", "name", "email")},
            }


def test_permissions_name_what_there_is(company: Sandbox) -> None:
    """Prevents permissions on roles or functions that no list holds."""
    roles = {role["id"]: role["name"] for role in company.served("roles")}
    functions = {row["id"] for row in company.served("functions")}
    holders = [*company.served("groups"), *company.served("users")]
    given = [item for row in holders for item in row.get("permissions", [])]
    assert all(roles[item["roleId"]] == item["roleName"] for item in given)
    named = [thing for item in given for thing in item["resources"]]
    assert {thing["id"] for thing in named if thing["type"] == "FUNCTION"} <= functions
    assert any("permissions" not in group for group in company.served("groups"))


def test_small_workspaces_have_no_more_members_than_users() -> None:
    """Prevents a member from coming twice where there are few users."""
    for users in (0, 1, 2, 5):
        workspace = Workspace(counts={"users": users, "group_users": 100}, now=lambda: NOW)
        members = by("userGroupId", workspace.records("group_users"))
        assert {len({row["id"] for row in own}) for own in members.values()} <= {users}
        assert {group["memberCount"] for group in workspace.records("groups")} == {users}


# ---------------------------------------------------------------------------- tracking plans


def test_rules_vary_as_in_the_wild(company: Sandbox) -> None:
    """Prevents tame rules: missing keys, versions side by side and odd names must be there."""
    rules = company.served("tracking_plan_rules")
    plans = by("trackingPlanId", rules)
    assert list(plans) == [plan["id"] for plan in company.served("tracking_plans")]
    assert all(10 <= len(own) <= 60 for own in plans.values())
    assert {row.get("key") for row in rules} >= {None, "", "Order Started"}
    assert {row["type"] for row in rules} == {
        "COMMON", "GROUP", "IDENTIFY", "PAGE", "SCREEN", "TRACK",
    }  # fmt: skip
    keys = [(row["trackingPlanId"], row["type"], row.get("key")) for row in rules]
    assert len(set(keys)) < len(keys)
    assert {row["version"] for row in rules} == {1, 2, 3}
    assert {"deprecatedAt" in row for row in rules} == {"updatedAt" in row for row in rules}
    schemas = [row["jsonSchema"] for row in rules]
    assert None in schemas
    properties = [s["properties"]["properties"]["properties"] for s in schemas if s]
    assert {type(p["token"]) for p in properties if "token" in p} == {dict}
    assert len({json.dumps(schema) for schema in schemas}) > 400


def test_plans_can_be_asked_for_by_type(company: Sandbox) -> None:
    """Prevents the one parameter of the list that is not needed from being needed, or ignored."""
    plans = company.served("tracking_plans")
    assert {plan["type"] for plan in plans} == {
        "ENGAGE", "LIVE", "PROPERTY_LIBRARY", "RULE_LIBRARY", "TEMPLATE",
    }  # fmt: skip
    rows = walk(company, "tracking_plans", 7, type="LIVE")
    assert rows == [plan for plan in plans if plan["type"] == "LIVE"]
    answer = ask(company, "/tracking-plans", type="DEAD")
    assert (answer[0], error(answer)["field"]) == (422, "type")


def test_rules_have_a_rate_limit_of_their_own() -> None:
    """Prevents a loader that ignores the limit of the rules from passing."""
    with Sandbox(Options(rate_limits=True, counts={"tracking_plan_rules": 1}), now=NOW) as sandbox:
        plan = sandbox.served("tracking_plans")[0]["id"]
        statuses = [ask(sandbox, f"/tracking-plans/{plan}/rules")[0] for _ in range(202)]
        assert statuses == [200] * 200 + [429] * 2
        assert ask(sandbox, "/tracking-plans")[0] == 200
        assert (sandbox.refused("tracking_plan_rules"), sandbox.refused()) == (2, 2)


def test_rules_can_be_changed() -> None:
    """Prevents a rule without a key, or a version of a rule, from being impossible to change."""
    with Sandbox(Options(counts={"tracking_plans": 3}), now=NOW) as sandbox:
        workspace = sandbox.workspace
        before = sandbox.served("tracking_plan_rules")
        first, second, kept = list(by("trackingPlanId", before))
        common = next(row for row in before if row["type"] == "COMMON")
        workspace.put("tracking_plan_rules", {**common, "jsonSchema": {}})
        workspace.remove("tracking_plan_rules", ("IDENTIFY", "", 2), parent=first)
        workspace.put("tracking_plan_rules", {"type": "SCREEN", "version": 9}, parent=first)
        workspace.remove("tracking_plans", second)
        after = by("trackingPlanId", walk(sandbox, "tracking_plan_rules", 9))
        assert list(after) == [first, kept]
        assert after[kept] == [row for row in before if row["trackingPlanId"] == kept]
        own = [row for row in before if row["trackingPlanId"] == first]
        expected = [{**common, "jsonSchema": {}}, own[1], *own[3:]]
        added = {"trackingPlanId": first, "type": "SCREEN", "version": 9}
        assert after[first] == [*expected, added]
        assert ask(sandbox, f"/tracking-plans/{second}/rules")[0] == 404


def test_plans_can_have_very_many_rules() -> None:
    """Prevents rules from coming twice once a plan has more of them than there are names."""
    workspace = Workspace(counts={"tracking_plan_rules": 3000}, now=lambda: NOW)
    plan = workspace.records("tracking_plans")[-1]["id"]
    rows, total = workspace.page("tracking_plan_rules", 2000, 1000, parent=plan)
    assert (len(rows), total) == (1000, 3000)
    keys = {(row["type"], row.get("key"), row["version"]) for row in map(json.loads, rows)}
    assert len(keys) == 1000


def test_a_source_has_one_plan_at_most(company: Sandbox) -> None:
    """Prevents a link table that the service cannot have: a source in two plans or a library."""
    live = {p["id"] for p in company.served("tracking_plans") if p["type"] == "LIVE"}
    links = company.served("tracking_plan_sources")
    without = company.workspace.company.id_at("tracking_plans", story.PLAN_WITHOUT_SOURCE)
    assert {row["trackingPlanId"] for row in links} == live - {without}
    assert len({row["id"] for row in links}) == len(links) == 117


# -------------------------------------------------------------------- destinations, warehouses


def test_what_hangs_on_destinations_is_of_theirs(company: Sandbox) -> None:
    """Prevents joins that come out empty, and sizes that no workspace of this kind has."""
    destinations = {row["id"]: row for row in company.served("destinations")}
    subscriptions = company.served("destination_subscriptions")
    assert len(subscriptions) == 280
    models = {row["id"] for row in company.served("reverse_etl_models")}
    for row in subscriptions:
        actions = destinations[row["destinationId"]]["metadata"]["actions"]
        assert (row["actionId"], row["actionSlug"]) in {(a["id"], a["slug"]) for a in actions}
        assert row.get("modelId", "") in {"", *models}
        assert ("reverseETLSchedule" in row) == bool(row.get("modelId"))
    assert {row.get("modelId") for row in subscriptions} > {None, ""}
    filters = company.served("destination_filters")
    assert len(filters) == 120
    for row in filters:
        assert row["sourceId"] == destinations[row["destinationId"]]["sourceId"]
    for rows in (subscriptions, filters):
        assert len({row["id"] for row in rows}) == len(rows)


def test_sources_and_warehouses_are_connected_once(company: Sandbox) -> None:
    """Prevents a link that comes twice, and warehouses that nothing feeds."""
    links = by("warehouseId", company.served("warehouse_connected_sources"))
    assert list(links) == [row["id"] for row in company.served("warehouses")]
    assert all(5 <= len({row["id"] for row in own}) == len(own) <= 45 for own in links.values())
    settings = company.served("source_schema_settings")
    assert [row["sourceId"] for row in settings] == [row["id"] for row in company.served("sources")]
    source = settings[3]["sourceId"]
    answer = data(ask(company, f"/sources/{source}/settings"))
    assert answer == {
        "sourceId": source,
        "settings": {k: v for k, v in settings[3].items() if k != "sourceId"},
    }
    assert {"track" in row for row in settings} == {True, False}
    named = {row.get("forwardingViolationsTo") for row in settings}
    assert named > {None, ""}


def test_a_child_with_an_id_of_its_own_is_found_by_it() -> None:
    """Prevents a filter that a test cannot remove without knowing whose it is."""
    workspace = Workspace(scale=0.1, now=lambda: NOW)
    before = workspace.records("destination_filters")
    workspace.remove("destination_filters", before[1]["id"])
    assert workspace.records("destination_filters") == [before[0], *before[2:]]
    workspace.put("destination_filters", {**before[0], "enabled": None})
    assert workspace.records("destination_filters")[0] == {**before[0], "enabled": None}
    with pytest.raises(KeyError):
        workspace.remove("destination_filters", before[1]["id"])


def test_a_changed_source_is_changed_wherever_it_is_repeated() -> None:
    """Prevents two sources of one id that differ, which no service would serve."""
    workspace = Workspace(scale=0.1, now=lambda: NOW)
    source = workspace.records("sources")[0]
    workspace.put("sources", {**source, "name": "Renamed"})
    for name in ("tracking_plan_sources", "warehouse_connected_sources"):
        found = [row for row in workspace.records(name) if row["id"] == source["id"]]
        assert {row["name"] for row in found} == {"Renamed"}


# ------------------------------------------------------------------------- spaces and invites


def test_audiences_and_traits_are_of_their_space(company: Sandbox) -> None:
    """Prevents audiences that are tame, or of no space: null definitions must be there."""
    spaces = [row["id"] for row in company.served("spaces")]
    users = {row["id"] for row in company.served("users")}
    for name, size in (("audiences", 20), ("computed_traits", 5)):
        rows = by("spaceId", company.served(name))
        assert {space: len(own) for space, own in rows.items()} == dict.fromkeys(spaces, size)
        found = [row for own in rows.values() for row in own]
        assert len({row["id"] for row in found}) == len(found)
        assert {type(row["definition"]) for row in found} == {dict, type(None)}
        assert {row["createdBy"] for row in found} <= users
    answer = ask(company, f"/spaces/{spaces[0]}/audiences", pagination_count=201)
    assert (answer[0], error(answer)["field"]) == (422, "pagination.count")


def test_invitations_to_groups_are_invitations(company: Sandbox) -> None:
    """Prevents a person invited to a group and not to the workspace."""
    invited = {row["email"] for row in company.served("invites")}
    links = by("userGroupId", company.served("group_invites"))
    assert {row["email"] for own in links.values() for row in own} <= invited
    assert {len(own) for own in links.values()} == {1, 2, 3}
    assert len(links) < len(company.served("groups"))


# --------------------------------------------------------------------------------- functions


def test_functions_are_asked_for_by_kind(company: Sandbox) -> None:
    """Prevents a list from being served whole that the service serves kind by kind only."""
    functions = company.served("functions")
    kinds = by("resourceType", functions)
    assert len(kinds) == 5
    for kind, own in kinds.items():
        assert data(ask(company, "/functions", resourceType=kind))["functions"] == own
    for params in ({}, {"resourceType": ""}, {"resourceType": "SINK"}):
        answer = ask(company, "/functions", **params)
        assert (answer[0], error(answer)["field"]) == (422, "resourceType")
    assert len({row["id"] for row in functions}) == 40
    users = {user["id"] for user in company.served("users")}
    assert all(row["createdBy"] in users for row in functions)


def test_functions_can_be_changed() -> None:
    """Prevents a changed function from standing beside the old one."""
    with Sandbox(Options(counts={"functions": 4}), now=NOW) as sandbox:
        before = sandbox.served("functions")
        changed = {**before[1], "displayName": "Renamed"}
        sandbox.workspace.put("functions", changed)
        sandbox.workspace.remove("functions", before[0]["id"])
        assert sandbox.served("functions") == [changed, *before[2:]]
        assert data(ask(sandbox, "/functions", resourceType="SOURCE"))["functions"] == []


# ------------------------------------------------------------------------------------- usage


def calls_of_a_page(scale: float) -> int:
    """Count the calls of functions that a page of the latest month of usage takes."""
    workspace = Workspace(scale=scale, now=lambda: NOW)
    workspace.usage_page("usage_mtu_sources_daily", workspace.months()[-1], 0, 1)
    profile = cProfile.Profile()
    for month in workspace.months()[-2:]:
        profile.runcall(workspace.usage_page, "usage_mtu_sources_daily", month, 1000, 500)
    return sum(entry.callcount for entry in profile.getstats())


def test_a_page_of_usage_costs_no_more_in_a_large_workspace() -> None:
    """Prevents benchmarks at a hundred times the size from measuring the sandbox."""
    assert calls_of_a_page(100) <= 1.1 * calls_of_a_page(1)


@given(data=st.data(), name=st.sampled_from(USAGE), month=st.integers(-14, 1))
def test_pages_of_usage_make_up_the_month(data: st.DataObject, name: str, month: int) -> None:
    """Prevents rows that are lost or served twice where a page ends within a source, or today."""
    sources = data.draw(st.integers(0, 4))
    hours = data.draw(st.integers(0, 24 * 40))
    workspace = Workspace(counts={"sources": sources}, now=lambda: NOW + timedelta(hours=hours))
    day = months_back(NOW.date(), -month)
    count = data.draw(st.integers(1, 70))
    rows, total = workspace.usage_page(name, day, 0, 1000)
    pages = [workspace.usage_page(name, day, first, count) for first in range(0, total + 1, count)]
    assert [row for page, _ in pages for row in page] == rows
    assert {size for _, size in pages} == {total} == {len(rows)}
    assert [orjson.loads(row) for row in rows] == workspace.usage(name, str(day))


# ------------------------------------------------------------------------------------ volume


def volume(sandbox: Sandbox, **params: Any) -> list[dict[str, Any]]:
    """Ask for the volume of two days, unless told otherwise."""
    window = {"startTime": "2026-09-13T00:00:00Z", "endTime": "2026-09-15T00:00:00Z"}
    words = {"granularity": "DAY", "pagination_count": 1000, **window, **params}
    rows: list[dict[str, Any]] = data(ask(sandbox, "/events/volume", **words))["result"]
    return rows


def test_volume_adds_up_to_the_api_calls(company: Sandbox) -> None:
    """Prevents a volume by event that contradicts the usage of its source."""
    calls: dict[tuple[str, str], int] = {}
    before: dict[str, int] = {}
    for row in company.workspace.usage("usage_api_calls_sources_daily", "2026-09-01"):
        source, day = row["sourceId"], row["timestamp"][:10]
        calls[source, day] = int(row["apiCalls"]) - before.get(source, 0)
        before[source] = int(row["apiCalls"])
    found: dict[tuple[str, str], int] = {}
    for entry in company.served("events_volume"):
        for point in entry["series"]:
            key = entry["source"]["id"], point["time"][:10]
            found[key] = found.get(key, 0) + point["count"]
    over = {key: count for key, count in calls.items() if key[1] < "2026-09-16"}
    assert len(over) == 120 * 15
    assert {key: found[key] for key in over} == over


def test_volume_is_of_a_believable_size(company: Sandbox) -> None:
    """Prevents a volume too tame to test with: names in several sources, calls without one."""
    entries = company.served("events_volume")
    assert all(len(entry["series"]) == 90 for entry in entries)
    assert all(sum(p["count"] for p in e["series"]) == e["total"] for e in entries)
    names = by("eventName", [entry for entry in entries if "eventName" in entry])
    assert 230 <= len(names) <= 250
    assert max(len({e["source"]["id"] for e in own}) for own in names.values()) > 3
    nameless = {entry["eventType"] for entry in entries if "eventName" not in entry}
    assert nameless == {"identify", "page", "screen", "group"}
    assert {"name" in entry["source"] for entry in entries} == {True, False}
    days: dict[int, int] = {}
    for entry in entries:
        for point in entry["series"][:84]:
            weekday = datetime.fromisoformat(point["time"].replace("Z", "+00:00")).weekday()
            days[weekday] = days.get(weekday, 0) + point["count"]
    assert max(days[5], days[6]) * 1.2 < min(days[day] for day in range(5))


def test_volume_is_told_apart_as_asked(company: Sandbox) -> None:
    """Prevents dimensions or filters from being ignored, in either way to write them."""
    all_of_it = volume(company)
    assert [set(entry) for entry in all_of_it] == [{"total", "series"}]
    total = all_of_it[0]["total"]
    for written in (
        {"groupBy_0": "eventType", "groupBy_1": "source"},
        {"groupBy": "eventType,source"},
    ):
        entries = volume(company, **written)
        assert all(set(e) == {"source", "eventType", "total", "series"} for e in entries)
        assert sum(entry["total"] for entry in entries) == total
    source = company.served("sources")[3]
    [own] = volume(company, groupBy_0="source", sourceId_0=source["id"])
    assert own["source"] == {k: source[k] for k in ("id", "name", "slug") if k in source}
    kinds = volume(company, groupBy_0="eventType", eventType_0="page", eventType_1="group")
    assert {entry["eventType"] for entry in kinds} == {"page", "group"}
    hours = volume(company, granularity="HOUR")
    assert [point["time"] for point in hours[0]["series"]][-1] == "2026-09-14T23:00:00Z"
    assert (len(hours[0]["series"]), hours[0]["total"]) == (48, total)


def test_volume_answers_repeat_the_query(company: Sandbox) -> None:
    """Prevents an envelope that differs from the service's."""
    words = {**newest_window(company), "sourceId_0": "x"}
    content = data(ask(company, "/events/volume", **words))
    assert list(content) == ["path", "query", "result", "pagination"]
    assert content["pagination"] == {"current": "MA==", "totalEntries": 0}
    for name, kind in RESOURCES["events_volume"]["beside"].items():
        check(content[name], kind, name)
    assert content["query"] == {
        "workspaceId": company.workspace.company.workspace_id,
        "startTime": "2026-08-18T10:29:00Z",
        "endTime": "2026-09-16T10:29:00Z",
        "granularity": "DAY",
        "groupBy": ["source", "eventType", "eventName"],
        "sourceId": ["x"],
    }


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"granularity": ""}, "granularity"),
        ({"granularity": "WEEK"}, "granularity"),
        ({"startTime": "soon"}, "startTime"),
        ({"startTime": "2026-09-15T00:00:00Z"}, "startTime"),
        ({"startTime": "2026-08-14T23:59:59Z"}, "startTime"),
        ({"endTime": "2100-01-01"}, "endTime"),
        ({"groupBy_0": "country"}, "groupBy"),
        ({"pagination_count": 1001}, "pagination.count"),
    ],
)
def test_volume_refuses_odd_windows(company: Sandbox, params: dict[str, Any], field: str) -> None:
    """Prevents a loader that asks for too much, or for the future, from passing."""
    window = {"startTime": "2026-09-13T00:00:00Z", "endTime": "2026-09-15T00:00:00Z"}
    answer = ask(company, "/events/volume", **{"granularity": "DAY", **window, **params})
    assert (answer[0], error(answer)["field"]) == (422, field)
    for name in window:
        rest = {key: value for key, value in window.items() if key != name}
        answer = ask(company, "/events/volume", granularity="DAY", **rest)
        assert (answer[0], error(answer)["field"]) == (422, name)


def test_volume_forgets_and_today_grows() -> None:
    """Prevents days that are kept for ever, or a today that stands still."""
    with Sandbox(Options(counts={"sources": 2}), now=NOW) as sandbox:
        seen = []
        for _ in range(3):
            days: dict[str, int] = {}
            for entry in sandbox.served("events_volume"):
                for point in entry["series"]:
                    days[point["time"]] = days.get(point["time"], 0) + point["count"]
            seen.append(days)
            sandbox.clock = timedelta(hours=10)
    today, first = "2026-09-16T00:00:00Z", "2026-06-19T00:00:00Z"
    assert seen[0][today] < seen[1][today] < seen[2][today]
    assert (min(seen[0]), min(seen[2])) == (first, "2026-06-20T00:00:00Z")
    over = {day for day in seen[2] if day < today}
    assert all(seen[0][day] == seen[1][day] == seen[2][day] for day in over)


def test_volume_has_a_rate_limit_of_its_own() -> None:
    """Prevents a loader that ignores the limit of the volume from passing."""
    with Sandbox(Options(rate_limits=True, counts={"sources": 1}), now=NOW) as sandbox:
        window = newest_window(sandbox)
        statuses = [ask(sandbox, "/events/volume", **window)[0] for _ in range(61)]
        assert statuses == [200] * 60 + [429]


# ------------------------------------------------------------------------------------ scale


def test_scale_multiplies_parents_and_not_their_children() -> None:
    """Prevents a larger workspace from being larger squared."""
    small, large = (Workspace(scale=scale, now=lambda: NOW) for scale in (1, 3))
    for name, size in (("groups", 30), ("tracking_plans", 90), ("functions", 120)):
        assert len(large.records(name)) == size
    assert len(large.records("workspace")) == 1
    few, many = (len(w.records("tracking_plan_rules")) for w in (small, large))
    assert 2 * few < many < 4 * few
