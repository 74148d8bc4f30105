"""Pictures for the pages of assets."""

from __future__ import annotations

import base64
import importlib
import importlib.util
import io
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from dagster import MarkdownMetadataValue, MetadataValue

from analytics_assets.segment.spans import span

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT, DPI = 7.2, 2.6, 100
"""Inches, and dots per inch."""
THIS_DAY, MONTH_BEFORE = "#4f43dd", "#c3c6d4"
COLORS: Final = 16
"""So many colours are enough for bars and grey text, and make the file a third as large."""


def can_draw() -> bool:
    """Tell whether the extra ``charts`` is installed, and import it.

    Without it pages have figures alone.
    """
    there = _is_installed()
    if there:
        _import_libraries()
    return there


def _is_installed() -> bool:
    return all(importlib.util.find_spec(name) for name in ("matplotlib", "numpy", "PIL"))


def import_ahead() -> None:
    """Import what draws in a thread of its own: it takes a while, best spent waiting for the API.

    pyplot is left out, as its global state is not safe in a server's threads.
    """
    if _is_installed():
        threading.Thread(target=_import_libraries, name="import matplotlib").start()


def _import_libraries() -> None:
    log = logging.getLogger("matplotlib")
    before = log.level
    log.setLevel(logging.ERROR)  # or else it tells at length of a home that it cannot write to
    try:
        with span("chart"):
            for name in ("matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.Image"):
                importlib.import_module(name)
    finally:
        log.setLevel(before)


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


def _rgb(canvas: Any) -> Any:
    import numpy as np

    return np.asarray(canvas.buffer_rgba())[..., :3]
