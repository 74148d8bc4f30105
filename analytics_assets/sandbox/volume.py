"""The volume of events: what each source sends of each event, by day, hour or minute.

A source sends a few events of its own, whose shares of a day add up to the API calls that the usage
lists tell of that source and day. Every minute of a day has the same share; a bucket that is not
over holds what has come so far.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from typing import Final

import orjson

from analytics_assets.sandbox.company import Company, Record
from analytics_assets.sandbox.lists.inventory import sources_head
from analytics_assets.sandbox.lists.protocols import EVENT_NAMES, event_name, events_of, plan_of
from analytics_assets.sandbox.resources import Key
from analytics_assets.sandbox.story import UNPLANNED_EVENT

KEPT_DAYS: Final = 90
"""Days that can be asked for, today included; older ones are forgotten."""
STEPS: Final = {
    "DAY": timedelta(days=1),
    "HOUR": timedelta(hours=1),
    "MINUTE": timedelta(minutes=1),
}
LONGEST: Final = {
    "DAY": timedelta(days=31),
    "HOUR": timedelta(days=7),
    "MINUTE": timedelta(hours=4),
}
"""Longest window by granularity. The service does not say how long one may be."""
DIMENSIONS: Final = ("source", "eventType", "eventName")

_MOST_EVENTS = 8
_EVENTS_APART = 5
_DAY = timedelta(days=1)

Calls = Callable[[int, date], int]


@dataclass(frozen=True)
class VolumeQuery:
    """What is asked for; the end is not in it.

    Attributes:
        start: first moment.
        end: the moment after the last.
        granularity: length of a bucket: ``DAY``, ``HOUR`` or ``MINUTE``.
        group_by: dimensions told apart; the others are added up.
        only: values of dimensions that alone count, sources by their identifiers.
    """

    start: datetime
    end: datetime
    granularity: str = "DAY"
    group_by: Sequence[str] = DIMENSIONS
    only: Mapping[str, Collection[str]] | None = None


@dataclass(frozen=True)
class _Stream:
    """One event of one source, and the part of the source's calls that it makes up."""

    source: int
    kind: str
    name: str | None
    low: int
    high: int
    whole: int

    def part_of(self, calls: int) -> int:
        """Give its part of some calls; the parts of all streams of a source add up to them."""
        return calls * self.high // self.whole - calls * self.low // self.whole


