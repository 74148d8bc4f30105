"""The sandbox itself: the workspace served over HTTP on the loopback address.

It answers as the service does, and can be told to be slow, to limit the rate, to fail at random,
or to fail exactly where a test wants it to.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import importlib.util
import math
import random
import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta, timezone
from email.utils import formatdate
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qsl

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from analytics_assets.sandbox._bodies import Record, rng_for
from analytics_assets.sandbox.data import (
    RESOURCES,
    Bounds,
    Clock,
    Order,
    Resource,
    Workspace,
    parse_moment,
    parse_month,
    utc_now,
)

Hint = Literal["header", "body", "reset"]

DEFAULT_PAGE_SIZE = 200
_OK, _UNAUTHORIZED, _NOT_FOUND, _INVALID, _LIMITED, _ERROR = 200, 401, 404, 422, 429, 500
_TOLERANCE = 0.05
_FAULT_WAIT = 0.2
_MINUTE = 60.0
_EVERYTHING = 10**9
_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 10.0
_TRANSPORT = "analytics_sandbox.transport"
_LOGGED_HEADERS = frozenset({"user-agent", "accept", "accept-encoding", "connection"})
_BY_PATH: Mapping[str, Resource] = {resource.path: resource for resource in RESOURCES.values()}
_GATEWAY_PAGE = b"<html><body><h1>The upstream server did not answer</h1></body></html>"
_FAULTS: tuple[int | None, ...] = (429, 500, 502, 503, 504, None)


@dataclass(frozen=True)
class Options:
    """How the sandbox behaves; the defaults are a healthy service without a rate limit.

    Attributes:
        seed: decides every record of the workspace.
        scale: multiplies what the workspace owns.
        counts: number of records of single lists.
        latency: seconds every answer is held back.
        page_limit: the largest page size that is accepted.
        rate_limit: requests per minute, ``None`` for no limit.
        burst: requests that may come at once; a minute's worth when not given.
        retry_after: where a refusal says how long to wait: the ``Retry-After`` header (with the
            milliseconds in the body, too), the body alone, or the reset header alone.
        fault_rate: share of requests answered by a random fault.
        token: the only token accepted; invented when not given.
        audit_order: whether audit events start with the oldest or the newest.
        audit_bounds: whether events exactly at the start or end of a window are in it.
        audit_fractions: whether audit times carry milliseconds.
        features_off: names of lists this workspace has no right to.
        features_off_status: the status these answer with.
    """

    seed: int = 7
    scale: float = 1.0
    counts: Mapping[str, int] | None = None
    latency: float = 0.0
    page_limit: int = 1000
    rate_limit: float | None = None
    burst: int | None = None
    retry_after: Hint = "header"
    fault_rate: float = 0.0
    token: str | None = None
    audit_order: Order = "asc"
    audit_bounds: Bounds = "inclusive"
    audit_fractions: bool = False
    features_off: frozenset[str] = frozenset()
    features_off_status: int = 403


@dataclass(frozen=True)
class RequestInfo:
    """A request as it arrived; in the log of the sandbox with the status it was answered with.

    The status is 0 when the connection was dropped without an answer. The token is never kept.
    """

    number: int
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    arrived_at: float
    status: int = 0


@dataclass(frozen=True)
class Reply:
    """An answer, also one that a test puts in place of the real one.

    Attributes:
        status: the HTTP status.
        body: the bytes of the body.
        headers: further headers; the content type is JSON unless given here.
        drop: close the connection without any answer.
        truncate: announce more bytes than are sent, then close the connection.
        delay: seconds to wait before the answer.
    """

    status: int = _OK
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    truncate: bool = False
    delay: float = 0.0


class _RefusedError(Exception):
    """A request that cannot be served; carries the answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def _failure(status: int, kind: str, message: str, **more: object) -> Reply:
    return Reply(status, orjson.dumps({"errors": [{"type": kind, "message": message, **more}]}))


def _invalid(name: str, message: str) -> _RefusedError:
    reason = f'"{name}" {message}'
    return _RefusedError(_failure(_INVALID, "input-validation", reason, field=name))


