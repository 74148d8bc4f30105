"""What a load costs: the requests of each asset, worked out from its row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Final

from analytics_assets.segment.model import Endpoint, Months, Values, Window

PAGE_SIZE: Final = 1000
"""Records asked for per page, unless a list takes fewer or the ``api`` resource says otherwise."""
USUAL_LIMIT: Final = 600
"""Requests a minute; the API's own limit is not published."""
EVERY_RUN: Final = 1
"""``GET /``, by which a run learns whose workspace the token is for; the asset ``workspace`` loads
the same answer."""
FIRST_MONTHS, LATER_MONTHS = 13, 2
"""Months of usage that a first load and a later one ask for."""
NEW_EVENTS: Final = 100
"""Audit events since the last run: less than a page."""

MID_SIZE: Final[Mapping[str, int]] = {
    "warehouses": 6,
    "sources": 120,
    "destinations": 200,
    "reverse_etl_models": 12,
    "transformations": 25,
    "spaces": 2,
    "tracking_plans": 30,
    "functions": 40,
    "catalog_destinations": 420,
    "catalog_sources": 380,
    "catalog_warehouses": 14,
    "users": 150,
    "groups": 10,
    "audit_events": 4500,
    "usage_api_calls_sources_daily": 120 * 31,
    "usage_mtu_sources_daily": 120 * 31,
}
"""Records of a workspace of middle size; of usage in a month. Lists left out fit on a page."""


@dataclass(frozen=True)
class Cost:
    """Requests of one or of several assets.

    Attributes:
        first: of the first load.
        later: of every later one.
        minutes: that the first load takes at least, at ``USUAL_LIMIT`` or a lower limit of its own.
    """

    first: int
    later: int
    minutes: float


def cost_of(endpoint: Endpoint, sizes: Mapping[str, int] = MID_SIZE) -> Cost:
    """Return what an asset costs by itself, without the list it hangs on.

    Args:
        endpoint: the row of ``endpoints.py``.
        sizes: records of each list.
    """
    first = _requests(endpoint, sizes, first=True)
    recent = {**sizes, endpoint.name: NEW_EVENTS} if endpoint.cursor else sizes
    limit = min(endpoint.rate_limit or USUAL_LIMIT, USUAL_LIMIT)
    return Cost(first, _requests(endpoint, recent, first=False), first / limit)


def cost_of_run(endpoints: Iterable[Endpoint], sizes: Mapping[str, int] = MID_SIZE) -> Cost:
    """Return what a run of several assets costs, all at the same time.

    Args:
        endpoints: what is loaded, and the lists these hang on.
        sizes: records of each list.
    """
    costs = [cost_of(endpoint, sizes) for endpoint in endpoints if endpoint.path != "/"]
    first = EVERY_RUN + sum(cost.first for cost in costs)
    later = EVERY_RUN + sum(cost.later for cost in costs)
    return Cost(first, later, max([first / USUAL_LIMIT, *(cost.minutes for cost in costs)]))


def _requests(endpoint: Endpoint, sizes: Mapping[str, int], *, first: bool) -> int:
    """Return the pages of all chains: at least one a chain."""
    page = min(PAGE_SIZE, endpoint.page_limit or PAGE_SIZE)
    pages = max(1, ceil(sizes.get(endpoint.name, 1) / page)) if endpoint.paginated else 1
    return pages * _chains(endpoint, sizes, first=first)


def _chains(endpoint: Endpoint, sizes: Mapping[str, int], *, first: bool) -> int:
    way = endpoint.slice
    if endpoint.parent:
        return sizes[endpoint.parent.resource]
    if isinstance(way, Months):
        return FIRST_MONTHS if first else LATER_MONTHS
    if isinstance(way, Window):
        return ceil(way.look_back / way.days) if first else 1
    return len(way.values) if isinstance(way, Values) else 1
