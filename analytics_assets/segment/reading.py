"""What was read of one API resource in this run: its guards, its counts, its rows on disk.

Pages are checked and typed as they arrive and kept in a file until the reading is known to be
whole. Only then may they be loaded, so that a resource that fails half-way leaves no trace.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from analytics_assets.segment.client import Envelope
from analytics_assets.segment.daily_figures import last_rows, with_daily_figures
from analytics_assets.segment.errors import AnalyticsError, ResourceError
from analytics_assets.segment.model import ColumnType, Endpoint
from analytics_assets.segment.records import ARROW_TYPES, BadValue, RowTyper
from analytics_assets.segment.settings import Log

SAME_PAGE_LIMIT: Final = 3
"""So many pages with the same keys in one chain mean that the cursor leads nowhere."""
EMPTY_PAGE_LIMIT: Final = 3
"""So many empty pages in a row that still promise more mean the same."""
TABLE_BYTES: Final = 8 * 1024**2
"""Size of the tables handed to the loader: large enough to be quick, small enough for memory."""
MOVES_PER_PAGE: Final = 5
"""Rows that may be missed per page while a list changes under the reader's feet."""
PREVIEW_ROWS: Final = 5


@dataclass
class Chain:
    """One walk over the pages of a list; usage has one for each month."""

    rows: int = 0
    pages: int = 0
    empty_pages: int = 0
    total: int | None = None
    done: bool = False
    cursors: set[str] = field(default_factory=set)
    page_keys: Counter[int] = field(default_factory=Counter)


