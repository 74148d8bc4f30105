"""Bounded waiting for what another process holds."""

from __future__ import annotations

import time
from typing import Final

from analytics_assets.segment.errors import DestinationBusy
from analytics_assets.segment.settings import Log
from analytics_assets.warehouse.connections import CONNECTIONS

POLL_SECONDS: Final = 0.2
REMIND_SECONDS: Final = 30.0


class Waiting:
    """Says what it waits for, at first and from time to time.

    Args:
        timeout: seconds, counted from now.
        log: told what is waited for.
    """

    def __init__(self, timeout: float, log: Log) -> None:
        self._end = time.monotonic() + timeout
        self._timeout = timeout
        self._log = log
        self._remind_at = 0.0

    def once_more(self, why: str) -> None:
        """Wait a moment.

        Raises:
            DestinationBusy: the time is over.
            DestinationUnreachable: the run is being ended.
        """
        now = time.monotonic()
        if now >= self._end:
            raise DestinationBusy(f"Gave up after {self._timeout:.0f} s of waiting: {why}.")
        if now >= self._remind_at:
            self._log.info(f"Waiting: {why}.")
            self._remind_at = now + REMIND_SECONDS
        CONNECTIONS.pause(POLL_SECONDS)
