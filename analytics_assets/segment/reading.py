"""What is read of one resource in a run: its extraction, its types and its rows on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from tempfile import gettempdir

import pyarrow as pa

from analytics_assets.segment.errors import AnalyticsError, ResourceError
from analytics_assets.segment.extraction import UNAVAILABLE, Extraction
from analytics_assets.segment.model import Endpoint, Parent, Values
from analytics_assets.segment.records import RowTyper
from analytics_assets.segment.staging import Key, Staging


@dataclass(frozen=True)
class Reading:
    """The reading of one resource.

    Attributes:
        extraction: its chains of pages, and how far each has come.
        typer: makes typed tables of its records.
        staging: its rows, until they may be loaded; ``None`` for a list that is read for the sake
            of the lists that hang on it only.
        as_of: when the run began; nothing that is newer counts as read.
        position: up to when a list that follows a cursor had been read before.
        held: keys of the rows in the destination that a load may mark as deleted, or drop.
        loaded_before: whether rows of it have ever been loaded, be it none.
    """

    extraction: Extraction
    typer: RowTyper
    staging: Staging | None
    as_of: datetime
    position: datetime | None = None
    held: frozenset[Key] = frozenset()
    loaded_before: bool = False

    @property
    def endpoint(self) -> Endpoint:
        """The row of ``endpoints.py``."""
        return self.extraction.endpoint

    @property
    def failure(self) -> AnalyticsError | None:
        """Why it may not be loaded."""
        return self.extraction.failure

    def finish(self) -> None:
        """Once nothing more is under way: judge whether the list is whole, then settle its rows."""
        self.extraction.finish()
        if self.failure is None and (fault := self.typer.fault()):
            self.extraction.fail(ResourceError(fault, status=200))
        if self.failure is None and self.staging:
            self._settle(self.staging)
        self.extraction.available = not _not_available(self)

    def _settle(self, staging: Staging) -> None:
        try:
            staging.settle(without=self.extraction.gone, held=self.held)
        except (pa.ArrowException, OSError) as error:
            what = f"its rows could not be read back from the folder {gettempdir()!r} ({error})"
            self.extraction.fail(ResourceError(f"{what}; run it again", transient=True))


def _not_available(reading: Reading) -> bool:
    """Tell whether a reading failed because the workspace or token lacks a product feature.

    Only what the API itself refuses, as a whole and from the first page on, and never allowed
    before, is a missing feature; anything else is a fault.
    """
    extraction, failure = reading.extraction, reading.extraction.failure
    if not reading.endpoint.feature or failure is None or reading.loaded_before:
        return False
    if extraction.parent and not extraction.parent.available:
        return True
    if not isinstance(failure, ResourceError) or extraction.pages:
        return False
    return failure.status in UNAVAILABLE and failure.from_api


def fault_of(endpoint: Endpoint, endpoints: Mapping[str, Endpoint]) -> ResourceError | None:
    """Return what is wrong with how a row of ``endpoints.py`` is asked for, ``None`` if nothing."""
    way = endpoint.slice
    if isinstance(way, Values) and not way.values:
        return ResourceError(
            f"it is asked for once for each value of {way.param}, and endpoints.py names no value"
        )
    if not isinstance(way, Parent):
        return None
    parent = endpoints.get(way.resource)
    if parent is None or parent.group != endpoint.group:
        return ResourceError(
            f"its parent {way.resource!r} is no resource of the group {endpoint.group} in"
            " endpoints.py"
        )
    if f"{{{way.param}}}" not in endpoint.path:
        return ResourceError(f"its path {endpoint.path!r} has no place for {{{way.param}}}")
    return None


def static_chains(endpoint: Endpoint, periods: list[str]) -> list[str]:
    """Return the names of the chains that are known before anything is read.

    Args:
        endpoint: what is read.
        periods: the months or windows to ask for, if its rows are about days.
    """
    if endpoint.by_day:
        return periods
    if isinstance(endpoint.slice, Values):
        return list(endpoint.slice.values)
    return [""]