class RateLimiter:
    """A token bucket which also notes who does not wait as long as told.

    Requests which arrive within 50 ms of a refusal may have been on their way already and do not
    count as early; nor do those at most 50 ms ahead of the announced end.
    """

    def __init__(self, options: Options) -> None:
        """Start with a full bucket."""
        self._hint = options.retry_after
        self._per_second = (options.rate_limit or 0.0) / _MINUTE
        self._capacity = float(options.burst or max(math.ceil(options.rate_limit or 1), 1))
        self._level = self._capacity
        self._filled_at = time.monotonic()
        self._announced_at = -math.inf
        self._blocked_until = -math.inf
        self.active = options.rate_limit is not None
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
        reply = _failure(_LIMITED, "RequestError", "Too many requests", data=data)
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
            await asyncio.sleep(min(left, _TOLERANCE))
        return not self.stopping

    def random_fault(self) -> Reply | None:
        """Give a fault to answer with, as often as the options say."""
        if self.options.fault_rate <= 0 or self._faults.random() >= self.options.fault_rate:
            return None
        status = self._faults.choice(_FAULTS)
        if status is None:
            return Reply(drop=True)
        if status == _LIMITED:
            return self.limiter.refuse(_FAULT_WAIT)
        if status == _ERROR:
            return _failure(status, "RequestError", "Internal server error")
        return Reply(status, _GATEWAY_PAGE, {"Content-Type": "text/html"})


