"""A request as it arrived, and what it is answered with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

OK, UNAUTHORIZED, NOT_FOUND, INVALID, LIMITED, ERROR = 200, 401, 404, 422, 429, 500


@dataclass(frozen=True)
class RequestInfo:
    """A request as it arrived; in the log of the sandbox with the status it was answered with.

    The status is 0 when the connection was dropped without an answer. The token is never kept.
    The resource is the name of the list that the path stands for, empty if there is none.
    """

    number: int
    path: str
    params: Mapping[str, str]
    headers: Mapping[str, str]
    arrived_at: float
    status: int = 0
    resource: str = ""


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

    status: int = OK
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    drop: bool = False
    truncate: bool = False
    delay: float = 0.0


class RefusedError(Exception):
    """A request that cannot be served; carries the answer."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def failure(status: int, kind: str, message: str, **more: object) -> Reply:
    """Give an answer with one error in the form of the service."""
    return Reply(status, orjson.dumps({"errors": [{"type": kind, "message": message, **more}]}))


def not_found() -> RefusedError:
    """Give the refusal of a path that stands for nothing; to be raised."""
    return RefusedError(failure(NOT_FOUND, "NotFound", "Resource not found"))


def invalid(name: str, message: str) -> RefusedError:
    """Give the refusal of a parameter; to be raised."""
    reason = f'"{name}" {message}'
    return RefusedError(failure(INVALID, "input-validation", reason, field=name))
