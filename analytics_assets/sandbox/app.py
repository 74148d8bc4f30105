"""The application that answers the requests, over ASGI."""

from __future__ import annotations

import hmac
import time
from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import parse_qsl

import orjson
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from analytics_assets.sandbox.company import Record
from analytics_assets.sandbox.pages import Turn, envelope, single
from analytics_assets.sandbox.parameters import (
    audit_cursor,
    offset_cursor,
    read_audit_cursor,
    read_choice,
    read_moment,
    read_offset,
    read_page_size,
    read_period,
    read_volume_query,
    with_dots,
)
from analytics_assets.sandbox.replies import (
    OK,
    UNAUTHORIZED,
    RefusedError,
    Reply,
    RequestInfo,
    failure,
    not_found,
)
from analytics_assets.sandbox.resources import Resource
from analytics_assets.sandbox.routes import Route
from analytics_assets.sandbox.state import State
from analytics_assets.sandbox.volume import VolumeQuery, stamp

_EVERYTHING = 10**9
_TRANSPORT = "analytics_sandbox.transport"
_LOGGED_HEADERS = frozenset({"user-agent", "accept", "accept-encoding", "connection"})


class Api:
    """Answers the requests; plain ASGI, as pages can be large and frequent."""

    def __init__(self, state: State) -> None:
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        state = self._state
        arrived_at = time.monotonic()
        route = state.routes.find(scope["path"])
        name = "" if route is None else route.resource.name
        number = state.note_arrival(arrived_at, name)
        info, authorization = _request_info(scope, number, arrived_at, name)
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
            return failure(UNAUTHORIZED, "RequestError", "Unauthorized")
        refusal = state.refusal(info) or state.random_fault()
        if refusal is not None:
            return refusal
        try:
            body = self._body(method, info)
        except RefusedError as refused:
            return refused.reply
        return Reply(OK, body, state.limiter.headers())

    def _note_announcement(self, reply: Reply) -> None:
        headers = {name.lower(): value for name, value in reply.headers.items()}
        wait = headers.get("retry-after", "")
        if wait.isdecimal():
            self._state.limiter.announce(float(wait))

    def _body(self, method: str, info: RequestInfo) -> bytes:
        options = self._state.options
        route = self._state.routes.find(info.path)
        if method != "GET" or route is None:
            raise not_found()
        resource = route.resource
        if resource.name in options.features_off:
            status = options.features_off_status
            raise RefusedError(failure(status, "RequestError", "Not available"))
        if resource.kind in ("plain", "single"):
            return self._whole_body(route)
        if route.record is not None:
            return self._one_body(resource, route.record)
        params = with_dots(info.params)
        count = read_page_size(params, min(options.page_limit, resource.page_limit))
        if resource.kind == "audit":
            return self._audit_body(resource, params, count)
        if resource.kind == "volume":
            return self._volume_body(resource, params, count)
        return self._list_body(route, params, count)

    def _whole_body(self, route: Route) -> bytes:
        rows, _ = self._page(route, 0, _EVERYTHING)
        if route.resource.kind == "plain":
            return envelope(route.resource, rows, None)
        if not rows:
            raise not_found()
        parent = route.resource.parent
        beside = {parent.field: route.parent} if parent and route.resource.echo else {}
        return single(route.resource.list_key, rows[0], beside)

    def _one_body(self, resource: Resource, identifier: str) -> bytes:
        try:
            record, beside = self._state.workspace.one(resource.name, identifier)
        except KeyError:
            raise not_found() from None
        return single(resource.one, record, beside)

    def _list_body(self, route: Route, params: Mapping[str, str], count: int) -> bytes:
        resource = route.resource
        offset = read_offset(params.get("pagination.cursor"), resource.first_offset)
        if resource.kind == "usage":
            month = read_period(params)
            workspace = self._state.workspace
            rows, total = workspace.usage_page(resource.name, month, offset, count)
        else:
            choice = read_choice(params, resource.choice)
            rows, total = self._page(route, offset, count, choice)
        turn = Turn(offset, count, total, lambda at: offset_cursor(at + resource.first_offset))
        return envelope(resource, rows, turn.pagination(resource))

    def _page(
        self, route: Route, offset: int, count: int, choice: Mapping[str, str] | None = None
    ) -> tuple[list[bytes], int]:
        name, workspace = route.resource.name, self._state.workspace
        try:
            return workspace.page(name, offset, count, parent=route.parent, choice=choice)
        except KeyError:
            raise not_found() from None

    def _audit_body(self, resource: Resource, params: Mapping[str, str], count: int) -> bytes:
        workspace = self._state.workspace
        start, end = read_moment(params, "startTime"), read_moment(params, "endTime")
        window = workspace.audit_window(start, end, self._state.options.audit_bounds)
        offset, cursor = 0, params.get("pagination.cursor")
        if cursor is not None:
            offset, floor, until = read_audit_cursor(cursor)
            window = replace(window, floor=floor, end=until)
        wanted = {name: params[name] for name in ("resourceId", "resourceType") if name in params}
        if wanted:
            everything, _ = workspace.audit_page(window, 0, _EVERYTHING)
            matching = [row for row in everything if wanted.items() <= orjson.loads(row).items()]
            rows, total = matching[offset : offset + count], len(matching)
        else:
            rows, total = workspace.audit_page(window, offset, count)
        turn = Turn(offset, count, total, lambda at: audit_cursor(at, window.floor, window.end))
        return envelope(resource, rows, turn.pagination(resource))

    def _volume_body(self, resource: Resource, params: Mapping[str, str], count: int) -> bytes:
        workspace = self._state.workspace
        query = read_volume_query(params, resource.choice, workspace.now())
        offset = read_offset(params.get("pagination.cursor"))
        rows, total = workspace.volume_page(query, offset, count)
        turn = Turn(offset, count, total, offset_cursor)
        head = {
            "path": "/observability/event_volume/v2.json",
            "query": _echo(query, workspace.company.workspace_id),
        }
        return envelope(resource, rows, turn.pagination(resource), head)


def _echo(query: VolumeQuery, workspace_id: str) -> Record:
    """Tell a query as it was understood."""
    names = {"source": "sourceId"}
    only = {names.get(name, name): values for name, values in (query.only or {}).items()}
    return {
        "workspaceId": workspace_id,
        "startTime": stamp(query.start),
        "endTime": stamp(query.end),
        "granularity": query.granularity,
        **({"groupBy": query.group_by} if query.group_by else {}),
        **only,
    }


def _request_info(
    scope: Scope, number: int, arrived_at: float, resource: str
) -> tuple[RequestInfo, str]:
    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
    query = scope["query_string"].decode("latin-1")
    info = RequestInfo(
        number=number,
        path=scope["path"],
        params=dict(parse_qsl(query, keep_blank_values=True)),
        headers={key: value for key, value in headers.items() if key in _LOGGED_HEADERS},
        arrived_at=arrived_at,
        resource=resource,
    )
    return info, headers.get("authorization", "")


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


def with_transport(app: ASGIApp) -> ASGIApp:
    """Hand the connection on to the application, which may have to cut it."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        cycle = getattr(send, "__self__", None)
        scope[_TRANSPORT] = getattr(cycle, "transport", None)
        await app(scope, receive, send)

    return wrapped


def create_app(state: State) -> Starlette:
    """Make the application that serves the workspace of a state."""
    return Starlette(routes=[Mount("/", app=Api(state))])
