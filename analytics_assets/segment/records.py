"""Turn the records of one page into a typed Arrow table, or say which row and column is wrong.

Scalars get the type that ``endpoints.py`` declares, nested values become JSON text, a field that
is not declared gets a type from its values. Nothing is coerced that would lose information.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from dlt.common.normalizers.naming.snake_case import NamingConvention

from analytics_assets.segment.exact_json import to_json
from analytics_assets.segment.model import DELETED_AT, Column, ColumnType, Endpoint
from analytics_assets.segment.redaction import Meaning, Redactor, meaning
from analytics_assets.segment.redaction.prefilter import Prefilter

Record = Mapping[str, Any]

RESERVED: Final = frozenset({DELETED_AT, "_dlt_load_id", "_dlt_id"})

ARROW_TYPES: Final[Mapping[ColumnType, pa.DataType]] = {
    "text": pa.string(),
    "bool": pa.bool_(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "json": pa.string(),
}
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DIGITS: Final = "^-?[0-9]+$"
"""Whole numbers that Arrow reads like Python does; it reads hexadecimal ones too."""
_ISO_8601 = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)?)?\s*(Z|[+-]\d\d:?\d\d)?",
    re.IGNORECASE,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
"""The years 1 to 9999, which Python and databases can show."""
_naming = NamingConvention()
column_name = lru_cache(maxsize=4096)(_naming.normalize_identifier)


class BadValue(ValueError):
    """A value that does not fit; the text names the row, the column and the value."""


class RowTyper:
    """Types the pages of one endpoint; remembers what undeclared fields turned out to be.

    Args:
        endpoint: the row of ``endpoints.py``.
        stored: types of the columns that the destination already has, by column name.
        redact: whether secrets are replaced by fingerprints.
        fingerprint_key: the team's own key of fingerprints; empty without one.

    Used by several threads at once: the memory of undeclared fields is guarded by a lock.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        stored: Mapping[str, ColumnType],
        *,
        redact: bool = True,
        fingerprint_key: str = "",
    ) -> None:
        self._endpoint = endpoint
        self._declared = {column.field: column for column in endpoint.columns}
        self._taken = {column.name for column in endpoint.columns} | RESERVED
        self._stored = stored
        self._redactor = Redactor(fingerprint_key) if redact else None
        self._prefilters: dict[str, Prefilter] = {}
        self._found: dict[str, Column] = {}
        self._lock = threading.Lock()

    def table(self, rows: Sequence[Any], first_row: int = 0) -> pa.Table:
        """Return ``rows`` as a table with all declared columns and the undeclared ones it has.

        Args:
            rows: the records of a page, as parsed from JSON.
            first_row: number of the first record within the list, for messages.

        Raises:
            BadValue: a record is not an object, lacks its key, or holds a value of another type.
        """
        undeclared = self._undeclared(rows, first_row)
        columns = [*self._endpoint.columns, *self._resolve(undeclared, rows, first_row)]
        arrays = [self._array(column, rows, first_row) for column in columns]
        key = set(self._endpoint.key_columns)
        schema = pa.schema(
            pa.field(column.name, ARROW_TYPES[column.type], nullable=column.name not in key)
            for column in columns
        )
        return pa.Table.from_arrays(arrays, schema=schema)

    def undeclared_types(self) -> Mapping[str, ColumnType]:
        """Return the type of each undeclared column seen so far, by column name."""
        return {column.name: column.type for column in self._found.values()}

    def _undeclared(self, rows: Sequence[Any], first_row: int) -> list[str]:
        known = self._declared.keys()
        found: dict[str, None] = {}
        for number, row in enumerate(rows, first_row):
            if not isinstance(row, dict):
                raise BadValue(f"row {number} is {_kind(row)}, not an object")
            if not row.keys() <= known:
                found.update(dict.fromkeys(name for name in row if name not in known))
        return sorted(found)

    def _resolve(
        self, names: Iterable[str], rows: Sequence[Record], first_row: int
    ) -> list[Column]:
        resolved = []
        for field in names:
            kind = _infer([row.get(field) for row in rows], field, first_row)
            if kind is not None:
                resolved.append(self._remember(field, kind))
        return resolved

    def _remember(self, field: str, kind: ColumnType) -> Column:
        """Settle the type of an undeclared field; integers fit where numbers already stand."""
        try:
            name = column_name(field)
        except ValueError:
            raise BadValue(f"a field is called {field!r}, of which no column can be made") from None
        secret = meaning(field) is Meaning.CREDENTIAL
        if secret and self._redactor and kind in ("bigint", "double"):
            kind = "text"  # of its fingerprint
        with self._lock:
            owner = next((c.field for c in self._found.values() if c.name == name), field)
            if name in self._taken or owner != field:
                raise BadValue(f"the undocumented field {field!r} clashes with the column {name!r}")
            before = self._found[field].type if field in self._found else self._stored.get(name)
            if before == "double" and kind == "bigint":
                kind = "double"
            elif before == "bigint" and kind == "double" and name not in self._stored:
                pass  # seen as whole numbers earlier in this run only: what was staged is widened
            elif before == "timestamp" and kind == "text":
                kind = "timestamp"
            elif before not in (None, kind):
                raise BadValue(f"the column {name!r} held {before} values before and now {kind}")
            column = Column(field, kind, "", redact="secret" if secret else "shape_and_key")
            self._found[field] = column
        return column

    def _array(self, column: Column, rows: Sequence[Record], first_row: int) -> pa.Array:
        values = [row.get(column.field) for row in rows]
        if column.missing is not None:
            values = [column.missing if value is None else value for value in values]
        try:
            array = self._converted(column, values)
        except (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError):
            raise self._locate(column, values, first_row) from None
        if array.null_count and column.field in self._endpoint.primary_key:
            row = first_row + values.index(None)
            raise BadValue(f"row {row} has no {column.name!r}, which is part of the key")
        return array

    def _converted(self, column: Column, values: Sequence[Any]) -> pa.Array:
        """Type values, with what must not be stored replaced."""
        convert = _CONVERTERS[column.type]
        redactor = self._redactor
        if redactor is None or column.type not in ("text", "json"):
            return convert(values)
        if column.redacted:
            return convert([_redacted(redactor, column, value) for value in values])
        array = convert(values)
        if column.type != "text":
            return array
        filtered = self._prefilters.setdefault(column.field, Prefilter(redactor.by_shape))
        changed = filtered.replaced(array)
        return convert([changed.get(value, value) for value in values]) if changed else array

    def _locate(self, column: Column, values: Sequence[Any], first_row: int) -> BadValue:
        """Find the first value that does not fit, for the message, which may not show a secret."""
        for number, value in enumerate(values, first_row):
            if wrong := self._what_is_wrong(column, value):
                return BadValue(f"row {number}, column {column.name!r}: {wrong}")
        return BadValue(f"column {column.name!r} does not hold {column.type} values")

    def _what_is_wrong(self, column: Column, value: Any) -> str | None:
        try:
            self._converted(column, [value])
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, this is the one to name
            if column.type == "json" or isinstance(error, RecursionError):
                return "nested too deeply"
            hidden = column.secret or column.personal or isinstance(value, (dict, list))
            shown = "" if hidden else f" {Redactor().by_key(value, column.field)!r:.60}"
            return f"expected {column.type}, got {_kind(value)}{shown}"
        return None


