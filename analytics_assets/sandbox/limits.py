"""The rate limits of the sandbox: one for all requests, and lower ones of single lists."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import replace
from email.utils import formatdate

from analytics_assets.sandbox.options import Options
from analytics_assets.sandbox.replies import LIMITED, Reply, failure

_TOLERANCE = 0.05
_MINUTE = 60.0


class Limit:
    """Tells clients to wait, and notes who does not wait as long as told.

    Requests which arrive within 50 ms of a refusal may have been on their way already and do not
    count as early; nor do those at most 50 ms ahead of the announced end.
    """

    def __init__(self) -> None:
        """Start with nobody told to wait."""
        self._announced_at = -math.inf
        self._blocked_until = -math.inf
        self.early_requests = 0

    def arrive(self, now: float) -> None:
        """Note a request, and whether it came before an announced wait was over."""
        if self._announced_at + _TOLERANCE < now < self._blocked_until - _TOLERANCE:
            self.early_requests += 1

    def announce(self, seconds: float) -> None:
        """Remember that a client was told to wait."""
        now = time.monotonic()
        self._announced_at = now
        self._blocked_until = max(self._blocked_until, now + seconds)


class OwnLimit(Limit):
    """The rate limit of one list: so many requests within any minute."""

    def __init__(self, per_minute: int) -> None:
        """Start with no request seen."""
        super().__init__()
        self._admitted: deque[float] = deque(maxlen=per_minute)

    def admit(self, now: float) -> Reply | None:
        """Count a request that arrives now, or give the refusal."""
        oldest = self._admitted[0] if len(self._admitted) == self._admitted.maxlen else -math.inf
        wait = oldest + _MINUTE - now
        if wait <= 0:
            self._admitted.append(now)
            return None
        self.announce(wait)
        data = {"msBeforeNext": math.ceil(wait * 1000)}
        reply = failure(LIMITED, "RequestError", "Too many requests", data=data)
        return replace(reply, headers={"Retry-After": str(math.ceil(wait))})


class RateLimiter(Limit):
    """The rate limit of all requests: a token bucket."""

    def __init__(self, options: Options) -> None:
        """Start with a full bucket."""
        super().__init__()
        self._hint = options.retry_after
        self._per_second = (options.rate_limit or 0.0) / _MINUTE
        self._capacity = float(options.burst or max(math.ceil(options.rate_limit or 1), 1))
        self._level = self._capacity
        self._filled_at = time.monotonic()
        self.active = options.rate_limit is not None

    def admit(self) -> Reply | None:
        """Take one request out of the bucket, or give the refusal."""
        if not self.active:
            return None
        now = time.monotonic()
        self._level = min(self._capacity, self._level + (now - self._filled_at) * self._per_second)
        self._filled_at = now
        if self._level >= 1:
            self._level -= 1
            return None
        return self.refuse((1 - self._level) / self._per_second)

    def refuse(self, seconds: float) -> Reply:
        """Give the answer that asks a client to wait, and remember what it says."""
        millis = math.ceil(seconds * 1000)
        data = {"remainingPoints": 0, "consumedPoints": int(self._capacity) + 1}
        if self._hint == "reset":
            at = math.ceil(time.time() + seconds)
            self.announce(at - time.time())
            headers = {**self.headers(), "X-RateLimit-Reset": formatdate(at, usegmt=True)}
        else:
            self.announce(millis / 1000)
            data["msBeforeNext"] = millis
            headers = {"Retry-After": str(math.ceil(seconds))} if self._hint == "header" else {}
        reply = failure(LIMITED, "RequestError", "Too many requests", data=data)
        return replace(reply, headers=headers)

    def headers(self) -> dict[str, str]:
        """Give the headers that tell how much of the limit is used."""
        if not self.active:
            return {}
        full_at = time.time() + (self._capacity - self._level) / self._per_second
        return {
            "X-RateLimit-Consumed": str(int(self._capacity - self._level)),
            "X-RateLimit-Remaining": str(int(self._level)),
            "X-RateLimit-Reset": formatdate(math.ceil(full_at), usegmt=True),
        }