class _Api:
    """Answers the requests; plain ASGI, as pages can be large and frequent."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = self._state
        arrived_at = time.monotonic()
        info, authorization = _request_info(scope, state.note_arrival(), arrived_at)
        state.limiter.arrive(arrived_at)
        reply = self._reply(scope["method"], info, authorization)
        delay = state.options.latency + reply.delay
        if delay > 0 and not await state.pause(delay):
            reply = Reply(drop=True)
        state.note_answer(info, 0 if reply.drop else reply.status)
        await _respond(reply, scope, receive, send)

    def _reply(self, method: str, info: RequestInfo, authorization: str) -> Reply:
        state = self._state
        injected = state.intercept(info) if state.intercept is not None else None
        if injected is not None:
            self._note_announcement(injected)
            return injected
        expected = f"Bearer {state.token}"
        if not hmac.compare_digest(authorization.encode(), expected.encode()):
            return _failure(_UNAUTHORIZED, "RequestError", "Unauthorized")
        refusal = state.limiter.admit() or state.random_fault()
        if refusal is not None:
            return refusal
        try:
            body = self._body(method, info)
        except _RefusedError as refused:
            return refused.reply
        return Reply(_OK, body, state.limiter.headers())

    def _note_announcement(self, reply: Reply) -> None:
        headers = {name.lower(): value for name, value in reply.headers.items()}
        wait = headers.get("retry-after", "")
        if wait.isdecimal():
            self._state.limiter.announce(float(wait))

    def _body(self, method: str, info: RequestInfo) -> bytes:
        workspace, options = self._state.workspace, self._state.options
        resource = _BY_PATH.get(info.path)
        if method == "GET" and info.path == "/":
            return orjson.dumps({"data": {"workspace": workspace.describe()}})
        if method != "GET" or resource is None:
            raise _RefusedError(_failure(_NOT_FOUND, "NotFound", "Resource not found"))
        if resource.name in options.features_off:
            status = options.features_off_status
            raise _RefusedError(_failure(status, "RequestError", "Not available"))
        if resource.kind == "plain":
            rows, _ = workspace.page(resource.name, 0, _EVERYTHING)
            return _envelope(resource, rows, None)
        count = _page_size(info.params, options.page_limit)
        if resource.kind == "audit":
            return self._audit_body(resource, info.params, count)
        return self._list_body(resource, info.params, count)

    def _list_body(self, resource: Resource, params: Mapping[str, str], count: int) -> bytes:
        workspace = self._state.workspace
        offset = _offset(params.get("pagination.cursor"))
        if resource.kind == "usage":
            month = _period(params)
            rows, total = workspace.usage_page(resource.name, month, offset, count)
        else:
            rows, total = workspace.page(resource.name, offset, count)
        turn = _Turn(offset, count, total, _offset_cursor)
        return _envelope(resource, rows, turn.pagination(resource))

    def _audit_body(self, resource: Resource, params: Mapping[str, str], count: int) -> bytes:
        workspace = self._state.workspace
        start, end = _moment(params, "startTime"), _moment(params, "endTime")
        window = workspace.audit_window(start, end, self._state.options.audit_bounds)
        offset, cursor = 0, params.get("pagination.cursor")
        if cursor is not None:
            offset, floor, until = _read_audit_cursor(cursor)
            window = replace(window, floor=floor, end=until)
        wanted = {name: params[name] for name in ("resourceId", "resourceType") if name in params}
        if wanted:
            everything, _ = workspace.audit_page(window, 0, _EVERYTHING)
            matching = [row for row in everything if wanted.items() <= orjson.loads(row).items()]
            rows, total = matching[offset : offset + count], len(matching)
        else:
            rows, total = workspace.audit_page(window, offset, count)
        turn = _Turn(offset, count, total, lambda at: _audit_cursor(at, window.floor, window.end))
        return _envelope(resource, rows, turn.pagination(resource))


@dataclass(frozen=True)
class _Turn:
    """Where a page stands in its list."""

    offset: int
    count: int
    total: int
    cursor: Callable[[int], str]

    def pagination(self, resource: Resource) -> Record:
        """Give the pagination object of the answer."""
        pagination: Record = {"current": self.cursor(self.offset)}
        following = self.offset + self.count
        if following < self.total:
            pagination["next"] = self.cursor(following)
        elif resource.last_next == "null":
            pagination["next"] = None
        if self.offset > 0:
            pagination["previous"] = self.cursor(max(self.offset - self.count, 0))
        elif resource.last_next == "null":
            pagination["previous"] = None
        if resource.total:
            pagination["totalEntries"] = self.total
        return pagination


def _envelope(resource: Resource, rows: list[bytes], pagination: Record | None) -> bytes:
    """Put records into an answer; uses up the list, to copy large pages only once."""
    start = b'{"data":{"%b":[' % resource.list_key.encode()
    end = b"]}}" if pagination is None else b'],"pagination":%b}}' % orjson.dumps(pagination)
    if not rows:
        return start + end
    rows[0] = start + rows[0]
    rows[-1] += end
    return b",".join(rows)


def _request_info(scope: Scope, number: int, arrived_at: float) -> tuple[RequestInfo, str]:
    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
    query = scope["query_string"].decode("latin-1")
    info = RequestInfo(
        number=number,
        path=scope["path"],
        params=dict(parse_qsl(query, keep_blank_values=True)),
        headers={key: value for key, value in headers.items() if key in _LOGGED_HEADERS},
        arrived_at=arrived_at,
    )
    return info, headers.get("authorization", "")


def _page_size(params: Mapping[str, str], limit: int) -> int:
    name = "pagination.count"
    text = params.get(name, str(min(DEFAULT_PAGE_SIZE, limit)))
    if not (text.isascii() and text.isdecimal()):
        raise _invalid(name, "must be a number")
    count = int(text[:12])
    if count < 1:
        raise _invalid(name, "must be greater than or equal to 1")
    if count > limit:
        raise _invalid(name, f"must be less than or equal to {limit}")
    return count


def _period(params: Mapping[str, str]) -> date:
    text = params.get("period", "")
    if not text:
        raise _invalid("period", "is required")
    try:
        return parse_month(text)
    except ValueError:
        raise _invalid("period", "must be in ISO 8601 date format") from None


def _moment(params: Mapping[str, str], name: str) -> datetime | None:
    text = params.get(name)
    if text is None:
        return None
    try:
        return parse_moment(text)
    except ValueError:
        raise _invalid(name, "must be in ISO 8601 date format") from None


def _offset_cursor(offset: int) -> str:
    return base64.b64encode(str(offset).encode()).decode()


def _bad_cursor() -> _RefusedError:
    return _invalid("pagination.cursor", "is not a valid cursor")


def _offset(cursor: str | None) -> int:
    if cursor is None:
        return 0
    try:
        offset = int(base64.b64decode(cursor, validate=True))
    except (binascii.Error, ValueError):
        raise _bad_cursor() from None
    if offset < 0 or _offset_cursor(offset) != cursor:
        raise _bad_cursor()
    return offset


def _audit_cursor(offset: int, floor: int, end: int) -> str:
    """Write the cursor of the audit trail, which pins the window down for the pages to come."""
    page = base64.b64encode(f"{offset}:{floor}".encode()).decode()
    moment = datetime.fromtimestamp(0, timezone.utc) + timedelta(milliseconds=end)
    until = moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
    return base64.b64encode(orjson.dumps({"pageToken": page, "endTime": until})).decode()


def _read_audit_cursor(cursor: str) -> tuple[int, int, int]:
    try:
        content = orjson.loads(base64.b64decode(cursor, validate=True))
        offset, floor = base64.b64decode(content["pageToken"], validate=True).split(b":")
        until = round(parse_moment(content["endTime"]).timestamp() * 1000)
        parts = (int(offset), int(floor), until)
    except (binascii.Error, ValueError, KeyError, TypeError):
        raise _bad_cursor() from None
    if parts[0] < 0 or _audit_cursor(*parts) != cursor:
        raise _bad_cursor()
    return parts


async def _respond(reply: Reply, scope: Scope, receive: Receive, send: Send) -> None:
    if reply.drop:
        await _hang_up(scope, receive, abort=True)
        return
    headers = {"Content-Type": "application/json", **reply.headers}
    length = len(reply.body) + (64 if reply.truncate else 0)
    lines = [(b"content-length", str(length).encode())]
    lines += [(key.encode("latin-1"), text.encode("latin-1")) for key, text in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": lines})
    await send({"type": "http.response.body", "body": reply.body, "more_body": reply.truncate})
    if reply.truncate:
        await _hang_up(scope, receive, abort=False)


async def _hang_up(scope: Scope, receive: Receive, *, abort: bool) -> None:
    """Close the connection under the server, and wait until it has noticed."""
    transport = scope[_TRANSPORT]
    if abort:
        transport.abort()
    else:
        transport.close()
    while (await receive())["type"] != "http.disconnect":
        pass


def _with_transport(app: ASGIApp) -> ASGIApp:
    """Hand the connection on to the application, which may have to cut it."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        cycle = getattr(send, "__self__", None)
        scope[_TRANSPORT] = getattr(cycle, "transport", None)
        await app(scope, receive, send)

    return wrapped


