"""The workspace the sandbox serves: what it holds, what it used, and how tests change it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import orjson

from analytics_assets.sandbox._bodies import BASE_COUNTS, Company, Record, is_secret, secrets_in
from analytics_assets.sandbox._usage import UsageLedger, day_timestamp, months_back, next_month
from analytics_assets.sandbox.audit import RETENTION, AuditTrail, AuditWindow
from analytics_assets.sandbox.moments import millis, parse_moment, parse_month, utc_now
from analytics_assets.sandbox.options import Bounds, Order
from analytics_assets.sandbox.records import Collection
from analytics_assets.sandbox.resources import RESOURCES, Key

_USAGE_MONTHS = 36
_CATALOGS = frozenset({"catalog_destinations", "catalog_sources", "catalog_warehouses"})


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
            name: Collection(RESOURCES[name], blueprint, self.counts[name])
            for name, blueprint in company.blueprints().items()
        }
        for name, blueprint in company.blueprints().items():
            if blueprint.embeds is not None:
                self._collections[name].embedded = self._collections[blueprint.embeds]
        started = now()
        self._audit = AuditTrail(company, self.counts["audit_events"], started, audit_fractions)
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

    def _editable(self, name: str) -> Collection | AuditTrail:
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
