"""Servers that a test writes itself, for what the sandbox does not do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import requests

from analytics_assets.segment.client import ApiSession
from analytics_assets.segment.settings import ApiSettings

GUARD = 60.0
"""Seconds after which a test that hangs is given up; no test waits for it when all is well."""


@dataclass
class Lines:
    """A log that keeps what it is told."""

    lines: list[str] = field(default_factory=list)

    def note(self, msg: str, /) -> None:
        """Keep a line."""
        self.lines.append(msg)

    debug = info = warning = note


@contextmanager
def serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Answer each GET by a function, in a thread for each connection; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def reply(
    handler: BaseHTTPRequestHandler, status: int = 200, body: bytes = b"{}", **headers: str
) -> None:
    """Answer a request as a whole; ``Retry_After`` is the header ``Retry-After``."""
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


def client(url: str, log: Lines | None = None, **settings: Any) -> ApiSession:
    """Return a session for ``url`` that does not wait before it tries again."""
    values = {"token": "a-token", "backoff_factor": 0.0, **settings}
    return ApiSession(ApiSettings(url, **values), log or Lines())


def get(session: ApiSession, url: str) -> requests.PreparedRequest:
    """Prepare a request."""
    return session.prepare_request(requests.Request("GET", url))
