"""The extraction of one resource: which chains of pages it takes, and how far each has come.

One that fails costs only itself, and what hangs on it: nothing here ends the reading of others.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from analytics_assets.segment.errors import AnalyticsError, ResourceError
from analytics_assets.segment.model import Endpoint, Months, Parent, Values, Window
from analytics_assets.segment.pages import Chain, accept, doubt_of
from analytics_assets.segment.windows import days_of

NOT_FOUND: Final = 404
INVALID: Final = 422
NAMED: Final = 3
"""Slices named in a text; of parents there may be hundreds."""
WORKSPACE_ID: Final = "workspaceId"
"""Field of the lists whose records name their workspace."""
UNAVAILABLE: Final = frozenset({401, 403, NOT_FOUND})
TOO_OLD: Final = frozenset({400, 422})
"""What days that the API has forgotten may be refused with; which of them is not documented."""


class Extraction:
    """What is known of the reading of one resource.

    Args:
        endpoint: what is read.
        chains: names of its chains: months or values; of a list with a parent they are found
            while the parent is read.
        parent: the extraction that finds them.
        start: value of ``startTime``, for a list that follows a cursor.
        forgettable: windows of days that the API may have forgotten, and refuse.

    Attributes:
        gone: chains whose parent is gone, or whose days are forgotten: whatever came of them does
            not count.
        doubts: why the list may have more than came; rows that came are good all the same.
        unproved: months of usage and windows that count as not loaded; the next run asks again.
        warnings: what a person should look at.
        workspaces: ids of workspaces that the records name, none of a list that names none.

    The threads that fetch and the one that types share it: a lock guards what they change.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        chains: Iterable[str] = ("",),
        *,
        parent: Extraction | None = None,
        start: str | None = None,
        forgettable: Iterable[str] = (),
    ) -> None:
        self.endpoint = endpoint
        self.parent = parent
        self.start = start
        self.failure: AnalyticsError | None = None
        self.available = True
        self.gone: frozenset[str] = frozenset()
        self.doubts: list[str] = []
        self.unproved: frozenset[str] = frozenset()
        self.warnings: list[str] = []
        self.workspaces: set[str] = set()
        self._names_workspace = any(c.field == WORKSPACE_ID for c in endpoint.columns)
        self.requests = 0
        self.waited = 0.0
        self.retries = 0
        self.seconds = 0.0
        self._forgettable = frozenset(forgettable)
        self.chains: dict[str, Chain] = {} if parent else {name: Chain() for name in chains}
        self._under_way: set[str] = set()
        self._lock = threading.Lock()
        self._begun: float | None = None

    @property
    def pages(self) -> int:
        """Pages received."""
        return sum(chain.pages for chain in self._walks())

    @property
    def rows(self) -> int:
        """Records received; one that came twice counts twice."""
        return sum(chain.rows for chain in self._walks())

    @property
    def under_way(self) -> int:
        """Chains found through a parent that have neither come to their end nor been refused."""
        return len(self._under_way)

    def _walks(self) -> Sequence[Chain]:
        """Return the chains of now, while another thread may add some, or take one out."""
        with self._lock:
            return [*self.chains.values()]

    def fail(self, error: AnalyticsError, chain: str = "") -> None:
        """Note why the reading ended; the first reason stays."""
        with self._lock:
            self.failure = self.failure or _in_chain(self.endpoint, error, chain)

    def expect(self, chain: str) -> bool:
        """Add a chain, found while the parent is read; tell whether it is new."""
        with self._lock:
            if chain in self.chains or self.failure:
                return False
            self.chains[chain] = Chain()
            self._under_way.add(chain)
            return True

    def begin_request(self, chain: str) -> None:
        """Count a request.

        Raises:
            ResourceError: the reading has failed already, so nothing more is asked for.
        """
        with self._lock:
            if self.failure:
                raise self.failure
            if chain not in self.chains:
                raise ResourceError(f"a request for {chain!r} that nobody asked for")
        self.count_request()

    def count_request(self) -> None:
        """Count a request, also one of a further look at the list."""
        with self._lock:
            self._begun = self._begun or time.monotonic()
            self.requests += 1

    def end_request(self, chain: str, error: AnalyticsError) -> None:
        """Note that a request failed, and with it the reading.

        The path of a parent that is gone by now is no failure yet: see :meth:`missing`. Nor is a
        refused value, or the current month, before the others have answered.
        """
        if isinstance(error, ResourceError) and self._may_go_on_without(chain, error.status):
            with self._lock:
                self.chains[chain].refusal = error
                self._under_way.discard(chain)
        else:
            self.fail(error, chain)

    def _may_go_on_without(self, chain: str, status: int | None) -> bool:
        """Tell whether a refusal is judged only when all chains have answered."""
        way = self.endpoint.slice
        if isinstance(way, Window):
            first_page = not self.chains[chain].pages
            return chain in self._forgettable and status in TOO_OLD and first_page
        if isinstance(way, Parent):
            return status == NOT_FOUND
        if isinstance(way, Values):
            return status in UNAVAILABLE
        # where the API is, the current month may not have begun
        return isinstance(way, Months) and status == INVALID and chain >= _current_month()

    def note_answer(self, waited: float, retries: int) -> None:
        """Note that an answer has come, how long the rate limit held its request, and retries."""
        with self._lock:
            self.waited += waited
            self.retries += retries
            self.seconds = time.monotonic() - (self._begun or time.monotonic())

    def accept(self, chain: str, body: Any, page_size: int) -> str | None:
        """Check a page and note it; return the cursor of the next one.

        Raises:
            ResourceError: the page cannot be trusted; the text says why.
        """
        with self._lock:
            records, cursor = accept(self.endpoint, self.chains[chain], body, page_size)
            if cursor is None:
                self._under_way.discard(chain)
            if self._names_workspace:
                named = (record.get(WORKSPACE_ID) for record in records)
                self.workspaces.update(name for name in named if name and isinstance(name, str))
        return cursor

    @property
    def missing(self) -> Mapping[str, ResourceError]:
        """The chains that were refused, and the answer; a parent not found may be gone."""
        return {name: walk.refusal for name, walk in self.chains.items() if walk.refusal}

    def close_missing(self, standing: Iterable[str]) -> None:
        """Take chains whose path was not found for empty, unless their parent still stands.

        Args:
            standing: identifiers that a second look at the list of parents brought.
        """
        still = self.missing.keys() & set(standing)
        self.gone = frozenset(self.missing.keys() - still)
        for name in self.gone:
            self.chains[name].done = True
        for name in sorted(still):
            self.fail(self.missing[name], name)

    def _end_look_back(self) -> None:
        """Leave out a window that was refused, and those before it, so that there is no hole."""
        last = max(self.missing)
        self.gone = frozenset(name for name in self.chains if name <= last)
        for name in self.gone:
            self.chains[name].done = True
        self.warnings.append(
            f"the API does not give the days up to {days_of(last)[1]} any more, so the look back"
            f" ends there ({self.missing[last]})"
        )

    def finish(self) -> None:
        """Once nothing more is under way: a reading that did not reach its end has failed."""
        if self.failure is None and self.parent and self.parent.failure:
            self.fail(_because_of_parent(self.parent))
        if self.failure is None and self.endpoint.window and self.missing:
            self._end_look_back()
        self._leave_out_the_current_month()
        for name, refusal in self.missing.items():
            if not self.chains[name].done:
                self.fail(refusal, name)
        if self.failure is None and not all(chain.done for chain in self.chains.values()):
            self.fail(ResourceError("the list was not read to its end", transient=True))
        if self.failure is None:
            self._note_doubts()

    def _leave_out_the_current_month(self) -> None:
        """A month that has not begun at the API does not cost those that have."""
        if isinstance(self.endpoint.slice, Months) and len(self.chains) > len(self.missing):
            for name, refusal in self.missing.items():
                with self._lock:
                    del self.chains[name]
                self.warnings.append(
                    f"{chain_label(self.endpoint, name)} is left out and asked for again: {refusal}"
                )

    def _note_doubts(self) -> None:
        """Say what the chains leave open; what a list hangs on is in doubt with it."""
        if self.parent and self.parent.doubts:
            self.cast_doubt(f"its parent list {self.parent.endpoint.name} may not be whole")
        doubts = {name: doubt_of(self.endpoint, chain) for name, chain in self.chains.items()}
        open_chains = [name for name, doubt in doubts.items() if doubt and name not in self.gone]
        for name in open_chains[:NAMED]:
            label = chain_label(self.endpoint, name)
            self.cast_doubt(f"{label}: {doubts[name]}" if label else doubts[name])
        if self.endpoint.by_day:
            empty = self._empty_past()
            self.unproved = frozenset({*open_chains, *empty})
            if empty:
                self.warnings.append(_empty_text(self.endpoint, empty))

    def _empty_past(self) -> list[str]:
        """Return the months that are over, and windows, that were given and brought nothing."""
        asked = sorted(self.chains.keys() - self.gone)
        past = [n for n in asked if not self.endpoint.monthly or n < _current_month()]
        return [name for name in past if not self.chains[name].rows]

    def cast_doubt(self, doubt: str) -> None:
        """Note why the list may have more than came, and what follows from that."""
        then = "the next run asks for the same again"
        if self.endpoint.full_list:
            then = "nothing is marked as deleted this time"
        self.doubts.append(doubt)
        self.warnings.append(f"{doubt}, so {then}")


