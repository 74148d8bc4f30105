"""Pictures of reports, where one says more than the rows do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from dagster import MarkdownMetadataValue

from analytics_assets.orchestration.charts import (
    DPI,
    HEIGHT,
    MONTH_BEFORE,
    THIS_DAY,
    WIDTH,
    as_picture,
)

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]
PLAN: Final = "#c2410c"
KINDS: Final = ("#4f43dd", "#0f9d8a", "#e0a100", "#c2410c", "#7a869a", "#c3c6d4")
METERS: Final = {"api_calls": "API calls", "mtu": "MTU"}
DAYS: Final = 30
SOURCES: Final = 10
LONGEST_NAME: Final = 28


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


def _figure(left: float, bottom: float = 0.3) -> Figure:
    """Return a figure with margins in inches: working them out draws everything once more."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
    figure.subplots_adjust(left / WIDTH, bottom / HEIGHT, 1 - 0.1 / WIDTH, 1 - 0.3 / HEIGHT, 0.2)
    figure.patch.set_facecolor("white")
    return figure


def _tidy(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7, length=2)
    axes.spines[["top", "right"]].set_visible(False)


def _in_thousands(axis: Any) -> None:
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter(sep=""))


def _month_forecast(rows: Sequence[Row], _: date) -> MarkdownMetadataValue:
    """Month to date beside the same days of last month, the forecast with its range, the plan."""
    figure = _figure(left=0.5, bottom=0.45)
    for number, row in enumerate(rows, 1):
        axes = figure.add_subplot(1, len(rows), number)
        bars = ("last_month_same_day", "month_to_date", "last_month", "forecast_month_end")
        labels = ("last month,\nsame day", "month\nto date", "last\nmonth", "forecast")
        heights = [row[name] or 0 for name in bars]
        colors = (MONTH_BEFORE, THIS_DAY) * 2
        axes.bar(labels, heights, color=colors, width=0.6)
        if row["forecast_low"] is not None:
            ends = [[heights[3] - row["forecast_low"]], [row["forecast_high"] - heights[3]]]
            axes.errorbar([3], [heights[3]], yerr=ends, color="black", capsize=4, linewidth=1)
        if row["plan_limit"]:
            axes.axhline(row["plan_limit"], color=PLAN, linewidth=1, linestyle="--", label="plan")
            axes.legend(loc="upper left", fontsize=7, frameon=False)
        axes.margins(y=0.2)
        _in_thousands(axes.yaxis)
        _tidy(axes, f"{row['month']:%B %Y}: {METERS.get(row['meter'], row['meter'])}")
    return as_picture(figure, "Month to date and forecast, with its range and the plan")


def _cost_drivers(rows: Sequence[Row], _: date) -> MarkdownMetadataValue:
    """The sources that make most API calls, beside the 28 days before."""
    calls = [row for row in rows if row["meter"] == "api_calls"]
    shown = sorted(calls, key=lambda row: row["rank"])[:SOURCES][::-1]
    figure = _figure(left=1.8)
    axes = figure.add_subplot()
    places = range(len(shown))
    axes.barh(
        [place + 0.2 for place in places],
        [row["used"] for row in shown],
        height=0.4,
        color=THIS_DAY,
        label="last 28 days",
    )
    axes.barh(
        [place - 0.2 for place in places],
        [row["used_before"] for row in shown],
        height=0.4,
        color=MONTH_BEFORE,
        label="28 days before",
    )
    names = [str(row["source_name"] or row["source_id"])[:LONGEST_NAME] for row in shown]
    axes.set_yticks(places, names)
    axes.legend(loc="lower right", fontsize=7, frameon=False)
    _in_thousands(axes.xaxis)
    _tidy(axes, "API calls by source")
    return as_picture(figure, "The sources that make most API calls")


def _changes(rows: Sequence[Row], today: date) -> MarkdownMetadataValue:
    """Changes a day by kind of thing, over the last month."""
    days = [today - timedelta(days=n) for n in range(DAYS - 1, -1, -1)]
    events = [row for row in rows if row["told_by"] == "audit trail"]
    counts = Counter((row["moment"].date(), row["thing_kind"] or "other") for row in events)
    kinds = Counter(kind for (day, kind) in counts.elements() if day >= days[0])
    shown = [kind for kind, _ in kinds.most_common(len(KINDS) - 1)]
    series = {kind: [counts[day, kind] for day in days] for kind in shown}
    total = Counter(day for day, _ in counts.elements())
    series["others"] = [
        total[day] - sum(values[place] for values in series.values())
        for place, day in enumerate(days)
    ]
    figure = _figure(left=0.4)
    axes = figure.add_subplot()
    bottom = [0] * DAYS
    for color, (kind, values) in zip(KINDS, series.items(), strict=False):
        label = kind.replace("_", " ")
        top = [low + value for low, value in zip(bottom, values, strict=True)]
        # an area for each kind: a bar for each kind and day takes as long as all the rest
        axes.fill_between(range(DAYS), bottom, top, step="mid", color=color, lw=0, label=label)
        bottom = top
    axes.set_xticks(range(0, DAYS, 7), [f"{day:%d %b}" for day in days[::7]])
    axes.margins(x=0.01)
    axes.set_ylim(0, max(1, *bottom) * 1.35)
    axes.legend(loc="upper left", fontsize=7, frameon=False, ncols=3)
    _tidy(axes, "Changes a day")
    return as_picture(figure, "Changes a day by kind of thing, the last 30 days")


_CHARTS: Final[Mapping[str, Callable[[Sequence[Row], date], MarkdownMetadataValue]]] = {
    "changes": _changes,
    "cost_drivers": _cost_drivers,
    "month_forecast": _month_forecast,
}
CHARTED: Final = frozenset(_CHARTS)
"""Reports that have a picture."""
