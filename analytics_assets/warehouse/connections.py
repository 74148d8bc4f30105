"""What waits for the destination, so that it can be ended: connections to PostgreSQL, and pauses.

Drivers in C wait for a server without end and deaf to signals. Whoever finds that a server is
silent, or is told to stop, shuts the connections down; whoever waits on one gets an error at once.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from typing import Any, Final
from weakref import WeakKeyDictionary

from analytics_assets.segment.errors import DestinationUnreachable
from analytics_assets.segment.interrupts import on_interrupt
from analytics_assets.warehouse.stopping import TOLD


class Connections:
    """What is waited on, by the name of its server."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
        self._silent: dict[str, DestinationUnreachable] = {}
        self._ending = threading.Event()

    def add(self, server: str, waited_on: Any, *, try_again: bool = False) -> None:
        """Note a connection with a socket, or the future of somebody who waits for the server.

        Args:
            server: its name.
            waited_on: what to end when there is no use in waiting.
            try_again: accept it even if the server was silent before.

        Raises:
            DestinationUnreachable: the server is silent, or the run is being ended.
        """
        with self._lock:
            if reason := self._reason(server, try_again=try_again):
                _end(waited_on, reason)
                raise reason
            self._open[waited_on] = server

    def refuse(self, server: str) -> None:
        """Refuse to ask a server that is known to be silent.

        Raises:
            DestinationUnreachable: it is, or the run is being ended.
        """
        with self._lock:
            if reason := self._reason(server):
                raise reason

    def silent(self, server: str, reason: DestinationUnreachable) -> None:
        """End all waiting for a server that does not answer."""
        with self._lock:
            self._silent[server] = reason
            waited_on = [each for each, name in self._open.items() if name == server]
        for each in waited_on:
            _end(each, reason)

    def heard(self, server: str) -> None:
        """Note that a server has answered."""
        with self._lock:
            self._silent.pop(server, None)

    def end(self) -> None:
        """End all waiting, since the run is told to stop."""
        reason = DestinationUnreachable(TOLD)
        with self._lock:
            self._ending.set()
            waited_on = list(self._open)
        for each in waited_on:
            _end(each, reason)

    def begin(self) -> None:
        """Let connections be made again."""
        self._ending.clear()

    def pause(self, seconds: float) -> None:
        """Wait for something that somebody else holds.

        Raises:
            DestinationUnreachable: the run is being ended.
        """
        if self._ending.wait(seconds):
            raise DestinationUnreachable(TOLD)

    def _reason(self, server: str, *, try_again: bool = False) -> DestinationUnreachable | None:
        """Return why not to ask a server, as an error of the caller's own."""
        if self._ending.is_set():
            return DestinationUnreachable(TOLD)
        reason = None if try_again else self._silent.get(server)
        return type(reason)(str(reason)) if reason else None


CONNECTIONS: Final = Connections()


@contextmanager
def interruptible(*end: Callable[[], None]) -> Iterator[Callable[[], None]]:
    """End all waiting for the destination when SIGINT or SIGTERM arrives within the block.

    Args:
        end: what else to call then.

    Yields:
        What does the same without a signal.
    """

    def end_all() -> None:
        for each in (*end, CONNECTIONS.end):
            each()

    CONNECTIONS.begin()
    try:
        with on_interrupt(end_all):
            yield end_all
    finally:
        CONNECTIONS.begin()


def _end(waited_on: Any, reason: Exception) -> None:
    if isinstance(waited_on, Future):
        with suppress(InvalidStateError):
            waited_on.set_exception(reason)
        return
    with (
        suppress(Exception),  # closed meanwhile, which is as good
        socket.socket(fileno=os.dup(waited_on.fileno())) as sock,
    ):
        sock.shutdown(socket.SHUT_RDWR)
