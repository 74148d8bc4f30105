"""What a load is going to change, found before a merge overwrites it.

The rows that were read are compared with those of the table by a hash of their columns, in DuckDB;
only rows that differ are then looked at column by column. The first load of a list is no change.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any, Final, cast

import duckdb
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from dlt.common.schema import Schema
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.model import DELETED_AT, Column, ColumnType
from analytics_assets.segment.records import ARROW_TYPES
from analytics_assets.segment.settings import Log
from analytics_assets.warehouse.copying import BATCH, copy_rows, engine, make_table
from analytics_assets.warehouse.file_tables import READING_ERRORS
from analytics_assets.warehouse.outcome import Outcome
from analytics_assets.warehouse.own_tables import RECORD_CHANGES
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import Sql, open_sql
from analytics_assets.warehouse.state import stored_columns, stored_schema

SCHEMA: Final = pa.schema(
    (column.name, ARROW_TYPES[column.type]) for column in RECORD_CHANGES.table_columns
)
_ODD_NUMBER: Final = re.compile("[0-9](?:[eE][+-]?[0-9]|[.]0)")
"""A number that a server may write in another way, 1e2 as 100, or a text that looks like one."""
_ROW_KEY: Final = '"the key"'
"""No column of a table can be called that."""
_PAGE_BYTES: Final = 32 * 1024**2
_EXACT: Final = 2**53
_DIFFERING: Final = """
    SELECT
        coalesce(came.key, held.key) AS key,
        CASE
            WHEN held.key IS NULL THEN 'appeared'
            WHEN came.key IS NULL THEN 'vanished'
            WHEN held.live THEN 'changed'
            ELSE 'returned'
        END AS what
    FROM held FULL JOIN came ON came.key = held.key
    WHERE held.key IS NULL
        OR CASE
            WHEN came.key IS NULL THEN held.live AND {proved}
            ELSE NOT held.live OR came.content <> held.content
        END
