"""Read the API: the resources of a group at the same time, each to its end or to its failure."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import requests
from dlt.sources.helpers.rest_client.exceptions import IgnoreResponseException

from analytics_assets.segment.client import ApiSession, Envelope
from analytics_assets.segment.errors import AnalyticsError, ResourceError, TokenRejected, unexpected
from analytics_assets.segment.extraction import Extraction, Routes
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.rate_limit import RequestLimiter
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.settings import ApiSettings, Log
from analytics_assets.segment.source import api_source
from analytics_assets.segment.spans import span
from analytics_assets.segment.token_workspace import WORKSPACE, TokenWorkspace
from analytics_assets.segment.walk import walk

FORBIDDEN: Final = 403
REFUSALS: Final = frozenset({401, FORBIDDEN})


class ReadingSession(ApiSession):
    """The session that ``rest_api`` sends with: it knows the extraction of each request.

    A request that fails ends its chain without an exception (dlt's "ignore" response action), so
    that the other resources of the source are read on.

    Args:
        settings: how to reach the API.
        log: told about waits and progress.
        readings: all that is read in the run, whatever its group.
        whose: the workspace of the token; what came of asking for it is not asked for again.
    """

    def __init__(
        self, settings: ApiSettings, log: Log, readings: Sequence[Reading], whose: TokenWorkspace
    ) -> None:
        super().__init__(settings, log)
        self.whose = whose
        self.settings = settings
        self.log = log
        extractions = [reading.extraction for reading in readings]
        self.routes = Routes(settings.base_url, extractions)
        self._limiters = {
            extraction.endpoint.name: RequestLimiter(extraction.endpoint.rate_limit)
            for extraction in extractions
            if extraction.endpoint.rate_limit
        }
        self._progress = Progress(extractions, log)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Send a request; the answer is a complete JSON body.

        Raises:
            IgnoreResponseException: it failed; the reason is noted on its extraction.
        """
        extraction, chain = self.routes.find(request.url or "")
        try:
            extraction.begin_request(chain)
            with span("read"):
                answer = self._answer(extraction.endpoint, request, options)
        except AnalyticsError as error:
            extraction.end_request(chain, error)
            raise IgnoreResponseException from None
        except Exception as error:  # noqa: BLE001 - a surprise in one resource must not end the rest
            extraction.end_request(chain, unexpected(error))
            raise IgnoreResponseException from None
        extraction.note_answer(answer.waited)
        self._progress.tick()
        return answer.response

    def _answer(
        self, endpoint: Endpoint, request: requests.PreparedRequest, options: Mapping[str, Any]
    ) -> Envelope:
        known = self.whose.answer if endpoint is WORKSPACE else None
        if isinstance(known, ResourceError):
            raise known
        return known or self.fetch(request, self._limiters.get(endpoint.name), **options)


def read_group(session: ReadingSession, group: str, readings: Sequence[Reading]) -> None:
    """Read the resources of a group at the same time; afterwards each is whole or has failed.

    Args:
        session: what to send with; other groups may share it.
        group: name of the group.
        readings: what to read, and the parents that are read for their sake.
    """
    sound = [reading for reading in readings if not _lost(reading.extraction)]
    if sound:
        try:
            for _ in api_source(group, sound, session, session.routes, session.settings):
                pass  # the last step of each pipe keeps the tables
        except Exception as error:  # noqa: BLE001 - it must not cost the other groups
            for reading in sound:
                reading.extraction.fail(unexpected(error))
        _look_for_missing_parents(session, sound)
    with span("stage"):
        for reading in sorted(readings, key=lambda reading: bool(reading.endpoint.parent)):
            reading.finish()


def _lost(extraction: Extraction) -> bool:
    """Tell whether there is no use in reading, as it or the list it hangs on has failed already."""
    parent = extraction.parent
    return extraction.failure is not None or (parent is not None and parent.failure is not None)


def _look_for_missing_parents(session: ReadingSession, readings: Sequence[Reading]) -> None:
    """Where the path of a parent was not found, see whether its list still holds it."""
    for reading in readings:
        extraction = reading.extraction
        if not extraction.missing or extraction.failure or extraction.parent is None:
            continue
        parent = extraction.parent.endpoint
        try:
            standing = _identifiers(session, parent, extraction)
        except AnalyticsError as error:
            why = f"a path was not found, and a second look at {parent.name} failed ({error})"
            extraction.fail(ResourceError(why, transient=error.transient))
            continue
        extraction.close_missing(standing)


def _identifiers(session: ApiSession, parent: Endpoint, child: Extraction) -> set[str]:
    way = child.endpoint.parent
    field = way.field if way else "id"
    return {str(record.get(field)) for page, _ in walk(session, parent) for record in page}


def raise_if_refused(session: ReadingSession, readings: Sequence[Reading]) -> None:
    """Tell a token that is not accepted from one that merely lacks some permission.

    Raises:
        TokenRejected: the API refused everything that was asked for.
    """
    readings = [reading for reading in readings if reading.extraction.requests]
    statuses = [int(getattr(reading.failure, "status", None) or 0) for reading in readings]
    if not readings or not all(status in REFUSALS for status in statuses):
        return
    if all(reading.endpoint.feature for reading in readings) and (
        FORBIDDEN in statuses or session.whose.token_works
    ):
        return
    raise TokenRejected(
        f"The API at {urlsplit(session.settings.base_url).netloc} does not accept the token: it"
        f" refused all {len(readings)} resources asked for"
        f" (HTTP {', '.join(map(str, sorted(set(statuses))))})."
        " Check ANALYTICS_API_TOKEN, and ANALYTICS_API_BASE_URL if the workspace is in the EU."
    )


class Progress:
    """Tells the log what has been read so far, at most every few seconds."""

    def __init__(self, extractions: Sequence[Extraction], log: Log, every: float = 3.0) -> None:
        self._extractions = extractions
        self._log = log
        self._every = every
        self._lock = threading.Lock()
        self._next = time.monotonic() + every

    def tick(self) -> None:
        """Log a line if one is due."""
        with self._lock:
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + self._every
        counts = ", ".join(
            f"{e.endpoint.name} {e.pages} pages / {e.rows} rows"
            for e in self._extractions
            if e.pages
        )
        self._log.info(f"Read so far: {counts or 'nothing'}.")
