"""What a row of ``endpoints.py`` is made of: a resource of the API, its columns and references."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal, Protocol

Group = Literal["inventory", "catalog", "identity", "usage"]
ColumnType = Literal["text", "bool", "bigint", "double", "timestamp", "json"]
Stage = Literal["v1", "v1beta", "v1alpha"]
"""Version of the API that an endpoint is offered in."""
Redact = Literal["public", "keep", "secret", "shape", "shape_and_key"]
"""How the values of a column are redacted; see :class:`Column`."""

DAY: Final = "timestamp"
"""Field of the day in every monthly resource."""

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[^_])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Column:
    """A top-level field of a record and the column that stores it.

    Attributes:
        field: name of the field as the API spells it; of a list that is unfolded a dot may lead
            into an object, as in ``source.id``.
        type: type of the column; every nested value is ``json``.
        description: one line for the reader of the table.
        missing: what stands for a value that a record lacks, in a column of the key.
        personal: whether the value is, or holds, personal data.
        redact: what is replaced before a value is stored. ``public``: nothing, as Segment itself
            publishes it. ``keep``: nothing but text that is a credential by its shape, which nobody
            expects there. ``shape``: the same, in
            definitions that may hold credentials, such as SQL, conditions and JSON schemas, whose
            keys are names of the user's own. ``shape_and_key``: in settings also what stands under
            a key that names a credential. ``secret``: the value as a whole.
    """

    field: str
    type: ColumnType
    description: str
    personal: bool = False
    redact: Redact = "keep"
    missing: str | None = None

    @cached_property
    def name(self) -> str:
        """The column name in snake_case, equal to what dlt's default naming makes of the field."""
        return _WORD_START.sub("_", self.field).lower().replace(".", "_")

    @property
    def secret(self) -> bool:
        """Whether the value as a whole is a secret."""
        return self.redact == "secret"

    @property
    def redacted(self) -> bool:
        """Whether secrets are expected in it, so that it is marked, and hidden in previews."""
        return self.redact not in ("public", "keep")


@dataclass(frozen=True)
class Part:
    """A column for a part of another one, which SQL would have to cut out for every join.

    Attributes:
        column: the column.
        of: name of the text column that it is a part of.
        side: ``kind`` for what stands before the first slash, ``id`` for what comes after.
    """

    column: Column
    of: str
    side: Literal["kind", "id"]


class Table(Protocol):
    """What a table in the destination is known by beforehand."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The columns that identify a row."""

    @property
    def table_columns(self) -> tuple[Column, ...]:
        """Its columns, in order."""


@dataclass(frozen=True)
class Reference:
    """A foreign key that should hold.

    Attributes:
        path: path within the record: ``sourceId``, ``metadata.id``, ``permissions[].roleId``.
        table: name of the endpoint referred to.
        column: column of that endpoint's table.
    """

    path: str
    table: str
    column: str = "id"


@dataclass(frozen=True)
class Months:
    """One chain of pages for each calendar month; counters are cumulative within the month.

    Attributes:
        param: query parameter that takes the first day of the month, ``YYYY-MM-01``.
    """

    param: str = "period"


@dataclass(frozen=True)
class Values:
    """One chain of pages for each value of a query parameter, which the API wants to be given.

    Attributes:
        param: name of the query parameter.
        values: what it is given in turn.
    """

    param: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Parent:
    """One chain of pages for each record of another list, whose identifier stands in the path.

    Attributes:
        resource: name of the endpoint of that list, in the same group.
        param: name in braces in the path; the name of the column that takes the identifier.
        field: field of the parent's record that holds the identifier.
    """

    resource: str
    param: str
    field: str = "id"


@dataclass(frozen=True)
class Window:
    """One chain of pages for each window of days, which the API wants a start and an end of.

    A run asks for what is new since the last one and some days before. The API forgets: a window
    that it refuses ends the look back, unless it is the newest. What is loaded stays for ever.

    Attributes:
        day: field that holds the day of a row.
        start: query parameter of the first moment.
        end: query parameter of the moment after the last.
        days: length of a window, in days.
        look_back: days that a first load asks for, today included.
    """

    day: str
    start: str = "startTime"
    end: str = "endTime"
    days: int = 30
    look_back: int = 90


Slice = Months | Values | Parent | Window
"""How a list is asked for that one walk over its pages does not give whole."""