def create_app(state: State) -> Starlette:
    """Make the application that serves the workspace of a state."""
    return Starlette(routes=[Mount("/", app=_Api(state))])


class _Server(uvicorn.Server):
    """A server that says when it is ready."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


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
    ) -> None:
        """Prepare the service.

        Args:
            options: how it behaves.
            now: the moment it starts at and stays at, or a function that gives the moment; the
                real time when not given.
            port: the port to listen on, 0 for a free one.
        """
        self._clock = Clock()
        if isinstance(now, datetime):
            self._clock.freeze(now)
        elif now is not None:
            self._clock.follow(now)
        self.options = options or Options()
        self.state = State(self.options, self._clock)
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
        """Stop the service; connections still open are cut."""
        if self._server is not None and self._thread is not None:
            self.state.stopping = True
            self._server.should_exit = True
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
        return self.state.limiter.early_requests

    def count(self, path: str | None = None) -> int:
        """Tell how many requests were answered, in all or under one path."""
        return sum(1 for info in self.requests if path is None or info.path == path)

    def clear(self) -> None:
        """Forget the requests so far and the early ones among them."""
        self.state.clear()

    def served(self, name: str) -> list[dict[str, Any]]:
        """Give every record the service would hand out for a list now."""
        return self.workspace.records(name)


def _server_config(app: Starlette) -> uvicorn.Config:
    fast = importlib.util.find_spec("httptools") is not None
    return uvicorn.Config(
        _with_transport(app),
        http="httptools" if fast else "h11",
        ws="none",
        interface="asgi3",
        lifespan="off",
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=600,
        timeout_graceful_shutdown=1,
    )
