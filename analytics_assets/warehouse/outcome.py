"""What a run asks for, and what became of each asset in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from analytics_assets.segment.errors import AnalyticsError
from analytics_assets.segment.model import Column, Endpoint
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.settings import ApiSettings, LoadOptions
from analytics_assets.segment.staging import Key, Staging
from analytics_assets.warehouse.notes import Notes
from analytics_assets.warehouse.settings import WarehouseSettings


@dataclass(frozen=True)
class LoadRequest:
    """What a run asks for.

    Attributes:
        names: resources, in the order of ``endpoints.py``.
        api: how to reach the API.
        warehouse: where to load to.
        options: what may differ from run to run.
    """

    names: tuple[str, ...]
    api: ApiSettings
    warehouse: WarehouseSettings
    options: LoadOptions


@dataclass(frozen=True)
class TableCounts:
    """Rows in a table, and how many of them carry ``deleted_at``."""

    rows: int
    deleted: int


@dataclass(frozen=True)
class Baseline:
    """What a list is compared with before it is loaded.

    Attributes:
        live: keys of the rows that are not marked as deleted.
        peak: the largest number of rows that loads of the last weeks brought, 0 if unknown.
    """

    live: frozenset[Key]
    peak: int

    @property
    def rows(self) -> int:
        """The largest number of rows that the list had lately."""
        return max(len(self.live), self.peak)


@dataclass
class Outcome:
    """What became of one asset in this run.

    Attributes:
        endpoint: the row of ``endpoints.py``.
        reading: counts and timings of the extraction, ``None`` if it did not begin.
        failure: why it is not loaded, ``None`` if it is.
        available: false if the workspace or token lacks the feature.
        counts: rows in the table after the load, ``None`` if it is not loaded.
        newly_deleted: rows that this run marked as deleted.
        forgotten: rows whose personal data this run blanked or removed.
        load_id: dlt's load id, ``None`` if it is not loaded.
        columns: the columns the table has now, in order.
        remarks: what a person should look at besides what the reading warns of.
    """

    endpoint: Endpoint
    reading: Reading | None = None
    failure: AnalyticsError | None = None
    available: bool = True
    counts: TableCounts | None = None
    newly_deleted: int = 0
    forgotten: int = 0
    load_id: str | None = None
    columns: Sequence[Column] = field(default_factory=tuple)
    remarks: list[str] = field(default_factory=list)

    @property
    def loaded(self) -> bool:
        """Whether the table now holds what the API served."""
        return self.load_id is not None

    @property
    def warnings(self) -> Sequence[str]:
        """What a person should look at, although the rows are good."""
        return [*(self.reading.extraction.warnings if self.reading else ()), *self.remarks]

    @property
    def read(self) -> Reading:
        """What was read."""
        if self.reading is None:
            raise LookupError(f"{self.endpoint.name} was not read")
        return self.reading

    @property
    def notes(self) -> Notes:
        """What was noted of the values."""
        return Notes.of(self.reading.typer) if self.reading else Notes()

    @property
    def staging(self) -> Staging:
        """The rows to load."""
        if self.read.staging is None:
            raise LookupError(f"{self.endpoint.name} was not read")
        return self.read.staging
