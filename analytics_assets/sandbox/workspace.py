"""The workspace the sandbox serves: what it holds, what it used, and how tests change it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from typing import Any

import orjson

from analytics_assets.sandbox.audit import RETENTION, AuditTrail, AuditWindow
from analytics_assets.sandbox.company import Company, Record, is_secret, secrets_in
from analytics_assets.sandbox.ledger import UsageLedger, day_timestamp, months_back, next_month
from analytics_assets.sandbox.lists import RESOURCES
from analytics_assets.sandbox.moments import millis, parse_moment, parse_month, utc_now
from analytics_assets.sandbox.options import Bounds, Order
from analytics_assets.sandbox.records import Children, Collection
from analytics_assets.sandbox.resources import Key, Resource
from analytics_assets.sandbox.story import turns
from analytics_assets.sandbox.volume import KEPT_DAYS, EventVolume, VolumeQuery

_USAGE_MONTHS = 36
_OTHER_ROOMS = frozenset({"audit", "usage", "volume"})
_EVERYTHING = 10**9


class Workspace:
    """Everything the sandbox serves: a made-up mid-size company, the same for the same seed.

    ``scale`` multiplies what a workspace owns (sources, destinations, users, audit events and so
    on; the three catalogs are the same for every workspace and stay as they are). ``counts`` sets
    the number of records of single lists (of a list that hangs on another one, the number for each
    parent; of the volume of events, the number of events of each source), and ``usage_months`` the
    months of usage history.
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
        resources: Mapping[str, Resource] = RESOURCES,
    ) -> None:
        """Invent the company; records themselves are made when they are asked for."""
        self._lock = threading.RLock()
        self._now = now
        self._audit_order = audit_order
        self._resources = resources
        self.counts = _counts(resources, scale, counts or {})
        looks = {row.name: row.ids for row in resources.values() if row.ids is not None}
        self.company = company = Company(seed, self.counts, looks)
        self._collections = _collections(resources, company)
        self._children = {
            row.name: Children(
                row,
                company,
                self._collections[row.parent.name],
                self._collections[row.embedded.name] if row.embedded else None,
            )
            for row in resources.values()
            if row.parent is not None
        }
        started = now()
        self._turns = turns(self.counts["sources"], started.date())
        self._audit = AuditTrail(company, self.counts["audit_events"], started, audit_fractions)
        self.history_start = months_back(started.date(), self.counts["usage_months"] - 1)
        self._ledger: UsageLedger | None = None
        self._volume: EventVolume | None = None
        self._restated: dict[str, dict[Key, Mapping[str, Any]]] = {}
        self._dropped: dict[str, set[str]] = {}

    def now(self) -> datetime:
        """Give the present moment of the workspace."""
        return self._now()

    def describe(self) -> Record:
        """Give the record of the workspace itself."""
        return self.records("workspace")[0]

    # ------------------------------------------------------------------ reading

    def records(self, name: str) -> list[Record]:
        """Give every record of a list as it is served now, in served order.

        For usage lists this is the whole history; audit events and the volume of events, by day and
        all dimensions, stop at the retention time. Records
        of a list that hangs on another one carry the identifier of their parent, texts are records
        of one field.
        """
        with self._lock:
            resource = self._resources[name]
            if resource.kind == "usage":
                return [row for month in self.months() for row in self.usage(name, str(month))]
            if resource.kind == "audit":
                rows, _ = self.audit_page(self.audit_window(), 0, _EVERYTHING)
                return [orjson.loads(row) for row in rows]
            if resource.kind == "volume":
                now = self.now()
                return self.volume(VolumeQuery(now - timedelta(days=KEPT_DAYS), now))
            return [
                resource.from_wire(row, parent)
                for parent, collection in self._lists(resource)
                for row in collection.page(0, len(collection))
            ]

    def usage(self, name: str, period: str) -> list[Record]:
        """Give the usage rows of the month a period lies in, as they are served now."""
        return [orjson.loads(row) for row in self._usage_rows(name, parse_month(period))]

    def volume(self, query: VolumeQuery) -> list[Record]:
        """Give the entries that a query of the volume of events is answered with now."""
        return [orjson.loads(row) for row in self.volume_page(query, 0, _EVERYTHING)[0]]

    def volume_page(self, query: VolumeQuery, offset: int, count: int) -> tuple[list[bytes], int]:
        """Give one page of the answer to a query, and how many entries it has."""
        with self._lock:
            return self._volume_room().page(query, self.now(), offset, count)

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
        for name in ("sources", "destinations", "warehouses", "destination_subscriptions"):
            for record in self.records(name):
                found.update(record.get("writeKeys", ()))
                found |= secrets_in(record.get("settings"))
        for record in self.records("transformations"):
            key = (record.get("hashPropertiesConfiguration") or {}).get("key")
            if is_secret("token", key):
                found.add(str(key))
        return found

    def page(
        self,
        name: str,
        offset: int,
        count: int,
        *,
        parent: str | None = None,
        choice: Mapping[str, str] | None = None,
    ) -> tuple[list[bytes], int]:
        """Give one page of a list as JSON records, and how many records the list has.

        Args:
            name: the list.
            offset: how many records come before.
            count: how many records the page holds at most.
            parent: the record that the list hangs on, if it does on any.
            choice: values that fields must have for a record to be in the list.

        Raises:
            KeyError: there is no such parent.
        """
        with self._lock:
            collection = self._list_of(name, parent)
            if not choice:
                return collection.page(offset, count), len(collection)
            rows = [
                row
                for row in collection.page(0, len(collection))
                if choice.items() <= orjson.loads(row).items()
            ]
            return rows[offset : offset + count], len(rows)

    def one(self, name: str, identifier: str) -> tuple[bytes, dict[str, str | None]]:
        """Give one record of a list as JSON, and what its answer names beside it.

        Raises:
            KeyError: there is no such record.
        """
        with self._lock:
            resource, collection = self._resources[name], self._collections[name]
            index = collection.find((identifier,))
            if index is None:
                raise KeyError(identifier)
            beside: dict[str, str | None] = {}
            link = self._resources.get(resource.linked)
            if link is not None and link.parent is not None:
                try:
                    beside[link.parent.field] = self._parent_of(link, (identifier,))
                except KeyError:
                    beside[link.parent.field] = None
            return collection.raw(index), beside

    def usage_page(
        self, name: str, month: date, offset: int, count: int
    ) -> tuple[list[bytes], int]:
        """Give one page of the usage rows of a month, and how many rows the month has."""
        with self._lock:
            whole = self._resources[name].kind != "usage" or month < self.history_start
            if whole or self._is_changed(name, month):
                rows = self._usage_rows(name, month)
                return rows[offset : offset + count], len(rows)
            ledger, now = self._ledger_room(), self.now()
            return ledger.rows(name, month, now, offset, count), ledger.size(name, month, now)

    def audit_window(
        self,
        start: datetime | None = None,
        end: datetime | None = None,
        bounds: Bounds = "inclusive",
    ) -> AuditWindow:
        """Describe a window of the audit trail as of now; without bounds it is all there is."""
        now = self.now()
        return AuditWindow(
            floor=millis(now - RETENTION),
            start=None if start is None else millis(start),
            end=millis(end or now),
            bounds=bounds,
        )

    def audit_page(self, window: AuditWindow, offset: int, count: int) -> tuple[list[bytes], int]:
        """Give one page of a window of the audit trail, and how many events it holds."""
        with self._lock:
            rows = self._audit.page(window, self._audit_order, offset, count)
            return rows, self._audit.size(window)

    # ----------------------------------------------------------------- changing

    def put(self, name: str, record: Mapping[str, Any], *, parent: str | None = None) -> None:
        """Add a record to a list, or replace the one with the same key where it stands.

        In a list that hangs on another one the parent is named here or by the record, as those of
        ``records`` do. Other lists stay as they are: a group still says how many members it had.

        Raises:
            KeyError: there is no such parent.
        """
        with self._lock:
            hangs_on = self._resources[name].parent
            if parent is None and hangs_on is not None:
                parent = record.get(hangs_on.field)
            self._editable(name, parent).put(record)

    def remove(
        self, name: str, key: str | Sequence[str | int], *, parent: str | None = None
    ) -> None:
        """Take a record off a list, and with it all lists that hang on it, for good.

        In a list that hangs on another one the parent is named, or is the first part of the key,
        or the key is enough to find it.

        Raises:
            KeyError: there is no such record.
        """
        parts = (key,) if isinstance(key, str) else tuple(map(str, key))
        resource = self._resources[name]
        if parent is None and resource.parent is not None and not resource.alone:
            parent, *rest = parts
            parts = tuple(rest)
        with self._lock:
            if parent is None and resource.alone:
                parent = self._parent_of(resource, parts)
            self._editable(name, parent).remove(parts)

    def add_event(self, **fields: Any) -> Record:
        """Add an audit event and give it back.

        It gets the next id, the present moment and invented contents, unless the fields say
        otherwise; a ``timestamp`` in the past makes an event that arrives late.
        """
        with self._lock:
            return self._audit.add(fields, self.now())

    def restate(self, name: str, key: str | Sequence[str], fields: Mapping[str, Any]) -> None:
        """Change fields of a usage row; the key is its timestamp, or source id and timestamp.

        Other rows stay as they are, also the totals of the workspace. Of the volume of events the
        ``count`` can be changed; the key is source id, kind of call, event and time.
        """
        parts = (key,) if isinstance(key, str) else tuple(key)
        if self._resources[name].kind == "volume":
            day = parse_moment(parts[-1]).date().isoformat()
            with self._lock:
                self._volume_room().restate((*parts[:-1], day), fields["count"])
            return
        if len(parts) != len(self._resources[name].key) or self._resources[name].kind != "usage":
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

    def _lists(self, resource: Resource) -> Iterable[tuple[str | None, Collection]]:
        if resource.parent is None:
            return [(None, self._collections[resource.name])]
        return self._children[resource.name].all()

    def _parent_of(self, resource: Resource, key: Key) -> str:
        """Give the parent of a record whose key says nothing of it."""
        for parent, collection in self._children[resource.name].all():
            if collection.find(key) is not None:
                return parent
        raise KeyError(key)

    def _list_of(self, name: str, parent: str | None) -> Collection:
        hangs_on = self._resources[name].parent
        if hangs_on is None:
            return self._collections[name]
        if parent is None:
            raise ValueError(f"{name} hang on {hangs_on.name}: name the {hangs_on.field}")
        return self._children[name].of(parent)

    def _editable(self, name: str, parent: str | None) -> Collection | AuditTrail:
        kind = self._resources[name].kind
        if kind in ("usage", "volume"):
            raise ValueError(f"{name} is changed with restate and drop_day")
        return self._audit if kind == "audit" else self._list_of(name, parent)

    def _usage_rows(self, name: str, month: date) -> list[bytes]:
        if self._resources[name].kind != "usage":
            raise ValueError(f"{name} holds no usage")
        if month < self.history_start:
            return []
        with self._lock:
            rows = self._ledger_room().rows(name, month, self.now())
            return self._with_changes(name, month, rows)

    def _ledger_room(self) -> UsageLedger:
        if self._ledger is None:
            sources = range(self.counts["sources"])
            identifiers = [self.company.id_of("sources", index) for index in sources]
            self._ledger = UsageLedger(self.company.seed, identifiers, self._turns)
        return self._ledger

    def _volume_room(self) -> EventVolume:
        if self._volume is None:
            calls = self._ledger_room().calls
            self._volume = EventVolume(self.company, self.counts["sources"], calls)
        return self._volume

    def _is_changed(self, name: str, month: date) -> bool:
        prefix = month.isoformat()[:7]
        days = [*self._dropped.get(name, ()), *(key[-1] for key in self._restated.get(name, {}))]
        return any(day.startswith(prefix) for day in days)

    def _with_changes(self, name: str, month: date, rows: list[bytes]) -> list[bytes]:
        if not self._is_changed(name, month):
            return rows
        prefix = month.isoformat()[:7]
        dropped = {stamp for stamp in self._dropped.get(name, ()) if stamp.startswith(prefix)}
        restated = {
            key: fields
            for key, fields in self._restated.get(name, {}).items()
            if key[-1].startswith(prefix)
        }
        changed = []
        for record in map(orjson.loads, rows):
            if record["timestamp"] not in dropped:
                key = tuple(record[field] for field in self._resources[name].key)
                changed.append(orjson.dumps({**record, **restated.get(key, {})}))
        return changed


