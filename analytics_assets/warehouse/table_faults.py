"""What is wrong with a table, by what stands in the destination and what dlt has stored of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from dlt.common.schema import Schema

from analytics_assets.segment.model import DELETED_AT, ColumnType, Endpoint, Table
from analytics_assets.warehouse.other_pipelines import ROW_ID
from analytics_assets.warehouse.own_tables import OwnTable
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.standing import Columns, Standing
from analytics_assets.warehouse.state import declared_types, stored_types

LOAD_ID: Final = "_dlt_load_id"
TYPES_READ_BACK: Final = ("duckdb", "postgres")
"""Destinations that give every type of ours back as it was declared."""
AGAIN: Final = "and the next run loads all of it again"
_RENAME_IT: Final = "rename or drop it, and the next run makes the table"


class Comparison:
    """Compares tables with what should stand there.

    Args:
        schema: the stored schema.
        warehouse: the destination.
        standing: what stands in the dataset.
        staging: what stands where dlt puts rows before it merges them, ``None`` without that.
    """

    def __init__(
        self,
        schema: Schema,
        warehouse: WarehouseSettings,
        standing: Standing,
        staging: Standing | None,
    ) -> None:
        self._schema = schema
        self._warehouse = warehouse
        self._standing = standing
        self._staging = staging

    def fault(self, table: Table) -> str | None:
        """Say why rows must not go into a table as it stands, ``None`` if they may."""
        return self._fault(table) or self._staging_fault(table)

    def _fault(self, table: Table) -> str | None:
        standing, name = self._standing, table.name
        if broken := standing.unreadable.get(name):
            mended = broken.replaceable and is_replaced(table) and standing.tables[name]
            return None if mended else str(broken)
        if name in standing.views:
            return f"{name} is a view in the dataset {standing.dataset!r}; {_RENAME_IT}"
        columns = standing.tables.get(name)
        if columns is None:
            return None
        if not self._is_ours(table, columns):
            return (
                f"the dataset {standing.dataset!r} holds a table {name} of somebody else's;"
                " rename it, or load into another dataset, with ANALYTICS_DATASET"
            )
        return self._column_fault(table, columns)

    def _column_fault(self, table: Table, columns: Columns) -> str | None:
        again = f", {AGAIN}" if isinstance(table, Endpoint) else ""
        lost = [key for key in table.key_columns if key not in columns]
        if lost and isinstance(table, Endpoint):
            return (
                f"its table has lost {columns_text(lost)}, part of the key; put it back, or drop"
                f" the table{again}"
            )
        if (wrong := self.mistyped(table, columns)) and not is_replaced(table):
            told = [f"the column {c} is {columns[c]} where {kind} belongs" for c, kind in wrong]
            return (
                f"in its table {', '.join(told)}; give it the type that it had, or drop the table"
                f"{again}"
            )
        required = self._standing.required.get(table.name, frozenset())
        if unfilled := required - self._known(table):
            return (
                f"its table has {columns_text(unfilled)} that must hold a value and that no load"
                " fills; drop it, or let it be null"
            )
        return None

    def _known(self, table: Table) -> frozenset[str]:
        return frozenset({LOAD_ID, *declared_types(table), *stored_types(self._schema, table)})

    def _is_ours(self, table: Table, columns: Columns) -> bool:
        """Tell by its columns whether a table is one that a load has made."""
        known = stored_types(self._schema, table)
        if not isinstance(table, Endpoint) and ROW_ID in columns and ROW_ID not in known:
            return False
        if known:  # a few may have been dropped
            there = sum(name in columns for name in known)
            return LOAD_ID in columns or there * 2 > len(known)
        declared = declared_types(table)
        if not isinstance(table, Endpoint):  # whose key may be a mere id, as anybody's
            return LOAD_ID in columns and len(declared.keys() & columns.keys()) * 2 > len(declared)
        made = {LOAD_ID, *table.key_columns, *({DELETED_AT} & declared.keys())}
        return made <= columns.keys()

    def _staging_fault(self, table: Table) -> str | None:
        staging, name = self._staging, table.name
        if staging is None:
            return None
        columns = staging.tables.get(name)
        if name in staging.views or (columns is not None and not self._is_ours(table, columns)):
            return (
                f"the dataset {staging.dataset!r}, in which dlt puts rows before it merges them,"
                f" holds another {'view' if name in staging.views else 'table'} {name};"
                " rename or drop it, and the next run makes its own"
            )
        return None

    def mistyped(self, table: Table, columns: Columns) -> Sequence[tuple[str, ColumnType]]:
        """Return the columns of another type than they should have, and which that is."""
        if self._warehouse.destination not in TYPES_READ_BACK:
            return []
        expected = {**declared_types(table), **stored_types(self._schema, table)}
        return [
            (name, kind)
            for name, kind in expected.items()
            if columns.get(name) and columns[name] != kind
        ]

    def types(self, table: Table) -> Mapping[str, ColumnType]:
        """Return the types of a table: as stored, or as found where nothing is stored."""
        stored = stored_types(self._schema, table)
        found = self._standing.tables.get(table.name, {})
        kinds: Any = {name: kind for name, kind in found.items() if kind}
        return stored or {**declared_types(table), **kinds} if found else stored

    def missing(self, table: Table, standing: Standing) -> list[str]:
        """Return the columns that dlt has stored and the table lacks; none without a table."""
        columns = standing.tables.get(table.name)
        stored = stored_types(self._schema, table)
        return [] if columns is None else [name for name in stored if name not in columns]


def is_replaced(table: Table) -> bool:
    """Tell whether every load replaces all rows of a table, so that there is nothing to lose."""
    return not isinstance(table, (Endpoint, OwnTable))


def columns_text(names: Collection[str]) -> str:
    """Return ``the column a``, or ``the columns a, b``."""
    return f"the column{'' if len(names) == 1 else 's'} {', '.join(sorted(names))}"
