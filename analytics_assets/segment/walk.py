"""A list read by hand, page by page: for a look that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from analytics_assets.segment.client import ApiSession, page_size_of
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.pages import Chain, check_progress, next_cursor, unpack


def walk(
    session: ApiSession, endpoint: Endpoint, params: Mapping[str, str] | None = None
) -> Iterator[tuple[list[dict[str, Any]], str | None]]:
    """Yield the pages of a list, with the guards of a load: records, and the next page's cursor.

    Raises:
        ResourceError: a page could not be read or cannot be trusted.
    """
    chain = Chain()
    query = dict(params or {})
    if endpoint.paginated:
        size = min(session.page_size, endpoint.page_limit or session.page_size)
        query["pagination.count"] = str(size)
    cursor: str | None = ""
    while cursor is not None:
        request = session.prepared(endpoint.path, query)
        answer = session.fetch(request)
        records, pagination = unpack(endpoint, answer.body)
        cursor = next_cursor(endpoint, chain, records, pagination, page_size_of(request))
        check_progress(endpoint, chain, records)
        yield records, cursor
        query["pagination.cursor"] = cursor or ""
