"""A list read by hand, page by page: for a look that loads nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import requests

from analytics_assets.segment.client import ApiSession, Envelope, page_size_of
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.pages import Chain, accept

Fetch = Callable[[requests.PreparedRequest], Envelope]


def walk(
    session: ApiSession,
    endpoint: Endpoint,
    params: Mapping[str, str] | None = None,
    *,
    path: str = "",
    chain: Chain | None = None,
    fetch: Fetch | None = None,
) -> Iterator[tuple[list[Any], str | None]]:
    """Yield the pages of a list, with the guards of a load: records, and the next page's cursor.

    Args:
        session: what to send with.
        endpoint: the list.
        params: what is asked for besides pages.
        path: where it is, if that hangs on a parent.
        chain: takes what is noted of the pages.
        fetch: what sends, if not the session itself.

    Raises:
        ResourceError: a page could not be read or cannot be trusted.
    """
    chain = chain or Chain()
    send = fetch or session.fetch
    query = dict(params or {})
    if endpoint.paginated:
        size = min(session.page_size, endpoint.page_limit or session.page_size)
        query["pagination.count"] = str(size)
    cursor: str | None = ""
    while cursor is not None:
        request = session.prepared(path or endpoint.path, query, endpoint.accept)
        answer = send(request)
        records, cursor = accept(endpoint, chain, answer.body, page_size_of(request))
        yield records, cursor
        query["pagination.cursor"] = cursor or ""
