"""Deletions: visible in the table, only when they are certain, and taken back on return."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from analytics_assets.sandbox import Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets_tests.faults import (
    API,
    LISTS,
    Body,
    change_children,
    everything,
    inject,
    rows_of,
    without_details,
)
from analytics_assets_tests.harness import Project, failure_of, materialized

FULL_LISTS = tuple(e.name for e in ENDPOINTS if e.full_list)
EXPECTED = {"expect_fewer_rows": True}
GUARDED = {"guarded_rows": 1}
"""The lists of a small workspace are shorter than those that are guarded."""


def deleted(project: Project, table: str) -> list[tuple[Any, ...]]:
    """Return the keys of the rows that are marked as deleted."""
    key = ", ".join(BY_NAME[table].key_columns)
    sql = f"SELECT {key} FROM analytics.{table} WHERE deleted_at IS NOT NULL ORDER BY ALL"
    return project.query(sql)


def key_of(name: str, record: Body) -> tuple[Any, ...]:
    """Return the key of a record."""
    missing = {column.field: column.missing for column in BY_NAME[name].columns}
    return tuple(record.get(wire, missing[wire]) for wire in BY_NAME[name].primary_key)


def keys_served(project: Project) -> dict[str, set[tuple[Any, ...]]]:
    """Return the keys of each full list, as they are served now."""
    return {
        name: {key_of(name, record) for record in project.sandbox.served(name)}
        for name in FULL_LISTS
    }


def test_every_full_list_shows_what_is_gone(loaded: Project) -> None:
    """Prevents that a deleted record looks alive for ever, in any full list.

    With a parent its children go.
    """
    workspace, before = loaded.sandbox.workspace, keys_served(loaded)
    for name in FULL_LISTS:
        if len(workspace.records(name)) > 1 and not BY_NAME[name].single:
            workspace.remove(name, key_of(name, workspace.records(name)[0]))
    after = keys_served(loaded)
    start = datetime.now(timezone.utc)
    result = loaded.materialize("group:inventory", "group:catalog", "group:identity")
    assert failure_of(result) == ""
    for name in FULL_LISTS:
        gone = before[name] - after[name]
        assert gone or len(before[name]) == 1, name
        assert deleted(loaded, name) == sorted(gone)
        metadata = materialized(result)[name]
        assert metadata["newly_deleted_rows"] == metadata["deleted_rows"] == len(gone)
    loaded.assert_equal(FULL_LISTS)
    end = datetime.now(timezone.utc)
    (moment,) = loaded.query("SELECT max(deleted_at) FROM analytics.sources")[0]
    assert start <= moment <= end


def test_changes_of_children_show_and_nothing_else(loaded: Project) -> None:
    """Prevents rows of lists that hang on others from being lost, stale, or marked while alive."""
    children = [endpoint.name for endpoint in ENDPOINTS if endpoint.parent]
    gone = change_children(loaded.sandbox, remove=True)
    assert failure_of(loaded.materialize(*children)) == ""
    loaded.assert_equal(children)
    for name in children:
        assert set(deleted(loaded, name)) == gone.get(name, set())
    before = {name: loaded.rows(name, live=False) for name in children}
    result = loaded.materialize(*children)
    assert failure_of(result) == ""
    assert {name: loaded.rows(name, live=False) for name in children} == before
    assert all(figures["newly_deleted_rows"] == 0 for figures in materialized(result).values())


@pytest.mark.parametrize("name", LISTS)
def test_the_mark_stays_and_is_cleared_on_return(loaded: Project, name: str) -> None:
    """Prevents that a mark moves with every run, or outlives the return of the row."""
    workspace = loaded.sandbox.workspace
    record = workspace.records(name)[1]
    workspace.remove(name, key_of(name, record))
    assert loaded.materialize(name).success
    sql = f"SELECT max(deleted_at) FROM analytics.{name}"
    first = loaded.query(sql)
    assert first != [(None,)]
    result = loaded.materialize(name)
    assert loaded.query(sql) == first
    assert materialized(result)[name]["newly_deleted_rows"] == 0
    assert materialized(result)[name]["deleted_rows"] == 1
    workspace.put(name, record)
    result = loaded.materialize(name)
    assert materialized(result)[name]["deleted_rows"] == 0
    assert deleted(loaded, name) == []
    loaded.assert_equal([name])


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_a_list_that_shrinks_suddenly_marks_nothing(
    loaded: Project, name: str, share: float
) -> None:
    """Prevents that a hiccup of the API marks a whole table as deleted."""
    before = everything(loaded, name)

    def fault(body: Body, _: RequestInfo) -> Body:
        rows = rows_of(name, body)
        del rows[int(len(rows) * share) :]
        if "pagination" in body["data"]:
            body["data"]["pagination"] = {"current": "x", "totalEntries": len(rows)}
        return body

    inject(loaded, name, fault, page=0)
    result = loaded.materialize(*without_details(BY_NAME[name].group), warehouse=GUARDED)
    message = failure_of(result)
    assert f"{name} (GET /{name}): the list has " in message
    assert "expect_fewer_rows" in message
    assert everything(loaded, name) == before
    assert name not in materialized(result)

    result = loaded.materialize(name, config=EXPECTED, warehouse=GUARDED)
    assert result.success
    live = int(len(before) * share)
    assert len(loaded.rows(name)) == live
    assert materialized(result)[name]["newly_deleted_rows"] == len(before) - live


def test_an_incomplete_list_marks_nothing(loaded: Project) -> None:
    """Prevents that the rows of the pages that failed count as deleted."""
    before = everything(loaded, "sources")
    loaded.sandbox.workspace.remove("sources", loaded.sandbox.served("sources")[0]["id"])
    inject(loaded, "sources", lambda *_: Reply(500))
    assert not loaded.materialize("sources", api=API).success
    assert everything(loaded, "sources") == before


def test_an_empty_list_is_legal_from_the_start(loaded: Project) -> None:
    """Prevents that a workspace without spaces fails for ever."""
    for record in loaded.sandbox.served("spaces"):
        loaded.sandbox.workspace.remove("spaces", record["id"])
    assert not loaded.materialize("spaces", warehouse=GUARDED).success
    assert loaded.materialize("spaces", config=EXPECTED, warehouse=GUARDED).success
    result = loaded.materialize("spaces", warehouse=GUARDED)
    assert result.success
    assert loaded.rows("spaces") == []


def test_records_that_move_while_paging_are_exact_after_a_quiet_run(loaded: Project) -> None:
    """Prevents lasting gaps, doubles and false deletions after a list moved during a read."""
    workspace = loaded.sandbox.workspace
    names = ("sources", "destinations", "users", "labels")
    steps = [0]

    def move(info: RequestInfo) -> None:
        name = info.path.removeprefix("/")
        if name not in names:
            return
        steps[0] += 1
        records = workspace.records(name)
        if len(records) < 5:
            return
        workspace.remove(name, key_of(name, records[steps[0] % len(records)]))  # gone
        first = workspace.records(name)[0]
        workspace.remove(name, key_of(name, first))
        workspace.put(name, first)  # moved from the first place to the last
        fresh = {**records[2], "id": f"new{steps[0]}", "value": f"new{steps[0]}"}
        workspace.put(name, fresh if name == "labels" else {**fresh, "value": None})

    for _ in range(3):
        loaded.sandbox.intercept = move
        loaded.materialize(*names, api={"page_size": 3})
        loaded.sandbox.intercept = None
        result = loaded.materialize(*names, api={"page_size": 3})
        assert failure_of(result) == ""
        loaded.assert_equal(names)
        for name in names:
            rows = loaded.rows(name, live=False)
            served = {key_of(name, record) for record in loaded.sandbox.served(name)}
            marked = set(deleted(loaded, name))
            assert not marked & served
            assert len(rows) == len(marked) + len(served)
    assert steps[0] > 12
