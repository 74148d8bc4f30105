"""Typed pages on disk, until their list is known to be whole.

Only then may they be loaded, so that a resource that fails half-way leaves no trace.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from analytics_assets.segment.daily_figures import (
    Share,
    of_share,
    shares,
    source_column,
    with_daily_figures,
)
from analytics_assets.segment.model import ColumnType, Endpoint
from analytics_assets.segment.parts import with_parts
from analytics_assets.segment.records import ARROW_TYPES
from analytics_assets.segment.repeats import ROW, Page, key_tables, outdated_rows
from analytics_assets.segment.undeclared import Undeclared

TABLE_BYTES: Final = 8 * 1024**2
"""Size of the tables handed to the loader: large enough to be quick, small enough for memory."""
PREVIEW_ROWS: Final = 5

Key = tuple[Any, ...]
"""The values of a row's key columns."""


class Staging:
    """The rows of one resource, page by page in a file.

    Args:
        endpoint: what they are rows of.
        file: where to keep them.

    Attributes:
        rows: rows kept; once settled, one for each key.
        newest: newest time in the column that tells how new a row is, ``None`` without any.
        preview: a few of the rows handed to the loader, the newest first where a column tells.
        missing: once settled, keys that the destination holds and that did not come.
    """

    def __init__(self, endpoint: Endpoint, file: Path) -> None:
        self.endpoint = endpoint
        self.rows = 0
        self.newest: Any = None
        self.preview: pa.Table | None = None
        self.missing: frozenset[Key] = frozenset()
        self._file = file
        self._pages: list[Page] = []
        self._outdated = pa.array([], pa.int64())
        self._bytes = 0
        self._row_bytes = 0.0

    def add(self, chain: str, table: pa.Table) -> None:
        """Keep a page."""
        self.rows += table.num_rows
        days = None
        if self.endpoint.cursor_column and table.num_rows:
            oldest, newest = pc.min_max(table[self.endpoint.cursor_column]).as_py().values()
            self.newest = max(filter(None, (self.newest, newest)), default=None)
            days = (oldest, newest) if self.endpoint.by_day else None
        self._bytes += table.nbytes
        if table.num_rows:
            self._row_bytes = max(self._row_bytes, table.nbytes / table.num_rows)
        with open(self._file, "ab", opener=_for_owner_only) as file:
            self._pages.append(Page(chain, file.tell(), table.num_rows, days))
            with pa.ipc.new_stream(file, table.schema) as writer:
                writer.write_table(table)

    def widest(self, rows: int) -> float:
        """Return about how many bytes so many rows take, those of the widest page."""
        return min(self._bytes, self._row_bytes * rows)

    def settle(
        self, without: frozenset[str] = frozenset(), held: frozenset[Key] = frozenset()
    ) -> None:
        """Once all pages are here: note the rows whose key comes again.

        A list may move while it is read, and a row then come twice.

        Args:
            without: chains to leave out.
            held: keys of the rows that the destination holds.
        """
        kept = [page for page in self._pages if page.chain not in without]
        self._pages = sorted(kept, key=lambda page: page.chain)
        self.rows = sum(page.rows for page in self._pages)
        day = self.endpoint.cursor_column if self.endpoint.by_day else None
        outdated: list[pa.Array] = []
        missing = set(held)
        for keys in key_tables(self._pages, day, self._keys):
            outdated.append(outdated_rows(keys))
            if missing:
                missing.difference_update(_tuples(keys.drop_columns([ROW])))
        self.missing = frozenset(missing)
        if outdated:
            self._outdated = pa.concat_arrays(outdated)
        self.rows -= len(self._outdated)

    def _keys(self, pages: Sequence[Page]) -> Iterator[pa.Table]:
        return self._stored(pages, self.endpoint.key_columns)

    def tables(self, undeclared: Undeclared) -> Iterator[pa.Table]:
        """Yield the rows with one schema, in tables of about ``TABLE_BYTES``.

        Of rows with the same key the last one comes, as loaders may pick any.
        At least one table comes, an empty one if need be, so that the destination's table and its
        columns exist.

        Args:
            undeclared: the fields that ``endpoints.py`` does not know.
        """
        schema = self._schema(undeclared.types())
        batch: list[pa.Table] = []
        size = 0
        self.preview = None
        parts = self._parts(undeclared.finished)
        for table in (piece for part in parts for piece in _pieces(part)):
            batch.append(table)
            size += table.nbytes
            if size >= TABLE_BYTES:
                yield self._previewed(_uniform(batch, schema))
                batch, size = [], 0
        if batch or not self._pages:
            yield self._previewed(_uniform(batch, schema))

    def _previewed(self, table: pa.Table) -> pa.Table:
        """Return the table; keep its newest rows, or its first ones where no column tells."""
        column = self.endpoint.cursor_column
        if column is None:
            if self.preview is None and table.num_rows:
                self.preview = table.take([*range(min(PREVIEW_ROWS, table.num_rows))])
            return table
        newest = _newest(table, column)
        kept = [newest] if self.preview is None else [self.preview, newest]
        self.preview = _newest(pa.concat_tables(kept), column)
        return table

    def _parts(self, finished: Callable[[pa.Table], pa.Table]) -> Iterator[pa.Table]:
        """Yield the pages; of usage the months, with the figures of each day."""
        if not self.endpoint.monthly:
            for page in self._unique(self._pages):
                yield with_parts(self.endpoint, finished(page))
            return
        first = 0
        for _, pages in groupby(self._pages, key=lambda page: page.chain):
            month = list(pages)
            rows_of_month = sum(page.rows for page in month)
            for share in self._shares(month, rows_of_month):
                own = (finished(of_share(page, share)) for page in self._unique(month, first))
                rows = pa.concat_tables(own, promote_options="default")
                yield with_daily_figures(self.endpoint, rows)
            first += rows_of_month

    def _shares(self, month: Sequence[Page], rows: int) -> Sequence[Share]:
        """Cut a month so that the figures of each part are made in bounded memory."""
        column = source_column(self.endpoint)
        keys = self._stored(month, [column]) if column else ()
        return shares(column, (table[column] for table in keys), rows)

    def _unique(self, pages: Sequence[Page], first: int = 0) -> Iterator[pa.Table]:
        """Yield pages without the rows that come again later.

        Args:
            pages: one after the other.
            first: number of their first row.
        """
        for table in self._stored(pages):
            if not self._outdated:
                yield table
                continue
            numbers = pa.array(range(first, first + table.num_rows), pa.int64())
            outdated = pc.is_in(numbers, value_set=self._outdated)
            yield table.filter(pc.invert(outdated))
            first += table.num_rows

    def _stored(
        self, pages: Sequence[Page], columns: Sequence[str] | None = None
    ) -> Iterator[pa.Table]:
        """Yield some of the pages as they are kept, or some columns of each."""
        if not pages:
            return
        with self._file.open("rb") as file:
            for page in pages:
                file.seek(page.place)
                with pa.ipc.open_stream(file) as stream:
                    table = stream.read_all()
                yield table if columns is None else _copied(table, columns)

    def _schema(self, undeclared: Mapping[str, ColumnType]) -> pa.Schema:
        """Return the columns of the destination's table in its order, the empty ones too.

        dlt would write every file once more otherwise.
        """
        keys = self.endpoint.key_columns
        columns = [(column.name, column.type) for column in self.endpoint.table_columns]
        return pa.schema(
            pa.field(name, ARROW_TYPES[kind], nullable=name not in keys)
            for name, kind in (*columns, *undeclared.items())
        )


def _copied(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """Return some columns, without what keeps the others in memory."""
    return pa.table([table[name].combine_chunks() for name in columns], names=list(columns))


def _pieces(table: pa.Table) -> Iterator[pa.Table]:
    """Cut a page of wide rows: a destination may take as much memory as each table has."""
    rows = max(1, table.num_rows * TABLE_BYTES // max(1, table.nbytes))
    yield from (table.slice(first, rows) for first in range(0, max(1, table.num_rows), rows))


def _newest(table: pa.Table, column: str) -> pa.Table:
    return table.take(pc.select_k_unstable(table, PREVIEW_ROWS, [(column, "descending")]))


def _for_owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _tuples(keys: pa.Table) -> Iterator[Key]:
    return zip(*(column.to_pylist() for column in keys.columns), strict=True)


def _uniform(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """Give all tables the columns and types that were settled in the course of the reading."""
    if not tables:  # with a batch, if an empty one: some drivers want to see the columns
        return pa.table([pa.array([], field.type) for field in schema], schema=schema)
    return pa.concat_tables(_with_schema(table, schema) for table in tables)


def _with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    present = set(table.column_names)
    columns = [
        table[field.name].cast(field.type)
        if field.name in present
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
