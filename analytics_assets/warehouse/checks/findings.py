"""What a look at the tables of a group brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from analytics_assets.warehouse.checks.examination import Check, Severity, Verdict


@dataclass(frozen=True)
class Finding:
    """The verdict of one check on one asset."""

    asset: str
    check: Check
    verdict: Verdict

    @property
    def severity(self) -> Severity:
        """How bad a failure is."""
        return self.verdict.severity or self.check.severity


@dataclass(frozen=True)
class Figures:
    """What a table that has just been loaded shows besides its counts.

    Attributes:
        empty_columns: columns that hold no value in any live row, ``None`` if there are no rows;
            the next run compares with them.
    """

    empty_columns: Sequence[str] | None


@dataclass(frozen=True)
class Findings:
    """What a look at the tables brought.

    Attributes:
        results: findings of the checks, by asset.
        figures: figures of the tables that have just been loaded, by asset.
    """

    results: dict[str, list[Finding]] = field(default_factory=dict)
    figures: dict[str, Figures] = field(default_factory=dict)

    def add(self, more: Findings) -> None:
        """Add what was found of other assets."""
        self.results.update(more.results)
        self.figures.update(more.figures)
