"""The workspace the sandbox serves: what it holds, what it used, and how tests change it."""

from __future__ import annotations

import re
import threading
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any, Literal

import orjson

from analytics_assets.sandbox._bodies import (
    BASE_COUNTS,
    Blueprint,
    Company,
    Record,
    is_secret,
    rng_for,
    secrets_in,
)
from analytics_assets.sandbox._usage import UsageLedger, day_timestamp, months_back, next_month

Kind = Literal["list", "plain", "audit", "usage"]
Key = tuple[str, ...]
Order = Literal["asc", "desc"]
Bounds = Literal["inclusive", "exclusive"]

RETENTION = timedelta(days=90)
"""How long audit events can be read."""

_AUDIT_SPREAD_MS = int(RETENTION.total_seconds() * 1000 * 0.999)
_AUDIT_EPOCH = datetime(2020, 1, 1, tzinfo=timezone.utc)
_AUDIT_FIRST_ID = 145_000_000
_BURST = 3
_BURST_GAP = 2.5
_USAGE_MONTHS = 36
_KEPT_RECORDS = 20_000
_CATALOGS = frozenset({"catalog_destinations", "catalog_sources", "catalog_warehouses"})
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOMENT = re.compile(
    r"(\d{4}-\d{2}-\d{2})T(\d{2}:\d{2}(?::\d{2})?)(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})?"
)


@dataclass(frozen=True)
class Resource:
    """One list of the service: where it is, and what its answers look like."""

    name: str
    path: str
    list_key: str
    kind: Kind = "list"
    key: Key = ("id",)
    total: bool = True
    last_next: Literal["null", "missing"] = "null"


def _resources() -> dict[str, Resource]:
    per_source, day = ("sourceId", "timestamp"), ("timestamp",)
    listed = (
        Resource("warehouses", "/warehouses", "warehouses"),
        Resource("sources", "/sources", "sources", last_next="missing"),
        Resource("destinations", "/destinations", "destinations"),
        Resource("reverse_etl_models", "/reverse-etl-models", "models", last_next="missing"),
        Resource("catalog_destinations", "/catalog/destinations", "destinationsCatalog"),
        Resource("catalog_sources", "/catalog/sources", "sourcesCatalog", last_next="missing"),
        Resource("catalog_warehouses", "/catalog/warehouses", "warehousesCatalog"),
        Resource("users", "/users", "users", last_next="missing"),
        Resource("labels", "/labels", "labels", "plain", ("key", "value")),
        Resource("roles", "/roles", "roles", total=False, last_next="missing"),
        Resource("audit_events", "/audit-events", "events", "audit", total=False),
        Resource("transformations", "/transformations", "transformations", last_next="missing"),
        Resource("spaces", "/spaces", "spaces"),
        Resource(
            "usage_api_calls_daily",
            "/usage/api-calls/daily",
            "dailyWorkspaceAPICallsUsage",
            "usage",
            day,
            last_next="missing",
        ),
        Resource("usage_mtu_daily", "/usage/mtu/daily", "dailyWorkspaceMTUUsage", "usage", day),
        Resource(
            "usage_api_calls_sources_daily",
            "/usage/api-calls/sources/daily",
            "dailyPerSourceAPICallsUsage",
            "usage",
            per_source,
            last_next="missing",
        ),
        Resource(
            "usage_mtu_sources_daily",
            "/usage/mtu/sources/daily",
            "dailyPerSourceMTUUsage",
            "usage",
            per_source,
        ),
    )
    return {resource.name: resource for resource in listed}


RESOURCES: Mapping[str, Resource] = _resources()
"""Every list of the sandbox by its name."""


def utc_now() -> datetime:
    """Give the present moment in UTC."""
    return datetime.now(timezone.utc)


def parse_moment(text: str) -> datetime:
    """Read an ISO-8601 date or date-time; without an offset it is UTC.

    Raises:
        ValueError: the text is something else.
    """
    if _DATE.fullmatch(text):
        return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise ValueError(f"not an ISO-8601 date-time: {text!r}")
    day, clock, fraction, offset = match.groups()
    micros = (fraction or ".0")[1:7].ljust(6, "0")
    zone = "+00:00" if offset in (None, "Z") else offset
    seconds = clock if clock.count(":") > 1 else f"{clock}:00"
    return datetime.fromisoformat(f"{day}T{seconds}.{micros}{zone}").astimezone(timezone.utc)


def parse_month(text: str) -> date:
    """Read a usage period and give the first day of the month it lies in.

    Raises:
        ValueError: the text is not an ISO-8601 date or date-time.
    """
    return parse_moment(text).date().replace(day=1)


