"""Which list a path stands for."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from analytics_assets.sandbox.resources import Resource


class Route(NamedTuple):
    """A list, with the parent whose records of it are asked for, or the one record of it."""

    resource: Resource
    parent: str | None = None
    record: str | None = None


class Routes:
    """The paths of all lists of a table."""

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        """Prepare the paths."""
        self._exact = {row.path: Route(row) for row in resources.values() if row.parent is None}
        self._children = [row for row in resources.values() if row.parent is not None]
        self._ones = [
            (re.compile(f"{re.escape(row.path)}/([^/]+)"), row)
            for row in resources.values()
            if row.one
        ]

    def find(self, path: str) -> Route | None:
        """Find the list that is at a path, if there is one."""
        route = self._exact.get(path)
        if route is not None:
            return route
        for row in self._children:
            match = row.pattern.fullmatch(path)
            if match is not None:
                return Route(row, match[1])
        for pattern, row in self._ones:
            match = pattern.fullmatch(path)
            if match is not None:
                return Route(row, record=match[1])
        return None