def _current_month() -> str:
    """Return the name of the current month's chain (UTC)."""
    return f"{datetime.now(timezone.utc):%Y-%m}-01"


def _empty_text(endpoint: Endpoint, chains: Sequence[str]) -> str:
    more = f" and {len(chains) - NAMED} more" if len(chains) > NAMED else ""
    labels = (c[:7] if endpoint.monthly else chain_label(endpoint, c) for c in chains[:NAMED])
    text = f"no rows came for {', '.join(labels)}{more}, so the next run asks again"
    if endpoint.window:
        return text
    return (
        f"{text}; if the workspace has none so early, set ANALYTICS_USAGE_START to its first month"
    )


def _because_of_parent(parent: Extraction) -> ResourceError:
    return ResourceError(
        f"its parent list {parent.endpoint.name} was not read whole ({parent.failure})",
        status=getattr(parent.failure, "status", None),
        transient=parent.failure is not None and parent.failure.transient,
        from_api=getattr(parent.failure, "from_api", False),
    )


def _in_chain(endpoint: Endpoint, error: AnalyticsError, chain: str) -> AnalyticsError:
    """Name the slice that could not be read: a month, a value, a parent."""
    if not chain or not isinstance(error, ResourceError):
        return error
    text = f"{chain_label(endpoint, chain)}: {error}"
    return ResourceError(
        text, status=error.status, transient=error.transient, from_api=error.from_api
    )


