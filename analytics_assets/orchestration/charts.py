"""Pictures for the pages of assets, as SVG."""

from __future__ import annotations

import base64
import importlib.util
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from dagster import MarkdownMetadataValue, MetadataValue

if TYPE_CHECKING:
    from pygal.graph.graph import Graph

WIDTH, HEIGHT = 720, 260
"""Pixels of a picture."""
THIS_PERIOD, PERIOD_BEFORE, LIMIT = "#4f43dd", "#c3c6d4", "#c2410c"
GUIDE: Final = "#dddddd"
GUIDES: Final = 6
"""At most about so many lines for round numbers."""
KINDS: Final = (THIS_PERIOD, "#0f9d8a", "#e0a100", LIMIT, "#7a869a", PERIOD_BEFORE)
_NOT_IN_XML: Final = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_USELESS: Final = re.compile("(?s)<script.*?</script>|<!--.*?-->")
"""What a picture has no use for: code, which none may run, and remarks."""


def can_draw() -> bool:
    """Tell whether the extra ``charts`` is installed; without it pages have figures alone."""
    return importlib.util.find_spec("pygal") is not None


def options(colors: Sequence[str], major: str = GUIDE, **others: Any) -> dict[str, Any]:
    """Return the options of a chart.

    Its ground is white, so that it can be read in light and in dark.

    Args:
        colors: one for each series.
        major: that of the lines that stand for more than round numbers.
        others: further options of pygal, which may take the place of these.
    """
    from pygal.style import Style

    style = Style(
        background="white",
        plot_background="white",
        foreground="#333",
        foreground_strong="#333",
        foreground_subtle="#333",
        guide_stroke_color=GUIDE,
        guide_stroke_dasharray="none",
        major_guide_stroke_color=major,
        major_guide_stroke_dasharray="none" if major == GUIDE else "6,6",
        opacity="1",
        font_family="sans-serif",
        title_font_size=13,
        legend_font_size=11,
        label_font_size=11,
        major_label_font_size=11,
        colors=tuple(colors),
    )
    usual = {
        "width": WIDTH,
        "height": HEIGHT,
        "style": style,
        "js": [],
        "disable_xml_declaration": True,
        "value_formatter": short_number,
        "max_scale": GUIDES,
        "margin": 8,
        "legend_box_size": 9,
        "truncate_label": -1,
        "truncate_legend": -1,
    }
    return {**usual, **others}


def short_number(value: float) -> str:
    """Write a number the way axes do, to three digits, such as 1.53M; nothing for part of one."""
    if 0 < abs(value) < 1:
        return ""
    from pygal.formatters import HumanReadable

    return str(HumanReadable()(float(f"{value:.3g}")))


def in_print(text: str, length: int) -> str:
    """Return the first characters of a text, on one line, without those that XML cannot have."""
    return " ".join(_NOT_IN_XML.sub("", text).split())[:length]


def as_picture(charts: Sequence[Graph], text: str) -> MarkdownMetadataValue:
    """Return charts side by side as an image within Markdown.

    Args:
        charts: each takes the same share of the width.
        text: for those who do not see it.
    """
    width = WIDTH // len(charts)
    parts = (
        f'<svg x="{number * width}" width="{width}" height="{HEIGHT}">'
        f"{_USELESS.sub('', chart.render(is_unicode=True))}</svg>"
        for number, chart in enumerate(charts)
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}">'
    svg = base64.b64encode(f"{head}{''.join(parts)}</svg>".encode()).decode()
    return MetadataValue.md(f"![{text}](data:image/svg+xml;base64,{svg})")
