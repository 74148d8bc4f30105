"""What a row of ``endpoints.py`` is made of: a resource of the API, its columns and references."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

Group = Literal["inventory", "catalog", "identity", "usage"]
ColumnType = Literal["text", "bool", "bigint", "double", "timestamp", "json"]
Redact = Literal["keep", "secret", "shape", "shape_and_key"]
"""How the values of a column are redacted; see :class:`Column`."""

DAY: Final = "timestamp"
"""Field of the day in every monthly resource."""

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[^_])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Column:
    """A top-level field of a record and the column that stores it.

    Attributes:
        wire: name of the field as the API spells it.
        type: type of the column; every nested value is ``json``.
        description: one line for the reader of the table.
        personal: whether the value is, or holds, personal data.
        redact: what is replaced before a value is stored. ``keep``: nothing but text that is a
            credential by its shape, which nobody expects there. ``shape``: the same, in
            definitions that may hold credentials, such as SQL, conditions and JSON schemas, whose
            keys are names of the user's own. ``shape_and_key``: in settings also what stands under
            a key that names a credential. ``secret``: the value as a whole.
    """

    wire: str
    type: ColumnType
    description: str
    personal: bool = False
    redact: Redact = "keep"

    @property
    def name(self) -> str:
        """The column name in snake_case, equal to what dlt's default naming makes of the field."""
        return _WORD_START.sub("_", self.wire).lower()

    @property
    def secret(self) -> bool:
        """Whether the value as a whole is a secret."""
        return self.redact == "secret"

    @property
    def redacted(self) -> bool:
        """Whether secrets are expected in it, so that it is marked, and hidden in previews."""
        return self.redact != "keep"


@dataclass(frozen=True)
class Reference:
    """A foreign key that should hold.

    Attributes:
        path: wire path within the record: ``sourceId``, ``metadata.id``, ``permissions[].roleId``.
        table: name of the endpoint referred to.
        column: column of that endpoint's table.
    """

    path: str
    table: str
    column: str = "id"


@dataclass(frozen=True)
class Endpoint:
    """A list of the API, which is also a dlt resource, an asset and a table of the same name.

    Attributes:
        name: asset key, dlt resource and table.
        group: asset group; the endpoints of a group load together.
        path: path below the base URL.
        selector: where the records stand in the answer, such as ``data.sources``.
        key: wire names of the fields that identify a record.
        description: what a row is and what to know before using it.
        columns: every documented top-level field, in the order of the table.
        docs: page of the API reference.
        paginated: whether the list takes ``pagination.*`` and answers with ``data.pagination``.
        feature: product feature a workspace may lack; 401, 403 and 404 then mean "not available".
        monthly: whether the list wants ``period``, one request chain per calendar month; its
            counters are cumulative within that month.
        cursor: wire name of the time field that incremental loads follow.
        references: foreign keys that should hold.
        event_types: how the types of the audit events begin that may have changed these records,
            in the singular, as whole words: ``Source`` stands for Source Created, Sources Deleted.
            A resource type of the same words counts as well.
    """

    name: str
    group: Group
    path: str
    selector: str
    key: tuple[str, ...]
    description: str
    columns: tuple[Column, ...]
    docs: str
    paginated: bool = True
    feature: str | None = None
    monthly: bool = False
    cursor: str | None = None
    references: tuple[Reference, ...] = ()
    event_types: tuple[str, ...] = ()

    @property
    def full_list(self) -> bool:
        """Whether a load reads every record there is, so that a missing one has been deleted."""
        return not self.monthly and self.cursor is None

    @property
    def followed(self) -> bool:
        """Whether events of the audit trail can call for a new load."""
        return bool(self.event_types) or self.cursor is not None

    @property
    def counters(self) -> tuple[Column, ...]:
        """The cumulative counters of a monthly endpoint; none for any other."""
        return tuple(c for c in self.columns if c.type == "bigint") if self.monthly else ()

    @property
    def daily_columns(self) -> tuple[Column, ...]:
        """A column for each counter with the day's own figure, which the API does not serve."""
        return tuple(
            Column(f"daily_{c.name}", "bigint", f"The day's own part of {c.name}, by difference.")
            for c in self.counters
        )

    @property
    def table_columns(self) -> tuple[Column, ...]:
        """Every column of the table that is known beforehand: the fields and what is derived."""
        return self.columns + self.daily_columns + ((_DELETED_AT,) if self.full_list else ())

    @property
    def cursor_column(self) -> str | None:
        """The column that tells how new a row is, for endpoints that are loaded by time."""
        wire = DAY if self.monthly else self.cursor
        return next((column.name for column in self.columns if column.wire == wire), None)

    @property
    def column_keys(self) -> tuple[str, ...]:
        """The key as column names, in the order of ``key``."""
        names = {column.wire: column.name for column in self.columns}
        return tuple(names[wire] for wire in self.key)


DELETED_AT: Final = "deleted_at"
_DELETED_AT = Column(
    DELETED_AT, "timestamp", "When a load first found that the API no longer returns the row."
)