def chain_label(endpoint: Endpoint, chain: str) -> str:
    """Say which part of a list a chain of pages reads."""
    if isinstance(endpoint.slice, Months):
        return f"month {chain[:7]}"
    if isinstance(endpoint.slice, (Values, Parent)):
        return f"{endpoint.slice.param} {chain}"
    if isinstance(endpoint.slice, Window):
        return "days {} to {}".format(*days_of(chain))
    return chain


def slice_names(endpoint: Endpoint) -> tuple[str, ...]:
    """Return the names of the parameters that tell one slice of a list from another."""
    way = endpoint.slice
    if isinstance(way, Window):
        return way.start, way.end
    return (way.param,) if way else ()


def slice_params(endpoint: Endpoint, chain: str) -> dict[str, str]:
    """Return the parameters that ask for a chain, by name."""
    values = chain.split("/") if endpoint.window else [chain]
    return dict(zip(slice_names(endpoint), values, strict=True))


class Routes:
    """Finds the extraction and the chain that a request belongs to, by its address.

    Args:
        base_url: what stands before the paths of ``endpoints.py``.
        extractions: those under way.
    """

    def __init__(self, base_url: str, extractions: Sequence[Extraction]) -> None:
        prefix = urlsplit(base_url).path.rstrip("/")
        self._routes = [(_pattern(prefix, e.endpoint.path), e) for e in extractions]

    def find(self, url: str) -> tuple[Extraction, str]:
        """Return the extraction and the name of the chain.

        Raises:
            LookupError: no row of ``endpoints.py`` has such a path.
        """
        parts = urlsplit(url)
        for pattern, extraction in self._routes:
            if found := pattern.fullmatch(parts.path):
                return extraction, _chain_name(extraction.endpoint, found, parts)
        raise LookupError(f"{parts.path} is the path of no resource")


def _pattern(prefix: str, path: str) -> re.Pattern[str]:
    pieces = re.split(r"\{\w+\}", path)
    return re.compile(re.escape(prefix) + "([^/]+)".join(map(re.escape, pieces)))


def _chain_name(endpoint: Endpoint, found: re.Match[str], url: SplitResult) -> str:
    if endpoint.parent:
        return unquote(found.group(1))
    query = dict(parse_qsl(url.query))
    return "/".join(query.get(name, "") for name in slice_names(endpoint))
