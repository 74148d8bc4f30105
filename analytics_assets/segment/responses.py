"""What an answer says: its JSON body, or in words why it is not a good one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import requests

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.exact_json import parse_json
from analytics_assets.segment.foreign_text import foreign_text

CHUNK_BYTES: Final = 64 * 1024
_OK, _TIMEOUT, _TOO_MANY, _SERVER_FAULT = 200, 408, 429, 500
_NOT_IMPLEMENTED, _VERSION_NOT_SUPPORTED = 501, 505
_REFUSALS: Final = frozenset({401, 403, 404})


class BadBody(requests.exceptions.RequestException):
    """A 200 whose body is not JSON: it may have been cut short, so it is worth a retry."""


@dataclass(frozen=True)
class Answer:
    """An answer whose body has been read to its end."""

    response: requests.Response
    content: bytes | bytearray

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; their names in any case."""
        return self.response.headers

    @property
    def ok(self) -> bool:
        """Whether there is a body to parse."""
        return self.status == _OK

    @property
    def refused(self) -> bool:
        """Whether the rate limit was the reason."""
        return self.status == _TOO_MANY

    @cached_property
    def errors(self) -> list[dict[str, Any]]:
        """The ``errors`` of a failure; empty when the body is something else, such as HTML."""
        try:
            errors = orjson.loads(self.content)["errors"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return []
        return [e for e in errors if isinstance(e, dict)] if isinstance(errors, list) else []

    @property
    def from_api(self) -> bool:
        """Whether a failure is the API's own: one of its errors has a ``type`` or a ``message``.

        What a gateway writes may be JSON as well, with ``errors`` of another form.
        """
        return any(error.keys() & {"type", "message"} for error in self.errors)


def is_transient(status: int) -> bool:
    """Tell whether the same request may well be answered later: 408, 429, and faults of a server.

    Except 501 and 505, which say that it never will be.
    """
    if status in (_NOT_IMPLEMENTED, _VERSION_NOT_SUPPORTED):
        return False
    return status >= _SERVER_FAULT or status in (_TIMEOUT, _TOO_MANY)


def read_body(response: requests.Response, most: int) -> bytearray:
    """Read a body to its end and unpack it on the way.

    Raises:
        ResourceError: it is larger than ``most`` bytes; the rest is not unpacked.
    """
    content = bytearray()
    for chunk in response.iter_content(CHUNK_BYTES):
        content += chunk
        if len(content) > most:
            raise ResourceError(
                f"the answer is larger than {most / 2**20:.0f} MB, unpacked; ask for smaller pages"
                " (page_size), or raise max_answer_mb",
                status=response.status_code,
            )
    return content


def parse_body(content: bytes | bytearray) -> Any:
    """Parse strictly and exactly.

    Raises:
        BadBody: it is not JSON.
    """
    try:
        return parse_json(content)
    except ValueError as error:
        raise BadBody(str(error)) from None  # the message tells the place, not the content
    except RecursionError:
        raise BadBody("nested too deeply") from None


def describe_status(answer: Answer, token: str) -> str:
    """Say in words what a status other than 200 means and what the user can do about it.

    Args:
        answer: what came; its words may repeat the token that it refuses.
        token: masked in them.
    """
    status = answer.status
    messages = (str(error["message"]) for error in answer.errors if error.get("message"))
    told = foreign_text("; ".join(messages), [token]).replace('"', "'")
    said = f'HTTP {status} ("{told}")' if told else f"HTTP {status}"
    if answer.response.is_redirect:
        host = foreign_text(_host_of(answer.headers.get("Location", "")), [token])
        return f"{said}: a redirect to {host or 'elsewhere'}; check ANALYTICS_API_BASE_URL"
    advice = {
        401: "the token is not accepted here; check ANALYTICS_API_TOKEN, its region and its roles",
        403: "the token may not read this; give it the role, or leave the asset out",
        404: "there is no such resource; check ANALYTICS_API_BASE_URL",
        422: "the API does not accept the request as it is, and trying again will not help",
        429: "the rate limit is used up, also after the retries; run later or ask for a higher one",
    }
    if status in _REFUSALS and not answer.from_api:
        return (
            f"{said}: the answer has not the form of the API's errors, so something in between may"
            " have given it; check ANALYTICS_API_BASE_URL and the network"
        )
    if is_transient(status) and not answer.refused:
        return f"{said}: the API had a fault, also after the retries; run the asset again later"
    return f"{said}: {advice.get(status, 'the API answered in a way that is not documented')}"


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError:
        return ""
