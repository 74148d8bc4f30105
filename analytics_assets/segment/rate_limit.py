"""When a request may be sent: what the API says about its rate limit, and the gate that obeys."""

from __future__ import annotations

import threading
import time
from email.utils import parsedate_to_datetime

import requests

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.responses import errors_of
from analytics_assets.segment.settings import Log


class RateLimitGate:
    """Lets a request pass only when the API allows one; shared by all threads of a run.

    Two things close it: a wait that the API named, and as many requests under way as the API says
    are left in its window (``X-RateLimit-Remaining``).

    Args:
        log: told about waits.
        stop: ends all waiting.
        max_wait: longest wait for the end of a window, in seconds.
    """

    def __init__(self, log: Log, stop: threading.Event, max_wait: float) -> None:
        self._log = log
        self._stop = stop
        self._max_wait = max_wait
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
            # beyond the longest wait let the API refuse: only a refusal is worth failing for
            if left == 0 and reset_in is not None and reset_in <= self._max_wait:
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
    for error in errors_of(response):
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


def window_left(response: requests.Response) -> tuple[int | None, float | None]:
    """Return the requests left in the window and the seconds to its end, as far as it is said."""
    left = response.headers.get("X-RateLimit-Remaining", "")
    if not response.ok or not (left.isascii() and left.isdigit()):
        return None, None
    return int(left), _until_reset(response)