@dataclass(frozen=True)
class Endpoint:
    """A list of the API, which is also a dlt resource, an asset and a table of the same name.

    Attributes:
        name: asset key, dlt resource and table.
        group: asset group; the endpoints of a group load together.
        path: path below the base URL; of a list with a parent with the parent's ``{param}``.
        data_selector: where the records stand in the answer, such as ``data.sources``.
        primary_key: fields that identify a record.
        description: what a row is and what to know before using it.
        columns: every documented top-level field, in the order of the table.
        docs: page of the API reference.
        stage: version of the API that the list is asked for in, so that a later one does not change
            columns unasked.
        paginated: whether the list takes ``pagination.*`` and answers with ``data.pagination``.
        feature: product feature a workspace may lack; 401, 403 and 404 then mean "not available".
        slice: how the list is asked for, if not in one walk over its pages.
        params: query parameters that go with every request, and their values.
        unfold: list within a record of which every item makes a row. Beside the fields of the item
            stand those of the record that are columns; what else the record holds is about all
            items together, and left out.
        single: whether the selector names one object, which makes a list of one record.
        strings: name for the values of a list of bare strings.
        page_limit: largest page the list takes, if that is less than usual.
        rate_limit: requests a minute the list takes, if that is less than usual.
        ids_only: whether fields without a column are dropped as soon as they arrive, of a list that
            repeats the records of another one with all their secrets.
        cursor: name of the time field that incremental loads follow.
        references: foreign keys that should hold.
        parts: columns for parts of others.
        event_types: how the types of the audit events begin that may have changed these records,
            in the singular, as whole words: ``Source`` stands for Source Created, Sources Deleted.
            A resource type of the same words counts as well.
    """

    name: str
    group: Group
    path: str
    data_selector: str
    primary_key: tuple[str, ...]
    description: str
    columns: tuple[Column, ...]
    docs: str
    stage: Stage = "v1"
    paginated: bool = True
    feature: str | None = None
    slice: Slice | None = None
    params: tuple[tuple[str, str], ...] = ()
    unfold: str | None = None
    single: bool = False
    strings: str | None = None
    page_limit: int | None = None
    rate_limit: int | None = None
    ids_only: bool = False
    cursor: str | None = None
    references: tuple[Reference, ...] = ()
    parts: tuple[Part, ...] = ()
    event_types: tuple[str, ...] = ()

    @property
    def accept(self) -> str:
        """The ``Accept`` header of its requests."""
        return f"application/vnd.segment.{self.stage}+json"

    @property
    def monthly(self) -> bool:
        """Whether the list is usage, one chain for each calendar month."""
        return isinstance(self.slice, Months)

    @property
    def parent(self) -> Parent | None:
        """The list that this one hangs on, ``None`` if it stands by itself."""
        return self.slice if isinstance(self.slice, Parent) else None

    @property
    def detail(self) -> bool:
        """Whether a load costs a request for each record of another list, so that it is daily."""
        return self.parent is not None

    @property
    def window(self) -> Window | None:
        """How the list is asked for by windows of days, ``None`` if it is not."""
        return self.slice if isinstance(self.slice, Window) else None

    @property
    def by_day(self) -> bool:
        """Whether every row is about a day, and every chain of pages about days of its own."""
        return self.monthly or self.window is not None

    @property
    def full_list(self) -> bool:
        """Whether a load reads every record there is, so that a missing one has been deleted."""
        return not self.by_day and self.cursor is None

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
        parts = tuple(part.column for part in self.parts)
        mark = (_DELETED_AT,) if self.full_list else ()
        return self.columns + self.daily_columns + parts + mark

    @property
    def cursor_column(self) -> str | None:
        """The column that tells how new a row is, for endpoints that are loaded by time."""
        field = self.window.day if self.window else DAY if self.monthly else self.cursor
        return next((column.name for column in self.columns if column.field == field), None)

    @property
    def key_columns(self) -> tuple[str, ...]:
        """The key as column names, in the order of ``key``."""
        names = {column.field: column.name for column in self.columns}
        return tuple(names[field] for field in self.primary_key)


DELETED_AT: Final = "deleted_at"
_DELETED_AT = Column(
    DELETED_AT, "timestamp", "When a load first found that the API no longer returns the row."
)
