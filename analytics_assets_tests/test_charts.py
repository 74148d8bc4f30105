"""Pictures show what the answers say, whatever names there are."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta, timezone
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_assets.orchestration.charts import LIMIT, in_print
from analytics_assets.orchestration.report_charts import DAYS, LONGEST_NAME, SOURCES, report_chart
from analytics_assets_tests.test_metadata import picture

pytestmark = pytest.mark.unit
TODAY = date(2026, 11, 26)
SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: bytes) -> ElementTree.Element:
    """Parse a picture, which must be well-formed and run nothing."""
    root = ElementTree.fromstring(svg)  # noqa: S314 - made by the code under test
    assert not list(root.iter(f"{SVG}script"))
    return root


def shapes(svg: bytes) -> list[ElementTree.Element]:
    """Return the bars and areas of a picture, chart by chart and series by series."""
    groups = (each for each in parsed(svg).iter(f"{SVG}g"))
    series = [each for each in groups if "series" in each.get("class", "").split()]
    found = (shape for each in series for shape in each.iter())
    kinds = (f"{SVG}rect", f"{SVG}path")
    of_series = (shape for shape in found if "reactive" in shape.get("class", "").split())
    return [s for s in of_series if s.tag in kinds and "nofill" not in s.get("class", "").split()]


def texts(svg: bytes) -> set[str]:
    """Return what is written in a picture."""
    return {"".join(each.itertext()) for each in parsed(svg).iter(f"{SVG}text")}


def drawn(name: str, *rows: dict[str, Any]) -> bytes:
    """Draw rows of a report."""
    chart = report_chart(name, pa.Table.from_pylist(list(rows)), TODAY)
    assert chart
    return picture(str(chart.value))


def driver(rank: int, name: str | None, used: int, before: int | None) -> dict[str, Any]:
    """Return a row of what drives cost."""
    row = {"meter": "api_calls", "rank": rank, "source_id": f"id{rank}"}
    return {**row, "source_name": name, "used": used, "used_before": before}


def forecast(meter: str, **others: Any) -> dict[str, Any]:
    """Return a row of the forecast."""
    figures = {"last_month_same_day": 100, "month_to_date": 150, "last_month": 200}
    ends = {"forecast_month_end": 300, "forecast_low": 250, "forecast_high": 350}
    month = {"month": TODAY.replace(day=1), "meter": meter, "plan_limit": None}
    return {**month, **figures, **ends, **others}


def test_bars_are_as_long_as_the_figures() -> None:
    """Prevents bars of another order or scale than the rows, and more than can be told apart."""
    rows = [driver(n, f"source {n}", 1000 - 40 * n, 40 * n) for n in range(1, 21)]
    svg = drawn("cost_drivers", *rows)
    lengths = [float(bar.get("width", "0")) for bar in shapes(svg)]
    assert len(lengths) == 2 * SOURCES
    shown = rows[:SOURCES][::-1]
    figures = [row["used"] for row in shown] + [row["used_before"] for row in shown]
    scale = max(lengths) / max(figures)
    assert lengths == pytest.approx([scale * figure for figure in figures], rel=0.01)
    assert {row["source_name"] for row in shown} <= texts(svg)


def test_the_forecast_shows_its_meters_and_the_plan() -> None:
    """Prevents a plan that is passed without anybody seeing it, and bars of the wrong height."""
    svg = drawn("month_forecast", forecast("api_calls", plan_limit=450), forecast("mtu"))
    heights = [float(bar.get("height", "0")) for bar in shapes(svg)]
    calls, mtu = heights[:4], heights[4:]
    assert all(float(bar.get("y", "-1")) > 0 for bar in shapes(svg))
    for four in (calls, mtu):
        assert [height / four[0] for height in four] == pytest.approx([1, 2, 1.5, 3], rel=0.01)
    assert {"November 2026: API calls", "November 2026: MTU", "plan 450"} <= texts(svg)
    assert calls[0] < mtu[0]  # there the plan lies above all bars
    ranges = [each.get("d", "") for each in parsed(svg).iter(f"{SVG}path")]
    ends = [text for text in ranges if text.count("L") > 4]
    assert len(ends) == 2
    assert all(float(number) > 0 for end in ends for number in re.findall(r"-?[\d.]+", end))


@given(plan=st.integers(1, 10**15), used=st.none() | st.integers(0, 10**15))
def test_any_figures_can_be_drawn(plan: int, used: int | None) -> None:
    """Prevents a page without a picture in the first month of a workspace, or one of a giant."""
    names = ("last_month_same_day", "last_month", "forecast_high")  # low is there on the first day
    row = forecast("mtu", plan_limit=plan, month_to_date=used, **dict.fromkeys(names))
    svg = drawn("month_forecast", row)
    assert len(shapes(svg)) == 4
    assert any(text.startswith("plan ") for text in texts(svg))


@given(used=st.integers(0, 10**9))
def test_without_a_plan_there_is_no_line_for_it(used: int) -> None:
    """Prevents a limit that nobody has set, drawn at some round number."""
    svg = drawn("month_forecast", forecast("mtu", month_to_date=used, last_month=used))
    assert LIMIT not in svg.decode()
    assert LIMIT in drawn("month_forecast", forecast("mtu", plan_limit=used + 1)).decode()


@given(name=st.text(min_size=1))
def test_any_name_can_be_drawn(name: str) -> None:
    """Prevents a picture that no browser shows because of a character in somebody's source."""
    svg = drawn("cost_drivers", driver(1, name, 2, None))
    shown = in_print(name, LONGEST_NAME) or "id1"
    assert shown in {" ".join(text.split()) for text in texts(svg)}