def _redacted(redactor: Redactor, column: Column, value: Any) -> Any:
    """Redact a value; one of another type than the column's stays a mistake."""
    if column.redact == "shape":
        return redactor.by_shape(value)
    if column.redact == "shape_and_key":
        return redactor.by_key(value, column.field)
    if column.type == "text" and not (value is None or isinstance(value, (str, int, float))):
        raise BadValue
    return redactor.whole(value)


def _infer(values: Sequence[Any], field: str, first_row: int) -> ColumnType | None:
    kinds = {_json_kind(value) for value in values if value is not None}
    if kinds == {"bigint", "double"}:
        return "double"
    if len(kinds) > 1:
        raise BadValue(
            f"the undocumented field {field!r} holds {' and '.join(sorted(kinds))} values"
            f" in the page that starts at row {first_row}"
        )
    return kinds.pop() if kinds else None


def _json_kind(value: Any) -> ColumnType:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "bigint"
    if isinstance(value, float):
        return "double"
    return "text" if isinstance(value, str) else "json"


def _text(values: Sequence[Any]) -> pa.Array:
    return pa.array(values, pa.string())


def _bool(values: Sequence[Any]) -> pa.Array:
    return pa.array(values, pa.bool_())


def _double(values: Sequence[Any]) -> pa.Array:
    if any(isinstance(value, (bool, str)) for value in values):
        raise BadValue
    return pa.array(values, pa.float64())


def _bigint(values: Sequence[Any]) -> pa.Array:
    """Whole numbers, as JSON numbers or as decimal digits in text; never by way of a float."""
    if set(map(type, values)) <= {str, type(None)}:  # as the API writes counters
        texts = pa.array(values, pa.string())
        if pc.all(pc.match_substring_regex(texts, _DIGITS)).as_py() is not False:
            return pc.cast(texts, pa.int64())
    return pa.array([None if value is None else _whole(value) for value in values], pa.int64())


def _whole(value: Any) -> int:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) <= 2**53:
        return int(value)
    raise BadValue


def _timestamp(values: Sequence[Any]) -> pa.Array:
    """ISO-8601 text (UTC where no zone is given) or unix seconds, as microseconds in UTC."""
    if set(map(type, values)) <= {int, type(None)}:
        return _unix_seconds(values)
    try:
        return pc.cast(pa.array(values, pa.string()), ARROW_TYPES["timestamp"])
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        moments = [None if value is None else parse_timestamp(value) for value in values]
        return pa.array(moments, ARROW_TYPES["timestamp"])


def _unix_seconds(values: Sequence[int | None]) -> pa.Array:
    seconds = pa.array(values, pa.int64())
    first, last = pc.min_max(seconds).as_py().values()
    if first is not None and (first < _FIRST_SECOND or last > _LAST_SECOND):
        raise BadValue
    return seconds.cast(pa.timestamp("s", "UTC")).cast(ARROW_TYPES["timestamp"])


def parse_timestamp(value: Any) -> datetime:
    """Read ISO-8601 text or unix seconds as a time in UTC.

    Digits beyond the microsecond are cut off.

    Raises:
        BadValue: neither of the two.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return _EPOCH + timedelta(seconds=value)
    found = _ISO_8601.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise BadValue
    day, minute, second, fraction, zone = found.groups()
    zone = "+00:00" if zone in (None, "Z", "z") else zone
    zone = zone if ":" in zone else f"{zone[:3]}:{zone[3:]}"
    clock = f"{minute or '00:00'}:{second or '00'}.{(fraction or '')[:6]:0<6}"
    return datetime.fromisoformat(f"{day}T{clock}{zone}").astimezone(timezone.utc)


def _json(values: Sequence[Any]) -> pa.Array:
    return pa.array(
        [None if value is None else to_json(value).decode() for value in values], pa.string()
    )


_CONVERTERS: Final[Mapping[ColumnType, Callable[[Sequence[Any]], pa.Array]]] = {
    "text": _text,
    "bool": _bool,
    "bigint": _bigint,
    "double": _double,
    "timestamp": _timestamp,
    "json": _json,
}


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
