"""Connections whose answers end: by a deadline, or when somebody hangs up.

The time-outs of requests and urllib3 are for one read each: a server that sends a byte now and then
is read for ever, and nothing wakes a thread that waits.
"""

from __future__ import annotations

import io
import socket
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPResponse
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, PoolManager


class AnswerTooSlow(TimeoutError):
    """An answer, head and body together, did not end in time."""


class HangUpAdapter(HTTPAdapter):
    """Bounds each answer as a whole, and can end all of them.

    Args:
        connections: how many are kept open between requests.
        seconds: longest time from a request to the end of its answer.
    """

    def __init__(self, connections: int, seconds: float) -> None:
        self._seconds = seconds
        self._connections: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        super().__init__(pool_maxsize=connections)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Let the pools make connections that are bounded and known here."""
        super().init_poolmanager(*args, **options)
        self._bound(self.poolmanager)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Return the pools of a proxy, bounded and known just as well."""
        is_new = proxy not in self.proxy_manager
        manager = super().proxy_manager_for(proxy, **options)
        if is_new:
            self._bound(manager)
        return manager

    def hang_up(self) -> None:
        """Shut all connections down; whoever reads from one gets an error at once."""
        for reference in self._connections.valuerefs():  # a copy: other threads may add to it
            sock = getattr(reference(), "sock", None)
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _bound(self, manager: PoolManager) -> None:
        pools = manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = {name: self._bounded(pools[name]) for name in pools}

    def _bounded(self, pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        make: Callable[..., Any] = pool.ConnectionCls

        def connection(**options: Any) -> Any:
            made = make(**options)
            made.response_class = partial(_BoundedResponse, seconds=self._seconds)
            self._connections[id(made)] = made
            return made

        return type(pool.__name__, (pool,), {"ConnectionCls": staticmethod(connection)})


class _BoundedResponse(HTTPResponse):
    """An answer that is read from its socket until a deadline, and no longer."""

    def __init__(self, sock: socket.socket, *args: Any, seconds: float, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_UntilDeadline(sock, self.fp.detach(), seconds))


class _UntilDeadline(io.RawIOBase):
    def __init__(self, sock: socket.socket, raw: io.RawIOBase, seconds: float) -> None:
        super().__init__()
        self._sock = sock
        self._raw = raw
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._timeout = sock.gettimeout()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._deadline - time.monotonic()
        if self._timeout is None or left < self._timeout:
            self._sock.settimeout(max(left, 0.001))  # zero would mean not to wait at all
        try:
            if left > 0:
                return self._raw.readinto(buffer)
        except TimeoutError:
            if time.monotonic() < self._deadline:
                raise
        raise AnswerTooSlow(f"the answer did not end within {self._seconds:.0f} s")

    def close(self) -> None:
        with suppress(OSError):  # closed by the other side, or hung up
            self._sock.settimeout(self._timeout)
        self._raw.close()
        super().close()
