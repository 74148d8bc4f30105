"""The one door to the API: time-outs, retries, rate limits, page size, and no redirects.

``rest_api`` builds the requests and walks the pages; this session decides when a request may be
sent and whether it is sent again. It knows HTTP and nothing of tables.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import requests
from urllib3.exceptions import HTTPError

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.hang_up import HangUpAdapter
from analytics_assets.segment.network import NetworkSession, describe_error
from analytics_assets.segment.rate_limit import RateLimitGate, RequestLimiter, Turn
from analytics_assets.segment.responses import (
    Answer,
    BadBody,
    describe_status,
    is_transient,
    parse_body,
    read_body,
)
from analytics_assets.segment.retry import Outcome, Patience
from analytics_assets.segment.settings import ApiSettings, Log

ACCEPT: Final = "application/vnd.segment.v1+json"
OLD_PAGE_SIZE: Final = 200
"""Largest page of the older API (OpenAPI 32.0.4); right under the current one as well."""


@dataclass(frozen=True)
class Envelope:
    """A good answer.

    Attributes:
        body: the parsed JSON.
        page_size: records asked for, 0 where the request does not say.
        waited: seconds that the request was held back by a rate limit.
        retries: how often it was sent again.
        response: the answer itself; its ``json()`` is ``body``, without parsing again.
    """

    body: Any
    page_size: int
    waited: float
    retries: int
    response: requests.Response = field(repr=False)


@dataclass
class _Sending:
    """A request on its way: how long rate limits have held it back, how often it was sent again."""

    request: requests.PreparedRequest
    options: Mapping[str, Any]
    patience: Patience
    limiter: RequestLimiter | None
    waited: float = 0.0
    retries: int = 0

    @property
    def path(self) -> str:
        return urlsplit(self.request.url or "").path


class ApiSession(NetworkSession):
    """A session whose answers are complete JSON bodies; anything else is a :class:`ResourceError`.

    Args:
        settings: where the API is and how patient to be.
        log: told about waits and the page-size fall-back.
    """

    def __init__(self, settings: ApiSettings, log: Log) -> None:
        super().__init__()
        self.stop = threading.Event()
        self.page_size = settings.page_size
        self._settings = settings
        self._log = log
        self._gate = RateLimitGate(log, self.stop, settings.parallel_requests, settings.max_wait)
        self._page_size_lock = threading.Lock()
        self._adapter = HangUpAdapter(settings.parallel_requests, settings.answer_timeout)
        self.mount("http://", self._adapter)
        self.mount("https://", self._adapter)

    def close(self) -> None:
        """Wake the threads that wait, and close the connections."""
        self.stop.set()
        super().close()

    def abort(self) -> None:
        """End all waiting at once, for a limit, a retry or an answer; safe in a signal handler."""
        self.stop.set()
        self._adapter.hang_up()

    def prepared(
        self, path: str, params: Mapping[str, str] | None = None, accept: str = ACCEPT
    ) -> requests.PreparedRequest:
        """Return a request to a path of the API, with the token."""
        headers = {"Authorization": f"Bearer {self._settings.token}", "Accept": accept}
        url = self._settings.base_url + path
        return self.prepare_request(requests.Request("GET", url, params=params, headers=headers))

    def fetch(
        self,
        request: requests.PreparedRequest,
        limiter: RequestLimiter | None = None,
        **options: Any,
    ) -> Envelope:
        """Send ``request``, again if need be, and return its JSON body.

        Args:
            request: what to send.
            limiter: holds the request back for a rate limit of its list; a retry counts, too.
            options: as for the ``send`` of an adapter of requests.

        Raises:
            ResourceError: retries ran out, the answer is an error, a redirect or not JSON.
        """
        request = self._with_page_size(request)
        sending = _Sending(request, options, Patience(self._settings), limiter)
        answer = self._persist(sending)
        if self._refused_page_size(request, answer):
            return self.fetch(request, limiter, **options)
        self._check(answer)
        response = answer.response
        return Envelope(
            response.json(), page_size_of(request), sending.waited, sending.retries, response
        )

    def _persist(self, sending: _Sending) -> Answer:
        """Send a request until there is an answer, or no patience is left."""
        while True:
            outcome, again_in = self._attempt(sending)
            if again_in is None:
                break
            sending.retries += 1
            refused = isinstance(outcome, Answer) and outcome.refused
            if not refused and not self.stop.is_set():
                what = f"HTTP {outcome.status}" if isinstance(outcome, Answer) else "no answer"
                self._log.info(f"{sending.path}: {what}; trying again in {again_in:.1f} s.")
                self._sleep(again_in)
        if isinstance(outcome, Answer):
            return outcome
        raise describe_error(outcome, self._settings)

    def _attempt(self, sending: _Sending) -> tuple[Outcome, float | None]:
        """Send a request once, when it may be sent; also tell when to send it again."""
        with self._turn(sending) as turn:
            outcome: Outcome
            try:
                outcome = turn.answer = self._send(sending)
            except (OSError, HTTPError) as error:  # requests lets a few of others through
                outcome = error
            if isinstance(outcome, Answer) and outcome.refused:
                again_in = sending.patience.again_in(outcome)
                if again_in is not None:  # within the turn, or else another request slips through
                    self._gate.close_for(again_in, f"rate limit reached at {sending.path}")
                return outcome, again_in
        if isinstance(outcome, Answer) and outcome.ok:
            try:
                body = parse_body(outcome.content)
            except BadBody as error:
                outcome = error
            else:
                outcome.response.json = lambda **_: body  # type: ignore[method-assign]
        return outcome, sending.patience.again_in(outcome)

    @contextmanager
    def _turn(self, sending: _Sending) -> Iterator[Turn]:
        limiter = sending.limiter
        if limiter is not None:  # before the gate: who waits here takes up no place there
            sending.waited += limiter.enter(self.stop, self._log)
        try:
            turn = self._gate.enter(again=sending.patience.refusals > 0)
            sending.waited += turn.waited
            try:
                yield turn
            finally:
                self._gate.leave(turn)
        finally:
            if limiter is not None:
                limiter.leave()

    def _send(self, sending: _Sending) -> Answer:
        """Send past the session: it would look at where a redirect leads, which none may do."""
        request = sending.request
        options = {
            "timeout": self._settings.timeout,
            **self.route(request.url or "", sending.options),
        }
        options["stream"] = True  # so that the body can be measured while it is unpacked
        with self._adapter.send(request, **options) as response:
            return Answer(response, read_body(response, self._settings.max_answer_bytes))

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise ResourceError("the run was stopped")

    def _with_page_size(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if page_size_of(request) > self.page_size:
            request.url = _replace_count(request.url or "", self.page_size)
        return request

    def _refused_page_size(self, request: requests.PreparedRequest, answer: Answer) -> bool:
        """Fall back to the older maximum when a 422 is about the page size."""
        asked = page_size_of(request)
        if answer.status != requests.codes.unprocessable or asked <= OLD_PAGE_SIZE:
            return False
        told = " ".join(f"{e.get('field')} {e.get('message')}" for e in answer.errors).lower()
        if not re.search(r"\b(pagination|count)\b", told):  # but not "account"
            return False
        with self._page_size_lock:
            if self.page_size > OLD_PAGE_SIZE:
                self.page_size = OLD_PAGE_SIZE
                self._log.info(
                    f"The API refused pages of {asked} records; asking for {OLD_PAGE_SIZE} instead."
                )
        return True

    def _check(self, answer: Answer) -> None:
        if answer.ok:
            return
        text = describe_status(answer, self._settings.token)
        raise ResourceError(
            text,
            status=answer.status,
            transient=is_transient(answer.status),
            from_api=answer.from_api,
        )


def page_size_of(request: requests.PreparedRequest) -> int:
    """Return how many records a request asks for; 0 if it does not say."""
    query = dict(parse_qsl(urlsplit(request.url or "").query))
    return int(query.get("pagination.count", "0"))


def _replace_count(url: str, count: int) -> str:
    parts = urlsplit(url)
    query = [
        (name, str(count) if name == "pagination.count" else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return urlunsplit(parts._replace(query=urlencode(query)))
