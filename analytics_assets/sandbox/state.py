"""What the application works on."""

from __future__ import annotations

import asyncio
import random
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from analytics_assets.sandbox._bodies import rng_for
from analytics_assets.sandbox.limits import RateLimiter
from analytics_assets.sandbox.moments import utc_now
from analytics_assets.sandbox.options import Options
from analytics_assets.sandbox.replies import ERROR, LIMITED, Reply, RequestInfo, failure
from analytics_assets.sandbox.resources import RESOURCES
from analytics_assets.sandbox.workspace import Workspace

_POLL_SECONDS = 0.05
_FAULT_WAIT = 0.2
_GATEWAY_PAGE = b"<html><body><h1>The upstream server did not answer</h1></body></html>"
_FAULTS: tuple[int | None, ...] = (429, 500, 502, 503, 504, None)


class State:
    """What the application works on; shared between its event loop and the tests."""

    def __init__(self, options: Options, clock: Callable[[], datetime] = utc_now) -> None:
        """Invent the workspace the options describe."""
        unknown = sorted(set(options.features_off) - set(RESOURCES))
        if unknown:
            raise ValueError(f"no such list: {', '.join(unknown)}")
        self.options = options
        self.token = options.token or f"sandbox-{secrets.token_urlsafe(24)}"
        self.workspace = Workspace(
            options.seed,
            options.scale,
            options.counts,
            clock,
            audit_order=options.audit_order,
            audit_fractions=options.audit_fractions,
        )
        self.limiter = RateLimiter(options)
        self.intercept: Callable[[RequestInfo], Reply | None] | None = None
        self.stopping = False
        self._faults: random.Random = rng_for(f"{options.seed}:faults")
        self._lock = threading.Lock()
        self._log: list[RequestInfo] = []
        self._arrived = 0

    @property
    def requests(self) -> list[RequestInfo]:
        """Every answered request so far, in the order of the answers."""
        with self._lock:
            return list(self._log)

    def note_arrival(self) -> int:
        """Give the number of a request that has just arrived, counting from 1."""
        with self._lock:
            self._arrived += 1
            return self._arrived

    def note_answer(self, info: RequestInfo, status: int) -> None:
        """Add a request to the log."""
        with self._lock:
            self._log.append(replace(info, status=status))

    def clear(self) -> None:
        """Forget the requests so far and the early ones among them."""
        with self._lock:
            self._log.clear()
            self._arrived = 0
            self.limiter.early_requests = 0

    async def pause(self, seconds: float) -> bool:
        """Wait, unless the service stops meanwhile; tell whether the time is over."""
        until = time.monotonic() + seconds
        while not self.stopping and (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(left, _POLL_SECONDS))
        return not self.stopping

    def random_fault(self) -> Reply | None:
        """Give a fault to answer with, as often as the options say."""
        if self.options.fault_rate <= 0 or self._faults.random() >= self.options.fault_rate:
            return None
        status = self._faults.choice(_FAULTS)
        if status is None:
            return Reply(drop=True)
        if status == LIMITED:
            return self.limiter.refuse(_FAULT_WAIT)
        if status == ERROR:
            return failure(status, "RequestError", "Internal server error")
        return Reply(status, _GATEWAY_PAGE, {"Content-Type": "text/html"})
