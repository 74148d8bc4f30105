"""Whether a run is to end, and how dlt is told: it looks for signals in the main thread alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from signal import SIGTERM
from threading import Event, Lock

from dlt.common.runtime import signals

from analytics_assets.segment.errors import DestinationUnreachable

TOLD = "The run was told to stop."


class Stopping:
    """Whether a run is to end, by a signal or as nobody waits for what it brings."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._told = Event()
        self._in_dlt = False

    @property
    def told(self) -> bool:
        """Whether the run is to end."""
        return self._told.is_set()

    def tell(self) -> None:
        """End the load that is under way, and let no other begin."""
        with self._lock:
            self._told.set()
            if self._in_dlt:
                signals.set_received_signal(SIGTERM)
                signals.wake_all()

    def check(self) -> None:
        """Go on unless the run is to end.

        Raises:
            DestinationUnreachable: it is.
        """
        if self.told:
            raise DestinationUnreachable(TOLD)

    @contextmanager
    def heeded_by_dlt(self) -> Iterator[None]:
        """Let dlt end what it does within the block; the word is for the whole process.

        Raises:
            DestinationUnreachable: the run is to end already.
        """
        with self._lock:
            self.check()
            self._in_dlt = True
        try:
            yield
        finally:
            with self._lock:
                self._in_dlt = False
                if self.told:
                    signals.set_received_signal(0)
