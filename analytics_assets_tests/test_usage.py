"""Usage months against the sandbox: they heal themselves, reload on request and are never short."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import orjson
import pytest
from dagster import AssetCheckSeverity, ExecuteInProcessResult

from analytics_assets.sandbox import Options, Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.months import month_range, shift
from analytics_assets_tests.harness import Project, failure_of, materialized
from analytics_assets_tests.timetravel import USAGE, assert_usage, at, months_asked, start_at, utc

Start = Callable[..., Project]
TINY = Options(counts={"sources": 3, "audit_events": 40})
CALLS, SOURCES = "usage_api_calls_daily", "usage_api_calls_sources_daily"


def load(project: Project, *names: str, **options: Any) -> None:
    """Materialize (all usage if nothing is named) and expect success."""
    assert failure_of(project.materialize(*(names or USAGE), **options)) == ""


def test_a_run_a_day_over_the_end_of_a_month(start: Start) -> None:
    """Prevents wrong days around the end of a month, and daily runs that read the whole history."""
    project, now = start(TINY), utc(2026, 1, 26)
    with at(project, now):
        load(project)
        expected = [f"{m:%Y-%m}" for m in month_range(date(2025, 1, 1), now.date())]
        assert all(months_asked(project, name) == expected for name in USAGE)
    for day in range(1, 11):
        now = utc(2026, 1, 26, hour=(5 * day) % 24) + timedelta(days=day)
        with at(project, now):
            load(project)
            expected = ["2025-12", "2026-01"] if now.month == 1 else ["2026-01", "2026-02"]
            assert all(months_asked(project, name) == expected for name in USAGE)
            assert project.sandbox.count() == len(USAGE) * 2 + project.sandbox.count("/")
            assert_usage(project, date(2025, 1, 1))


def test_seventy_days_without_a_run_leave_no_hole(start: Start) -> None:
    """Prevents a standstill from leaving the rest of its first month, or whole months, unread."""
    project = start(TINY, ANALYTICS_USAGE_START="2025-10")
    with at(project, utc(2025, 12, 20, 23, 50)):
        load(project)
    with at(project, utc(2026, 2, 28)):
        load(project)
        assert months_asked(project, CALLS) == ["2025-11", "2025-12", "2026-01", "2026-02"]
        assert_usage(project, date(2025, 10, 1))


def test_an_earlier_start_is_fetched_once(start: Start) -> None:
    """Prevents an earlier ANALYTICS_USAGE_START from being ignored, or paid for on every run."""
    project = start(TINY, ANALYTICS_USAGE_START="2026-02")
    with at(project, utc(2026, 3, 5)):
        load(project)
        assert months_asked(project, CALLS) == ["2026-02", "2026-03"]
    project.env["ANALYTICS_USAGE_START"] = "2025-11"
    with at(project, utc(2026, 3, 6)):
        load(project, SOURCES)
        assert months_asked(project, SOURCES) == [
            "2025-11", "2025-12", "2026-01", "2026-02", "2026-03",
        ]  # fmt: skip
        load(project, CALLS)
        assert_usage(project, date(2025, 11, 1), [CALLS, SOURCES])
    with at(project, utc(2026, 3, 7)):
        load(project)
        assert (
            months_asked(project, SOURCES) == months_asked(project, CALLS) == ["2026-02", "2026-03"]
        )
        assert_usage(project, date(2025, 11, 1))


def test_a_new_machine_goes_on_where_the_old_one_stopped(start: Start, tmp_path: Path) -> None:
    """Prevents state that is left behind in a working folder when only the database moves."""
    project = start_at(start, utc(2026, 3, 5), TINY, ANALYTICS_USAGE_START="2025-12")
    with at(project, utc(2026, 3, 5)):
        load(project, *USAGE, "audit_events")
    other = tmp_path / "other machine"
    other.mkdir()
    shutil.copy(project.database, other / "moved.duckdb")
    (other / "tmp").mkdir()
    env = {
        **project.env,
        "ANALYTICS_DUCKDB_PATH": str(other / "moved.duckdb"),
        "TMPDIR": str(other / "tmp"),
        "HOME": str(other),
    }
    moved = replace(project, folder=other, env=env)
    with at(moved, utc(2026, 3, 6)):
        load(moved, *USAGE, "audit_events")
        assert all(months_asked(moved, name) == ["2026-02", "2026-03"] for name in USAGE)
        assert moved.sandbox.count("/audit-events") == 1
        assert "startTime" in next(
            i.params for i in moved.sandbox.requests if i.path == "/audit-events"
        )
        assert_usage(moved, date(2025, 12, 1))


def test_a_failed_month_moves_nothing(start: Start) -> None:
    """Prevents state that runs ahead of the rows: one month fails, so its resource stays behind."""
    project = start(TINY, ANALYTICS_USAGE_START="2026-01")

    def break_february(info: RequestInfo) -> Reply | None:
        bad = info.path.endswith("/api-calls/daily") and info.params["period"] == "2026-02-01"
        return Reply(500) if bad else None

    with at(project, utc(2026, 3, 5)):
        project.sandbox.intercept = break_february
        result = project.materialize(*USAGE, api={"retries": 0})
        assert CALLS in failure_of(result)
        assert "month 2026-02" in failure_of(result)
        assert set(materialized(result)) == set(USAGE) - {CALLS}
        assert CALLS not in project.tables()
    project.sandbox.intercept = None
    with at(project, utc(2026, 3, 6)):
        load(project)
        assert months_asked(project, CALLS) == ["2026-01", "2026-02", "2026-03"]
        assert months_asked(project, SOURCES) == ["2026-02", "2026-03"]
        assert_usage(project, date(2026, 1, 1))


def test_a_month_that_is_refused_is_no_token_that_is(start: Start) -> None:
    """Prevents that one looks for another token where the API has served eleven months with it."""
    project = start(TINY, ANALYTICS_USAGE_START=f"{utc_month(-2):%Y-%m}")
    project.sandbox.intercept = lambda info: (
        Reply(403, b"{}") if info.params.get("period") == f"{utc_month(-1):%Y-%m}-01" else None
    )
    text = failure_of(project.materialize(CALLS))
    assert f"month {utc_month(-1):%Y-%m}: HTTP 403" in text
    assert "does not accept the token" not in text


def test_reload_from_the_command_line(start: Start) -> None:
    """Prevents the example of the README from going stale: exactly its months are reloaded."""
    project = start(TINY, ANALYTICS_USAGE_START=f"{utc_month(-4):%Y-%m}")
    load(project)
    day = f"{utc_month(-3):%Y-%m}-11T00:00:00.000Z"
    project.sandbox.workspace.restate(CALLS, day, {"apiCalls": "123456789"})
    project.sandbox.clear()
    months = {"start_month": f"{utc_month(-3):%Y-%m}", "end_month": f"{utc_month(-2):%Y-%m}"}
    config = json.dumps({"ops": {"segment": {"config": months}}})
    done = project.run("group:usage", "--config-json", config)
    assert done.returncode == 0, done.stdout[-3000:]
    for name in USAGE:
        assert months_asked(project, name) == list(months.values())
    assert_usage(project, utc_month(-4))
    project.sandbox.clear()
    load(project, CALLS)
    assert months_asked(project, CALLS) == [f"{utc_month(-1):%Y-%m}", f"{utc_month(0):%Y-%m}"]


def utc_month(by: int) -> date:
    """Return the month ``by`` months from the real current one, for tests of the command line."""
    return shift(datetime.now(timezone.utc).date().replace(day=1), by)


@pytest.mark.parametrize(
    ("config", "asked"),
    [
        ({"start_month": "2026-02"}, ["2026-02", "2026-03"]),
        ({"end_month": "2025-06"}, ["2025-06"]),
        ({"start_month": "2025-12", "end_month": "2026-01"}, ["2025-12", "2026-01"]),
    ],
)
def test_reload_asks_for_the_named_months_only(
    start: Start, config: Mapping[str, str], asked: list[str]
) -> None:
    """Prevents a reload of too much, or one that makes the next run skip or repeat months."""
    project = start(TINY, ANALYTICS_USAGE_START="2025-12")
    with at(project, utc(2026, 3, 5)):
        load(project, CALLS)
        project.sandbox.clear()
        load(project, CALLS, config=config)
        assert months_asked(project, CALLS) == asked
    with at(project, utc(2026, 3, 6)):
        load(project, CALLS)
        assert months_asked(project, CALLS) == ["2026-02", "2026-03"]


@pytest.mark.parametrize(
    ("config", "env", "said"),
    [
        ({"start_month": "2026-03", "end_month": "2026-01"}, {}, "start_month 2026-03 lies after"),
        ({"start_month": "2026-04"}, {}, "start_month is 2026-04, which lies in the future"),
        ({"end_month": "2030-01"}, {}, "end_month is 2030-01, which lies in the future"),
        ({"start_month": "soon"}, {}, "start_month is 'soon', which is not a month"),
        ({"end_month": "2026-13"}, {}, "end_month is '2026-13', which is not a month"),
        ({"end_month": "1026-01"}, {}, "end_month is '1026-01', which lies before anything"),
        ({}, {"ANALYTICS_USAGE_START": "2026-04"}, "ANALYTICS_USAGE_START is 2026-04, which lies"),
        (
            {},
            {"ANALYTICS_USAGE_START": "a year"},
            "ANALYTICS_USAGE_START is 'a year', which is not",
        ),
    ],
)
def test_bad_months_are_refused_before_any_request(
    start: Start, config: Mapping[str, str], env: Mapping[str, str], said: str
) -> None:
    """Prevents a slip of the pen from reaching the API, or from ending in a traceback."""
    project = start(TINY, **env)
    with at(project, utc(2026, 3, 5)):
        failed = failure_of(project.materialize(*USAGE, config=config))
    assert failed.startswith(said)
    assert failed.endswith(".")
    assert "\n" not in failed
    assert project.sandbox.requests == []
    assert not project.database.exists()


@pytest.mark.parametrize(
    "message", ['"period" is too far back', '"period" is outside of what this account may see']
)
def test_a_refused_month_is_named_and_not_asked_for_again(start: Start, message: str) -> None:
    """Prevents retries that cannot help, and a failure that does not say which month it was."""
    project = start(TINY, ANALYTICS_USAGE_START="2026-01")

    def refuse(info: RequestInfo) -> Reply | None:
        if info.path != BY_NAME[CALLS].path or info.params["period"] != "2026-01-01":
            return None
        error = {"type": "input-validation", "message": message, "field": "period"}
        return Reply(422, orjson.dumps({"errors": [error]}))

    project.sandbox.intercept = refuse
    with at(project, utc(2026, 3, 5)):
        result = project.materialize(*USAGE)
    text = failure_of(result)
    assert CALLS in text
    assert "month 2026-01" in text
    assert message.replace('"', "'") in text
    refused = [info for info in project.sandbox.requests if info.status == 422]
    assert len(refused) == 1
    assert set(materialized(result)) == set(USAGE) - {CALLS}


def warning(result: ExecuteInProcessResult, name: str) -> str:
    """Return what the check of a whole reading says, empty if it passed."""
    [one] = [
        one
        for one in result.get_asset_check_evaluations()
        if one.check_name == "read_whole" and one.asset_key.to_user_string() == name
    ]
    assert one.severity == AssetCheckSeverity.WARN
    return "" if one.passed else str(one.description)


def months_served(project: Project, served: Callable[[str], str | None]) -> None:
    """Answer for a month of calls with another month; with ``None`` with no rows at all."""

    def intercept(info: RequestInfo) -> Reply | None:
        if info.path != BY_NAME[CALLS].path:
            return None
        month = served(info.params["period"][:7])
        rows = project.sandbox.workspace.usage(CALLS, f"{month}-01") if month else []
        body = {
            "data": {
                BY_NAME[CALLS].data_selector.rpartition(".")[2]: rows,
                "pagination": {"current": "MA=="},
            }
        }
        return Reply(200, orjson.dumps(body))

    project.sandbox.intercept = intercept


def test_an_api_that_does_not_heed_the_month_fails(start: Start) -> None:
    """Prevents holes that count as loaded: thirteen times the current month, and a green run."""
    project = start(TINY, ANALYTICS_USAGE_START="2026-01")
    months_served(project, lambda _: "2026-03")
    with at(project, utc(2026, 3, 5)):
        result = project.materialize("group:usage")
        assert re.search(  # whichever month came first
            rf"{CALLS} \(GET /usage/api-calls/daily\): month 2026-0[12]: a row of 2026-03-01 came",
            failure_of(result),
        )
        assert set(materialized(result)) - {"events_volume"} == set(USAGE) - {CALLS}
        project.sandbox.intercept = None
        load(project, CALLS)
        assert_usage(project, date(2026, 1, 1))


def test_an_empty_past_month_is_asked_for_until_it_comes(start: Start) -> None:
    """Prevents a hole for good after the API has served past months empty for a moment."""
    project = start(TINY, ANALYTICS_USAGE_START="2025-10")
    months_served(project, lambda month: None if month in ("2025-11", "2026-01") else month)
    with at(project, utc(2026, 3, 5)):
        result = project.materialize(CALLS)
        said = "no rows came for 2025-11, 2026-01, so the next run asks again"
        assert warning(result, CALLS).startswith(said)
    months_served(project, lambda month: None if month == "2025-11" else month)
    with at(project, utc(2026, 3, 6)):
        result = project.materialize(CALLS)
        assert months_asked(project, CALLS) == ["2025-11", "2026-01", "2026-02", "2026-03"]
        assert "no rows came for 2025-11, so" in warning(result, CALLS)
    project.sandbox.intercept = None
    with at(project, utc(2026, 3, 7)):
        assert warning(project.materialize(CALLS), CALLS) == ""
        assert months_asked(project, CALLS) == ["2025-11", "2026-02", "2026-03"]
        assert_usage(project, date(2025, 10, 1), [CALLS])
    with at(project, utc(2026, 3, 8)):
        load(project, CALLS)
        assert months_asked(project, CALLS) == ["2026-02", "2026-03"]


def test_a_first_load_of_nothing_is_asked_for_again(start: Start) -> None:
    """Prevents that thirteen empty months count as loaded, and are never asked for again."""
    project = start(TINY, ANALYTICS_USAGE_START="2025-12")
    months_served(project, lambda _: None)
    with at(project, utc(2026, 3, 5)):
        result = project.materialize(CALLS)
        assert "no rows came for 2025-12, 2026-01, 2026-02, so" in warning(result, CALLS)
    project.sandbox.intercept = None
    with at(project, utc(2026, 3, 6)):
        load(project, CALLS)
        assert_usage(project, date(2025, 12, 1), [CALLS])


def test_a_current_month_that_has_not_begun_costs_no_other(start: Start) -> None:
    """Prevents that the first hours of a month, where the API is behind, cost twelve others."""
    project = start(TINY, ANALYTICS_USAGE_START="2026-01")

    def refuse(info: RequestInfo) -> Reply | None:
        late = info.path == BY_NAME[CALLS].path and info.params["period"] == "2026-04-01"
        return Reply(422, orjson.dumps({"errors": [{"message": "not yet"}]})) if late else None

    with at(project, utc(2026, 4, 1, 1)):
        project.sandbox.intercept = refuse
        result = project.materialize("group:usage")
        assert failure_of(result) == ""
        said = warning(result, CALLS)
        assert said.startswith("month 2026-04 is left out and asked for again: HTTP 422")
        assert_usage(project, date(2026, 1, 1), [CALLS], last=date(2026, 3, 31))
    project.sandbox.intercept = None
    with at(project, utc(2026, 4, 2)):
        assert warning(project.materialize(CALLS), CALLS) == ""
        assert_usage(project, date(2026, 1, 1), [CALLS])


def test_a_month_shorter_than_it_says_is_asked_for_again(start: Start) -> None:
    """Prevents that a month which came cut short counts as loaded."""
    project = start(TINY, ANALYTICS_USAGE_START="2025-12")

    def cut(info: RequestInfo) -> Reply | None:
        if info.path != BY_NAME[CALLS].path or info.params["period"] != "2025-12-01":
            return None
        rows = project.sandbox.workspace.usage(CALLS, "2025-12-01")[:20]
        data = {BY_NAME[CALLS].data_selector.rpartition(".")[2]: rows}
        pagination = {"pagination": {"current": "a", "totalEntries": 31}}
        return Reply(200, orjson.dumps({"data": {**data, **pagination}}))

    project.sandbox.intercept = cut
    with at(project, utc(2026, 3, 5)):
        said = warning(project.materialize(CALLS), CALLS)
        assert said.startswith("month 2025-12: 20 rows came, but totalEntries says 31, so the next")
    project.sandbox.intercept = None
    with at(project, utc(2026, 3, 6)):
        load(project, CALLS)
        assert_usage(project, date(2025, 12, 1), [CALLS])


def test_daily_figures_with_missing_and_restated_days(start: Start) -> None:
    """Prevents figures that do not add up to the month when a day is missing or was corrected.

    Small pages cut months and sources anywhere; three sources keep the series apart.
    """
    project = start(TINY, ANALYTICS_USAGE_START="2026-01")
    workspace = project.sandbox.workspace
    with at(project, utc(2026, 2, 20)):
        load(project, api={"page_size": 7})
        assert_usage(project, date(2026, 1, 1))
        source = str(workspace.usage(SOURCES, "2026-01-01")[0]["sourceId"])
        workspace.restate(CALLS, "2026-02-03T00:00:00.000Z", {"apiCalls": "1000001"})
        workspace.restate(SOURCES, (source, "2026-02-01T00:00:00.000Z"), {"apiCalls": "5"})
        workspace.restate(SOURCES, (source, "2026-01-31T00:00:00.000Z"), {"apiCalls": "9" * 12})
        load(project, api={"page_size": 7})
        assert_usage(project, date(2026, 1, 1))
        assert sums(project, CALLS) == last_counters(project, CALLS)
        assert sums(project, SOURCES) == last_counters(project, SOURCES)


def test_a_day_the_api_has_lost_is_carried_by_the_next(start: Start) -> None:
    """Prevents figures that leave out a missing day, also the first of a month."""
    project = start(TINY, ANALYTICS_USAGE_START="2026-01")
    workspace = project.sandbox.workspace
    for name in USAGE:
        workspace.drop_day(name, "2026-01-10T00:00:00.000Z")
        workspace.drop_day(name, "2026-02-01T00:00:00.000Z")
        workspace.drop_day(name, "2026-02-02T00:00:00.000Z")
    with at(project, utc(2026, 2, 20)):
        load(project, api={"page_size": 11})
        assert_usage(project, date(2026, 1, 1))
        for name in USAGE:
            assert sums(project, name) == last_counters(project, name)


def sums(project: Project, name: str) -> dict[tuple[Any, ...], list[int]]:
    """Add up each source's daily figures by month."""
    found: dict[tuple[Any, ...], list[int]] = {}
    for row in project.rows(name):
        figures = [row[column.name] for column in BY_NAME[name].daily_columns]
        key = (row["timestamp"].month, row.get("source_id"))
        found[key] = [
            a + b for a, b in zip(found.get(key, [0] * len(figures)), figures, strict=True)
        ]
    return found


