"""A small chart of a usage table, for the page of its asset."""

from __future__ import annotations

import base64
import importlib
import io
import threading
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final

from dagster import MarkdownMetadataValue, MetadataValue

from analytics_assets.segment.months import shift
from analytics_assets.segment.spans import span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Days = Sequence[tuple[date, Sequence[int]]]
"""A day and its own figures, one for each daily column."""

DAYS_SHOWN: Final = 365
WIDTH, HEIGHT, DPI = 7.2, 2.6, 100
"""Inches, and dots per inch."""
THIS_DAY, MONTH_BEFORE = "#4f43dd", "#c3c6d4"
COLORS: Final = 16
"""So many colours are enough for two lines and grey text, and make the file a third as large."""


def import_ahead() -> None:
    """Import what draws in a thread of its own: it takes a while, best spent waiting for the API.

    pyplot is left out, as its global state is not safe in a server's threads.
    """
    threading.Thread(target=_import_libraries, name="import matplotlib").start()


def _import_libraries() -> None:
    with span("chart"):
        for name in ("matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.Image"):
            importlib.import_module(name)


def usage_chart(
    title: str, columns: Sequence[str], days: Days, today: date
) -> MarkdownMetadataValue | None:
    """Draw the last twelve months day by day, each beside the same day of the month before.

    Args:
        title: what the figures are about.
        columns: the daily columns; each gets a panel.
        days: the figures of each day, in any order.
        today: the day that has not ended yet; it is left out.

    Returns:
        Markdown that holds the picture as PNG, ``None`` if there is no day to show.
    """
    shown = [(day, figures) for day, figures in sorted(days) if day < today]
    shown = [row for row in shown if row[0] >= today - timedelta(days=DAYS_SHOWN)]
    if not shown:
        return None
    text = f"{title}, the last twelve months, with the same day of the month before"
    return as_picture(_usage_figure(title, columns, shown, dict(days)), text)


def as_picture(figure: Figure, text: str) -> MarkdownMetadataValue:
    """Return a figure as PNG within Markdown, with a text for those who do not see it.

    Its ground is white, so that it can be read in light and in dark.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = Image.fromarray(_rgb(canvas)).quantize(COLORS, dither=Image.Dither.NONE)
    file = io.BytesIO()
    pixels.save(file, "PNG")
    png = base64.b64encode(file.getvalue()).decode()
    return MetadataValue.md(f"![{text}](data:image/png;base64,{png})")


def _usage_figure(
    title: str, columns: Sequence[str], shown: Days, figures: Mapping[date, Sequence[int]]
) -> Figure:
    # matplotlib takes half a second to import, which nobody should wait for who draws nothing
    from matplotlib.figure import Figure

    across = 1 if len(columns) == 1 else 2
    down = -(-len(columns) // across)
    figure = Figure(figsize=(WIDTH, HEIGHT * (1 + 0.6 * (down - 1))), dpi=DPI)
    # margins in inches, given once: working them out draws everything one more time
    wide, high = figure.get_size_inches()
    figure.subplots_adjust(0.5 / wide, 0.3 / high, 1 - 0.1 / wide, 1 - 0.25 / high, 0.15, 0.35)
    for number, column in enumerate(columns):
        axes = figure.add_subplot(down, across, number + 1)
        values = [values[number] for _, values in shown]
        before = [_month_before(day, figures, number) for day, _ in shown]
        _draw(axes, [day for day, _ in shown], values, before)
        name = column.removeprefix("daily_").replace("_", " ")
        axes.set_title(f"{title}: {name} a day" if across == 1 else f"{name} a day", fontsize=9)
        if number == 0:
            axes.legend(loc="upper left", fontsize=7, frameon=False)
    return figure


def _rgb(canvas: Any) -> Any:
    import numpy as np

    return np.asarray(canvas.buffer_rgba())[..., :3]


def _draw(axes: Axes, days: Sequence[date], values: Sequence[int], before: Sequence[float]) -> None:
    from matplotlib.ticker import EngFormatter

    # numbered days and ticks given at once: matplotlib's own dates take longer than all the rest
    places = [day.toordinal() for day in days]
    months = [day for day in days if day.day == 1][::2]
    axes.plot(places, before, color=MONTH_BEFORE, linewidth=0.9, label="same day, month before")
    axes.plot(places, values, color=THIS_DAY, linewidth=0.9, label="day")
    axes.set_xticks([day.toordinal() for day in months], [f"{day:%b %y}" for day in months])
    axes.yaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_ylim(bottom=0, top=max([1, *values, *(b for b in before if b == b)]) * 1.25)  # noqa: PLR0124
    axes.tick_params(labelsize=7, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.01)


def _month_before(day: date, figures: Mapping[date, Sequence[int]], number: int) -> float:
    """Return the figure of the same day of the month before; NaN leaves a gap in the line."""
    month = shift(day.replace(day=1), -1)
    try:
        return float(figures[month.replace(day=day.day)][number])
    except (KeyError, ValueError):  # not loaded, or there is no such day in that month
        return float("nan")
