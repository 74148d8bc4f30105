"""When a request may be sent: what the API says about its rate limit, and who holds requests back.

The :class:`RateLimitGate` obeys the API as a whole; a :class:`RequestLimiter` keeps one list below
a limit that the documentation gives for it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.responses import Answer
from analytics_assets.segment.settings import Log

MINUTE: Final = 60.0
WORTH_TELLING: Final = 0.5
"""Seconds from which on a wait is announced in the log."""
POLL_SECONDS: Final = 0.1
"""How often to look again while the end of a wait is not known."""


@dataclass
class Turn:
    """The leave to send one request.

    Attributes:
        waited: seconds that the gate held the request back.
        refusals: how often the gate had been closed by a refusal when the request passed.
        answer: what came back; ``None`` if nothing did.
    """

    waited: float
    refusals: int
    answer: Answer | None = None


class RateLimitGate:
    """Lets a request pass only when the API allows one; shared by all threads of a run.

    Three things hold a request back: ``parallel`` requests under way, a wait that the API named,
    and as many under way as the API says are left in its window (``X-RateLimit-Remaining``). After
    a refusal one request tries first, and each good answer lets twice as many pass as before.

    Args:
        log: told about waits.
        stop: ends all waiting.
        parallel: requests under way at the same time.
        max_wait: longest wait for the end of a window, in seconds.
    """

    def __init__(self, log: Log, stop: threading.Event, parallel: int, max_wait: float) -> None:
        self._log = log
        self._stop = stop
        self._parallel = parallel
        self._max_wait = max_wait
        self._changed = threading.Condition()
        self._queue: deque[object] = deque()
        self._opens_at = 0.0
        self._under_way = 0
        self._width = parallel
        self._left: int | None = None
        self._refusals = 0

    def enter(self, *, again: bool = False) -> Turn:
        """Block until a request may be sent, first come, first served.

        Args:
            again: the request was refused before, and goes before those that were not.

        Raises:
            ResourceError: the run was stopped.
        """
        start = time.monotonic()
        me = object()
        with self._changed:
            self._queue.insert(0 if again else len(self._queue), me)
            try:
                while (seconds := self._closed_for(me)) > 0 and not self._stop.is_set():
                    self._changed.wait(min(seconds, 1.0))
            finally:
                self._queue.remove(me)
                self._changed.notify_all()
            if self._stop.is_set():
                raise ResourceError("the run was stopped")
            self._under_way += 1
            return Turn(time.monotonic() - start, self._refusals)

    def leave(self, turn: Turn) -> None:
        """Note that a request has ended, and what its answer says about the limit."""
        with self._changed:
            self._under_way -= 1
            if turn.answer is not None:
                self._learn(turn, turn.answer)
            self._changed.notify_all()

    def close_for(self, seconds: float, why: str) -> None:
        """After a refusal let no request pass for ``seconds``, and then one.

        A shorter wait never replaces a longer one.
        """
        with self._changed:
            self._refusals += 1
            self._width = 1
            self._close_for(seconds, why)

    def _learn(self, turn: Turn, answer: Answer) -> None:
        left, reset_in = window_left(answer)
        if self._left is None or self._under_way == 0:
            self._left = left
        elif left is not None:  # answers overtake each other: the lowest holds while others are due
            self._left = min(self._left, left)
        if answer.ok and turn.refusals == self._refusals:  # sent after the latest refusal
            self._width = min(self._width * 2, self._parallel)
        # beyond the longest wait let the API refuse: only a refusal is worth failing for
        if left == 0 and reset_in is not None and reset_in <= self._max_wait:
            self._close_for(reset_in, "no request is left in this rate-limit window")

    def _close_for(self, seconds: float, why: str) -> None:
        opens_at = time.monotonic() + seconds
        announce = opens_at - self._opens_at > WORTH_TELLING  # once, not once per thread
        self._opens_at = max(self._opens_at, opens_at)
        if announce:
            self._log.info(f"Waiting {seconds:.1f} s before the next request: {why}.")

    def _closed_for(self, me: object) -> float:
        by_time = self._opens_at - time.monotonic()
        if by_time > 0:
            return by_time
        room = self._width if self._left is None else min(self._width, max(self._left, 1))
        return 1.0 if self._under_way >= room or self._queue[0] is not me else 0.0


class RequestLimiter:
    """Keeps one list below a rate limit of its own, within any 60 s of a run.

    A request counts until a minute after it has *ended*: how long it was on its way to the API is
    not known, and so the limit holds by the API's clock, too.

    Args:
        per_minute: requests allowed in a minute; they may come all at once.
        clock: gives the time in seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._lock = threading.Lock()
        self._free = per_minute
        self._ended: deque[float] = deque()
        self._quiet_until = 0.0

    def enter(self, stop: threading.Event, log: Log) -> float:
        """Block until a request may be sent; return the seconds waited.

        Raises:
            ResourceError: the run was stopped.
        """
        start = self._clock()
        while (seconds := self._take(log)) > 0:
            if stop.wait(seconds):
                raise ResourceError("the run was stopped")
        return self._clock() - start

    def leave(self) -> None:
        """Note that a request has ended."""
        with self._lock:
            self._ended.append(self._clock())

    def _take(self, log: Log) -> float:
        """Take a request out of the minute, or return the seconds to try again after."""
        with self._lock:
            now = self._clock()
            while self._ended and self._ended[0] + MINUTE <= now:
                self._ended.popleft()
                self._free += 1
            if self._free > 0:
                self._free -= 1
                return 0.0
            seconds = self._ended[0] + MINUTE - now if self._ended else POLL_SECONDS
            if seconds > WORTH_TELLING and now >= self._quiet_until:
                self._quiet_until = now + MINUTE
                limit = f"at most {self._per_minute} of its kind are sent in a minute"
                log.info(f"Waiting {seconds:.1f} s before the next request: {limit}.")
            return seconds


def wait_hint(answer: Answer) -> float | None:
    """Return the seconds a 429 asks to wait, or ``None`` if it does not say.

    In this order: ``Retry-After`` (whole seconds; docs/*.md of the SDK, since 2026-08), the
    ``errors[0].data.msBeforeNext`` of the body (docsite, Rate Limits), ``X-RateLimit-Reset`` (an
    RFC 5322 date).
    """
    header = (answer.headers.get("Retry-After") or "").strip()
    if header.isascii() and header.isdigit():
        return float(header)
    if header and (seconds := _until(header, answer)) is not None:
        return seconds
    for error in answer.errors:
        data = error.get("data")
        ms = data.get("msBeforeNext") if isinstance(data, dict) else None
        if isinstance(ms, (int, float)) and not isinstance(ms, bool) and ms >= 0:
            return ms / 1000
    return _until_reset(answer)


def window_left(answer: Answer) -> tuple[int | None, float | None]:
    """Return the requests left in the window and the seconds to its end, as far as it is said."""
    left = answer.headers.get("X-RateLimit-Remaining", "")
    if not answer.ok or not (left.isascii() and left.isdigit()):
        return None, None
    return int(left), _until_reset(answer)


def _until_reset(answer: Answer) -> float | None:
    return _until(answer.headers.get("X-RateLimit-Reset") or "", answer)


def _until(date: str, answer: Answer) -> float | None:
    """Seconds from the answer's own clock to ``date``, so that a skewed local clock is harmless."""
    try:
        end = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return None
    try:
        now = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        now = time.time()
    return max(0.0, end - now)