"""


def changes_of(
    pipeline: Pipeline, warehouse: WarehouseSettings, outcomes: Sequence[Outcome], log: Log
) -> pa.Table:
    """Return what a load is going to change, as rows of ``record_changes``.

    Args:
        pipeline: of the group, in step with the destination, which the caller has open.
        warehouse: the destination.
        outcomes: what is going to be loaded.
        log: told of lists whose files are broken; the others' changes are returned.
    """
    schema = stored_schema(pipeline)
    compared = [o for o in outcomes if o.endpoint.full_list and o.available]
    compared = [o for o in compared if o.read.loaded_before]
    if not compared:
        return SCHEMA.empty_table()
    folder = Path(pipeline.pipelines_dir)
    with (
        open_sql(pipeline.destination_client(), warehouse.table_format) as sql,
        engine(sql.duckdb, folder) as connection,
    ):
        comparisons = [_Comparison(sql, connection, warehouse, schema, o) for o in compared]
        found = [_if_readable(comparison, log) for comparison in comparisons]
    return pa.concat_tables([SCHEMA.empty_table(), *found])


def _if_readable(comparison: _Comparison, log: Log) -> pa.Table:
    name = comparison.outcome.endpoint.name
    try:
        return comparison.changes()
    except READING_ERRORS:
        if comparison.sql.unreadable([name]) is None:
            raise
    log.warning(f"{name}: what changes is not recorded, as the rows before cannot all be read.")
    return SCHEMA.empty_table()


def untold(
    pipeline: Pipeline, warehouse: WarehouseSettings, changes: pa.Table, asset: str
) -> pa.Table:
    """Return those of some changes that are about one list; none if they are in the table already.

    Args:
        pipeline: of the group; the caller has the destination open.
        warehouse: the destination.
        changes: what :func:`changes_of` found, before a package that failed.
        asset: the list.
    """
    own = changes.filter(pc.equal(changes["asset"], asset))
    if not own:
        return own
    moment = own["moment"][0].as_py().isoformat()
    with open_sql(pipeline.destination_client(), warehouse.table_format) as sql:
        try:
            [(told,)] = sql.rows(
                f"SELECT count(*) FROM {sql.table(RECORD_CHANGES.name)}"
                f" WHERE asset = '{asset}' AND moment = '{moment}'"
            )
        except DatabaseUndefinedRelation:  # nothing has ever changed
            return own
    return own.slice(0, 0) if told else own


@dataclass(frozen=True)
class _Comparison:
    """One list, as it was read, and its table.

    Attributes:
        sql: the destination, open.
        connection: the DuckDB that compares: the destination itself if it is one.
        warehouse: the destination's settings.
        schema: of the tables as they stand.
        outcome: what is going to be loaded.
    """

    sql: Sql
    connection: duckdb.DuckDBPyConnection
    warehouse: WarehouseSettings
    schema: Schema
    outcome: Outcome

    def changes(self) -> pa.Table:
        """Return the rows of ``record_changes``."""
        try:
            held = self._held()
        except DatabaseUndefinedRelation:  # it has no files yet
            return SCHEMA.empty_table()
        rows = iter(self._staged())
        first = next(rows)
        columns = self._columns(first.schema)
        content = f"{self._key()} AS key, hash({', '.join(map(_text, columns))}) AS content"
        self._make("held", f"SELECT {content}, {DELETED_AT} IS NULL AS live FROM {held}")
        self._make("came", f"SELECT {content} FROM staged", chain([first], rows))
        self._make("differing", _DIFFERING.format(proved=self._is_proved()))
        [(count,)] = self.connection.execute("SELECT count(*) FROM differing").fetchall()
        return self._by_column(held, columns) if count else SCHEMA.empty_table()

    def _by_column(self, held: str, columns: Sequence[Column]) -> pa.Table:
        """Look at the rows that differ, column by column."""
        shown = ", ".join(f'{_text(c)} AS "{c.name}"' for c in columns)
        wanted = f"{self._key()} IN (SELECT key FROM differing)"
        load_id = "max(TRY_CAST(_dlt_load_id AS DOUBLE))"
        [(since,)] = self.connection.execute(f"SELECT {load_id} FROM {held}").fetchall()
        shown = f"{self._key()} AS {_ROW_KEY}, {shown}"
        self._make("old", f"SELECT {shown} FROM {held} WHERE {wanted}")
        new = f"SELECT {shown} FROM staged WHERE {wanted}"
        self._make("new", new, self._staged())
        personal = {column.name for column in columns if column.personal}
        of_key = "true" if personal & set(self.outcome.endpoint.key_columns) else "false"
        parts = [
            f"SELECT key, what, '', NULL, NULL, {of_key} FROM differing WHERE what <> 'changed'"
        ]
        parts += [
            f"SELECT {_ROW_KEY}, 'changed', '{c.name}', old.\"{c.name}\", new.\"{c.name}\","
            f" {'true' if c.name in personal else of_key} FROM old JOIN new"
            f" USING ({_ROW_KEY})"
            f' WHERE old."{c.name}" IS DISTINCT FROM new."{c.name}"'
            for c in columns
        ]
        now = datetime.now(timezone.utc)
        found = self.connection.sql(
            f"SELECT '{self.outcome.endpoint.name}', *, to_timestamp(?), ?"
            f" FROM ({' UNION ALL '.join(parts)}) ORDER BY ALL",
            params=[since, now],
        )
        return pa.table(found).rename_columns(SCHEMA.names).cast(SCHEMA)

    def _columns(self, staged: pa.Schema) -> Sequence[Column]:
        """Return the columns that table and rows have in common, but for the mark of deletion.

        Nobody has said that those which ``endpoints.py`` does not declare are not personal.
        """
        endpoint = self.outcome.endpoint
        declared = {column.name: column for column in endpoint.table_columns}
        stored = stored_columns(self.schema, endpoint)
        return [
            declared.get(name)
            or Column(name, cast(ColumnType, stored[name].type), "", personal=True)
            for name in staged.names
            if name in stored and name != DELETED_AT
        ]

    def _held(self) -> str:
        """Return what to select the table's rows from, for DuckDB."""
        endpoint = self.outcome.endpoint
        source = self.sql.table(endpoint.name)
        if self.sql.duckdb is not None:
            return source
        stored = stored_columns(self.schema, endpoint)
        columns = [
            Column(name, cast(ColumnType, column.type), "") for name, column in stored.items()
        ]
        keys = ", ".join(map(self.sql.column, endpoint.key_columns))
        [(total,)] = self.sql.rows(f"SELECT count(*) FROM {source}")
        page = self._page_rows()
        make_table(self.connection, "copied", columns)
        for first in range(0, int(total), page):
            part = f"SELECT * FROM {source} ORDER BY {keys} LIMIT {page} OFFSET {first}"
            rows = f"({part}) AS page"
            copy_rows(self.sql, rows, columns, self.warehouse, self.connection, "copied", _respell)
        return "copied"

    def _page_rows(self) -> int:
        """Return how many rows to ask a server for at once: its driver holds them all."""
        return max(1, min(BATCH, int(_PAGE_BYTES // max(1, self.outcome.staging.widest(1)))))

    def _staged(self) -> Iterator[pa.Table]:
        """Yield the rows that were read; JSON spelt as that of a server, if they go to one."""
        tables = self.outcome.staging.tables(self.outcome.read.typer.undeclared)
        if self.sql.duckdb is not None:
            return tables
        declared = {c.name: c.type for c in self.outcome.endpoint.table_columns}
        undeclared = self.outcome.read.typer.undeclared.types()
        kinds = {**declared, **undeclared}
        return (_respelt(table, [n for n, k in kinds.items() if k == "json"]) for table in tables)

    def _make(self, name: str, query: str, staged: Iterator[pa.Table] | None = None) -> None:
        """Make a table of a query, which may name ``staged``, the rows that were read."""
        if staged is not None:
            self.connection.register("staged", _reader(staged))
        self.connection.execute(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}")
        if staged is not None:
            self.connection.unregister("staged")

    def _key(self) -> str:
        names = [f'CAST("{name}" AS VARCHAR)' for name in self.outcome.endpoint.key_columns]
        return names[0] if len(names) == 1 else f"CAST(to_json([{', '.join(names)}]) AS VARCHAR)"

    def _is_proved(self) -> str:
        """Tell in SQL whether a row that did not come is going to be marked, or dropped."""
        doubts = self.outcome.read.extraction.doubts
        return "true" if self.warehouse.loses_rows and not doubts else "false"


def _reader(tables: Iterator[pa.Table]) -> pa.RecordBatchReader:
    first = next(tables)
    batches = (batch for table in chain([first], tables) for batch in table.to_batches())
    return pa.RecordBatchReader.from_batches(first.schema, batches)


def _text(column: Column) -> str:
    return f'CAST("{column.name}" AS VARCHAR)'


def _respelt(table: pa.Table, names: Sequence[str]) -> pa.Table:
    for name in names:
        texts = [None if text is None else _respell(text) for text in table[name].to_pylist()]
        place = table.schema.get_field_index(name)
        table = table.set_column(place, table.schema.field(place), [pa.array(texts, pa.string())])
    return table


def _respell(text: str) -> str:
    """Write JSON in one way: a server may order names, and write numbers, in a way of its own."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    if _ODD_NUMBER.search(text):
        value = _with_plain_numbers(value)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _with_plain_numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_plain_numbers(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_plain_numbers(part) for part in value]
    whole = isinstance(value, float) and value.is_integer() and abs(value) < _EXACT
    return int(value) if whole else value
