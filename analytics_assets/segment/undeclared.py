"""Fields that ``endpoints.py`` does not declare: each gets a column that can hold its values.

Nothing about them refuses a list. Names and types are settled once all pages are read, so that
neither depends on which page came first; a column stays with its field from load to load.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from itertools import chain, count
from typing import Any, Final, Literal

import pyarrow as pa
from dlt.common.normalizers.naming.snake_case import NamingConvention

from analytics_assets.segment.exact_json import to_json
from analytics_assets.segment.model import DELETED_AT, ColumnType, Endpoint
from analytics_assets.segment.odd_values import Kept
from analytics_assets.segment.times import TIMESTAMP, nearest_time

Kind = Literal["bool", "bigint", "long", "double", "number", "text", "json"]
"""What a JSON value is. ``long``: a whole number that a double would round; ``number``: one that
neither 64 bits nor a double hold; ``json``: a list or an object."""

MOST: Final = 200
"""Undeclared columns of a table; PostgreSQL takes 1,600 in all."""
MOST_SEEN: Final = 1000
_NAMED: Final = 3
RESERVED: Final = frozenset({DELETED_AT, "_dlt_load_id", "_dlt_id"})
_SYSTEM: Final = frozenset({"cmax", "cmin", "ctid", "oid", "rowid", "tableoid", "xmax", "xmin"})
"""Columns that databases have of their own."""
_ALIASES: Final = frozenset({"d", "s"})
"""What dlt's merge calls the two tables: in a JSON column ``d``, DuckDB looks for ``d."id"``."""
_LONGEST: Final = 55
"""Leaves room for a number: PostgreSQL cuts names at 63 bytes."""
_DIGITS: Final = 8
_INT64: Final = 2**63
_EXACT: Final = 2**53
_MARK: Final = "undeclared "
_TYPE: Final = b"type"
_SAID: Final[Mapping[Kind, str]] = {
    "bigint": "whole-number",
    "long": "whole-number",
    "double": "number",
    "number": "very long number",
    "bool": "true/false",
    "json": "nested",
}
_READ_AS: Final[Mapping[ColumnType, str]] = {
    "json": "kept as JSON text, as in earlier loads",
    "timestamp": "read as times, as in earlier loads; what is no time became null",
}
_ARROW: Final[Mapping[ColumnType, pa.DataType]] = {
    "bool": pa.bool_(),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "timestamp": TIMESTAMP,
}
_naming = NamingConvention()
column_name = lru_cache(maxsize=4096)(_naming.normalize_identifier)


@dataclass(frozen=True)
class Stored:
    """A column that the destination's table has.

    Attributes:
        type: its dlt type.
        field: the undeclared field that it was made for, ``None`` if that is not known.
    """

    type: str
    field: str | None = None


