"""Values that no column can hold as they are: what stands for them, and a note of it.

The rule: the nearest true thing that the column can hold, or null. What is meant to tell records
apart (a key, the name of a field) gets no nearest thing that two of them could share.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.model import Column, ColumnType
from analytics_assets.segment.redaction import Redactor

CHARACTERS: Final = "half characters and U+0000 became U+FFFD"
IN_KEYS: Final = "half characters and U+0000, which became their escapes in a name or key"
NUMBERS: Final = "numbers beyond the range of a double became text"
TOO_DEEP: Final = "nested too deeply, left out"
HIDDEN: Final = "***"
_EXAMPLE: Final = 60
_HALF = re.compile("[\ud800-\udfff]")
_HALF_OR_NUL = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Oddity:
    """What was odd about values of a column.

    Attributes:
        column: name of the column.
        what: what they were, and what stands for them.
        count: rows.
        example: one of them, masked; three asterisks where none may be shown.
    """

    column: str
    what: str
    count: int
    example: str


@dataclass(frozen=True)
class Kept:
    """What became of an undeclared field.

    Attributes:
        field: its name, fit to be shown.
        column: name of its column; ``None`` if it was left out.
        type: type of that column.
        reason: why it is not under its own name with its own type; empty if it is.
    """

    field: str
    column: str | None
    type: ColumnType
    reason: str = ""


class Oddities:
    """Collects what was odd about a list; several threads may add to it."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}
        self._examples: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    def add(self, column: Column, what: str, values: Sequence[Any]) -> None:
        """Note odd values of a column."""
        if not values:
            return
        key = (column.name, what)
        with self._lock:
            self._counts[key] = self._counts.get(key, 0) + len(values)
            if key not in self._examples:
                self._examples[key] = _example(column, values[0])

    def count(self, column: str, what: str) -> int:
        """Return the number of rows noted."""
        return self._counts.get((column, what), 0)

    def found(self) -> list[Oddity]:
        """Return what was noted, by column."""
        with self._lock:
            return [
                Oddity(column, what, count, self._examples[column, what])
                for (column, what), count in sorted(self._counts.items())
            ]


def _example(column: Column, value: Any) -> str:
    """Show a value, unless it is personal or may be, or hold, a secret."""
    if column.personal or column.redacted or isinstance(value, (dict, list)):
        return HIDDEN
    if value is None or value == "":
        return "null" if value is None else "''"
    shown = Redactor().by_key(value, column.field)
    return foreign_text(shown if isinstance(shown, str) else repr(shown), limit=_EXAMPLE)


class Mender:
    """Makes text and JSON fit for a destination.

    Args:
        holds_nul: whether the destination can store U+0000.
    """

    def __init__(self, *, holds_nul: bool) -> None:
        self._odd = _HALF if holds_nul else _HALF_OR_NUL

    def text(self, value: str) -> str:
        """Replace what cannot be stored by U+FFFD."""
        return self._odd.sub("\ufffd", value)

    def key(self, value: str) -> str:
        r"""Replace it by its escape, ``\ud83d``, so that different texts stay different."""
        return self._odd.sub(lambda found: f"\\u{ord(found.group()):04x}", value)

    def json(self, value: Any, note: Callable[[str], object]) -> Any:
        """Return a JSON value with what cannot be stored, or not be read again, replaced.

        Raises:
            RecursionError: it is nested too deeply.
        """
        if isinstance(value, str):
            return self._noted(self.text(value), value, CHARACTERS, note)
        if isinstance(value, list):
            return [self.json(item, note) for item in value]
        if isinstance(value, dict):
            return {
                self._noted(self.key(name), name, IN_KEYS, note): self.json(item, note)
                for name, item in value.items()
            }
        if isinstance(value, Decimal) and abs(float(value)) == float("inf"):
            note(NUMBERS)
            return str(value)
        return value

    @staticmethod
    def _noted(mended: str, value: str, what: str, note: Callable[[str], object]) -> str:
        if mended != value:
            note(what)
        return mended
