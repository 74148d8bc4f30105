"""The one door to the API: time-outs, retries, rate limits, page size, and no redirects.

``rest_api`` builds the requests and walks the pages; this session decides when a request may be
sent and whether it is sent again. It knows HTTP and nothing of tables.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import requests
import tenacity

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.hang_up import HangUpAdapter
from analytics_assets.segment.rate_limit import RateLimitGate, wait_hint, window_left
from analytics_assets.segment.responses import (
    RETRY_STATUS,
    BadBody,
    describe_status,
    errors_of,
    parse_body,
    unreachable,
)
from analytics_assets.segment.settings import ApiSettings, Log

OLD_PAGE_SIZE: Final = 200
"""Largest page of the older API (OpenAPI 32.0.4); right under the current one as well."""
_RETRY_EXCEPTIONS = (
    BadBody,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


@dataclass(frozen=True)
class Envelope:
    """A good answer.

    Attributes:
        body: the parsed JSON.
        page_size: records asked for, 0 where the request does not say.
        waited: seconds that the request was held back by a rate limit.
        response: the answer itself; its ``json()`` is ``body``, without parsing again.
    """

    body: Any
    page_size: int
    waited: float
    response: requests.Response = field(repr=False)


class ApiSession(requests.Session):
    """A session whose answers are complete JSON bodies; anything else is a :class:`ResourceError`.

    Args:
        settings: where the API is and how patient to be.
        log: told about waits and the page-size fall-back.
    """

    def __init__(self, settings: ApiSettings, log: Log) -> None:
        super().__init__()
        self.trust_env = False  # no token from .netrc in place of the configured one
        self.stop = threading.Event()
        self.page_size = settings.page_size
        self._settings = settings
        self._log = log
        self._gate = RateLimitGate(log, self.stop, settings.max_wait)
        self._page_size_lock = threading.Lock()
        self._adapter = HangUpAdapter(settings.parallel_requests)
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
        self, path: str, params: Mapping[str, str] | None = None
    ) -> requests.PreparedRequest:
        """Return a request to a path of the API, with the token."""
        headers = {
            "Authorization": f"Bearer {self._settings.token}",
            "Accept": "application/json",
        }
        url = self._settings.base_url + path
        return self.prepare_request(requests.Request("GET", url, params=params, headers=headers))

    def fetch(self, request: requests.PreparedRequest, **options: Any) -> Envelope:
        """Send ``request``, again if need be, and return its JSON body.

        Raises:
            ResourceError: retries ran out, the answer is an error, a redirect or not JSON.
        """
        request.hooks = {"response": []}  # RESTClient's own status check would end the retries
        request = self._with_page_size(request)
        attempt = self._retrying()
        waited = _Seconds()
        try:
            response = attempt(self._send_once, request, waited, **options)
        except BadBody as error:
            raise ResourceError(
                f"the answer is not JSON ({error}), also after {self._settings.retries} retries",
                status=200,
                passing=True,
            ) from None
        except requests.exceptions.RequestException as error:
            raise unreachable(error, self._settings) from None
        if self._refused_page_size(request, response):
            return self.fetch(request, **options)
        self._check(response)
        return Envelope(response.json(), _page_size_of(request), waited.total, response)

    def _send_once(
        self, request: requests.PreparedRequest, waited: _Seconds, **options: Any
    ) -> requests.Response:
        options["allow_redirects"] = False  # the token must not travel to another host
        options.setdefault("timeout", self._settings.timeout)
        waited.total += self._gate.enter()
        left = reset_in = None
        try:
            response = super().send(request, **options)
            left, reset_in = window_left(response)
        finally:
            self._gate.leave(left, reset_in)
        if response.status_code == requests.codes.ok:
            body = parse_body(response)
            response.json = lambda **_: body  # type: ignore[method-assign]
        return response

    def _retrying(self) -> tenacity.Retrying:
        settings = self._settings
        return tenacity.Retrying(
            stop=tenacity.stop_after_attempt(settings.retries + 1),
            wait=self._wait,
            sleep=self._sleep,
            retry=tenacity.retry_any(
                tenacity.retry_if_exception_type(_RETRY_EXCEPTIONS),
                tenacity.retry_if_result(lambda response: response.status_code in RETRY_STATUS),
            ),
            before_sleep=self._tell_retry,
            retry_error_callback=_last_outcome,
        )

    def _wait(self, state: tenacity.RetryCallState) -> float:
        """Back off exponentially; for a rate limit the gate knows how long."""
        backoff = self._settings.backoff_factor * 2.0 ** (state.attempt_number - 1)
        response = _response_of(state)
        if response is None or response.status_code != requests.codes.too_many_requests:
            return backoff
        hinted = wait_hint(response)
        seconds = backoff if hinted is None else hinted
        if seconds > self._settings.max_wait:
            raise ResourceError(
                f"the API asks to wait {seconds:.0f} s for its rate limit, which is longer than"
                f" max_wait ({self._settings.max_wait:.0f} s); run later, or raise max_wait",
                status=response.status_code,
                passing=True,
            )
        self._gate.close_for(seconds, f"rate limit reached at {_path(response.request)}")
        return 0.0

    def _sleep(self, seconds: float) -> None:
        if self.stop.wait(seconds):
            raise ResourceError("the run was stopped")

    def _tell_retry(self, state: tenacity.RetryCallState) -> None:
        response = _response_of(state)
        if response is not None and response.status_code == requests.codes.too_many_requests:
            return
        what = f"HTTP {response.status_code}" if response is not None else "no usable answer"
        seconds = state.next_action.sleep if state.next_action else 0
        path = _path(state.args[0])
        self._log.info(f"{path}: {what}; trying again in {seconds:.1f} s.")

    def _with_page_size(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if _page_size_of(request) > self.page_size:
            request.url = _replace_count(request.url or "", self.page_size)
        return request

    def _refused_page_size(
        self, request: requests.PreparedRequest, response: requests.Response
    ) -> bool:
        """Fall back to the older maximum when a 422 is about the page size."""
        asked = _page_size_of(request)
        if response.status_code != requests.codes.unprocessable or asked <= OLD_PAGE_SIZE:
            return False
        told = " ".join(f"{e.get('field')} {e.get('message')}" for e in errors_of(response)).lower()
        if not re.search(r"\b(pagination|count)\b", told):  # but not "account"
            return False
        with self._page_size_lock:
            if self.page_size > OLD_PAGE_SIZE:
                self.page_size = OLD_PAGE_SIZE
                self._log.info(
                    f"The API refused pages of {asked} records; asking for {OLD_PAGE_SIZE} instead."
                )
        return True

    def _check(self, response: requests.Response) -> None:
        status = response.status_code
        if status == requests.codes.ok:
            return
        text = describe_status(response)
        if self._settings.token:
            text = text.replace(self._settings.token, "***")  # the API may repeat what it refuses
        raise ResourceError(text, status=status, passing=status in RETRY_STATUS)


@dataclass
class _Seconds:
    total: float = 0.0


def _response_of(state: tenacity.RetryCallState) -> requests.Response | None:
    if state.outcome is None or state.outcome.failed:
        return None
    result: requests.Response = state.outcome.result()
    return result


def _last_outcome(state: tenacity.RetryCallState) -> Any:
    assert state.outcome is not None  # noqa: S101 - tenacity calls this after an attempt
    return state.outcome.result()


def _path(request: requests.PreparedRequest) -> str:
    return urlsplit(request.url or "").path


def _page_size_of(request: requests.PreparedRequest) -> int:
    query = dict(parse_qsl(urlsplit(request.url or "").query))
    return int(query.get("pagination.count", "0"))


def _replace_count(url: str, count: int) -> str:
    parts = urlsplit(url)
    query = [
        (name, str(count) if name == "pagination.count" else value)
        for name, value in parse_qsl(parts.query, keep_blank_values=True)
    ]
    return urlunsplit(parts._replace(query=urlencode(query)))