def last_counters(project: Project, name: str) -> dict[tuple[Any, ...], list[int]]:
    """Return each source's counters on its last day of each month."""
    return {
        (row["timestamp"].month, row.get("source_id")): [
            row[c.name] for c in BY_NAME[name].counters
        ]
        for row in sorted(project.rows(name), key=lambda row: row["timestamp"])
    }


def test_counts_beyond_the_precision_of_a_float_arrive_exact(start: Start) -> None:
    """Prevents counts from passing through a float, which is exact to 2**53 only."""
    project = start(TINY, ANALYTICS_USAGE_START="2026-02")
    huge = 2**53 + 1
    for day, count in enumerate((huge, huge + 2, 2**63 - 1), 1):
        stamp = f"2026-02-0{day}T00:00:00.000Z"
        project.sandbox.workspace.restate(CALLS, stamp, {"apiCalls": str(count)})
    with at(project, utc(2026, 2, 3)):
        load(project, CALLS)
    rows = [(row["api_calls"], row["daily_api_calls"]) for row in project.rows(CALLS)]
    assert rows == [(huge, huge), (huge + 2, 2), (2**63 - 1, 2**63 - 1 - huge - 2)]


@pytest.mark.parametrize("count", ["12x", "1.5", "", str(2**63), True, {"n": 1}])
def test_a_count_that_is_no_number_fails_its_asset_alone(start: Start, count: object) -> None:
    """Prevents a bad count from being stored as null or zero, or from costing the other assets."""
    project = start(TINY, ANALYTICS_USAGE_START="2026-01")
    project.sandbox.workspace.restate(CALLS, "2026-02-03T00:00:00.000Z", {"apiCalls": count})
    with at(project, utc(2026, 2, 20)):
        result = project.materialize(*USAGE)
    text = failure_of(result)
    assert CALLS in text
    assert "month 2026-02: row 2, column 'api_calls': expected bigint" in text
    assert set(materialized(result)) == set(USAGE) - {CALLS}
    assert CALLS not in project.tables()


@pytest.mark.parametrize("missing", [None, "absent"])
def test_a_missing_count_is_carried_by_the_next_day(start: Start, missing: str | None) -> None:
    """Prevents one null counter from making the figure of the following day null as well."""
    project = start(TINY, ANALYTICS_USAGE_START="2026-02")

    def without_count(info: RequestInfo) -> Reply | None:
        if "period" not in info.params:
            return None
        rows = project.sandbox.workspace.usage(CALLS, info.params["period"])
        if missing is None:
            rows[4]["apiCalls"] = rows[0]["apiCalls"] = None
        else:
            del rows[4]["apiCalls"], rows[0]["apiCalls"]
        body = {
            "data": {
                BY_NAME[CALLS].data_selector.rpartition(".")[2]: rows,
                "pagination": {"current": "MA=="},
            }
        }
        return Reply(200, orjson.dumps(body))

    project.sandbox.intercept = without_count
    with at(project, utc(2026, 2, 20)):
        load(project, CALLS)
    rows = project.rows(CALLS)
    assert [n for n, row in enumerate(rows) if row["daily_api_calls"] is None] == [0, 4]
    assert sum(row["daily_api_calls"] or 0 for row in rows) == rows[-1]["api_calls"]
