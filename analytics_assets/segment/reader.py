"""Read the API: the resources of a group at the same time, each to its end or to its failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from urllib.parse import urlsplit

from analytics_assets.segment.errors import (
    AnalyticsError,
    ResourceError,
    TokenRejected,
    WrongAddress,
    unexpected,
)
from analytics_assets.segment.extraction import NOT_FOUND, Extraction
from analytics_assets.segment.pages import Chain
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.reading_session import ReadingSession
from analytics_assets.segment.second_look import SecondLooks, walk_chain
from analytics_assets.segment.source import api_source
from analytics_assets.segment.spans import span

FORBIDDEN: Final = 403
REFUSALS: Final = frozenset({401, FORBIDDEN})


def read_group(session: ReadingSession, group: str, readings: Sequence[Reading]) -> None:
    """Read the resources of a group at the same time; afterwards each is whole or has failed.

    Args:
        session: what to send with; other groups may share it.
        group: name of the group.
        readings: what to read, and the parents that are read for their sake.
    """
    sound = [reading for reading in readings if not _lost(reading.extraction)]
    if sound:
        try:
            for _ in api_source(group, sound, session, session.routes, session.settings):
                pass  # the last step of each pipe keeps the tables
        except Exception as error:  # noqa: BLE001 - it must not cost the other groups
            for reading in sound:
                reading.extraction.fail(unexpected(error))
        _look_for_missing_parents(session, sound)
    looks = SecondLooks(session)
    for reading in sorted(readings, key=lambda reading: bool(reading.endpoint.parent)):
        with span("stage"):
            reading.finish()
        with span("read"):
            looks.take(reading)


def _lost(extraction: Extraction) -> bool:
    """Tell whether there is no use in reading, as it or the list it hangs on has failed already."""
    parent = extraction.parent
    return extraction.failure is not None or (parent is not None and parent.failure is not None)


def _look_for_missing_parents(session: ReadingSession, readings: Sequence[Reading]) -> None:
    """Where the path of a parent was not found, see whether its list still holds it."""
    for reading in readings:
        extraction = reading.extraction
        if not extraction.missing or extraction.failure or extraction.parent is None:
            continue
        try:
            standing = _identifiers(session, extraction.parent, extraction)
        except AnalyticsError as error:
            parent = extraction.parent.endpoint.name
            why = f"a path was not found, and a second look at {parent} failed ({error})"
            extraction.fail(ResourceError(why, transient=error.transient))
            continue
        extraction.close_missing(standing)


def _identifiers(session: ReadingSession, parent: Extraction, child: Extraction) -> set[str]:
    way = child.endpoint.parent
    field = way.field if way else "id"
    return {
        str(record.get(field))
        for name in parent.chains
        for page, _ in walk_chain(session, parent, name, Chain())
        for record in page
    }


def raise_if_refused(session: ReadingSession, readings: Sequence[Reading]) -> None:
    """Tell a token that is not accepted from one that merely lacks some permission.

    Raises:
        TokenRejected: the API refused everything that was asked for.
        WrongAddress: there is nothing at all that was asked for.
    """
    readings = [reading for reading in readings if reading.extraction.requests]
    statuses = {int(getattr(reading.failure, "status", None) or 0) for reading in readings}
    if statuses == {NOT_FOUND} and not session.whose.token_works:
        raise WrongAddress(
            f"Nothing that was asked for is at {session.settings.base_url}, nor the workspace"
            " itself (HTTP 404). Check ANALYTICS_API_BASE_URL."
        )
    if not statuses or not statuses <= REFUSALS:
        return
    if any(chain.pages for reading in readings for chain in reading.extraction.chains.values()):
        return
    if all(reading.endpoint.feature for reading in readings) and (
        FORBIDDEN in statuses or session.whose.token_works
    ):
        return
    raise TokenRejected(
        f"The API at {urlsplit(session.settings.base_url).netloc} does not accept the token: it"
        f" refused all {len(readings)} resources asked for"
        f" (HTTP {', '.join(map(str, sorted(statuses)))})."
        " Check ANALYTICS_API_TOKEN, and ANALYTICS_API_BASE_URL if the workspace is in the EU."
    )
