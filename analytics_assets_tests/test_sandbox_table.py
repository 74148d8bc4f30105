"""What a row of the sandbox's table can say, shown by rows that are made up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

import pytest

from analytics_assets.sandbox import RESOURCES, Options, Sandbox
from analytics_assets.sandbox.company import Company, Record
from analytics_assets.sandbox.limits import OwnLimit
from analytics_assets.sandbox.resources import Choice, Parent, Resource
from analytics_assets_tests.wire import ask, data, error

NOW = datetime(2026, 9, 16, 10, 30, tzinfo=timezone.utc)


def address(_company: Company, index: int) -> Record:
    """Make a record that is a text on the way."""
    return {"address": f"row-{index}@example.com"}


def holders(company: Company, role: int) -> int:
    """Give each role one holder more than the one before, unless told otherwise."""
    return company.counts.get("holders", role)


def holder(company: Company, role: int, index: int) -> Record:
    """Make a record that hangs on a role; every second one lacks a part of its key."""
    label = {} if index % 2 else {"label": "x"}
    return {"id": company.id_of("users", role + index), "kind": ("A", "B")[index % 2], **label}


def setting(_company: Company, role: int, _index: int) -> Record:
    """Make the one object that hangs on a role."""
    return {"level": role}


MADE_UP = (
    Resource("texts", "/texts", "texts", size=12, key=("address",), bare=True, head=address),
    Resource(
        "holders",
        "/role/{roleId}/holders",
        "holders",
        key=("id", "label"),
        parent=Parent("roles", "roleId", holders),
        choice=Choice("kind", ("A", "B"), required=False),
        head=holder,
        first_offset=1,
        page_limit=5,
        rate_limit=3,
    ),
    Resource(
        "role_settings",
        "/role/{roleId}/settings",
        "settings",
        "single",
        parent=Parent("roles", "roleId", lambda _company, _role: 1),
        head=setting,
    ),
)
TABLE = {**RESOURCES, **{row.name: row for row in MADE_UP}}


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    """Serve the made-up lists, too."""
    with Sandbox(Options(), now=NOW, resources=TABLE) as sandbox:
        yield sandbox


def roles(sandbox: Sandbox) -> list[str]:
    """Give the identifiers of all roles."""
    return [role["id"] for role in sandbox.served("roles")]


def chain(sandbox: Sandbox, role: str, **params: Any) -> list[dict[str, Any]]:
    """Read all holders of a role."""
    rows: list[dict[str, Any]] = []
    while True:
        content = data(ask(sandbox, f"/role/{role}/holders", **params))
        rows += content["holders"]
        following = content["pagination"].get("next")
        if following is None:
            return rows
        params["pagination_cursor"] = following


def test_list_of_texts(sandbox: Sandbox) -> None:
    """Prevents a list of texts from being served as objects, or from being impossible to change."""
    workspace = sandbox.workspace
    workspace.remove("texts", "row-3@example.com")
    workspace.put("texts", {"address": "new@example.com"})
    texts = [f"row-{index}@example.com" for index in range(12) if index != 3]
    page = data(ask(sandbox, "/texts", pagination_count=5))
    assert page["texts"] == texts[:5]
    assert page["pagination"]["totalEntries"] == 12
    assert data(ask(sandbox, "/texts"))["texts"] == [*texts, "new@example.com"]
    assert sandbox.served("texts") == [{"address": text} for text in (*texts, "new@example.com")]


def test_children_belong_to_their_parents(sandbox: Sandbox) -> None:
    """Prevents children of one parent from showing under another, on any page."""
    expected = []
    for number, role in enumerate(roles(sandbox)):
        rows = chain(sandbox, role, pagination_count=4)
        assert len(rows) == number
        assert all("roleId" not in row for row in rows)
        expected += [{"roleId": role, **row} for row in rows]
    assert sandbox.served("holders") == expected
    assert sandbox.count("holders") == sum(max(-(-n // 4), 1) for n in range(22))


def test_children_can_be_counted_out() -> None:
    """Prevents the size of a list that hangs on another one from being fixed."""
    counts = {"roles": 2, "holders": 3}
    with Sandbox(Options(counts=counts), now=NOW, resources=TABLE) as sandbox:
        assert [len(chain(sandbox, role)) for role in roles(sandbox)] == [3, 3]


def test_children_of_nobody_are_not_found(sandbox: Sandbox) -> None:
    """Prevents a parent that is gone from passing for one without children."""
    role = roles(sandbox)[4]
    for path in ("/role/nobody/holders", f"/role/{role}x/holders", "/role/nobody/settings"):
        answer = ask(sandbox, path)
        assert (answer[0], error(answer)) == (
            404,
            {"type": "NotFound", "message": "Resource not found"},
        )
    record = sandbox.served("roles")[4]
    sandbox.workspace.remove("roles", role)
    assert ask(sandbox, f"/role/{role}/holders")[0] == 404
    assert role not in {row["roleId"] for row in sandbox.served("holders")}
    sandbox.workspace.put("roles", record)
    assert chain(sandbox, role) == []


def test_children_can_be_changed(sandbox: Sandbox) -> None:
    """Prevents a change of one child from reaching another one, or none."""
    workspace = sandbox.workspace
    before = sandbox.served("holders")
    mine = [row for row in before if row["roleId"] == roles(sandbox)[3]]
    workspace.put("holders", {**mine[0], "new": 1})
    workspace.put("holders", {"id": "added", "label": "x"}, parent=mine[0]["roleId"])
    workspace.remove("holders", (mine[1]["id"], ""), parent=mine[0]["roleId"])
    workspace.remove("holders", (mine[2]["roleId"], mine[2]["id"], "x"))
    own = [{**mine[0], "new": 1}, {"roleId": mine[0]["roleId"], "id": "added", "label": "x"}]
    after = sandbox.served("holders")
    assert [row for row in after if row["roleId"] == mine[0]["roleId"]] == own
    assert [row for row in after if row not in own] == [row for row in before if row not in mine]
    assert chain(sandbox, mine[0]["roleId"]) == [
        {key: value for key, value in row.items() if key != "roleId"} for row in own
    ]
    with pytest.raises(KeyError, match="nobody"):
        workspace.put("holders", {"id": "added"}, parent="nobody")
    with pytest.raises(ValueError, match="roleId"):
        workspace.put("holders", {"id": "added"})


def test_single_object_of_a_parent(sandbox: Sandbox) -> None:
    """Prevents a single object from being served as a list, or from being impossible to change."""
    role = roles(sandbox)[5]
    assert data(ask(sandbox, f"/role/{role}/settings")) == {"settings": {"level": 5}}
    sandbox.workspace.put("role_settings", {"roleId": role, "level": 9})
    assert data(ask(sandbox, f"/role/{role}/settings")) == {"settings": {"level": 9}}
    assert {"roleId": role, "level": 9} in sandbox.served("role_settings")


def test_choice_picks_records(sandbox: Sandbox) -> None:
    """Prevents a parameter with few values from being ignored, or a wrong one from passing."""
    role = roles(sandbox)[7]
    everything = chain(sandbox, role)
    for kind in ("A", "B"):
        picked = chain(sandbox, role, kind=kind, pagination_count=2)
        assert picked == [row for row in everything if row["kind"] == kind]
        assert picked
    answer = ask(sandbox, f"/role/{role}/holders", kind="C")
    assert (answer[0], error(answer)["field"]) == (422, "kind")


def test_own_page_limit_and_first_cursor(sandbox: Sandbox) -> None:
    """Prevents a list from taking pages that the service refuses."""
    path = f"/role/{roles(sandbox)[9]}/holders"
    answer = ask(sandbox, path, pagination_count=6)
    assert (answer[0], error(answer)["field"]) == (422, "pagination.count")
    content = data(ask(sandbox, path))
    assert len(content["holders"]) == 5
    assert content["pagination"]["current"] == "MQ=="
    assert ask(sandbox, path, pagination_cursor="MA==")[0] == 422


def test_own_rate_limit_holds_for_one_list() -> None:
    """Prevents a lower limit from being ignored, or from holding other lists back."""
    with Sandbox(Options(rate_limits=True), now=NOW, resources=TABLE) as sandbox:
        paths = [f"/role/{role}/holders" for role in roles(sandbox)[:5]]
        answers = [ask(sandbox, path) for path in paths]
        assert [answer[0] for answer in answers] == [200, 200, 200, 429, 429]
        wait = int(answers[-1][1]["retry-after"])
        assert 55 <= wait <= 60
        assert wait - 1 <= error(answers[-1])["data"]["msBeforeNext"] / 1000 <= wait
        assert all(ask(sandbox, "/roles")[0] == 200 for _ in range(4))
        assert (sandbox.refused(), sandbox.refused("holders"), sandbox.refused("roles")) == (
            2,
            2,
            0,
        )
        assert (sandbox.count("holders"), sandbox.count(paths[0])) == (5, 1)
        sandbox.clear()
        assert sandbox.refused() == 0


def test_own_rate_limits_are_off_by_default(sandbox: Sandbox) -> None:
    """Prevents every test from waiting for limits that it does not ask for."""
    path = f"/role/{roles(sandbox)[1]}/holders"
    assert {ask(sandbox, path)[0] for _ in range(5)} == {200}


def test_own_rate_limit_counts_any_minute() -> None:
    """Prevents a limit that starts anew each minute and lets twice as many through."""
    limit = OwnLimit(2)
    moments = (0.0, 50.0, 59.0, 60.0, 61.0, 110.0)
    assert [limit.admit(at) is None for at in moments] == [True, True, False, True, False, True]
    refused = limit.admit(111.0)
    assert refused is not None
    assert refused.headers["Retry-After"] == "9"
    assert json.loads(refused.body)["errors"][0]["data"] == {"msBeforeNext": 9000}
