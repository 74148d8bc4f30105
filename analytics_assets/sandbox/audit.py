"""The audit trail: events ordered by time, of which a window is asked for."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson

from analytics_assets.sandbox.company import Company, Record, rng_for
from analytics_assets.sandbox.lists.trail import audit_tail, audit_variants
from analytics_assets.sandbox.moments import millis, parse_moment
from analytics_assets.sandbox.options import Bounds, Order
from analytics_assets.sandbox.resources import Key

RETENTION = timedelta(days=90)
"""How long audit events can be read."""

_AUDIT_SPREAD_MS = int(RETENTION.total_seconds() * 1000 * 0.999)
_AUDIT_EPOCH = datetime(2020, 1, 1, tzinfo=timezone.utc)
_AUDIT_FIRST_ID = 145_000_000
_BURST = 3
_BURST_GAP = 2.5


@dataclass(frozen=True)
class AuditWindow:
    """The part of the audit trail a request asks for; times are unix milliseconds."""

    floor: int
    start: int | None
    end: int
    bounds: Bounds = "inclusive"


class AuditTrail:
    """Audit events ordered by time, spread over the retention time before the start.

    Event times lie on a grid that depends on the seed and the number of events alone, so that two
    runs at different moments agree on the events they share.
    """

    def __init__(self, company: Company, count: int, start: datetime, fractions: bool) -> None:
        self._company = company
        self._count = count
        self._start = start
        self._fractions = fractions
        self._variants = audit_variants(company)
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
        moment = millis(parse_moment(str(record["timestamp"])))
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
            "timestamp": self._stamp(millis(now)),
            **audit_tail(self._company, number % self._variants),
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
        epoch, start = millis(_AUDIT_EPOCH), millis(self._start)
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
            tail = self._tails[variant] = orjson.dumps(audit_tail(self._company, variant))
        return tail

    def _stamp(self, millis: int) -> str:
        moment = datetime.fromtimestamp(millis / 1000, timezone.utc).replace(tzinfo=None)
        if not self._fractions:
            return moment.replace(microsecond=0).isoformat() + "Z"
        return moment.isoformat(timespec="milliseconds") + "Z"
