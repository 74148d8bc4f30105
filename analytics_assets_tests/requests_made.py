"""The requests of a load: whose they were, how many there were, how many there should be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timezone
from math import ceil
from typing import Any

from analytics_assets.sandbox import RequestInfo
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.model import Endpoint, Parent, Values, Window
from analytics_assets_tests.harness import ALL_TABLES, Project

WORKSPACE = "workspace"
_PATHS = [(re.compile(re.sub(r"\{\w+\}", r"[^/]+", e.path)), e.name) for e in ENDPOINTS]


def name_of(info: RequestInfo) -> str:
    """Return the name of the list that was asked for; of a path that is no list the path."""
    return next((name for path, name in _PATHS if path.fullmatch(info.path)), info.path)


def requests_by_name(infos: Iterable[RequestInfo]) -> Counter[str]:
    """Count the requests of each list; a path that is no list counts under itself."""
    return Counter(map(name_of, infos))


def expected_requests(
    project: Project, page_size: int = 1000, months: int = 13, names: Iterable[str] = ALL_TABLES
) -> Counter[str]:
    """Work out the requests of a load of some lists: the pages of each chain, at least one of each.

    Besides, a run asks once which workspace it is, whatever it loads.
    """
    return Counter({WORKSPACE: 1}) | Counter(
        {
            name: sum(
                max(1, ceil(len(chain) / page_limit(BY_NAME[name], page_size)))
                for chain in chains(project, BY_NAME[name], months)
            )
            for name in names
        }
    )


def page_limit(endpoint: Endpoint, page_size: int) -> int:
    """Return how many records a page holds at most, when ``page_size`` are asked for."""
    return min(page_size, endpoint.page_limit or page_size) if endpoint.paginated else 10**9


def chains(project: Project, endpoint: Endpoint, months: int) -> list[Sequence[Any]]:
    """Return the records of each walk over a list: of each month, value or parent."""
    way, sandbox = endpoint.slice, project.sandbox
    if endpoint.monthly:
        return [sandbox.workspace.usage(endpoint.name, month) for month in periods(months)]
    found = sandbox.served(endpoint.name)
    if isinstance(way, Window):  # every window has an entry for each event of each source
        return [found] * ceil(way.look_back / way.days)
    if isinstance(way, Values):
        return [[row for row in found if row[way.param] == value] for value in way.values]
    if isinstance(way, Parent):
        parents = [row[way.field] for row in sandbox.served(way.resource)]
        return [[row for row in found if row[way.param] == parent] for parent in parents]
    return [found]


def periods(months: int) -> list[str]:
    """Return the first days of the last ``months`` months, the current one included."""
    now = datetime.now(timezone.utc)
    last = now.year * 12 + now.month - 1
    return [date(m // 12, m % 12 + 1, 1).isoformat() for m in range(last - months + 1, last + 1)]