def _collections(resources: Mapping[str, Resource], company: Company) -> dict[str, Collection]:
    """Prepare every list that hangs on no other one, after those whose records it repeats."""
    made: dict[str, Collection] = {}
    for row in sorted(resources.values(), key=lambda row: row.embedded is not None):
        if row.parent is None and row.kind not in _OTHER_ROOMS:
            repeats = None if row.embedded is None else made[row.embedded.name]
            count = company.counts.get(row.name, row.size)
            made[row.name] = Collection(row, company, count, embedded=repeats)
    return made


def _counts(
    resources: Mapping[str, Resource], scale: float, overrides: Mapping[str, int]
) -> dict[str, int]:
    """Work out how many records each list has."""
    counts = {
        row.name: max(round(row.size * scale), 1) if row.grows else row.size
        for row in resources.values()
        if row.size and row.kind != "single"
    }
    counts["usage_months"] = _USAGE_MONTHS
    for_each = [row.name for row in resources.values() if row.parent or row.kind == "volume"]
    known = [*counts, *for_each]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ValueError(f"no such list: {', '.join(unknown)}; known are {', '.join(known)}")
    _check_counts(overrides.items())
    counts.update(overrides)
    return counts


def _check_counts(items: Iterable[tuple[str, int]]) -> None:
    for name, number in items:
        if number < 0:
            raise ValueError(f"the number of {name} must not be negative")
