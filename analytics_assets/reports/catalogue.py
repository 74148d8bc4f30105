"""The reports there are: the ``.sql`` files of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from analytics_assets.reports.model import Report, ReportError, parse_header
from analytics_assets.reports.reads import Tables, known_lineage
from analytics_assets.warehouse.own_tables import READABLE

FOLDER: Final = Path(__file__).parent


@cache
def reports(folder: Path = FOLDER) -> Mapping[str, Report]:
    """Return the reports of a folder by name, in alphabetical order.

    Raises:
        ReportError: a file cannot work; the text names it and what is wrong in it.
    """
    files = sorted(folder.glob("*.sql"))
    return MappingProxyType({f.stem: read_report(f.stem, f.read_text("utf-8")) for f in files})


def tables() -> Tables:
    """Return what reports can read: the columns that ``endpoints.py`` declares, by table.

    And those of the table that loads write what they changed to.
    """
    return {n: {c.name: c.type for c in table.table_columns} for n, table in READABLE.items()}


def read_report(name: str, text: str) -> Report:
    """Make a report of its file.

    Raises:
        ReportError: it cannot work; the text says why.
    """
    header = parse_header(name, text)
    known = tables()
    if name in known:
        raise ReportError(f"reports/{name}.sql has the name of a table of endpoints.py; rename it.")
    found = known_lineage(name, text, known)
    described = [column.name for column in header.columns]
    if list(found.makes) != described:
        raise ReportError(
            f"reports/{name}.sql selects {', '.join(found.makes)}, and its header describes"
            f" {', '.join(described)}; make them agree."
        )
    return Report(name, header, text, found.reads)
