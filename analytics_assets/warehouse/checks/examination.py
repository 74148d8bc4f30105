"""What a check is, what it looks at and what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from analytics_assets.segment.model import Endpoint
from analytics_assets.warehouse.notes import Notes

if TYPE_CHECKING:
    from analytics_assets.warehouse.tables import Tables

Severity = Literal["ERROR", "WARN"]


@dataclass(frozen=True)
class Past:
    """What an asset's latest materialization recorded, to compare with.

    Attributes:
        live_rows: rows that were not marked as deleted, ``None`` if nothing was recorded.
        empty_columns: columns that held no value in any row, ``None`` if nothing was recorded.
        notes: what the load noted of the values it stored; right after a load, of this one.
        fewer_expected: whether this run was told to accept lists that have become shorter.
        warnings: what the load that filled the table warned of; of this run if it loaded.
    """

    live_rows: int | None = None
    empty_columns: frozenset[str] | None = None
    notes: Notes = field(default_factory=Notes)
    fewer_expected: bool = False
    warnings: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """What a check says.

    Attributes:
        passed: whether all is well.
        text: what is so, or what is wrong and what to do.
        figures: numbers to show with it, by name.
        offenders: what is wrong, one record of plain values each.
        severity: how bad a failure is, ``None`` for the usual severity of the check.
    """

    passed: bool
    text: str
    figures: Mapping[str, int] = field(default_factory=dict)
    offenders: Sequence[Mapping[str, Any]] = ()
    severity: Severity | None = None


@dataclass(frozen=True)
class Check:
    """A check, for every asset that it applies to.

    Attributes:
        name: its name at each asset.
        description: what holds if it passes.
        examine: looks at one table.
        applies: whether an asset has it.
        severity: how bad a failure is.
    """

    name: str
    description: Callable[[Endpoint], str]
    examine: Callable[[Examination], Verdict]
    applies: Callable[[Endpoint], bool] = lambda _: True
    severity: Severity = "ERROR"


class Examination:
    """A table under examination, with the figures that several checks share.

    Args:
        tables: the dataset, open.
        endpoint: whose table to examine.
        past: what the latest materialization recorded.
    """

    def __init__(self, tables: Tables, endpoint: Endpoint, past: Past) -> None:
        self.tables = tables
        self.endpoint = endpoint
        self.past = past

    @cached_property
    def table(self) -> str:
        """What to select from, for SQL."""
        return self.tables.source(self.endpoint)

    @cached_property
    def keys(self) -> list[str]:
        """The quoted key columns, for SQL."""
        return [self.tables.column(name) for name in self.endpoint.key_columns]

    @property
    def live_rows(self) -> int:
        """Rows that are not marked as deleted."""
        return self._counts[0]

    @property
    def empty_columns(self) -> list[str]:
        """Declared columns that hold no value in any live row."""
        return [name for name, filled in self._counts[1].items() if not filled]

    @cached_property
    def _counts(self) -> tuple[int, Mapping[str, int]]:
        """The live rows, and how many of them hold a value, by declared column."""
        stored = self.tables.columns(self.endpoint.name)
        names = [column.name for column in self.endpoint.columns if column.name in stored]
        live = self.tables.live(self.endpoint)
        filled = f"{live} AND {self._newest_load()}" if self.endpoint.by_day else live
        counts = [f"count(CASE WHEN {live} THEN 1 END)"]
        counts += [f"count(CASE WHEN {filled} THEN {self.tables.column(n)} END)" for n in names]
        [row] = self.tables.rows(f"SELECT {', '.join(counts)} FROM {self.table}")
        total, *values = (int(value) for value in row)
        return total, dict(zip(names, values, strict=True))

    def _newest_load(self) -> str:
        """Return the condition for rows of the newest load: older days keep what they had."""
        column = self.tables.column("_dlt_load_id")
        rows = self.tables.rows(f"SELECT max({column}) FROM {self.table}")
        return f"{column} = '{rows[0][0] or ''}'"
