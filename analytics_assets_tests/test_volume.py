"""The volume of events, asked for by windows of days, against the sandbox."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from math import ceil
from typing import Any

import orjson
import pytest

from analytics_assets.sandbox import Options, Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.conftest import on_postgres
from analytics_assets_tests.faults import real_body, run_logged
from analytics_assets_tests.harness import (
    Project,
    Row,
    assert_same,
    expected_rows,
    failure_of,
    materialized,
    unfolded,
)
from analytics_assets_tests.test_destinations import FilesProject
from analytics_assets_tests.timetravel import at, utc

VOLUME = "events_volume"
ROW = BY_NAME[VOLUME]
TINY = Options(counts={"sources": 3, "audit_events": 40})
NOW = utc(2026, 3, 5)
Start = Callable[..., Project]
SERVERS = pytest.mark.parametrize("kind", ["duckdb", "postgres"])


@pytest.fixture
def build(start: Start, postgres: str) -> Callable[[str], Project]:
    """Return a function that points a project at a destination by name."""

    def build_project(kind: str) -> Project:
        project = start(TINY)
        if kind == "postgres":
            return on_postgres(project, postgres)
        if kind == "duckdb":
            return project
        settings = {
            "ANALYTICS_DESTINATION": "filesystem",
            "DESTINATION__FILESYSTEM__BUCKET_URL": str(project.folder / "lake"),
            **({"ANALYTICS_TABLE_FORMAT": "delta"} if kind == "delta" else {}),
        }
        return FilesProject(project.sandbox, project.folder, {**project.env, **settings})

    return build_project


def load(project: Project, **options: Any) -> None:
    """Load the volume and expect success."""
    assert failure_of(project.materialize(VOLUME, **options)) == ""


def served(project: Project) -> list[Row]:
    """Return the rows that the sandbox has of its ninety days."""
    return expected_rows(ROW, unfolded(ROW, project.sandbox.served(VOLUME)))


def asked(project: Project) -> list[tuple[str, str]]:
    """Return the windows that were asked for, the oldest first; first pages only."""
    return sorted(
        (info.params["startTime"][:10], info.params["endTime"][:16])
        for info in project.sandbox.requests
        if info.path == ROW.path and "pagination.cursor" not in info.params
    )


def refuse(project: Project, before: str, status: int = 422) -> None:
    """Let the API refuse the windows that start before a day."""
    error = {"type": "input-validation", "message": '"startTime" is too far back'}

    def intercept(info: RequestInfo) -> Reply | None:
        if info.path != ROW.path or info.params["startTime"] >= before:
            return None
        return Reply(status, orjson.dumps({"errors": [error]}))

    project.sandbox.intercept = intercept


@pytest.mark.parametrize("kind", ["duckdb", "postgres", "files", "delta"])
def test_every_count_lands_and_heals(build: Callable[[str], Project], kind: str) -> None:
    """Prevents lost, doubled or shifted counts, and a day that stays half counted for ever."""
    project = build(kind)
    with at(project, NOW):
        load(project, api={"page_size": 7})
        first = served(project)
        assert_same(VOLUME, project.rows(VOLUME), first)
        assert {row["event_name"] for row in first} > {"", "Product Viewed"}
        assert all(row["source_slug"] for row in first)
    assert len(first) == len(project.sandbox.served(VOLUME)) * 90
    later = NOW + timedelta(days=1, hours=3)
    with at(project, later):
        load(project)
        now = served(project)
        kept = [row for row in first if row["time"] < min(row["time"] for row in now)]
        assert len(kept) == len(project.sandbox.served(VOLUME))  # a day that the API has forgotten
        both = sorted([*kept, *now], key=lambda row: [row[key] for key in ROW.key_columns])
        assert_same(VOLUME, project.rows(VOLUME), both)
    before, after = (
        sum(row["count"] for row in rows if row["time"] == utc(2026, 3, 5, 0))
        for rows in (first, now)
    )
    assert 0 < before < after


def test_it_asks_for_windows_and_then_for_the_overlap(start: Start) -> None:
    """Prevents a daily run that reads ninety days, and requests beyond the arithmetic."""
    project = start(TINY)
    with at(project, NOW):
        load(project, api={"page_size": 4})
        assert [days for days, _ in asked(project)] == ["2025-12-06", "2026-01-05", "2026-02-04"]
        entries = len(project.sandbox.served(VOLUME))
        assert project.sandbox.count() == 1 + 3 * ceil(entries / 4)
        for info in project.sandbox.requests[1:]:
            assert {k: v for k, v in info.params.items() if "Time" not in k} == {
                "granularity": "DAY",
                "groupBy.0": "source",
                "groupBy.1": "eventType",
                "groupBy.2": "eventName",
                "pagination.count": "4",
                **{k: v for k, v in info.params.items() if k == "pagination.cursor"},
            }
    for day, options, expected in (
        (1, {}, "2026-03-03"),
        (2, {"api": {"volume_overlap_days": 5}}, "2026-03-01"),
        (3, {"api": {"volume_overlap_days": 0}}, "2026-03-07"),
    ):
        with at(project, NOW + timedelta(days=day)):
            load(project, **options)
            end = (NOW + timedelta(days=day, minutes=-2)).isoformat()[:16]
            assert asked(project) == [(expected, end)]
            assert project.sandbox.count() == 2


def test_seventy_days_without_a_run_leave_no_hole(start: Start) -> None:
    """Prevents a standstill from leaving days unread, or from asking for too long a window."""
    project = start(TINY)
    with at(project, NOW):
        load(project)
        first = served(project)
    with at(project, NOW + timedelta(days=70)):
        load(project)
        assert [days for days, _ in asked(project)] == ["2026-03-03", "2026-03-16", "2026-04-15"]
        days = {row["time"] for row in project.rows(VOLUME)}
    assert len(days) == 160
    assert min(days) == min(row["time"] for row in first)


EMPTY = Reply(body=b'{"data": {"result": [], "pagination": {"current": "MA==", "next": null}}}')


@pytest.mark.parametrize(
    ("empty", "again"),
    [
        (["2025-12-06", "2026-01-05", "2026-02-04"], ["2025-12-07", "2026-01-06", "2026-02-05"]),
        (["2025-12-06"], ["2025-12-07", "2026-01-06", "2026-02-05"]),
        (["2026-01-05"], ["2025-12-07", "2026-01-06", "2026-02-05"]),
        (["2026-02-04"], ["2026-02-01", "2026-02-05"]),
    ],
)
def test_days_that_came_empty_are_asked_for_again(
    start: Start, empty: list[str], again: list[str]
) -> None:
    """Prevents that days which the API held back for a moment are missing for ever, and unseen."""
    project = start(TINY)
    project.sandbox.intercept = lambda info: (
        EMPTY if info.params.get("startTime", "")[:10] in empty else None
    )
    with at(project, NOW):
        result = project.materialize(VOLUME)
        assert failure_of(result) == ""
        assert "no rows came for days " in str(materialized(result)[VOLUME]["warnings"])
        [check] = [c for c in result.get_asset_check_evaluations() if c.check_name == "read_whole"]
        assert not check.passed
    project.sandbox.intercept = None
    with at(project, NOW + timedelta(days=1)):
        load(project)
        assert [days for days, _ in asked(project)] == again
        days = {row["time"] for row in project.rows(VOLUME)}
    assert len(days) >= 90


def test_an_api_that_does_not_heed_the_days_fails(start: Start) -> None:
    """Prevents that the newest days stand for all others, which then count as loaded."""
    project = start(TINY)
    with at(project, NOW):
        newest = {}

        def always_the_newest(info: RequestInfo) -> Reply | None:
            if info.path != ROW.path:
                return None
            if info.params["startTime"] >= "2026-02-04":
                newest["body"] = real_body(project.sandbox, info)
            return Reply(body=newest["body"])

        project.sandbox.intercept = always_the_newest
        result = project.materialize(VOLUME, api={"retries": 0, "parallel_requests": 1})
    assert "so the API does not heed the days it is asked for" in failure_of(result)
    assert VOLUME not in project.tables()


@SERVERS
@pytest.mark.parametrize("status", [400, 422])
def test_a_refused_older_window_ends_the_look_back(
    build: Callable[[str], Project], kind: str, status: int
) -> None:
    """Prevents that a workspace whose API keeps thirty days can never load what it has."""
    project = build(kind)
    with at(project, NOW):
        refuse(project, "2026-01-06", status)
        result, log = run_logged(project, VOLUME)
        assert failure_of(result) == ""
        said = "the API does not give the days up to 2026-02-03 any more"
        assert f"{VOLUME}: {said}, so the look back ends there (HTTP {status}" in log
        assert any(said in warning for warning in materialized(result)[VOLUME]["warnings"])
        expected = [row for row in served(project) if row["time"] >= utc(2026, 2, 4, 0)]
        assert_same(VOLUME, project.rows(VOLUME), expected)
    with at(project, NOW + timedelta(days=1)):
        load(project)
        assert [days for days, _ in asked(project)] == ["2026-03-03"]


def test_a_window_behind_a_refused_one_does_not_count(start: Start) -> None:
    """Prevents a hole in the middle of the table that no later run fills."""
    project = start(TINY)
    with at(project, NOW):
        refused = "2026-01-05"
        project.sandbox.intercept = lambda info: (
            Reply(422) if info.params.get("startTime", "").startswith(refused) else None
        )
        load(project)
        assert min(row["time"] for row in project.rows(VOLUME)) == utc(2026, 2, 4, 0)


@SERVERS
def test_a_refused_newest_window_fails_the_asset(
    build: Callable[[str], Project], kind: str
) -> None:
    """Prevents that a request which the API never takes leaves an empty table and a green run."""
    project = build(kind)
    with at(project, NOW):
        refuse(project, "2027")
        result = project.materialize(VOLUME, "usage_mtu_daily")
        text = failure_of(result)
        assert f"{VOLUME} (GET {ROW.path}): days 2026-02-04 to 2026-03-05: HTTP 422" in text
        assert set(materialized(result)) == {"usage_mtu_daily"}
        assert VOLUME not in project.tables()
        project.sandbox.intercept = None
        load(project)
        assert_same(VOLUME, project.rows(VOLUME), served(project))


@pytest.mark.parametrize(
    ("status", "page"), [(500, 1), (403, 1), (422, 2)], ids=["fault", "forbidden", "second page"]
)
def test_any_other_refusal_of_an_older_window_fails(start: Start, status: int, page: int) -> None:
    """Prevents that a fault of one window passes for days which the API has forgotten."""
    project = start(TINY)
    with at(project, NOW):
        project.sandbox.intercept = lambda info: (
            Reply(status)
            if info.params.get("startTime", "never") < "2026-01-01"
            and ("pagination.cursor" in info.params) == (page > 1)
            else None
        )
        names = (VOLUME, "usage_mtu_daily")
        result = project.materialize(*names, api={"retries": 0, "page_size": 5})
        said = f"{VOLUME} (GET {ROW.path}): days 2025-12-06 to 2026-01-04: HTTP {status}"
        assert said in failure_of(result)
        assert set(materialized(result)) == {"usage_mtu_daily"}


def test_a_reload_asks_for_the_days_of_the_months(start: Start) -> None:
    """Prevents that start_month and end_month are ignored, or fail where the API has forgotten."""
    project = start(TINY)
    with at(project, NOW):
        load(project)
        project.sandbox.clear()
        source = served(project)[0]["source_id"]
        key = (source, "identify", "", "2026-02-10T00:00:00Z")
        project.sandbox.workspace.restate(VOLUME, key, {"count": 2**53 + 1})
        load(project, config={"start_month": "2026-02", "end_month": "2026-02"})
        assert asked(project) == [("2026-02-01", "2026-03-01T00:00")]
        assert_same(VOLUME, project.rows(VOLUME), served(project))
        assert 2**53 + 1 in {row["count"] for row in project.rows(VOLUME)}
        before = project.rows(VOLUME)
        refuse(project, "2025-12-06")
        months = {"start_month": "2025-01", "end_month": "2025-01"}
        result, log = run_logged(project, VOLUME, config=months)
        assert failure_of(result) == ""
        assert "the API does not give the days up to 2025-01-31 any more" in log
        assert project.rows(VOLUME) == before
    with at(project, NOW + timedelta(days=1)):
        load(project)
        assert [days for days, _ in asked(project)] == ["2026-03-03"]


@SERVERS
def test_parts_of_the_key_that_are_missing_are_empty_text(
    build: Callable[[str], Project], kind: str
) -> None:
    """Prevents that calls without a name fail the asset, or come anew with every load."""
    project = build(kind)
    point = {"time": "2026-03-04T00:00:00.000Z", "count": 3}
    entries = [
        {"total": 9, "series": [point]},
        {"source": {"id": "s"}, "eventType": "track", "total": 9, "series": [point]},
        {"source": None, "eventType": "page", "eventName": None, "series": [point]},
        {"source": {"id": "t"}, "eventName": "Order Started", "series": []},
    ]
    body = orjson.dumps({"data": {"result": entries, "pagination": {"current": "MA=="}}})
    project.sandbox.intercept = lambda info: (
        EMPTY if info.params.get("startTime", "9") < "2026-02-04" else Reply(body=body)
    )
    with at(project, NOW):
        for _ in range(2):
            load(project)
    keys = ("source_id", "source_slug", "event_type", "event_name", "time", "count")
    day = utc(2026, 3, 4, 0)
    assert [tuple(row[key] for key in keys) for row in project.rows(VOLUME)] == [
        ("", None, "", "", day, 3),
        ("", None, "page", "", day, 3),
        ("s", None, "track", "", day, 3),
    ]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"total": 1}, "row 0, field 'series': expected a list, got null"),
        ({"series": {"time": "x"}}, "row 0, field 'series': expected a list, got an object"),
        ({"series": [7]}, "row 0 is a number, not an object"),
        ({"source": "s", "series": []}, "row 0, field 'source': expected an object, got text"),
        ({"series": [{"time": "soon", "count": 1}]}, "row 0, column 'time': expected timestamp"),
        ({"series": [{"time": "2026-03-04", "count": 1.5}]}, "row 0, column 'count': expected"),
        ({"series": [{"count": 1}]}, "row 0 has no 'time', which is part of the key"),
    ],
)
def test_an_odd_entry_fails_its_asset_alone(start: Start, entry: Row, said: str) -> None:
    """Prevents that an answer of another shape ends in a traceback, or in wrong rows."""
    project = start(TINY)
    body = orjson.dumps({"data": {"result": [entry], "pagination": {"current": "MA=="}}})
    project.sandbox.intercept = lambda info: Reply(body=body) if info.path == ROW.path else None
    result = project.materialize(VOLUME, "usage_mtu_daily")
    assert said in failure_of(result)
    assert set(materialized(result)) == {"usage_mtu_daily"}


def test_a_failed_load_moves_nothing(start: Start) -> None:
    """Prevents a state that runs ahead of the rows."""
    project = start(TINY)
    with at(project, NOW):
        load(project)
    with at(project, NOW + timedelta(days=9)):
        project.sandbox.intercept = lambda _: Reply(500)
        assert "HTTP 500" in failure_of(project.materialize(VOLUME, api={"retries": 0}))
    project.sandbox.intercept = None
    with at(project, NOW + timedelta(days=10)):
        load(project)
        assert [days for days, _ in asked(project)] == ["2026-03-03"]


def test_a_reload_in_the_first_minute_of_a_month_asks_for_no_window(start: Start) -> None:
    """Prevents a request without a window, which the API would refuse."""
    project = start(TINY)
    with at(project, utc(2026, 3, 1, 0, 0)):
        load(project, config={"start_month": "2026-03"})
        assert [info.path for info in project.sandbox.requests] == ["/"]
        assert project.rows(VOLUME) == []


def test_references_say_nothing_of_calls_without_a_source(start: Start) -> None:
    """Prevents a warning about a source that nobody named; one that does not exist still shows."""
    project = start(TINY)
    point = {"time": "2026-03-04T00:00:00.000Z", "count": 3}
    entries: list[dict[str, Any]] = [{"total": 3, "series": [point]}]

    def answer(info: RequestInfo) -> Reply | None:
        if info.path != ROW.path:
            return None
        if info.params["startTime"] < "2026-02-04":
            return EMPTY
        return Reply(
            body=orjson.dumps({"data": {"result": entries, "pagination": {"current": "MA=="}}})
        )

    project.sandbox.intercept = answer
    with at(project, NOW):
        verdicts = []
        for source in (None, "gone"):
            entries.append({"source": {"id": source}, "series": [point]})
            result = project.materialize(VOLUME, "sources")
            [check] = [
                check
                for check in result.get_asset_check_evaluations()
                if check.asset_key.path == [VOLUME] and check.check_name == "references_hold"
            ]
            verdicts.append((check.passed, "gone" in str(check.description)))
    assert verdicts == [(True, False), (False, True)]


@pytest.mark.heavy
def test_sixty_a_minute_are_kept(start: Start) -> None:
    """Prevents refusals of the volume, whose limit is a tenth of the usual one."""
    options = Options(counts={"sources": 3, "events_volume": 9}, rate_limits=True)
    project = start(options)
    load(project, api={"page_size": 1, "retries": 0})
    asked_for = [info for info in project.sandbox.requests if info.path == ROW.path]
    assert len(asked_for) == 3 * 27
    assert all(info.status == 200 for info in asked_for)
    moments = sorted(info.arrived_at for info in asked_for)
    assert all(late - early > 59.9 for early, late in zip(moments, moments[60:], strict=False))
    assert_same(VOLUME, project.rows(VOLUME), served(project))
