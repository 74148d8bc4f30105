"""The one door to the API: time-outs, retries, rate limits, page size, and no redirects.

``rest_api`` builds the requests and walks the pages; this session decides when a request may be
sent, whether it is sent again, and what a bad answer means. It knows HTTP and nothing of tables.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import orjson
import requests
import tenacity
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.settings import ApiSettings, Log

RETRY_STATUS: Final = frozenset({429, 500, 502, 503, 504})
OLD_PAGE_SIZE: Final = 200
"""Largest page of the older API (OpenAPI 32.0.4); right under the current one as well."""


@dataclass(frozen=True)
class Envelope:
    """A good answer: the parsed body and the page size that was asked for."""

    body: Any
    page_size: int
    waited: float
    response: requests.Response


class RateLimitGate:
    """Lets a request pass only when the API allows one; shared by all threads of a run.

    Two things close it: a wait that the API named, and as many requests under way as the API says
    are left in its window (``X-RateLimit-Remaining``).
    """

    def __init__(self, log: Log, stop: threading.Event) -> None:
        self._log = log
        self._stop = stop
        self._changed = threading.Condition()
        self._opens_at = 0.0
        self._under_way = 0
        self._left: int | None = None

    def enter(self) -> float:
        """Block until a request may be sent; return the seconds waited."""
        start = time.monotonic()
        with self._changed:
            while (seconds := self._closed_for()) > 0 and not self._stop.is_set():
                self._changed.wait(min(seconds, 1.0))
            if self._stop.is_set():
                raise ResourceError("the run was stopped")
            self._under_way += 1
        return time.monotonic() - start

    def leave(self, left: int | None, reset_in: float | None) -> None:
        """Note that a request has ended, and what its answer said about the limit."""
        with self._changed:
            self._under_way -= 1
            self._left = left
            if left == 0 and reset_in is not None:
                self._close_for(reset_in, "no request is left in this rate-limit window")
            self._changed.notify_all()

    def close_for(self, seconds: float, why: str) -> None:
        """Let no request pass for ``seconds``; a shorter wait never replaces a longer one."""
        with self._changed:
            self._close_for(seconds, why)

    def _close_for(self, seconds: float, why: str) -> None:
        opens_at = time.monotonic() + seconds
        announce = opens_at - self._opens_at > 0.5  # noqa: PLR2004 - once, not once per thread
        self._opens_at = max(self._opens_at, opens_at)
        if announce:
            self._log.info(f"Waiting {seconds:.1f} s before the next request: {why}.")

    def _closed_for(self) -> float:
        by_time = self._opens_at - time.monotonic()
        if by_time > 0:
            return by_time
        crowded = self._left is not None and self._under_way >= max(self._left, 1)
        return 1.0 if crowded else 0.0


class _BadBody(requests.exceptions.RequestException):
    """A 200 whose body is not JSON: it may have been cut short, so it is worth a retry."""


class _Adapter(HTTPAdapter):
    """Knows its open connections, so that a thread that waits for an answer can be woken."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        self._open: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        super().init_poolmanager(*args, **options)
        noted = self._open

        class Plain(HTTPConnection):
            def connect(self) -> None:
                super().connect()
                noted.add(self)

        class Secure(HTTPSConnection):
            def connect(self) -> None:
                super().connect()
                noted.add(self)

        class PlainPool(HTTPConnectionPool):
            ConnectionCls = Plain

        class SecurePool(HTTPSConnectionPool):
            ConnectionCls = Secure

        pools = {"http": PlainPool, "https": SecurePool}
        self.poolmanager.pool_classes_by_scheme = pools

    def hang_up(self) -> None:
        for connection in list(self._open):
            sock = connection.sock
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


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
        self._gate = RateLimitGate(log, self.stop)
        self._page_size_lock = threading.Lock()
        adapter = _Adapter(pool_maxsize=settings.parallel_requests)
        self._adapter = adapter
        self.mount("http://", adapter)
        self.mount("https://", adapter)

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
        except _BadBody as error:
            raise ResourceError(
                f"the answer is not JSON ({error}), also after {self._settings.retries} retries",
                status=200,
                passing=True,
            ) from None
        except requests.exceptions.RequestException as error:
            raise _unreachable(error, self._settings) from None
        if self._refused_page_size(request, response):
            return self.fetch(request, **options)
        self._check(response)
        body = response.parsed  # type: ignore[attr-defined]
        response.json = lambda **_: body  # type: ignore[method-assign]
        return Envelope(body, _page_size_of(request), waited.total, response)

    def _send_once(
        self, request: requests.PreparedRequest, waited: _Seconds, **options: Any
    ) -> requests.Response:
        options["allow_redirects"] = False  # the token must not travel to another host
        options.setdefault("timeout", self._settings.timeout)
        waited.total += self._gate.enter()
        response = None
        try:
            response = super().send(request, **options)
        finally:
            self._gate.leave(*self._limit(response))
        if response.status_code == requests.codes.ok:
            response.parsed = _parse(response)  # type: ignore[attr-defined]
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

    def _limit(self, response: requests.Response | None) -> tuple[int | None, float | None]:
        """Requests left in the window and seconds to its end, as far as the answer says."""
        left = response.headers.get("X-RateLimit-Remaining", "") if response is not None else ""
        if response is None or not response.ok or not (left.isascii() and left.isdigit()):
            return None, None
        reset_in = _until_reset(response)
        if reset_in is not None and reset_in > self._settings.max_wait:
            reset_in = None  # let the API refuse: only a refusal is worth failing for
        return int(left), reset_in

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
        told = " ".join(f"{e.get('field')} {e.get('message')}" for e in _errors(response)).lower()
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