class EventVolume:
    """Counts the events of a company; not safe for threads, its owner holds a lock."""

    def __init__(self, company: Company, sources: int, calls: Calls) -> None:
        """Prepare the events of so many sources, whose API calls of a day a function tells."""
        self._calls = calls
        self._sources = [sources_head(company, index) for index in range(sources)]
        self._streams = [stream for index in range(sources) for stream in _streams(company, index)]
        self._restated: dict[Key, int] = {}

    def restate(self, key: Key, count: int) -> None:
        """Set the count of a day; the key is source id, kind of call, event and day."""
        self._restated[key] = count

    def page(
        self, query: VolumeQuery, now: datetime, offset: int, count: int
    ) -> tuple[list[bytes], int]:
        """Give some entries of the answer to a query, and how many it has in all."""
        times = list(_buckets(query, now))
        groups = self._groups(query) if times else []
        calls: dict[tuple[int, date], int] = {}
        page = groups[offset : offset + count]
        return [self._entry(group, query, times, now, calls) for group in page], len(groups)

    def _groups(self, query: VolumeQuery) -> list[list[_Stream]]:
        found: dict[tuple[object, ...], list[_Stream]] = {}
        for stream in self._streams:
            source = self._sources[stream.source]["id"]
            values = {"source": source, "eventType": stream.kind, "eventName": stream.name}
            if all(values[name] in wanted for name, wanted in (query.only or {}).items()):
                found.setdefault(tuple(values[n] for n in query.group_by), []).append(stream)
        return list(found.values())

    def _entry(
        self,
        group: Sequence[_Stream],
        query: VolumeQuery,
        times: Sequence[datetime],
        now: datetime,
        calls: dict[tuple[int, date], int],
    ) -> bytes:
        step = STEPS[query.granularity]
        counts = [sum(self._count(one, at, step, now, calls) for one in group) for at in times]
        entry: Record = {}
        if "source" in query.group_by:
            head = self._sources[group[0].source]
            entry["source"] = {name: head[name] for name in ("id", "name", "slug") if name in head}
        if "eventName" in query.group_by and group[0].name is not None:
            entry["eventName"] = group[0].name
        if "eventType" in query.group_by:
            entry["eventType"] = group[0].kind
        series = [{"time": stamp(at), "count": n} for at, n in zip(times, counts, strict=True)]
        return orjson.dumps({**entry, "total": sum(counts), "series": series})

    def _count(
        self,
        stream: _Stream,
        at: datetime,
        step: timedelta,
        now: datetime,
        calls: dict[tuple[int, date], int],
    ) -> int:
        day = at.date()
        if self._restated and step == _DAY:
            source = str(self._sources[stream.source]["id"])
            key = (source, stream.kind, stream.name or "", day.isoformat())
            if key in self._restated:
                return self._restated[key]
        of_source = calls.get((stream.source, day))
        if of_source is None:
            of_source = calls[stream.source, day] = self._calls(stream.source, day)
        whole = stream.part_of(of_source)
        end = min(at + step, now)
        if end - at == _DAY:
            return whole
        midnight = datetime.combine(day, time(), timezone.utc)
        return whole * (end - midnight) // _DAY - whole * (at - midnight) // _DAY


def _streams(company: Company, source: int) -> Iterator[_Stream]:
    """Give the events of a source: some of its tracking plan, and the calls that have no name."""
    rng = company.rng("events_volume", source)
    names = _names(company, source, rng.randint(1, _MOST_EVENTS))
    kinds = ["track"] * len(names) + ["identify"]
    kinds += [rng.choice(["page", "screen"])] if source % 3 else []
    kinds += ["group"] if source % 4 == 0 else []
    if "events_volume" in company.counts:
        names = _any_names(source, company.counts["events_volume"])
        kinds = ["track"] * len(names)
    weights = [rng.randint(1, 100) for _ in kinds]
    low = 0
    for place, (kind, weight) in enumerate(zip(kinds, weights, strict=True)):
        name = names[place] if kind == "track" else None
        yield _Stream(source, kind, name, low, low + weight, sum(weights))
        low += weight


def _names(company: Company, source: int, wanted: int) -> Sequence[str]:
    """Give the events of a source, so many as its plan names, and the one that is planted."""
    plan = plan_of(company, source)
    if plan is None:
        return _any_names(source, wanted)
    planted, event = UNPLANNED_EVENT
    named = events_of(company, plan)
    first = source % max(len(named), 1)
    chosen = [*named[first:], *named[:first]][:wanted]
    return [*chosen, event] if source == planted else chosen


def _any_names(source: int, wanted: int) -> Sequence[str]:
    """Give so many different events, whatever plans say."""
    names = []
    for place in range(wanted):
        number = (source * _EVENTS_APART + place) % EVENT_NAMES
        names.append(event_name(number + place // EVENT_NAMES * EVENT_NAMES))
    return names


def _buckets(query: VolumeQuery, now: datetime) -> Iterator[datetime]:
    """Give the start of each bucket that a query asks for, and that is not forgotten."""
    step = STEPS[query.granularity]
    forgotten = datetime.combine(now.date(), time(), timezone.utc) - (KEPT_DAYS - 1) * _DAY
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    at = max(epoch + (query.start - epoch) // step * step, forgotten)
    while at < min(query.end, now):
        yield at
        at += step


def stamp(moment: datetime) -> str:
    """Write a moment as the answers do."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
