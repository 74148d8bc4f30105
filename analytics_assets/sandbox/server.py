"""The sandbox itself: the workspace served over HTTP on the loopback address."""

from __future__ import annotations

import asyncio
import importlib.util
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

import uvicorn
from starlette.applications import Starlette

from analytics_assets.sandbox.app import create_app, with_transport
from analytics_assets.sandbox.lists import RESOURCES
from analytics_assets.sandbox.moments import Clock
from analytics_assets.sandbox.options import Options
from analytics_assets.sandbox.replies import LIMITED, Reply, RequestInfo
from analytics_assets.sandbox.resources import Resource
from analytics_assets.sandbox.state import State
from analytics_assets.sandbox.workspace import Workspace

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 10.0
_ANSWERS_SECONDS = 1.0
"""How long answers that are under way may take when the service is stopped."""
_LOOK_SECONDS = 0.002
_TICKS = 10
"""Ticks of uvicorn in a second, of which every tenth sets the date that answers carry."""


class _Server(uvicorn.Server):
    """A server that says when it is ready, and ends at once: uvicorn looks ten times a second."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._loop, self._told = asyncio.get_running_loop(), asyncio.Event()
        self.ready.set()

    async def main_loop(self) -> None:
        seconds = 0
        while not await self.on_tick(seconds * _TICKS):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._told.wait(), timeout=1)
            seconds += 1

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the port and all idle connections; wait for answers that are under way."""
        for server in self.servers:
            server.close()
        for listener in sockets or ():
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        end = self._loop.time() + _ANSWERS_SECONDS
        while self._busy() and self._loop.time() < end:
            await asyncio.sleep(_LOOK_SECONDS)
        for connection in list(self.server_state.connections):
            connection.transport.abort()  # or its answer waits for a client that does not read
        await asyncio.sleep(_LOOK_SECONDS)

    def _busy(self) -> bool:
        return bool(self.server_state.connections or self.server_state.tasks)

    def stop(self) -> None:
        """Tell the server to end."""
        self.should_exit = True
        self._loop.call_soon_threadsafe(self._told.set)


class Sandbox:
    """The service on a free port of this machine, for the length of a ``with`` block.

    >>> with Sandbox(Options(seed=3)) as sandbox:
    ...     load(sandbox.url, sandbox.token)
    """

    def __init__(
        self,
        options: Options | None = None,
        *,
        now: datetime | Callable[[], datetime] | None = None,
        port: int = 0,
        resources: Mapping[str, Resource] = RESOURCES,
    ) -> None:
        """Prepare the service.

        Args:
            options: how it behaves.
            now: the moment it starts at and stays at, or a function that gives the moment; the
                real time when not given.
            port: the port to listen on, 0 for a free one.
            resources: the table of what it serves.
        """
        self._clock = Clock()
        if isinstance(now, datetime):
            self._clock.freeze(now)
        elif now is not None:
            self._clock.follow(now)
        self.options = options or Options()
        self.state = State(self.options, self._clock, resources)
        self._port = port
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.url = ""

    def __enter__(self) -> Sandbox:
        """Start the service and wait until it answers."""
        self.state.stopping = False
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", self._port))
        except OSError:
            listener.close()
            raise
        self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self._server = _Server(_server_config(create_app(self.state)))
        self._thread = threading.Thread(
            target=self._server.run,
            kwargs={"sockets": [listener]},
            name="analytics-sandbox",
            daemon=True,
        )
        self._thread.start()
        if not self._server.ready.wait(_START_TIMEOUT):
            raise RuntimeError("the sandbox did not start")
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the service; connections still open are cut.

        Its thread has ended then: uvloop's C code brings the process down if it comes back to an
        interpreter that is gone.
        """
        server, self._server = self._server, None
        if server is not None and self._thread is not None:
            self.state.stopping = True
            server.stop()
            self._thread.join(_STOP_TIMEOUT)

    @property
    def token(self) -> str:
        """The token the service accepts."""
        return self.state.token

    @property
    def workspace(self) -> Workspace:
        """What the service serves; change it while it runs."""
        return self.state.workspace

    @property
    def clock(self) -> Clock:
        """The time the workspace lives in.

        Assign a moment to stand still there, a time span to shift it, or a function to follow.
        """
        return self._clock

    @clock.setter
    def clock(self, value: datetime | timedelta | Callable[[], datetime]) -> None:
        if isinstance(value, datetime):
            self._clock.freeze(value)
        elif isinstance(value, timedelta):
            self._clock.shift(value)
        else:
            self._clock.follow(value)

    @property
    def intercept(self) -> Callable[[RequestInfo], Reply | None] | None:
        """Called with every request before anything else; a reply it gives is the answer.

        It runs on the thread of the server and must not block.
        """
        return self.state.intercept

    @intercept.setter
    def intercept(self, value: Callable[[RequestInfo], Reply | None] | None) -> None:
        self.state.intercept = value

    @property
    def requests(self) -> list[RequestInfo]:
        """Every request answered since the start or the last ``clear``."""
        return self.state.requests

    @property
    def early_requests(self) -> int:
        """How many requests came before a wait that had been announced was over."""
        return self.state.early_requests

    def count(self, path: str | None = None) -> int:
        """Tell how many requests were answered: in all, under one path, or for a list by name."""
        return sum(path in (None, info.path, info.resource) for info in self.requests)

    def refused(self, name: str | None = None) -> int:
        """Tell how many requests were answered with 429, in all or for one list."""
        return sum(
            info.status == LIMITED and name in (None, info.resource) for info in self.requests
        )

    def clear(self) -> None:
        """Forget the requests so far and the early ones among them."""
        self.state.clear()

    def served(self, name: str) -> list[dict[str, Any]]:
        """Give every record the service would hand out for a list now.

        Records of a list that hangs on another one come with the identifier of their parent, those
        of a list of texts under the name of its key.
        """
        return self.workspace.records(name)


def _server_config(app: Starlette) -> uvicorn.Config:
    fast = importlib.util.find_spec("httptools") is not None
    return uvicorn.Config(
        with_transport(app),
        http="httptools" if fast else "h11",
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=600,
    )
