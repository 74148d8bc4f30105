"""What an answer says: its JSON body, or in words why there is none."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import requests

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.settings import ApiSettings

RETRY_STATUS: Final = frozenset({429, 500, 502, 503, 504})
_LONG_NUMBER: Final = b"0" * 20
_DIGITS_AS_ZERO: Final = bytes.maketrans(b"123456789", b"0" * 9)


class BadBody(requests.exceptions.RequestException):
    """A 200 whose body is not JSON: it may have been cut short, so it is worth a retry."""


def parse_body(response: requests.Response) -> Any:
    """Parse strictly and exactly: orjson rounds whole numbers beyond 64 bits, ``json`` does not."""
    content = response.content
    try:
        body = orjson.loads(content)
        return json.loads(content) if _LONG_NUMBER in content.translate(_DIGITS_AS_ZERO) else body
    except ValueError as error:
        raise BadBody(str(error)) from None  # the message tells the place, not the content
    except RecursionError:
        raise BadBody("nested too deeply") from None


def errors_of(response: requests.Response) -> list[dict[str, Any]]:
    """The ``errors`` of a failure body; empty when the body is something else, such as HTML."""
    try:
        errors = orjson.loads(response.content)["errors"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return []
    return (
        [error for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    )


def describe_status(response: requests.Response) -> str:
    """Say in words what a status other than 200 means and what the user can do about it."""
    status = response.status_code
    told = "; ".join(str(e["message"]) for e in errors_of(response) if e.get("message"))[:300]
    said = f'HTTP {status} ("{told}")' if told else f"HTTP {status}"
    if response.is_redirect:
        host = urlsplit(response.headers.get("Location", "")).netloc
        return f"{said}: a redirect to {host or 'elsewhere'}; check ANALYTICS_API_BASE_URL"
    advice = {
        401: "the token is not accepted here; check ANALYTICS_API_TOKEN, its region and its roles",
        403: "the token may not read this; give it the role, or leave the asset out",
        404: "there is no such resource; check ANALYTICS_API_BASE_URL",
        422: "the API does not accept the request as it is, and trying again will not help",
        429: "the rate limit is used up, also after the retries; run later or ask for a higher one",
    }
    if status in RETRY_STATUS - {429}:
        return f"{said}: the API had a fault, also after the retries; run the asset again later"
    return f"{said}: {advice.get(status, 'the API answered in a way that is not documented')}"


def unreachable(error: Exception, settings: ApiSettings) -> ResourceError:
    """Say in words that no answer came."""
    host = urlsplit(settings.base_url).netloc
    kind = "timed out" if isinstance(error, requests.exceptions.Timeout) else "failed"
    return ResourceError(
        f"the connection to {host} {kind}, also after {settings.retries} retries;"
        " check ANALYTICS_API_BASE_URL and the network",
        passing=True,
    )
