"""The session of a run: it knows which extraction a request belongs to, and tells of progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import requests
from dlt.sources.helpers.rest_client.exceptions import IgnoreResponseException

from analytics_assets.segment.client import ApiSession, Envelope
from analytics_assets.segment.errors import AnalyticsError, ResourceError, unexpected
from analytics_assets.segment.extraction import Extraction, Routes
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.rate_limit import RequestLimiter
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.settings import ApiSettings, Log, TellsProgress
from analytics_assets.segment.spans import span
from analytics_assets.segment.token_workspace import WORKSPACE, TokenWorkspace

GROWTH, LONGEST = 1.5, 60.0
"""How much longer each pause between two words of progress is, up to how many seconds."""


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
        extraction.note_answer(answer.waited, answer.retries)
        self._progress.tick()
        return answer.response

    def _answer(
        self, endpoint: Endpoint, request: requests.PreparedRequest, options: Mapping[str, Any]
    ) -> Envelope:
        known = self.whose.answer if endpoint is WORKSPACE else None
        if isinstance(known, ResourceError):
            raise known
        return known or self.fetch(request, self._limiters.get(endpoint.name), **options)

    def counted(self, extraction: Extraction) -> Callable[[requests.PreparedRequest], Envelope]:
        """Return what sends requests of a further look at a list, which count and wait likewise."""

        def fetch(request: requests.PreparedRequest) -> Envelope:
            extraction.count_request()
            answer = self.fetch(request, self._limiters.get(extraction.endpoint.name))
            extraction.note_answer(answer.waited, answer.retries)
            return answer

        return fetch


class Progress:
    """Tells the log what has been read so far, every few seconds and less often in long runs."""

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
            self._every = min(self._every * GROWTH, LONGEST)
        begun = [e for e in self._extractions if e.pages]
        counts = ", ".join(f"{e.endpoint.name} {e.pages} pages / {e.rows} rows" for e in begun)
        details = f"Read so far: {counts or 'nothing'}."
        if not isinstance(self._log, TellsProgress):
            self._log.info(details)
            return
        pages, rows = sum(e.pages for e in begun), sum(e.rows for e in begun)
        lists = f"{len(begun)} of {len(self._extractions)} lists begun"
        self._log.progress(f"reading: {lists}, {pages:,} pages, {rows:,} rows so far", details)
