"""What the application works on."""

from __future__ import annotations

import asyncio
import random
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

from analytics_assets.sandbox.company import rng_for
from analytics_assets.sandbox.limits import OwnLimit, RateLimiter
from analytics_assets.sandbox.options import Options
from analytics_assets.sandbox.replies import ERROR, LIMITED, Reply, RequestInfo, failure
from analytics_assets.sandbox.resources import Resource
from analytics_assets.sandbox.routes import Routes
from analytics_assets.sandbox.workspace import Workspace

_POLL_SECONDS = 0.05
_FAULT_WAIT = 0.2
_GATEWAY_PAGE = b"<html><body><h1>The upstream server did not answer</h1></body></html>"
_FAULTS: tuple[int | None, ...] = (429, 500, 502, 503, 504, None)


class State:
    """What the application works on; shared between its event loop and the tests."""

    def __init__(
        self, options: Options, clock: Callable[[], datetime], resources: Mapping[str, Resource]
    ) -> None:
        """Invent the workspace the options describe."""
        unknown = sorted(set(options.features_off) - set(resources))
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
            resources=resources,
        )
        self.routes = Routes(resources)
        self.limiter = RateLimiter(options)
        self._own_limits = {
            row.name: OwnLimit(row.rate_limit)
            for row in resources.values()
            if row.rate_limit is not None and options.rate_limits
        }
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

    @property
    def early_requests(self) -> int:
        """How many requests came before an announced wait was over."""
        limits = (self.limiter, *self._own_limits.values())
        return sum(limit.early_requests for limit in limits)

    def note_arrival(self, now: float, resource: str) -> int:
        """Give the number of a request that has just arrived for a list, counting from 1."""
        self.limiter.arrive(now)
        if resource in self._own_limits:
            self._own_limits[resource].arrive(now)
        with self._lock:
            self._arrived += 1
            return self._arrived

    def refusal(self, info: RequestInfo) -> Reply | None:
        """Give the answer to a request that is too many for one of the limits."""
        refused = self.limiter.admit()
        if refused is None and info.resource in self._own_limits:
            refused = self._own_limits[info.resource].admit(info.arrived_at)
        return refused

    def note_answer(self, info: RequestInfo, status: int) -> None:
        """Add a request to the log."""
        with self._lock:
            self._log.append(replace(info, status=status))

    def clear(self) -> None:
        """Forget the requests so far and the early ones among them."""
        with self._lock:
            self._log.clear()
            self._arrived = 0
            for limit in (self.limiter, *self._own_limits.values()):
                limit.early_requests = 0

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
