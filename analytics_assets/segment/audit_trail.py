"""Follow the audit trail: the events that are new, and the assets that each concerns.

Pure dlt half, no Dagster. One request tells whether anything has changed, where a load would have
to read every list there is.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Final

import orjson
import pyarrow as pa

from analytics_assets.segment.client import ApiSession
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.errors import AnalyticsError, ResourceError, SettingError
from analytics_assets.segment.extraction import UNAVAILABLE
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.records import BadValue, RowTyper
from analytics_assets.segment.settings import ApiSettings, Log
from analytics_assets.segment.walk import walk

AUDIT_EVENTS: Final = BY_NAME["audit_events"]
MIN_OVERLAP: Final = timedelta(minutes=1)
"""Events of the second in which the last answer was given would be lost without any overlap."""
PAGING_SECONDS: Final = 15.0
"""No further page is asked for after so long. Together with what one request may take (two
attempts of 10 s and a wait of 20 s) it stays below the 60 s that Dagster gives a sensor."""
OTHER_THINGS: Final = (
    "Filter",
    "Profiles Sync Warehouse",
    "Regulation",
    "Source Regulation",
    "Violations Detected",
    "Workspace Regulation",
)
"""How the types of events begin that change nothing in any table. Names: the sentences on the audit
trail in docs/*.md of the SDK, and the list of the app (segment.com/docs, Audit Trail).
"Profiles Sync Warehouse" stays here whatever becomes an asset: to read these warehouses may itself
write such an event (ProfilesSyncApi.md), and a sensor that then reads them would feed itself."""


@dataclass(frozen=True)
class Event:
    """One event of the audit trail, as far as it matters here."""

    id: str
    moment: datetime
    type: str
    resource_type: str


@dataclass(frozen=True)
class Cursor:
    """How far the trail has been followed.

    Attributes:
        newest: time of the newest event so far; of the first look, if there was none.
        seen: ids of the events since ``newest`` less the overlap, which will be read again.
    """

    newest: datetime
    seen: frozenset[str] = frozenset()

    def to_json(self) -> str:
        """Write the cursor as text."""
        content = {"newest": api_time(self.newest), "seen": sorted(self.seen)}
        return orjson.dumps(content).decode()

    @classmethod
    def from_json(cls, text: str) -> Cursor:
        """Read what :meth:`to_json` wrote.

        Raises:
            SettingError: it is something else.
        """
        try:
            content = orjson.loads(text)
            newest = datetime.fromisoformat(content["newest"].replace("Z", "+00:00"))
            return cls(newest.astimezone(timezone.utc), frozenset(map(str, content["seen"])))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise SettingError(
                "The cursor of the audit trail is not one that was written here; reset it to start"
                " from now."
            ) from None


@dataclass(frozen=True)
class News:
    """What a look at the trail brought.

    Attributes:
        events: events that were not seen before, the oldest first.
        cursor: where the next look starts.
        complete: false if there was too much to read, so that anything may have changed.
    """

    events: Sequence[Event]
    cursor: Cursor
    complete: bool = True

    @property
    def key(self) -> str:
        """A text that is the same for the same news, and for no others."""
        if not self.complete:
            return f"everything up to {api_time(self.cursor.newest)}"
        ids = "\n".join(sorted(event.id for event in self.events))
        moment = api_time(self.events[-1].moment) if self.events else "nothing"
        return f"{moment} {hashlib.sha256(ids.encode()).hexdigest()[:16]}"


def new_events(settings: ApiSettings, cursor: Cursor | None, log: Log) -> News:
    """Ask for the events since ``cursor``: one request, unless there is more than a page.

    Nothing is assumed of the order of events, of the bounds of a window, or of events that arrive
    late within ``settings.overlap_minutes``: the end of the last window is read again, and what was
    seen there is left out. Without a cursor it starts from now, less the overlap.

    Raises:
        AnalyticsError: the trail cannot be read now; the text says why.
    """
    now = datetime.now(timezone.utc)
    overlap = max(timedelta(minutes=settings.overlap_minutes), MIN_OVERLAP)
    followed = min(cursor.newest, now) if cursor else now
    start = followed - overlap
    try:
        events, complete = _read(_impatient(settings), start, log)
    except ResourceError as error:
        raise _explained(error) from None
    # the API might round the start down: what lies before it has been dealt with and forgotten
    events = [event for event in events if event.moment >= start]
    newest = min(max([followed, *(event.moment for event in events)]), now) if complete else now
    newest = _to_millis(newest)  # as it is written: what is remembered must fit what is read again
    remembered = frozenset(e.id for e in events if e.moment >= newest - overlap)
    seen = cursor.seen if cursor else frozenset()
    new = {event.id: event for event in events if event.id not in seen}
    ordered = sorted(new.values(), key=lambda event: (event.moment, event.id))
    return News(ordered, Cursor(newest, remembered), complete)


def _impatient(settings: ApiSettings) -> ApiSettings:
    """A look that takes long is given up: the next one comes soon and asks for the same."""
    return replace(
        settings,
        timeout=min(settings.timeout, 10.0),
        answer_timeout=min(settings.answer_timeout, 20.0),
        retries=min(settings.retries, 1),
        backoff_factor=min(settings.backoff_factor, 1.0),
        max_wait=min(settings.max_wait, 20.0),
    )


def _read(settings: ApiSettings, start: datetime, log: Log) -> tuple[list[Event], bool]:
    """Read the events since ``start``; tell whether that was all of them."""
    typer = RowTyper(
        AUDIT_EVENTS, {}, redact=settings.redact, fingerprint_key=settings.fingerprint_key
    )
    events: list[Event] = []
    deadline = time.monotonic() + PAGING_SECONDS
    with ApiSession(settings, log) as session:
        pages = walk(session, AUDIT_EVENTS, {"startTime": api_time(start)})
        for records, more in pages:
            try:
                events += _events(typer.table(records, len(events)))
            except BadValue as error:
                raise ResourceError(str(error), status=200) from None
            if more and time.monotonic() > deadline:
                log.warning(f"More than {len(events)} events since {api_time(start)}.")
                return events, False
    return events, True


def _events(table: pa.Table) -> list[Event]:
    columns = table.select(["id", "timestamp", "type", "resource_type"])
    return [
        Event(
            row["id"],
            # an event without a time cannot be placed: taken as one of this moment
            row["timestamp"] or datetime.now(timezone.utc),
            row["type"] or "",
            row["resource_type"] or "",
        )
        for row in columns.to_pylist()
    ]


def _explained(error: ResourceError) -> AnalyticsError:
    if error.status in UNAVAILABLE:
        return ResourceError(
            f"The audit trail cannot be read (GET {AUDIT_EVENTS.path}): {error}. Either the token"
            f" is not accepted, or the workspace or token lacks {AUDIT_EVENTS.feature}; without it,"
            " switch this off and rely on the schedules.",
            status=error.status,
        )
    then = "The next look asks for the same events." if error.transient else ""
    return ResourceError(
        f"The audit trail cannot be read now (GET {AUDIT_EVENTS.path}): {error}. {then}".strip(),
        status=error.status,
        transient=error.transient,
    )


# Which assets an event concerns.


def followed_assets() -> list[str]:
    """Return the assets that events can concern, in the order of ``endpoints.py``."""
    return [endpoint.name for endpoint in ENDPOINTS if endpoint.followed]


def assets_to_refresh(news: News, log: Log) -> list[str]:
    """Return the assets that new events concern and ``audit_events``; none if there are none.

    An event of an unknown type goes by its resource type; if that is unknown too, it is logged.
    """
    if not news.complete:
        return followed_assets()
    if not news.events:
        return []
    names = {AUDIT_EVENTS.name}
    unknown: Counter[tuple[str, str]] = Counter()
    for event in news.events:
        concerned = assets_of(event.type, event.resource_type)
        names |= concerned or frozenset()
        if concerned is None:
            unknown[event.type, event.resource_type] += 1
    for (kind, resource), count in unknown.items():
        log.warning(
            f"{count} audit event(s) of the unknown type {kind!r} on a {resource!r}: only"
            f" {AUDIT_EVENTS.name} is refreshed for them."
        )
    return [name for name in followed_assets() if name in names]


def assets_of(event_type: str, resource_type: str = "") -> frozenset[str] | None:
    """Return the assets that an event concerns; ``None`` if nothing is known of its type.

    Of the texts that fit its type the longest counts: "Source Function" is none of a source.
    """
    lengths = {e.name: _longest(e.event_types, event_type) for e in ENDPOINTS}
    longest = max(lengths.values())
    if _longest(OTHER_THINGS, event_type) > longest:
        return frozenset()
    by_type = frozenset(name for name, length in lengths.items() if length == longest > 0)
    by_resource = frozenset(
        e.name for e in ENDPOINTS if e.event_types and _squash(resource_type) in _kinds(e)
    )
    return by_type or by_resource or None


def summary(events: Iterable[Event]) -> str:
    """Count events by type: ``2 Source Created, 1 Label Deleted``."""
    counts = Counter(event.type for event in events)
    return ", ".join(f"{count} {kind}" for kind, count in counts.most_common())


def _longest(beginnings: Iterable[str], event_type: str) -> int:
    """Length of the longest of ``beginnings`` that ``event_type`` starts with, 0 if none does."""
    fitting = (
        len(words)
        for words in beginnings
        if re.match(rf"{re.escape(words)}s?\b", event_type, re.IGNORECASE)
    )
    return max(fitting, default=0)


def _kinds(endpoint: Endpoint) -> set[str]:
    """Resource types that stand for the list; of one with a parent its own, not the parent's."""
    words = () if endpoint.parent else endpoint.event_types
    return {_squash(text) for text in (endpoint.name, *words)}


def _squash(words: str) -> str:
    """Make ``Storage Destination``, ``storage_destination`` and ``storageDestinations`` equal."""
    return re.sub(r"[^a-z0-9]", "", words.lower()).removesuffix("s")


def _to_millis(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def api_time(moment: datetime) -> str:
    """Write a time as the API does."""
    text = moment.astimezone(timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")