class Reading:
    """The reading of one endpoint.

    Args:
        endpoint: what is read.
        stored: column types the destination already has, by column name.
        spool: file to keep the typed pages in.
        months: months of usage to ask for; empty for every other endpoint.
        redact: whether secrets are replaced by fingerprints.
        fingerprint_key: the team's own key of fingerprints; empty without one.

    ``accept`` is called by the threads that fetch, ``keep`` by the one that walks the pipe.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        stored: Mapping[str, ColumnType],
        spool: Path,
        *,
        months: Sequence[date] = (),
        redact: bool = True,
        fingerprint_key: str = "",
    ) -> None:
        self.endpoint = endpoint
        self.months = list(months)
        self.failure: AnalyticsError | None = None
        self.warnings: list[str] = []
        self.requests = 0
        self.waited = 0.0
        self.kept_rows = 0
        self.seconds = 0.0
        self.newest: Any = None
        self.preview: pa.Table | None = None
        self._typer = RowTyper(endpoint, stored, redact=redact, fingerprint_key=fingerprint_key)
        self._chains = {name: Chain() for name in self.chain_names}
        self._spool = spool
        self._keys: list[pa.Table] = []
        self._last_rows: pa.Array | None = None
        self._lock = threading.Lock()
        self._begun: float | None = None

    @property
    def chain_names(self) -> list[str]:
        """The ``period`` of each chain, or one empty name."""
        return [month.isoformat() for month in self.months] if self.endpoint.monthly else [""]

    @property
    def pages(self) -> int:
        """Pages received."""
        return sum(chain.pages for chain in self._chains.values())

    @property
    def rows(self) -> int:
        """Rows received; a row that came twice counts twice."""
        return sum(chain.rows for chain in self._chains.values())

    @property
    def undeclared(self) -> Mapping[str, ColumnType]:
        """Types of the columns that ``endpoints.py`` does not know, by column name."""
        return self._typer.undeclared_types()

    def fail(self, error: AnalyticsError) -> None:
        """Note why the reading ended; the first reason stays."""
        with self._lock:
            self.failure = self.failure or error

    def begin_request(self, period: str) -> None:
        """Count a request.

        Raises:
            ResourceError: the reading has failed already, so nothing more is asked for.
        """
        with self._lock:
            if self.failure:
                raise self.failure
            if period not in self._chains:
                raise ResourceError(f"a request for the month {period} that nobody asked for")
            self._begun = self._begun or time.monotonic()
            self.requests += 1

    def accept(self, envelope: Envelope, period: str) -> tuple[pa.Table, str | None]:
        """Check and type one page; return its table and the cursor of the next page.

        Raises:
            ResourceError: the page cannot be trusted; the text says why.
        """
        rows, pagination = _unpack(self.endpoint, envelope.body)
        with self._lock:
            chain = self._chains[period]
            first_row = chain.rows
            cursor = _check_page(self.endpoint, chain, rows, pagination, envelope.page_size)
        try:
            table = self._typer.table(rows, first_row)
        except BadValue as error:
            raise ResourceError(str(error), status=200) from None
        with self._lock:
            _check_progress(chain, table.select(self.endpoint.column_keys))
            chain.rows += len(rows)
            chain.pages += 1
            chain.done = cursor is None
            self.waited += envelope.waited
            self.seconds = time.monotonic() - (self._begun or time.monotonic())
        return table, cursor

    def keep(self, tables: Sequence[pa.Table]) -> None:
        """Write typed pages to the spool; a month of usage is one table."""
        with self._spool.open("ab") as file:
            for table in tables:
                self.kept_rows += table.num_rows
                self._keys.append(table.select(list(self.endpoint.column_keys)))
                if self.endpoint.cursor_column and table.num_rows:
                    newest = pc.max(table[self.endpoint.cursor_column]).as_py()
                    self.newest = max(filter(None, (self.newest, newest)), default=None)
                with pa.ipc.new_stream(file, table.schema) as writer:
                    writer.write_table(table)

    def finish(self) -> None:
        """Once nothing more is under way: a reading that did not reach its end has failed."""
        if self.failure is None and not all(chain.done for chain in self._chains.values()):
            self.failure = ResourceError("the list was not read to its end", passing=True)
        if self.failure is None:
            self.warnings += _shortages(self._chains)
            self._find_repeats()

    def _find_repeats(self) -> None:
        """Note the rows that came last of their key: a list may move while it is read."""
        last: list[pa.Array] = []
        first = 0
        day = self.endpoint.cursor_column if self.endpoint.monthly else None
        for keys in _apart(self._keys, day):
            last.append(pc.add(last_rows(keys), first))
            first += keys.num_rows
        self._keys.clear()
        if sum(map(len, last)) < self.kept_rows:
            self._last_rows = pa.concat_arrays(last)
            self.kept_rows = len(self._last_rows)

    def tables(self) -> Iterator[pa.Table]:
        """Yield what was kept, with one schema, in tables of about ``TABLE_BYTES``.

        Of rows with the same key the last one comes, as loaders may pick any.
        At least one table comes, an empty one if need be, so that the destination's table and its
        columns exist.
        """
        batch: list[pa.Table] = []
        size = 0
        self.preview = None
        for table in self._finished_tables():
            if self.preview is None and table.num_rows:
                self.preview = table.take([*range(min(PREVIEW_ROWS, table.num_rows))])
            batch.append(table)
            size += table.nbytes
            if size >= TABLE_BYTES:
                yield self._uniform(batch)
                batch, size = [], 0
        if batch:
            yield self._uniform(batch)

    def _finished_tables(self) -> Iterator[pa.Table]:
        for table in self._unique_tables():
            yield with_daily_figures(self.endpoint, table) if self.endpoint.monthly else table

    def _unique_tables(self) -> Iterator[pa.Table]:
        first = 0
        for table in self._stored_tables():
            if self._last_rows is None:
                yield table
                continue
            numbers = pa.array(range(first, first + table.num_rows), pa.int64())
            yield table.filter(pc.is_in(numbers, value_set=self._last_rows))
            first += table.num_rows

    def _stored_tables(self) -> Iterator[pa.Table]:
        if not self._spool.exists():
            return
        size = self._spool.stat().st_size
        with self._spool.open("rb") as file:
            while file.tell() < size:
                with pa.ipc.open_stream(file) as stream:
                    yield stream.read_all()

    def _uniform(self, tables: Sequence[pa.Table]) -> pa.Table:
        """Give all tables the columns and types that were settled in the course of the reading.

        In the order of the destination's table and with its empty columns, or else dlt writes every
        file once more.
        """
        keys = self.endpoint.column_keys
        schema = pa.schema(
            pa.field(name, ARROW_TYPES[kind], nullable=name not in keys)
            for name, kind in (
                *((column.name, column.type) for column in self.endpoint.table_columns),
                *self.undeclared.items(),
            )
        )
        return pa.concat_tables(_with_schema(table, schema) for table in tables)


def _apart(tables: Sequence[pa.Table], day: str | None) -> Sequence[pa.Table]:
    """Join tables of keys, except months of usage that share no day, hence no key.

    To look for repeats in one after the other takes a fraction of the memory.
    """
    if day is None:
        return [pa.concat_tables(tables)] if tables else []
    spans = sorted(
        tuple(pc.min_max(table[day]).as_py().values()) for table in tables if table.num_rows
    )
    if all(before[1] < after[0] for before, after in pairwise(spans)):
        return tables
    return [pa.concat_tables(tables)]


def _with_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    present = set(table.column_names)
    columns = [
        table[field.name].cast(field.type)
        if field.name in present
        else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def _unpack(endpoint: Endpoint, body: Any) -> tuple[list[Any], dict[str, Any] | None]:
    """Take the list and ``data.pagination`` out of an envelope.

    dlt reads a missing list as no rows; here it is an error.
    """
    wrapper, _, name = endpoint.selector.rpartition(".")
    data = body.get(wrapper) if isinstance(body, dict) else None
    if not isinstance(data, dict):
        raise ResourceError(f"the answer has no {wrapper!r} object", status=200)
    if name not in data:
        raise ResourceError(
            f"the answer has no list {endpoint.selector!r}; the API has changed, or the path is"
            " wrong",
            status=200,
        )
    rows = data[name]
    if not isinstance(rows, list):
        raise ResourceError(f"{endpoint.selector!r} is not a list", status=200)
    pagination = data.get("pagination")
    if pagination is not None and not isinstance(pagination, dict):
        raise ResourceError("'data.pagination' is not an object", status=200)
    return rows, pagination


def _check_page(
    endpoint: Endpoint,
    chain: Chain,
    rows: Sequence[Any],
    pagination: Mapping[str, Any] | None,
    page_size: int,
) -> str | None:
    """Return the next cursor, or raise if following the pages would lose rows or never end."""
    if not endpoint.paginated:
        return None
    if pagination is None:
        if page_size and len(rows) >= page_size:
            raise ResourceError(
                f"a full page of {len(rows)} rows came without 'data.pagination', so there may be"
                " more that cannot be asked for",
                status=200,
            )
        return None
    total = pagination.get("totalEntries")
    if isinstance(total, int) and not isinstance(total, bool):
        chain.total = total
    cursor = pagination.get("next")
    if cursor is None or cursor == "":
        return None
    if not isinstance(cursor, str):
        raise ResourceError("'data.pagination.next' is not text", status=200)
    if cursor in chain.cursors:
        raise ResourceError(
            "the cursor of the next page repeats; the list would never end", status=200
        )
    chain.cursors.add(cursor)
    return cursor


def _check_progress(chain: Chain, keys: pa.Table) -> None:
    """Raise when page after page brings nothing new although its cursor differs."""
    if keys.num_rows == 0:
        chain.empty_pages += 1
        if chain.empty_pages >= EMPTY_PAGE_LIMIT and chain.cursors:
            raise ResourceError(
                "empty pages keep promising more; the list would never end", status=200
            )
        return
    chain.empty_pages = 0
    mark = hash(tuple(_content(column) for column in keys.columns))
    chain.page_keys[mark] += 1
    if chain.page_keys[mark] >= SAME_PAGE_LIMIT:
        raise ResourceError(
            "the same page comes again and again; the list would never end", status=200
        )


def _content(column: pa.ChunkedArray) -> tuple[bytes, ...]:
    """Return the values of a column as bytes; much quicker than as Python objects."""
    chunk = column.combine_chunks()
    return tuple(buffer.to_pybytes() for buffer in chunk.buffers() if buffer is not None)


def _shortages(chains: Mapping[str, Chain]) -> list[str]:
    """Say where fewer rows came than ``totalEntries`` promised, beyond what can move meanwhile."""
    return [
        f"{chain.rows} rows came{f' for {period}' if period else ''}, but totalEntries says"
        f" {chain.total}"
        for period, chain in chains.items()
        if chain.total is not None
        and chain.total - chain.rows > MOVES_PER_PAGE * max(chain.pages - 1, 0)
    ]


class Progress:
    """Tells the log what has been read so far, at most every few seconds."""

    def __init__(self, readings: Sequence[Reading], log: Log, every: float = 3.0) -> None:
        self._readings = readings
        self._log = log
        self._every = every
        self._lock = threading.Lock()
        self._next = time.monotonic() + every

    def tick(self) -> None:
        """Log a line if one is due."""
        with self._lock:
            if time.monotonic() < self._next:
                return
            self._next = time.monotonic() + self._every
        counts = ", ".join(
            f"{r.endpoint.name} {r.pages} pages / {r.rows} rows" for r in self._readings if r.pages
        )
        self._log.info(f"Read so far: {counts or 'nothing'}.")
