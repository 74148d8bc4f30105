"""The paginator that ``rest_api`` walks a list with: dlt's own, with guards."""

from __future__ import annotations

from typing import Any, Final

import requests
from dlt.common import jsonpath
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator

from analytics_assets.segment.client import page_size_of
from analytics_assets.segment.errors import AnalyticsError
from analytics_assets.segment.extraction import Extraction, Routes
from analytics_assets.segment.model import Endpoint

_NEXT: Final = jsonpath.compile_path("data.pagination.next")
"""Read once: each chain of pages has a paginator of its own."""


class GuardedPaginator(JSONResponseCursorPaginator):
    """Follows ``data.pagination.next`` while the pages can be trusted.

    A page that cannot be is emptied, its extraction has failed and its chain ends: an exception
    would end the reading of all other resources.

    Args:
        extraction: what is noted of the pages.
        routes: tells which chain an answer belongs to.
    """

    def __init__(self, extraction: Extraction, routes: Routes) -> None:
        super().__init__(cursor_path=_NEXT, cursor_param="pagination.cursor")
        self._extraction = extraction
        self._routes = routes

    def __deepcopy__(self, _memo: Any) -> GuardedPaginator:
        """Return one for another chain; dlt copies the paginator for each."""
        return GuardedPaginator(self._extraction, self._routes)

    def update_state(self, response: requests.Response, data: list[Any] | None = None) -> None:
        """Check the page; make records of what came, with the fields that are wanted."""
        records = data if data is not None else []
        _, chain = self._routes.find(response.request.url or "")
        try:
            cursor = self._extraction.accept(chain, response.json(), page_size_of(response.request))
        except AnalyticsError as error:
            self._extraction.fail(error, chain)
            records.clear()
            self._has_next_page = False
            return
        records[:] = _wanted(self._extraction.endpoint, records)
        super().update_state(response, records)
        self._has_next_page = cursor is not None


def _wanted(endpoint: Endpoint, records: list[Any]) -> list[Any]:
    """Return records of bare strings, and records without what is never to be kept."""
    if endpoint.strings:
        return [{endpoint.strings: value} for value in records]
    if endpoint.ids_only:
        fields = {column.field for column in endpoint.columns}
        return [{name: record[name] for name in fields & record.keys()} for record in records]
    return records
