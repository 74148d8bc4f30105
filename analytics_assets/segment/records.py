"""Turn the records of one page into a typed Arrow table, or say which row and column is wrong.

Scalars get the type that ``endpoints.py`` declares, nested values become JSON text, a field that
is not declared gets a type from its values. Nothing is coerced that would lose information.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from analytics_assets.segment.exact_json import to_json
from analytics_assets.segment.model import Column, ColumnType, Endpoint
from analytics_assets.segment.odd_values import CHARACTERS, IN_KEYS, TOO_DEEP, Mender, Oddities
from analytics_assets.segment.redaction import Redactor
from analytics_assets.segment.redaction.prefilter import Prefilter
from analytics_assets.segment.times import NO_TIME, TIMESTAMP, nearest_time, timestamps
from analytics_assets.segment.undeclared import Stored, Undeclared, kind_of, page_column

Record = Mapping[str, Any]

ARROW_TYPES: Final[Mapping[ColumnType, pa.DataType]] = {
    "text": pa.string(),
    "bool": pa.bool_(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "timestamp": TIMESTAMP,
    "json": pa.string(),
}
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DIGITS: Final = "^-?[0-9]+$"
"""Whole numbers that Arrow reads like Python does; it reads hexadecimal ones too."""
_MISFITS: Final = (pa.ArrowException, ValueError, TypeError, OverflowError, RecursionError)
NOT_SET: Final = "without a value in the column that loads go by, kept with null"
EMPTY: Final = "empty texts in place of times, became null"


class BadValue(ValueError):
    """A value that does not fit; the text names the row, the column and the value."""


class RowTyper:
    """Types the pages of one endpoint; remembers what was odd, and what was not declared.

    Args:
        endpoint: the row of ``endpoints.py``.
        stored: the columns that the destination's table has, by name.
        redact: whether secrets are replaced by fingerprints.
        fingerprint_key: the team's own key of fingerprints; empty without one.
        holds_nul: whether the destination can store U+0000.

    Attributes:
        oddities: values that no column could hold as they were.
        undeclared: the fields that ``endpoints.py`` does not know.

    May be used by several threads at once.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        stored: Mapping[str, Stored],
        *,
        redact: bool = True,
        fingerprint_key: str = "",
        holds_nul: bool = True,
    ) -> None:
        self.oddities = Oddities()
        self.undeclared = Undeclared(endpoint, stored)
        self._endpoint = endpoint
        self._declared = {column.field for column in endpoint.columns}
        self._redactor = Redactor(fingerprint_key) if redact else None
        self._prefilters: dict[str, Prefilter] = {}
        self._holds_nul = holds_nul
        self._mender = Mender(holds_nul=holds_nul)
        self._sound: set[str] = set()

    def table(self, rows: Sequence[Any], first_row: int = 0) -> pa.Table:
        """Return ``rows`` as a table with all declared columns and the undeclared ones it has.

        The undeclared ones get their names once all pages are here: see
        :meth:`.undeclared.Undeclared.finished`.

        Args:
            rows: the records of a page, as parsed from JSON.
            first_row: number of the first record within the list, for messages.

        Raises:
            BadValue: a record is not an object, lacks its key, or holds a value of another type.
        """
        unknown = self._unknown(rows, first_row)
        key = set(self._endpoint.key_columns)
        columns = [
            (
                pa.field(column.name, ARROW_TYPES[column.type], nullable=column.name not in key),
                self._array(column, rows, first_row),
            )
            for column in self._endpoint.columns
        ]
        columns += self._undeclared_columns(unknown, rows)
        return pa.Table.from_arrays(
            [array for _, array in columns], schema=pa.schema([field for field, _ in columns])
        )

    def fault(self) -> str | None:
        """Once all pages are here: say which column has changed its type, if one has.

        One odd time among sound ones is null; a list without any sound one has changed.
        """
        for column in self._endpoint.columns:
            if column.type != "timestamp" or column.field in self._sound:
                continue
            odd = sum(self.oddities.count(column.name, what) for what in (NO_TIME, NOT_SET))
            if odd > 1:
                return (
                    f"none of the {odd} values of {column.field!r} is a time; the API has changed"
                    " how it writes them"
                )
        return None

    def _unknown(self, rows: Sequence[Any], first_row: int) -> list[str]:
        known = self._declared
        found: dict[str, None] = {}
        for number, row in enumerate(rows, first_row):
            if not isinstance(row, dict):
                raise BadValue(f"row {number} is {_kind(row)}, not an object")
            if not row.keys() <= known:
                found.update(dict.fromkeys(name for name in row if name not in known))
        return sorted(found)

    def _undeclared_columns(
        self, names: Sequence[str], rows: Sequence[Record]
    ) -> Iterator[tuple[pa.Field, pa.Array]]:
        fields = {self._shown(name): name for name in names}
        for field, name in fields.items():
            values = self._storable([row.get(name) for row in rows], field)
            kinds = {kind_of(value) for value in values if value is not None}
            column = self.undeclared.note(field, kinds) if kinds else None
            if column:
                yield page_column(column, values, kinds)
        if len(fields) < len(names):
            self.undeclared.leave_out()

    def _shown(self, name: str) -> str:
        """Return the name of an undeclared field as it may be stored and shown."""
        name = self._mender.key(name)
        return self._redactor.by_shape(name) if self._redactor else name

    def _storable(self, values: Sequence[Any], field: str) -> Sequence[Any]:
        """Return the values of an undeclared field without secrets, and odd ones mended."""
        hide = self._redactor.by_key if self._redactor else lambda value, _: value
        try:
            ready = [hide(value, field) for value in values]
            text = orjson.dumps(ready)
        except (TypeError, RecursionError):
            text = b""
        if text and (self._holds_nul or b"\\u0000" not in text):
            return ready
        column = Column(field, "json", "", redact="shape_and_key")
        return [self._storable_one(column, value, hide) for value in values]

    def _storable_one(self, column: Column, value: Any, hide: Callable[[Any, str], Any]) -> Any:
        try:
            [mended] = self._mended_json(column, [value], self.oddities)
            hidden = hide(mended, column.field)
            to_json(hidden)
        except RecursionError:
            self.oddities.add(column, TOO_DEEP, [value])
            return None
        return hidden

    def _array(self, column: Column, rows: Sequence[Record], first_row: int) -> pa.Array:
        values = [row.get(column.field) for row in rows]
        if column.missing is not None:
            values = [column.missing if value is None else value for value in values]
        try:
            array = self._converted(column, values)
        except _MISFITS:
            array = None
        if array is None or not self._holds(array):
            array = self._mended_or_refused(column, values, first_row)
        if array.null_count:
            self._judge_nulls(column, values, first_row)
        if column.type == "timestamp" and array.null_count < len(array):
            self._sound.add(column.field)
        return array

    def _judge_nulls(self, column: Column, values: Sequence[Any], first_row: int) -> None:
        if column.field in self._endpoint.primary_key:
            row = first_row + values.index(None)
            raise BadValue(f"row {row} has no {column.name!r}, which is part of the key")
        if column.field == self._endpoint.cursor:
            self.oddities.add(column, NOT_SET, [value for value in values if value is None])

    def _holds(self, array: pa.Array) -> bool:
        """Tell whether the destination can hold the characters of an array."""
        if self._holds_nul or not pa.types.is_string(array.type) or not array.buffers()[2]:
            return True
        content = array.buffers()[2].to_pybytes()
        return b"\0" not in content and b"\\u0000" not in content

    def _mended_or_refused(self, column: Column, values: Sequence[Any], first_row: int) -> pa.Array:
        try:
            return self._mended(column, values, self.oddities)
        except _MISFITS:
            raise self._locate(column, values, first_row) from None

    def _mended(self, column: Column, values: Sequence[Any], odd: Oddities) -> pa.Array:
        """Type values with the nearest true thing in place of what the column cannot hold.

        In a key only what keeps different values different.
        """
        key = column.field in self._endpoint.primary_key
        if column.type == "timestamp" and not key:
            return self._nearest_times(column, values, odd)
        if column.type == "text":
            mend = self._mender.key if key else self._mender.text
            mended = [mend(value) if isinstance(value, str) else value for value in values]
            changed = [old for old, new in zip(values, mended, strict=True) if old != new]
            odd.add(column, IN_KEYS if key else CHARACTERS, changed)
            values = mended
        elif column.type == "json":
            values = self._mended_json(column, values, odd)
        return self._converted(column, values, mended=True)

    def _nearest_times(self, column: Column, values: Sequence[Any], odd: Oddities) -> pa.Array:
        moments = []
        for value in values:
            moment, what = (None, "") if value is None else nearest_time(value)
            if what:
                odd.add(column, EMPTY if value == "" else what, [value])
            moments.append(moment)
        return pa.array(moments, TIMESTAMP)

    def _mended_json(self, column: Column, values: Sequence[Any], odd: Oddities) -> list[Any]:
        mended = []
        for value in values:
            found: set[str] = set()
            mended.append(self._mender.json(value, found.add))
            for what in found:
                odd.add(column, what, [value])
        return mended

    def _converted(
        self, column: Column, values: Sequence[Any], *, mended: bool = False
    ) -> pa.Array:
        """Type values, with what must not be stored replaced."""
        convert = _exact_json if mended and column.type == "json" else _CONVERTERS[column.type]
        redactor = self._redactor
        if redactor is None or column.type not in ("text", "json") or column.redact == "public":
            return convert(values)
        if column.redacted:
            return convert([_redacted(redactor, column, value) for value in values])
        array = convert(values)
        texts = array if column.type == "text" else pa.array(_texts(values), pa.string())
        filtered = self._prefilters.setdefault(column.field, Prefilter(redactor.by_shape))
        if not (changed := filtered.replaced(texts)):
            return array
        if column.type == "json":
            return convert([redactor.by_shape(value) for value in values])
        return convert([changed.get(value, value) for value in values])

    def _locate(self, column: Column, values: Sequence[Any], first_row: int) -> BadValue:
        """Find the first value that does not fit, for the message, which may not show a secret."""
        for number, value in enumerate(values, first_row):
            if value is not None and (wrong := self._what_is_wrong(column, value)):
                return BadValue(f"row {number}, column {column.name!r}: {wrong}")
        return BadValue(f"column {column.name!r} does not hold {column.type} values")

    def _what_is_wrong(self, column: Column, value: Any) -> str | None:
        try:
            self._mended(column, [value], Oddities())
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, this is the one to name
            if column.type == "json" or isinstance(error, RecursionError):
                return "nested too deeply"
            hidden = column.secret or column.personal or isinstance(value, (dict, list))
            shown = "" if hidden else f" {Redactor().by_key(value, column.field)!r:.60}"
            return f"expected {column.type}, got {_kind(value)}{shown}"
        return None


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts of a value, at any depth."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _redacted(redactor: Redactor, column: Column, value: Any) -> Any:
    """Redact a value; one of another type than the column's stays a mistake."""
    if column.redact == "shape":
        return redactor.by_shape(value)
    if column.redact == "shape_and_key":
        return redactor.by_key(value, column.field)
    if column.type == "text" and not (value is None or isinstance(value, (str, int, float))):
        raise BadValue
    return redactor.whole(value)


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


def _json(values: Sequence[Any]) -> pa.Array:
    """JSON of the usual kind; half characters and very long numbers are refused."""
    texts = [None if value is None else orjson.dumps(value).decode() for value in values]
    return pa.array(texts, pa.string())


def _exact_json(values: Sequence[Any]) -> pa.Array:
    texts = [None if value is None else to_json(value).decode() for value in values]
    return pa.array(texts, pa.string())


_CONVERTERS: Final[Mapping[ColumnType, Callable[[Sequence[Any]], pa.Array]]] = {
    "text": _text,
    "bool": _bool,
    "bigint": _bigint,
    "double": _double,
    "timestamp": timestamps,
    "json": _json,
}


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