class Clock:
    """The time the sandbox lives in; it runs with the real time until it is set otherwise."""

    def __init__(self, source: Callable[[], datetime] = utc_now) -> None:
        """Follow a function that gives the present moment."""
        self._source = source
        self._offset = timedelta(0)

    def __call__(self) -> datetime:
        """Give the present moment of the sandbox, in UTC."""
        return (self._source() + self._offset).astimezone(timezone.utc)

    def follow(self, source: Callable[[], datetime] = utc_now) -> None:
        """Follow another function, by default the real time, without any offset."""
        self._source, self._offset = source, timedelta(0)

    def freeze(self, moment: datetime) -> None:
        """Stand still at a moment; ``shift`` still moves it."""
        self.follow(lambda: moment)

    def shift(self, delta: timedelta) -> None:
        """Go forward (or back) by some time, and run on as before from there."""
        self._offset += delta


class _Collection:
    """One list of records in served order, made from a blueprint and changed by tests."""

    def __init__(self, resource: Resource, blueprint: Blueprint, count: int) -> None:
        self._resource = resource
        self._blueprint = blueprint
        self._count = count
        self._order: Sequence[int] = range(count)
        self._changed: dict[int, bytes] = {}
        self._added: dict[Key, int] = {}
        self._next_index = count
        self._cache: dict[int, bytes] = {}
        self._tails: dict[int, bytes] = {}
        self._plain_keys: dict[Key, int] | None = None
        self.embedded: _Collection | None = None

    def __len__(self) -> int:
        return len(self._order)

    def page(self, offset: int, count: int) -> list[bytes]:
        """Give some records in served order, as JSON."""
        return [self.raw(index) for index in self._order[offset : offset + count]]

    def raw(self, index: int) -> bytes:
        """Give the record with this index as JSON, whether or not it is still listed."""
        changed = self._changed.get(index)
        if changed is not None:
            return changed
        if self.embedded is not None:
            metadata = self.embedded.raw(self._blueprint.embedded_index(index))
            return b'%b,"metadata":%b}' % (self._own(index)[:-1], metadata)
        return self._own(index)

    def put(self, record: Mapping[str, Any]) -> None:
        """Add a record, or replace the one with the same key where it stands."""
        key = self._key(record)
        index = self._find(key)
        if index is None:
            index = self._next_index
            self._next_index += 1
            self._added[key] = index
            self._order = [*self._order, index]
        self._changed[index] = orjson.dumps(record)

    def remove(self, key: Key) -> None:
        """Take a record off the list."""
        index = self._find(key)
        if index is None:
            raise KeyError(key)
        order = list(self._order)
        order.remove(index)
        self._order = order
        self._added.pop(key, None)

    def _key(self, record: Mapping[str, Any]) -> Key:
        return tuple(str(record[name]) for name in self._resource.key)

    def _own(self, index: int) -> bytes:
        cached = self._cache.get(index)
        if cached is not None:
            return cached
        head = orjson.dumps(self._blueprint.head(index))
        tail = self._tail(index % self._blueprint.variants)
        text = head if tail == b"{}" else b"%b,%b" % (head[:-1], tail[1:])
        if index < self._blueprint.variants or self._is_narrow(index):
            self._cache[index] = text
        return text

    def _is_narrow(self, index: int) -> bool:
        """Tell whether the own part of a record is small, and early enough in a list, to keep."""
        return self.embedded is not None and index < _KEPT_RECORDS

    def _tail(self, variant: int) -> bytes:
        tail = self._tails.get(variant)
        if tail is None:
            tail = self._tails[variant] = orjson.dumps(self._blueprint.tail(variant))
        return tail

    def _find(self, key: Key) -> int | None:
        index = self._added.get(key)
        if index is not None:
            return index
        index = self._find_generated(key)
        if index is None or isinstance(self._order, range):
            return index
        return index if index in self._order else None

    def _find_generated(self, key: Key) -> int | None:
        if self._blueprint.codec is not None:
            index = self._blueprint.codec.decode(key[0])
            return index if index < self._count and self._key_of(index) == key else None
        if self._plain_keys is None:
            self._plain_keys = {self._key_of(number): number for number in range(self._count)}
        return self._plain_keys.get(key)

    def _key_of(self, index: int) -> Key:
        return self._key(self._blueprint.head(index))


@dataclass(frozen=True)
class AuditWindow:
    """The part of the audit trail a request asks for; times are unix milliseconds."""

    floor: int
    start: int | None
    end: int
    bounds: Bounds = "inclusive"


