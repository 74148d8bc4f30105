"""Why no answer came, in words."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.hang_up import AnswerTooSlow
from analytics_assets.segment.responses import BadBody
from analytics_assets.segment.settings import ApiSettings


def describe_error(error: OSError, settings: ApiSettings) -> ResourceError:
    """Say why a request has no usable answer, and what the user can do about it."""
    if isinstance(error, BadBody):
        text = f"the answer is not JSON ({error}), also after {settings.retries} retries"
        return ResourceError(text, status=200, passing=True)
    host = urlsplit(settings.base_url).netloc
    return ResourceError(
        f"the connection to {host} {_reason(error)}, also after {settings.retries} retries;"
        " check ANALYTICS_API_BASE_URL and the network",
        passing=True,
    )


def _reason(error: OSError) -> str:
    causes = list(_causes(error))
    slow = next((cause for cause in causes if isinstance(cause, AnswerTooSlow)), None)
    if slow:
        return f"timed out: {slow}"
    return "timed out" if any(isinstance(c, TimeoutError) for c in causes) else "failed"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
