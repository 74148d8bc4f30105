"""Pictures of reports, where one says more than the rows do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from math import ceil, floor, log10
from typing import TYPE_CHECKING, Any, Final

from dagster import MarkdownMetadataValue

from analytics_assets.orchestration.charts import (
    GUIDE,
    GUIDES,
    KINDS,
    LIMIT,
    PERIOD_BEFORE,
    THIS_PERIOD,
    WIDTH,
    as_picture,
    in_print,
    options,
    short_number,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from pygal.graph.bar import Bar

Row = Mapping[str, Any]
METERS: Final = {"api_calls": "API calls", "mtu": "MTU"}
DAYS: Final = 30
SOURCES: Final = 10
LONGEST_NAME: Final = 28
NEAR: Final = 0.1
"""Part of the height within which the labels of two lines would lie on each other."""


def report_chart(name: str, answer: pa.Table, today: date) -> MarkdownMetadataValue | None:
    """Draw the answer to a report, ``None`` if it has no picture or nothing to show.

    Args:
        name: the report.
        answer: its rows.
        today: the current day.
    """
    draw = _CHARTS.get(name)
    rows = answer.to_pylist() if draw else []
    return draw(rows, today) if draw and rows else None


def _month_forecast(rows: Sequence[Row], _: date) -> MarkdownMetadataValue:
    """Month to date beside the same days of last month, the forecast with its range, the plan."""
    charts = [_of_meter(row, WIDTH // len(rows)) for row in rows]
    return as_picture(charts, "Month to date and forecast, with its range and the plan")


def _of_meter(row: Row, width: int) -> Bar:
    from pygal import Bar

    plan = row["plan_limit"] or 0
    chart = Bar(
        **options(
            (PERIOD_BEFORE, THIS_PERIOD),
            major=LIMIT if plan else GUIDE,
            width=width,
            title=f"{row['month']:%B %Y}: {METERS.get(row['meter'], row['meter'])}",
            legend_at_bottom=True,
            legend_at_bottom_columns=2,
        )
    )
    forecast = {"value": row["forecast_month_end"] or 0}
    if None not in (row["forecast_low"], row["forecast_high"]):
        forecast["ci"] = {"low": row["forecast_low"], "high": row["forecast_high"]}
    chart.x_labels = ["to date", "whole month, forecast"]
    chart.add("last month", [row["last_month_same_day"] or 0, row["last_month"] or 0])
    chart.add("this month", [row["month_to_date"] or 0, forecast])
    shown = ("last_month", "month_to_date", "forecast_month_end", "forecast_high")
    guides = _guides(max(plan, *(row[name] or 0 for name in shown)))
    chart.y_labels = guides  # pygal's own would leave the range out
    if plan:
        apart = [guide for guide in guides if abs(guide - plan) > NEAR * guides[-1]]
        chart.y_labels = [*apart, {"value": plan, "label": f"plan {short_number(plan)}"}]
        chart.y_labels_major = [plan]
    return chart


def _guides(highest: float) -> list[float]:
    """Return round numbers from 0 to beyond the highest value."""
    step = max(1, 10 ** floor(log10(max(1, highest) / GUIDES)))
    step *= next(times for times in (1, 2, 5, 10) if highest <= times * step * GUIDES)
    return [step * number for number in range(ceil(highest / step) + 1)]


def _cost_drivers(rows: Sequence[Row], _: date) -> MarkdownMetadataValue | None:
    """The sources that make most API calls, beside the 28 days before."""
    from pygal import HorizontalBar

    calls = [row for row in rows if row["meter"] == "api_calls"]
    shown = sorted(calls, key=lambda row: row["rank"])[:SOURCES][::-1]
    if not shown:
        return None
    chart = HorizontalBar(
        **options(
            (PERIOD_BEFORE, THIS_PERIOD),
            title="API calls by source",
            legend_at_bottom=True,
            legend_at_bottom_columns=2,
        )
    )
    names = (in_print(row["source_name"] or "", LONGEST_NAME) for row in shown)
    chart.x_labels = [n or row["source_id"] for n, row in zip(names, shown, strict=True)]
    chart.add("28 days before", [row["used_before"] for row in shown])
    chart.add("last 28 days", [row["used"] for row in shown])
    return as_picture([chart], "The sources that make most API calls")


def _changes(rows: Sequence[Row], today: date) -> MarkdownMetadataValue | None:
    """Changes a day by kind of thing, over the last month."""
    from pygal import StackedLine

    days = [today - timedelta(days=n) for n in range(DAYS - 1, -1, -1)]
    events = [row for row in rows if row["told_by"] == "audit trail"]
    counts = Counter((row["moment"].date(), row["thing_kind"] or "other") for row in events)
    kinds = Counter(kind for (day, kind) in counts.elements() if day >= days[0])
    shown = [kind for kind, _ in kinds.most_common(len(KINDS) - 1)]
    if not kinds:
        return None
    total = Counter(day for day, _ in counts.elements())
    others = [total[day] - sum(counts[day, kind] for kind in shown) for day in days]
    chart = StackedLine(
        **options(
            KINDS,
            title="Changes a day",
            fill=True,
            include_x_axis=True,
            show_dots=False,
            x_labels_major_every=7,
            show_minor_x_labels=False,
        )
    )
    chart.x_labels = [f"{day:%d %b}" for day in days]
    for kind in shown:
        name = in_print(kind.replace("_", " "), LONGEST_NAME)
        chart.add(name, [counts[day, kind] for day in days])
    if any(others):
        chart.add("others", others)
    return as_picture([chart], "Changes a day by kind of thing, the last 30 days")


_CHARTS: Final[Mapping[str, Callable[[Sequence[Row], date], MarkdownMetadataValue | None]]] = {
    "changes": _changes,
    "cost_drivers": _cost_drivers,
    "month_forecast": _month_forecast,
}