class _AuditTrail:
    """Audit events ordered by time, spread over the retention time before the start.

    Event times lie on a grid that depends on the seed and the number of events alone, so that two
    runs at different moments agree on the events they share.
    """

    def __init__(self, company: Company, count: int, start: datetime, fractions: bool) -> None:
        self._company = company
        self._count = count
        self._start = start
        self._fractions = fractions
        self._variants = company.audit_variants()
        self._tails: dict[int, bytes] = {}
        self._changed: dict[int, bytes] = {}
        self._times: array[int] | None = None
        self._numbers: array[int] = array("q")
        self._last_number = 0

    def page(self, window: AuditWindow, order: Order, offset: int, count: int) -> list[bytes]:
        """Give some of the events of a window, as JSON."""
        low, high = self._range(window)
        if order == "asc":
            positions = range(min(low + offset, high), min(low + offset + count, high))
        else:
            first = high - 1 - offset
            positions = range(first, max(first - count, low - 1), -1)
        return [self._raw(position) for position in positions]

    def size(self, window: AuditWindow) -> int:
        """Tell how many events a window holds."""
        low, high = self._range(window)
        return high - low

    def put(self, record: Mapping[str, Any]) -> None:
        """Add an event, or replace the one with the same id."""
        times = self._loaded()
        number = int(str(record["id"]).rpartition("/")[2])
        self._discard(number)
        moment = _millis(parse_moment(str(record["timestamp"])))
        place = bisect_right(times, moment)
        while place > 0 and times[place - 1] == moment and self._numbers[place - 1] > number:
            place -= 1
        times.insert(place, moment)
        self._numbers.insert(place, number)
        self._changed[number] = orjson.dumps(record)
        self._last_number = max(self._last_number, number)

    def remove(self, key: Key) -> None:
        """Take an event off the trail."""
        self._loaded()
        if not self._discard(int(key[0].rpartition("/")[2])):
            raise KeyError(key)

    def add(self, fields: Mapping[str, Any], now: datetime) -> Record:
        """Add an event with the next id; fields that are not given are invented."""
        self._loaded()
        number = self._last_number + 1
        record = {
            "id": f"events/{number}",
            "timestamp": self._stamp(_millis(now)),
            **self._company.audit_tail(number % self._variants),
            **fields,
        }
        self.put(record)
        return record

    def _discard(self, number: int) -> bool:
        times = self._loaded()
        try:
            place = self._numbers.index(number)
        except ValueError:
            return False
        del times[place], self._numbers[place]
        self._changed.pop(number, None)
        return True

    def _loaded(self) -> array[int]:
        if self._times is None:
            self._times = array("q")
            self._load(self._times)
        return self._times

    def _load(self, times: array[int]) -> None:
        step = _AUDIT_SPREAD_MS / max(self._count, 1)
        epoch, start = _millis(_AUDIT_EPOCH), _millis(self._start)
        group_ms = step * _BURST
        jitter = rng_for(f"{self._company.seed}:audit").random()
        last_group = int((start - epoch) / group_ms)
        first_group = last_group - self._count // _BURST - 2
        moments: list[int] = []
        numbers: list[int] = []
        for group in range(first_group, last_group + 1):
            wander = (group * 0.6180339887 + jitter) % 1.0
            moment = int(epoch + group_ms * group + wander * 2 * step)
            later = moment + int(step * (_BURST_GAP - 2) * wander)
            moments += (moment, moment, later)
            number = _AUDIT_FIRST_ID + group * _BURST
            numbers += (number, number + 1, number + 2)
        if not self._fractions:
            moments = [moment // 1000 * 1000 for moment in moments]
        stop = bisect_right(moments, start)
        begin = max(stop - self._count, 0)
        times.extend(moments[begin:stop])
        self._numbers.extend(numbers[begin:stop])
        self._last_number = numbers[stop - 1] if stop else _AUDIT_FIRST_ID

    def _range(self, window: AuditWindow) -> tuple[int, int]:
        times = self._loaded()
        inclusive = window.bounds == "inclusive"
        low = bisect_left(times, window.floor)
        if window.start is not None:
            low = max(low, (bisect_left if inclusive else bisect_right)(times, window.start))
        high = (bisect_right if inclusive else bisect_left)(times, window.end)
        return low, max(low, high)

    def _raw(self, position: int) -> bytes:
        number = self._numbers[position]
        changed = self._changed.get(number)
        if changed is not None:
            return changed
        stamp = self._stamp(self._loaded()[position])
        head = b'{"id":"events/%d","timestamp":"%b",' % (number, stamp.encode())
        return head + self._tail(number % self._variants)[1:]

    def _tail(self, variant: int) -> bytes:
        tail = self._tails.get(variant)
        if tail is None:
            tail = self._tails[variant] = orjson.dumps(self._company.audit_tail(variant))
        return tail

    def _stamp(self, millis: int) -> str:
        moment = datetime.fromtimestamp(millis / 1000, timezone.utc).replace(tzinfo=None)
        if not self._fractions:
            return moment.replace(microsecond=0).isoformat() + "Z"
        return moment.isoformat(timespec="milliseconds") + "Z"


class Workspace:
    """Everything the sandbox serves: a made-up mid-size company, the same for the same seed.

    ``scale`` multiplies what a workspace owns (sources, destinations, users, audit events and so
    on; the three catalogs are the same for every workspace and stay as they are). ``counts`` sets
    the number of records of single lists, and ``usage_months`` the months of usage history.
    Every method is safe to call from any thread while the server answers requests.
    """

    def __init__(
        self,
        seed: int = 7,
        scale: float = 1.0,
        counts: Mapping[str, int] | None = None,
        now: Callable[[], datetime] = utc_now,
        *,
        audit_order: Order = "asc",
        audit_fractions: bool = False,
    ) -> None:
        """Invent the company; records themselves are made when they are asked for."""
        self._lock = threading.RLock()
        self._now = now
        self._audit_order = audit_order
        self.counts = _counts(scale, counts or {})
        company = Company(seed, self.counts)
        self.company = company
        self._collections = {
            name: _Collection(RESOURCES[name], blueprint, self.counts[name])
            for name, blueprint in company.blueprints().items()
        }
        for name, blueprint in company.blueprints().items():
            if blueprint.embeds is not None:
                self._collections[name].embedded = self._collections[blueprint.embeds]
        started = now()
        self._audit = _AuditTrail(company, self.counts["audit_events"], started, audit_fractions)
        self.history_start = months_back(started.date(), self.counts["usage_months"] - 1)
        self._ledger: UsageLedger | None = None
        self._restated: dict[str, dict[Key, Mapping[str, Any]]] = {}
        self._dropped: dict[str, set[str]] = {}

    def now(self) -> datetime:
        """Give the present moment of the workspace."""
        return self._now()

    def describe(self) -> Record:
        """Give the record of the workspace itself."""
        return self.company.workspace()

    # ------------------------------------------------------------------ reading

    def records(self, name: str) -> list[Record]:
        """Give every record of a list as it is served now, in served order.

        For usage lists this is the whole history; audit events stop at the retention time.
        """
        with self._lock:
            kind = RESOURCES[name].kind
            if kind == "usage":
                return [row for month in self.months() for row in self.usage(name, str(month))]
            if kind == "audit":
                window = self.audit_window()
                rows = self._audit.page(window, self._audit_order, 0, self._audit.size(window))
            else:
                rows = self._collections[name].page(0, len(self._collections[name]))
            return [orjson.loads(row) for row in rows]

    def usage(self, name: str, period: str) -> list[Record]:
        """Give the usage rows of the month a period lies in, as they are served now."""
        return [orjson.loads(row) for row in self._usage_rows(name, parse_month(period))]

    def months(self) -> list[date]:
        """Give the first days of all months with usage, oldest first."""
        month, last = self.history_start, self.now().date()
        months = []
        while month <= last:
            months.append(month)
            month = next_month(month)
        return months

    def secrets(self) -> set[str]:
        """Collect every secret in the clear that is served now, to search for leaks."""
        found: set[str] = set()
        for name in ("sources", "destinations", "warehouses"):
            for record in self.records(name):
                found.update(record.get("writeKeys", ()))
                found |= secrets_in(record.get("settings"))
        for record in self.records("transformations"):
            key = (record.get("hashPropertiesConfiguration") or {}).get("key")
            if is_secret("token", key):
                found.add(str(key))
        return found

    def page(self, name: str, offset: int, count: int) -> tuple[list[bytes], int]:
        """Give one page of a list as JSON records, and how many records the list has."""
        with self._lock:
            collection = self._collections[name]
            return collection.page(offset, count), len(collection)

    def usage_page(
        self, name: str, month: date, offset: int, count: int
    ) -> tuple[list[bytes], int]:
        """Give one page of the usage rows of a month, and how many rows the month has."""
        rows = self._usage_rows(name, month)
        return rows[offset : offset + count], len(rows)

    def audit_window(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        bounds: Bounds = "inclusive",
    ) -> AuditWindow:
        """Describe a window of the audit trail as of now; without bounds it is all there is."""
        now = self.now()
        return AuditWindow(
            floor=_millis(now - RETENTION),
            start=None if start is None else _millis(start),
            end=_millis(end or now),
            bounds=bounds,
        )

    def audit_page(self, window: AuditWindow, offset: int, count: int) -> tuple[list[bytes], int]:
        """Give one page of a window of the audit trail, and how many events it holds."""
        with self._lock:
            rows = self._audit.page(window, self._audit_order, offset, count)
            return rows, self._audit.size(window)

    # ----------------------------------------------------------------- changing

    def put(self, name: str, record: Mapping[str, Any]) -> None:
        """Add a record to a list, or replace the one with the same key where it stands."""
        with self._lock:
            self._editable(name).put(record)

    def remove(self, name: str, key: str | Sequence[str]) -> None:
        """Take a record off a list; ``KeyError`` when there is none with this key."""
        with self._lock:
            self._editable(name).remove((key,) if isinstance(key, str) else tuple(key))

    def add_event(self, **fields: Any) -> Record:
        """Add an audit event and give it back.

        It gets the next id, the present moment and invented contents, unless the fields say
        otherwise; a ``timestamp`` in the past makes an event that arrives late.
        """
        with self._lock:
            return self._audit.add(fields, self.now())

    def restate(self, name: str, key: str | Sequence[str], fields: Mapping[str, Any]) -> None:
        """Change fields of a usage row; the key is its timestamp, or source id and timestamp.

        Other rows stay as they are, also the totals of the workspace.
        """
        parts = (key,) if isinstance(key, str) else tuple(key)
        if len(parts) != len(RESOURCES[name].key) or RESOURCES[name].kind != "usage":
            raise ValueError(f"{name} has no usage rows with the key {parts!r}")
        stamp = day_timestamp(parse_moment(parts[-1]).date())
        with self._lock:
            rows = self._restated.setdefault(name, {})
            rows[(*parts[:-1], stamp)] = {**rows.get((*parts[:-1], stamp), {}), **fields}

    def drop_day(self, name: str, timestamp: str) -> None:
        """Hide every usage row of one day, as if the service had lost it."""
        with self._lock:
            stamp = day_timestamp(parse_moment(timestamp).date())
            self._dropped.setdefault(name, set()).add(stamp)

    # ------------------------------------------------------------------ details

    def _editable(self, name: str) -> _Collection | _AuditTrail:
        if RESOURCES[name].kind == "usage":
            raise ValueError(f"{name} is changed with restate and drop_day")
        return self._audit if RESOURCES[name].kind == "audit" else self._collections[name]

    def _usage_rows(self, name: str, month: date) -> list[bytes]:
        if RESOURCES[name].kind != "usage":
            raise ValueError(f"{name} holds no usage")
        if month < self.history_start:
            return []
        with self._lock:
            if self._ledger is None:
                sources = range(self.counts["sources"])
                identifiers = [self.company.id_of("sources", index) for index in sources]
                self._ledger = UsageLedger(self.company.seed, identifiers)
            rows = self._ledger.rows(name, month, self.now())
            return self._with_changes(name, month, rows)

    def _with_changes(self, name: str, month: date, rows: list[bytes]) -> list[bytes]:
        prefix = month.isoformat()[:7]
        dropped = {stamp for stamp in self._dropped.get(name, ()) if stamp.startswith(prefix)}
        restated = {
            key: fields
            for key, fields in self._restated.get(name, {}).items()
            if key[-1].startswith(prefix)
        }
        if not dropped and not restated:
            return rows
        changed = []
        for record in map(orjson.loads, rows):
            if record["timestamp"] not in dropped:
                key = tuple(record[field] for field in RESOURCES[name].key)
                changed.append(orjson.dumps({**record, **restated.get(key, {})}))
        return changed


def _counts(scale: float, overrides: Mapping[str, int]) -> dict[str, int]:
    """Work out how many records each list has."""
    counts = {
        name: base if name in _CATALOGS else max(round(base * scale), 1)
        for name, base in BASE_COUNTS.items()
    }
    counts["usage_months"] = _USAGE_MONTHS
    unknown = sorted(set(overrides) - set(counts))
    if unknown:
        raise ValueError(f"no such list: {', '.join(unknown)}; known are {', '.join(counts)}")
    _check_counts(overrides.items())
    counts.update(overrides)
    return counts


def _check_counts(items: Iterable[tuple[str, int]]) -> None:
    for name, number in items:
        if number < 0:
            raise ValueError(f"the number of {name} must not be negative")


def _millis(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(milliseconds=1)