def test_what_can_be_shown_of_a_name_is() -> None:
    """Prevents names that differ from looking the same, and letters that fall apart."""
    family = "\N{MAN}\u200d\N{WOMAN}"
    assert in_print(f" a\tb\n{family}\0\x1b\ufffe\xa0c ", 99) == f"a b {family} c"
    assert in_print("abc", 2) == "ab"


def test_what_has_no_name_to_show_goes_by_its_id() -> None:
    """Prevents a bar that nobody can tell whose it is."""
    assert "id1" in texts(drawn("cost_drivers", driver(1, "\0\x1b", 2, None)))
    assert "id2" in texts(drawn("cost_drivers", driver(2, None, 2, None)))


@pytest.mark.parametrize(
    ("report", "row"),
    [
        ("cost_drivers", driver(1, "one", 2, 3) | {"meter": "mtu"}),
        (
            "changes",
            {
                "told_by": "audit trail",
                "thing_kind": "source",
                "moment": datetime(2026, 1, 1, tzinfo=timezone.utc),
            },
        ),
    ],
)
def test_nothing_to_show_has_no_picture(report: str, row: dict[str, Any]) -> None:
    """Prevents a large and empty frame at the top of a page."""
    assert report_chart(report, pa.Table.from_pylist([row]), TODAY) is None


def test_changes_are_counted_from_zero() -> None:
    """Prevents that the most frequent kind looks like the rarest, as only its excess is drawn."""
    moments = [datetime(2026, 11, 26, tzinfo=timezone.utc) - timedelta(days=n) for n in range(30)]
    rows = [
        {"told_by": "audit trail", "thing_kind": "source", "moment": moment}
        for moment in moments
        for _ in range(20)
    ]
    svg = drawn("changes", *rows, rows[0])
    assert "0" in texts(svg)
    assert "others" not in texts(svg)


def test_changes_are_drawn_day_by_day() -> None:
    """Prevents that kinds which are rare, or changes of long ago, take the place of others."""
    moments = [datetime(2026, 11, 26, tzinfo=timezone.utc) - timedelta(days=n) for n in (0, 1, 90)]
    rows = [
        {"told_by": told_by, "thing_kind": kind, "moment": moment}
        for told_by in ("audit trail", "loads")
        for moment in moments
        for kind in (None, "tracking_plan", *"abcdefgh")
    ]
    svg = drawn("changes", *rows)
    assert len(shapes(svg)) == 6
    assert {"other", "tracking plan", "others", "26 Nov", "28 Oct"} & texts(svg)
    assert f"{TODAY - timedelta(days=DAYS - 1):%d %b}" in texts(svg)