_LONG_NUMBER: Final = b"0" * 20
_DIGITS_AS_ZERO: Final = bytes.maketrans(b"123456789", b"0" * 9)
_RETRY_EXCEPTIONS = (
    _BadBody,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


@dataclass
class _Seconds:
    total: float = 0.0


def wait_hint(response: requests.Response) -> float | None:
    """Return the seconds a 429 asks to wait, or ``None`` if it does not say.

    In this order: ``Retry-After`` (whole seconds; docs/*.md of the SDK, since 2026-08), the
    ``errors[0].data.msBeforeNext`` of the body (docsite, Rate Limits), ``X-RateLimit-Reset`` (an
    RFC 5322 date).
    """
    header = (response.headers.get("Retry-After") or "").strip()
    if header.isascii() and header.isdigit():
        return float(header)
    if header and (seconds := _until(header, response)) is not None:
        return seconds
    for error in _errors(response):
        data = error.get("data")
        ms = data.get("msBeforeNext") if isinstance(data, dict) else None
        if isinstance(ms, (int, float)) and not isinstance(ms, bool) and ms >= 0:
            return ms / 1000
    return _until_reset(response)


def _until_reset(response: requests.Response) -> float | None:
    return _until(response.headers.get("X-RateLimit-Reset") or "", response)


def _until(date: str, response: requests.Response) -> float | None:
    """Seconds from the answer's own clock to ``date``, so that a skewed local clock is harmless."""
    try:
        end = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None
    try:
        now = parsedate_to_datetime(response.headers["Date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        now = time.time()
    return max(0.0, end - now)


def describe_status(response: requests.Response) -> str:
    """Say in words what a status other than 200 means and what the user can do about it."""
    status = response.status_code
    told = "; ".join(str(e["message"]) for e in _errors(response) if e.get("message"))[:300]
    said = f'HTTP {status} ("{told}")' if told else f"HTTP {status}"
    if response.is_redirect:
        host = urlsplit(response.headers.get("Location", "")).netloc
        return f"{said}: a redirect to {host or 'elsewhere'}; check ANALYTICS_API_BASE_URL"
    advice = {
        401: "the token is not accepted here; check ANALYTICS_API_TOKEN, its region and its roles",
        403: "the token may not read this; give it the role, or leave the asset out",
        404: "there is no such resource; check ANALYTICS_API_BASE_URL",
        422: "the API does not accept the request as it is, and trying again will not help",
        429: "the rate limit is used up, also after the retries; run later or ask for a higher one",
    }
    if status in RETRY_STATUS - {429}:
        return f"{said}: the API had a fault, also after the retries; run the asset again later"
    return f"{said}: {advice.get(status, 'the API answered in a way that is not documented')}"


def _unreachable(error: Exception, settings: ApiSettings) -> ResourceError:
    host = urlsplit(settings.base_url).netloc
    kind = "timed out" if isinstance(error, requests.exceptions.Timeout) else "failed"
    return ResourceError(
        f"the connection to {host} {kind}, also after {settings.retries} retries;"
        " check ANALYTICS_API_BASE_URL and the network",
        passing=True,
    )


def _parse(response: requests.Response) -> Any:
    """Parse strictly and exactly: orjson rounds whole numbers beyond 64 bits, ``json`` does not."""
    content = response.content
    try:
        body = orjson.loads(content)
        return json.loads(content) if _LONG_NUMBER in content.translate(_DIGITS_AS_ZERO) else body
    except ValueError as error:
        raise _BadBody(str(error)) from None  # the message tells the place, not the content
    except RecursionError:
        raise _BadBody("nested too deeply") from None


def _errors(response: requests.Response) -> list[dict[str, Any]]:
    """The ``errors`` of a failure body; empty when the body is something else, such as HTML."""
    try:
        errors = orjson.loads(response.content)["errors"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []
    return (
        [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    )


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
