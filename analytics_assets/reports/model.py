"""What a report is, and the header of its file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from analytics_assets.segment.errors import AnalyticsError
from analytics_assets.segment.model import Column, ColumnType

GROUP: Final = "reports"
"""The asset group of all reports, and the name of their dlt pipeline."""

_TYPES: Final[tuple[str, ...]] = get_args(ColumnType)
_MARKS: Final = frozenset({"personal", "redacted"})
_ENTRY = re.compile(r"(question|description|key|column|figure|warn)\b([^:]*):(.*)")
_WARN = re.compile(r"(\w+) \((.+)\)")


class ReportError(AnalyticsError):
    """A report file that cannot work; the text names the file and what is wrong in it."""

    transient = False


@dataclass(frozen=True)
class Warn:
    """A check of a report's rows, which warns.

    Attributes:
        name: its name.
        text: what is wrong if it fails, and what to do.
        where: which rows are wrong, as a condition in SQL.
    """

    name: str
    text: str
    where: str


@dataclass(frozen=True)
class Header:
    """What the comment at the top of a report's file says.

    Attributes:
        question: what the report answers.
        description: what a row is and what to know before using it.
        key: columns that identify a row.
        columns: its columns, in the order of the SELECT.
        figures: what is shown of each run, by name: an aggregate over its rows, in SQL.
        warns: the checks of its rows.
    """

    question: str
    description: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    figures: Mapping[str, str]
    warns: tuple[Warn, ...] = ()


@dataclass(frozen=True)
class Report:
    """A question, and the SELECT that answers it.

    Attributes:
        name: asset key and table; the name of its file.
        header: what it answers, and what its rows are.
        sql: the SELECT.
        reads: the columns that it reads, by table.
    """

    name: str
    header: Header
    sql: str
    reads: Mapping[str, tuple[str, ...]]

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The key, under the name that it has with tables of the API."""
        return self.header.key

    @property
    def table_columns(self) -> tuple[Column, ...]:
        """The columns, under the name that they have with tables of the API."""
        return self.header.columns


def parse_header(name: str, text: str) -> Header:
    """Read the comment lines at the top of a file.

    An entry is ``word: text`` or ``word NAME ...: text``; lines that are indented go on with it.

    Args:
        name: name of the report, for messages.
        text: the file.

    Raises:
        ReportError: an entry is missing, doubled or not understood.
    """
    single: dict[str, str] = {}
    columns: list[Column] = []
    figures: dict[str, str] = {}
    warns: list[Warn] = []
    for word, what, value in _entries(name, text):
        if word == "column":
            columns.append(_column(name, what, value))
        elif word == "figure":
            figures[what] = value
        elif word == "warn":
            warns.append(_warn(name, what, value))
        elif single.setdefault(word, value) != value:
            raise ReportError(f"reports/{name}.sql says {word!r} twice; keep one of them.")
    missing = [word for word in ("question", "description", "key") if not single.get(word)]
    if missing or not columns:
        lacks = ", ".join(missing or ["column"])
        raise ReportError(f"reports/{name}.sql has no {lacks} in its header; add it.")
    key = tuple(part.strip() for part in single["key"].split(","))
    if unknown := set(key) - {column.name for column in columns}:
        raise ReportError(
            f"reports/{name}.sql names {', '.join(sorted(unknown))} as its key, which is no column"
            " of its header."
        )
    return Header(
        single["question"], single["description"], key, tuple(columns), figures, tuple(warns)
    )


def _entries(name: str, text: str) -> Iterator[tuple[str, str, str]]:
    """Yield word, what stands between word and colon, and text of each entry."""
    entries: list[str] = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        content = line.removeprefix("--")
        if content.startswith("   ") and entries:
            entries[-1] += " " + content.strip()
        elif content.strip():
            entries.append(content.strip())
    for entry in entries:
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise ReportError(f"reports/{name}.sql has a header line that says nothing: {entry!r}.")
        word, what, value = (part.strip() for part in found.groups())
        yield word, what, value


def _warn(name: str, what: str, where: str) -> Warn:
    """Read ``NAME (what is wrong, and what to do)``."""
    found = _WARN.fullmatch(what)
    if found is None or not where:
        raise ReportError(
            f"reports/{name}.sql describes the check {what!r}; write its name, in brackets what is"
            " wrong and what to do, a colon and the condition of rows that are wrong."
        )
    return Warn(found[1], found[2], where)


def _column(name: str, what: str, description: str) -> Column:
    """Read ``NAME TYPE`` and the marks ``personal`` and ``redacted``, in this order."""
    column, kind, *marks = what.split() if len(what.split()) > 1 else (what, "")
    if kind not in _TYPES or not _MARKS.issuperset(marks) or not description:
        raise ReportError(
            f"reports/{name}.sql describes the column {what!r}; write its name, its type"
            f" ({', '.join(_TYPES)}), personal or redacted where it is, a colon and its meaning."
        )
    return Column(
        column,
        kind,  # type: ignore[arg-type]
        description,
        personal="personal" in marks,
        redact="shape" if "redacted" in marks else "keep",
    )
