"""Talk to a sandbox over HTTP, and compare what it answers with the wire contract."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

from analytics_assets.sandbox import Sandbox
from analytics_assets.sandbox.moments import parse_moment
from analytics_assets.sandbox.volume import DIMENSIONS
from analytics_assets_tests.wire_contract import CONTRACT_FILE

CONTRACT = json.loads(CONTRACT_FILE.read_text())
RESOURCES = CONTRACT["resources"]
NAMES = list(RESOURCES)
USAGE = [name for name in NAMES if RESOURCES[name]["period"]]
PAGED = [name for name in NAMES if RESOURCES[name]["paginated"]]
Answer = tuple[int, dict[str, str], bytes]


def connect(sandbox: Sandbox) -> http.client.HTTPConnection:
    """Open a connection to the sandbox."""
    parts = urlsplit(sandbox.url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)


def send(connection: http.client.HTTPConnection, path: str, token: str, query: str) -> Answer:
    """Send one request over a connection and read the answer."""
    headers = {"Authorization": f"Bearer {token}"}
    connection.request("GET", f"{path}?{query}", headers=headers)
    response = connection.getresponse()
    return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()


def query_of(params: dict[str, object]) -> str:
    """Write parameters for an address; underscores in their names stand for dots."""
    return urlencode({name.replace("_", "."): str(value) for name, value in params.items()})


def ask(
    sandbox: Sandbox,
    path: str,
    token: str | None = None,
    query: str | None = None,
    **params: Any,
) -> Answer:
    """Send one request over a connection of its own."""
    connection = connect(sandbox)
    try:
        text = query_of(params) if query is None else query
        return send(connection, path, sandbox.token if token is None else token, text)
    finally:
        connection.close()


def data(answer: Answer) -> dict[str, Any]:
    """Give the data object of a success."""
    assert answer[0] == 200, answer
    assert answer[1]["content-type"] == "application/json"
    content: dict[str, Any] = json.loads(answer[2])["data"]
    return content


def error(answer: Answer) -> dict[str, Any]:
    """Give the only error of a failure."""
    (only,) = json.loads(answer[2])["errors"]
    assert isinstance(only, dict)
    return only


def walk(sandbox: Sandbox, name: str, size: int, **params: object) -> list[dict[str, Any]]:
    """Read all pages of a list, of every parent and for every kind there is.

    A list that takes smaller pages only is asked for its largest.
    """
    size = min(size, RESOURCES[name].get("page_limit", size))
    rows: list[dict[str, Any]] = []
    connection = connect(sandbox)
    for path, needed, added in slices(sandbox, name):
        asked = {"pagination_count": size, **needed, **params}
        for page in _pages(sandbox, connection, path, asked):
            rows += [added | record for record in records_of(name, page)]
    connection.close()
    return rows


def slices(
    sandbox: Sandbox, name: str
) -> Iterator[tuple[str, dict[str, object], dict[str, object]]]:
    """Give path, needed parameters and added fields of each of the walks a list is read in."""
    path, parent = RESOURCES[name]["path"], RESOURCES[name].get("parent")
    if parent is not None:
        for record in sandbox.served(parent["resource"]):
            place = "{" + parent["field"] + "}"
            yield path.replace(place, record["id"]), {}, {parent["field"]: record["id"]}
    elif RESOURCES[name].get("choice", {}).get("required") and "window" not in RESOURCES[name]:
        choice = RESOURCES[name]["choice"]
        for value in choice["values"]:
            yield path, {choice["field"]: value}, {}
    elif "window" in RESOURCES[name]:
        yield path, newest_window(sandbox), {}
    else:
        yield path, {}, {}


def newest_window(sandbox: Sandbox) -> dict[str, Any]:
    """Give what asks for thirty days of volume, up to a minute ago, by all dimensions."""
    end = sandbox.clock() - timedelta(minutes=1)
    return {
        "granularity": "DAY",
        "startTime": (end - timedelta(days=29)).isoformat(),
        "endTime": end.isoformat(),
        **{f"groupBy_{place}": name for place, name in enumerate(DIMENSIONS)},
    }


def records_of(name: str, page: dict[str, Any]) -> list[dict[str, Any]]:
    """Give the records of an answer; a single object is one, a text is a record of one field."""
    content = page[RESOURCES[name]["selector"].removeprefix("data.")]
    if RESOURCES[name].get("single"):
        return [content]
    if RESOURCES[name]["type"] == "string":
        return [{RESOURCES[name]["key"][-1]: text} for text in content]
    return list(content)


def _pages(
    sandbox: Sandbox, connection: http.client.HTTPConnection, path: str, asked: dict[str, object]
) -> Iterator[dict[str, Any]]:
    for _ in range(100_000):
        page = data(send(connection, path, sandbox.token, query_of(asked)))
        yield page
        following = page.get("pagination", {}).get("next")
        if following is None:
            return
        asked["pagination_cursor"] = following
    raise AssertionError("the walk does not end")


def period(name: str, month: str = "2026-09-01") -> dict[str, object]:
    """Give the month that a request for usage has to name."""
    return {"period": month} if name in USAGE else {}


def keys(name: str, rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Give the primary keys of records; of one that holds a series what all of it shares."""
    fields = [field.split(".") for field in RESOURCES[name]["key"]]
    return [tuple(_at(row, path) for path in fields if path[0] != "series") for row in rows]


def _at(record: dict[str, Any], path: list[str]) -> Any:
    value: Any = record
    for step in path:
        value = value.get(step, "")
    return value


def check(value: Any, kind: str, where: str) -> None:
    """Compare a value with a type of the contract, down to the last field."""
    if kind.startswith("list<"):
        assert isinstance(value, list), where
        for item in value:
            check(item, kind[5:-1], f"{where}[]")
    elif kind in CONTRACT["types"]:
        assert isinstance(value, dict), where
        for name, rule in CONTRACT["types"][kind].items():
            check_field(value, name, rule, f"{where}.{name}")
    elif kind.startswith("one of "):
        assert any(fits(value, one, where) for one in kind.removeprefix("one of ").split(", ")), (
            where
        )
    elif kind == "number" and type(value) is float:
        assert not value.is_integer(), f"{where}: {value!r}"
    elif kind != "any JSON":
        expected = {"string": str, "boolean": bool, "number": int, "object (free-form)": dict}
        assert type(value) is expected[kind], f"{where}: {value!r}"


def fits(value: dict[str, Any], kind: str, where: str) -> bool:
    """Tell whether a value is of a type of the contract, without a field that this lacks."""
    try:
        check(value, kind, where)
    except AssertionError:
        return False
    return set(value) <= set(CONTRACT["types"][kind])


def check_record(name: str, record: dict[str, Any]) -> None:
    """Compare a record of a list with the contract."""
    kind = RESOURCES[name]["type"]
    check(record[RESOURCES[name]["key"][-1]] if kind == "string" else record, kind, name)


def check_field(record: dict[str, Any], name: str, rule: dict[str, Any], where: str) -> None:
    """Compare one field with its rule."""
    if name not in record:
        assert not rule["required"], f"{where} is missing"
        return
    value = record[name]
    if value is None:
        assert rule["nullable"], f"{where} is null"
        return
    check(value, rule["type"], where)
    assert value in rule.get("enum", [value]), f"{where}: {value!r}"
    if rule.get("format") == "integer in a string":
        assert re.fullmatch(r"0|[1-9]\d*", value), f"{where}: {value!r}"
    if rule.get("format") == "ISO-8601 UTC":
        assert value.endswith("Z"), where
        parse_moment(value)