def kind_of(value: Any) -> Kind:
    """Return what a JSON value is."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        if -_EXACT <= value <= _EXACT:
            return "bigint"
        return "long" if -_INT64 <= value < _INT64 else "number"
    if isinstance(value, float):
        return "double"
    if isinstance(value, Decimal):
        return "number"
    return "text" if isinstance(value, str) else "json"


def type_of(kinds: Collection[Kind]) -> ColumnType:
    """Return the type of column that holds values of all these kinds and changes none."""
    for type_, fitting in _HELD:
        if fitting.issuperset(kinds):
            return type_
    return "json"


_HELD: Final[Sequence[tuple[ColumnType, frozenset[Kind]]]] = (
    ("bigint", frozenset({"bigint", "long"})),
    ("double", frozenset({"bigint", "double"})),
    ("bool", frozenset({"bool"})),
    ("text", frozenset({"text"})),
)


def page_column(
    name: str, values: Sequence[Any], kinds: Collection[Kind]
) -> tuple[pa.Field, pa.Array]:
    """Type the values of a field on one page."""
    type_ = type_of(kinds)
    if type_ == "json":
        array = _json_array(values)
    else:
        array = pa.array(values, _ARROW.get(type_, pa.string()))
    return pa.field(name, array.type, metadata={_TYPE: type_}), array


def _json_array(values: Sequence[Any]) -> pa.Array:
    texts = [None if value is None else to_json(value).decode() for value in values]
    return pa.array(texts, pa.string())


class Undeclared:
    """The undeclared fields of a list.

    Args:
        endpoint: the row of ``endpoints.py``.
        stored: the columns that the destination's table has, by name.

    The methods may be called from several threads.
    """

    def __init__(self, endpoint: Endpoint, stored: Mapping[str, Stored]) -> None:
        self._fixed = {column.name for column in endpoint.table_columns} | RESERVED | _SYSTEM
        self._fixed |= _ALIASES
        self._stored = stored
        self._kinds: dict[str, set[Kind]] = {}
        self._left_out = False
        self._kept: Mapping[str, Kept] | None = None
        self._lock = threading.Lock()

    def note(self, field: str, kinds: Collection[Kind]) -> str | None:
        """Note what a field held on a page.

        Return the name of its column until :meth:`finished`, ``None`` if there are too many.
        """
        with self._lock:
            if field not in self._kinds and len(self._kinds) >= MOST_SEEN:
                self._left_out = True
                return None
            found = self._kinds.setdefault(field, set())
            if not found.issuperset(kinds):
                found.update(kinds)
                self._kept = None
            return _MARK + field

    def leave_out(self) -> None:
        """Note that a field is left out because of its name."""
        self._left_out = True

    def kept(self) -> Sequence[Kept]:
        """Return what becomes of each field, going by what has been noted so far.

        Those left out come last and as one.
        """
        settled = self._settled().values()
        names = [kept.field for kept in settled if kept.column is None]
        names += ["fields that were not looked at"] if self._left_out else []
        kept = [kept for kept in settled if kept.column is not None]
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            reason = f"more than {MOST} fields are not declared, or their names are secrets"
            kept.append(Kept(", ".join(names[:_NAMED]) + more, None, "json", reason))
        return kept

    def types(self) -> Mapping[str, ColumnType]:
        """Return the columns that hold undeclared fields, by name; those stored first, in order."""
        types = {kept.column: kept.type for kept in self._settled().values() if kept.column}
        stored = {name: types[name] for name in self._stored if name in types}
        return stored | types

    def finished(self, table: pa.Table) -> pa.Table:
        """Give the undeclared columns of a page their settled names and types."""
        if not any(name.startswith(_MARK) for name in table.column_names):
            return table
        settled = self._settled()
        columns: dict[str, Any] = {}
        fields = []
        for field, array in zip(table.schema, table.columns, strict=True):
            if not field.name.startswith(_MARK):
                columns[field.name] = array
                fields.append(field)
                continue
            kept = settled[field.name.removeprefix(_MARK)]
            if kept.column:
                columns[kept.column] = _converted(array, field, kept.type)
                fields.append(pa.field(kept.column, columns[kept.column].type))
        return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(fields))

    def _settled(self) -> Mapping[str, Kept]:
        with self._lock:
            if self._kept is None:
                self._kept = dict(self._settle())
            return self._kept

    def _settle(self) -> Iterator[tuple[str, Kept]]:
        """Give columns to fields: first to those that have one, then in order."""
        owned: dict[str, list[str]] = {}
        for name, column in self._stored.items():
            if column.field is not None:
                owned.setdefault(column.field, []).append(name)
        taken = self._fixed | {name for names in owned.values() for name in names}
        for number, field in enumerate(sorted(self._kinds, key=lambda f: (f not in owned, f))):
            kinds = self._kinds[field]
            if number >= MOST:
                yield field, Kept(field, None, "json")
                continue
            kept = self._place(field, kinds, owned.get(field, []), taken)
            taken.add(kept.column or "")
            yield field, kept

    def _place(
        self, field: str, kinds: Collection[Kind], own: Sequence[str], taken: Collection[str]
    ) -> Kept:
        """Find a column that is free, or its own, and can hold the values."""
        base, odd_name = _base_name(field)
        type_ = type_of(kinds)
        reasons = [odd_name or (_mixture(kinds) if type_ == "json" else "")]
        names = chain(reversed(own), [base], (f"{base}_{number}" for number in count(2)))
        while True:
            name = next(names)
            stored = self._stored.get(name)
            fits = _fitting(type_, kinds, stored.type) if stored else type_
            if name in taken and name not in own:
                reasons.append(f"the name {name} is taken")
            elif fits is None:
                reasons.append(f"{name} holds other values of earlier loads")
                type_ = "json"
            else:
                if name != base:
                    reasons.append(f"kept as {name}" if any(reasons) else _moved(base, name))
                reasons.append(_READ_AS.get(fits, "") if fits != type_ else "")
                return Kept(field, name, fits, "; ".join(dict.fromkeys(filter(None, reasons))))


def _base_name(field: str) -> tuple[str, str]:
    """Return the column name of a field, and what is wrong with the field's name if anything is."""
    try:
        name = column_name(field)
    except ValueError:
        return "field", "no column can be called that"
    if name.startswith("_dlt"):
        return f"field{name}", "dlt has columns of such names"
    if len(name) > _LONGEST:
        digest = hashlib.sha256(field.encode()).hexdigest()[:_DIGITS]
        return f"{name[: _LONGEST - _DIGITS - 1]}_{digest}", "its name is too long for a column"
    return name, ""


def _moved(base: str, name: str) -> str:
    return f"the name {base} is taken, or holds other values of earlier loads; kept as {name}"


def _mixture(kinds: Collection[Kind]) -> str:
    named = sorted({_SAID.get(kind, kind) for kind in kinds})
    if len(named) > 1 or "number" in kinds:
        return f"it holds {' and '.join(named)} values, so they are kept as JSON text"
    return ""


def _fitting(type_: ColumnType, kinds: Collection[Kind], stored: str) -> ColumnType | None:
    """Return the type as which values of these kinds can be added to a column that there is."""
    if stored in (type_, "json"):
        return "json" if stored == "json" else type_
    if stored == "double" and type_ == "bigint" and "long" not in kinds:
        return "double"
    return "timestamp" if stored == "timestamp" and type_ == "text" else None


def _converted(array: pa.ChunkedArray, field: pa.Field, type_: ColumnType) -> pa.Array:
    """Give the values of a page the type that the whole list turned out to have."""
    if field.metadata[_TYPE].decode() == type_:
        return array
    if type_ == "double":
        return array.cast(pa.float64())
    values = array.to_pylist()
    if type_ == "timestamp":
        return pa.array([None if v is None else nearest_time(v)[0] for v in values], TIMESTAMP)
    return _json_array(values)
