"""The one table that no list of the API fills: what loads have changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.model import Column, Table


@dataclass(frozen=True)
class OwnTable:
    """A table that a load writes besides those of its lists.

    Attributes:
        name: its name.
        key_columns: the columns that identify a row.
        table_columns: its columns, in order.
        filled_by: names of the lists whose loads write it.
    """

    name: str
    key_columns: tuple[str, ...]
    table_columns: tuple[Column, ...]
    filled_by: tuple[str, ...]


RECORD_CHANGES: Final = OwnTable(
    name="record_changes",
    key_columns=("asset", "key", "column_name", "moment"),
    table_columns=(
        Column("asset", "text", "The table in which something has changed."),
        Column(
            "key",
            "text",
            "Key of the row there; of several columns as a JSON list of texts.",
            personal=True,
        ),
        Column("what", "text", "appeared, changed, vanished or returned."),
        Column("columnName", "text", "The column that changed; else empty."),
        Column(
            "before",
            "text",
            "Its value before, as text and masked as in the table.",
            personal=True,
            redact="shape",
        ),
        Column("after", "text", "Its value after.", personal=True, redact="shape"),
        Column("isPersonal", "bool", "Whether a column that holds personal data has changed."),
        Column("since", "timestamp", "When the load before began: the change came after."),
        Column("moment", "timestamp", "When this load compared: the change came before."),
    ),
    filled_by=tuple(endpoint.name for endpoint in ENDPOINTS if endpoint.full_list),
)
READABLE: Final[Mapping[str, Table]] = MappingProxyType(
    {**BY_NAME, RECORD_CHANGES.name: RECORD_CHANGES}
)
"""All tables that reports can read, by name."""


def filled_by(table: str) -> Sequence[str]:
    """Return the lists whose loads fill a table: itself, or many."""
    return RECORD_CHANGES.filled_by if table == RECORD_CHANGES.name else [table]
