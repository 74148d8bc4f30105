"""Why no answer came, in words."""

from __future__ import annotations

from urllib.parse import urlsplit

import requests

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.responses import BadBody
from analytics_assets.segment.settings import ApiSettings


def describe_error(error: OSError, settings: ApiSettings) -> ResourceError:
    """Say why a request has no usable answer, and what the user can do about it."""
    if isinstance(error, BadBody):
        text = f"the answer is not JSON ({error}), also after {settings.retries} retries"
        return ResourceError(text, status=200, passing=True)
    host = urlsplit(settings.base_url).netloc
    kind = "timed out" if isinstance(error, requests.exceptions.Timeout) else "failed"
    return ResourceError(
        f"the connection to {host} {kind}, also after {settings.retries} retries;"
        " check ANALYTICS_API_BASE_URL and the network",
        passing=True,
    )
