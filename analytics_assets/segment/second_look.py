"""A second look at a list, before rows that it did not bring are taken for deleted.

A record that is removed between two pages moves all behind it one place forward, and the first of
the next page is served on no page. Nothing tells: the list looks whole. So a list that took several
pages is walked once more, for its keys, if rows would be marked. If both walks show the same keys,
what is missing in both is gone; if not, nothing is marked.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import quote

from analytics_assets.segment.errors import AnalyticsError
from analytics_assets.segment.extraction import Extraction, chain_label
from analytics_assets.segment.model import Values
from analytics_assets.segment.pages import Chain, doubt_of
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.reading_session import ReadingSession
from analytics_assets.segment.staging import Key
from analytics_assets.segment.walk import walk

Walk = tuple[Extraction, str]
"""An extraction and the name of one of its chains."""


class SecondLooks:
    """The second looks of a run at the lists of a group, each taken once.

    Args:
        session: what to send with.
    """

    def __init__(self, session: ReadingSession) -> None:
        self._session = session
        self._found: dict[Walk, str] = {}

    def take(self, reading: Reading) -> None:
        """Cast doubt on a list whose second look differs from the first.

        Args:
            reading: it is whole and settled.
        """
        extraction, staging = reading.extraction, reading.staging
        if reading.failure or staging is None or not staging.missing:
            return
        for behind in _walks_behind(reading):
            if extraction.doubts:
                return
            if behind not in self._found:
                self._found[behind] = self._difference(*behind)
            if self._found[behind]:
                extraction.cast_doubt(self._found[behind])

    def _difference(self, extraction: Extraction, name: str) -> str:
        """Walk a chain again; say how it differs from before, nothing if it does not."""
        endpoint, first, second = extraction.endpoint, extraction.chains[name], Chain()
        label = chain_label(endpoint, name)
        place = f"{endpoint.name} ({label})" if label else endpoint.name
        try:
            for _ in walk_chain(self._session, extraction, name, second):
                pass
        except AnalyticsError as error:
            return f"a second look at {place} failed ({error})"
        same = (second.distinct, second.fingerprint) == (first.distinct, first.fingerprint)
        if same and not doubt_of(endpoint, second):
            return ""
        return f"a second look at {place} shows that it changes while it is read"


def walk_chain(
    session: ReadingSession, extraction: Extraction, name: str, chain: Chain
) -> Iterator[tuple[list[Any], str | None]]:
    """Yield the pages of a chain once more; its requests count as those of the first walk."""
    endpoint, way = extraction.endpoint, extraction.endpoint.slice
    path, params = endpoint.path, {}
    if endpoint.parent:
        path = path.replace(f"{{{endpoint.parent.param}}}", quote(name, safe=""))
    elif isinstance(way, Values):
        params = {way.param: name}
    fetch = session.counted(extraction)
    return walk(session, endpoint, params, path=path, chain=chain, fetch=fetch)


def _walks_behind(reading: Reading) -> Iterator[Walk]:
    """Yield the walks of several pages that rows are missing from: a lone page is of one moment.

    What a parent's path brings hangs on no other parent, so only the paths of the rows that are
    missing matter, and the list of parents if it does not hold theirs any more.
    """
    extraction, way, staging = reading.extraction, reading.endpoint.parent, reading.staging
    if way is None or extraction.parent is None or staging is None:
        if extraction.pages > 1:
            yield from ((extraction, name) for name in extraction.chains)
        return
    parents = _parents_of(reading, staging.missing)
    if extraction.parent.pages > 1 and not (parents and parents <= extraction.chains.keys()):
        yield from ((extraction.parent, name) for name in extraction.parent.chains)
    standing = extraction.chains.keys() - extraction.gone
    for name in sorted(parents & standing if parents else standing):
        if extraction.chains[name].pages > 1:
            yield extraction, name


def _parents_of(reading: Reading, missing: Collection[Key]) -> frozenset[str]:
    """Return the parents that missing rows hang on; none if their keys do not tell."""
    keys, way = reading.endpoint.key_columns, reading.endpoint.parent
    name = next((c.name for c in reading.endpoint.columns if way and c.field == way.param), "")
    return frozenset(str(key[keys.index(name)]) for key in missing) if name in keys else frozenset()
