"""Connections that can be hung up on, so that a thread that waits for an answer can be woken."""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool


class HangUpAdapter(HTTPAdapter):
    """Knows its connections; neither requests nor urllib3 offers a way to end a read early.

    Args:
        connections: how many are kept open between requests.
    """

    def __init__(self, connections: int) -> None:
        self._connections: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        super().__init__(pool_maxsize=connections)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        """Let the pools make connections that are noted here."""
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = {
            "http": self._noting(HTTPConnectionPool),
            "https": self._noting(HTTPSConnectionPool),
        }

    def hang_up(self) -> None:
        """Shut all connections down; whoever reads from one gets an error at once."""
        for reference in self._connections.valuerefs():  # a copy: other threads may add to it
            sock = getattr(reference(), "sock", None)
            if sock is not None:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _noting(self, pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        make: Callable[..., Any] = pool.ConnectionCls

        def connection(**options: Any) -> Any:
            made = make(**options)
            self._connections[id(made)] = made
            return made

        return type(pool.__name__, (pool,), {"ConnectionCls": staticmethod(connection)})
