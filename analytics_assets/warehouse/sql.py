"""Questions to the destination in SQL: the same calls for a server, for DuckDB and for files.

Pure dlt, no Dagster.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import duckdb
from dlt.common.destination.client import JobClientBase
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.sql_client import SqlClientBase

from analytics_assets.segment.errors import UnreadableFiles
from analytics_assets.warehouse.file_tables import DeltaTables, FileTables, ParquetTables

Row = Sequence[Any]


class Sql(Protocol):
    """SQL of one dataset. Names come qualified and quoted, the SQL around them is plain ANSI."""

    def table(self, name: str) -> str:
        """Return what to select from.

        Raises:
            DatabaseUndefinedRelation: there is no such table; servers say so when it is asked for.
            UnreadableFiles: its files are broken.
        """

    def column(self, name: str) -> str:
        """Return the quoted name of a column."""

    def rows(self, query: str, limit: int | None = None) -> Sequence[Row]:
        """Return the rows of a query, at most ``limit`` of them; none for other statements.

        Raises:
            UnreadableFiles: the files of a table in it are broken.
        """

    def batches(self, query: str, size: int) -> Iterator[Sequence[Row]]:
        """Yield the rows of a query, ``size`` at a time."""

    def unreadable(self, names: Collection[str]) -> UnreadableFiles | None:
        """Return what is wrong with the files of tables that were asked, if they are files."""

    @property
    def duckdb(self) -> duckdb.DuckDBPyConnection | None:
        """The DuckDB that answers, ``None`` if it is another engine."""


@contextmanager
def open_sql(client: JobClientBase, table_format: str | None = None) -> Iterator[Sql]:
    """Open the destination of ``client`` for questions.

    Args:
        client: the destination, not opened yet.
        table_format: ``delta`` if its files are Delta tables.
    """
    with client:
        if not client.config.destination_type.endswith("filesystem"):
            yield _Server(client.sql_client)  # type: ignore[attr-defined]
            return
        with open_files(client, table_format) as files:
            yield files


@contextmanager
def open_files(client: Any, table_format: str | None) -> Iterator[FileTables]:
    """Open a destination of files, as :func:`open_sql`."""
    with duckdb.connect() as connection:
        kind = DeltaTables if table_format == "delta" else ParquetTables
        yield kind(client, connection)


class _Server:
    def __init__(self, client: SqlClientBase[Any]) -> None:
        self._client = client

    def table(self, name: str) -> str:
        return self._client.make_qualified_table_name(name)

    def column(self, name: str) -> str:
        return self._client.escape_column_name(name)

    def rows(self, query: str, limit: int | None = None) -> Sequence[Row]:
        if limit is None:
            return self._client.execute_sql(query) or []
        with self._client.execute_query(query) as cursor:
            return cursor.fetchmany(limit)

    def batches(self, query: str, size: int) -> Iterator[Sequence[Row]]:
        with self._client.execute_query(query) as cursor:
            while rows := cursor.fetchmany(size):
                yield rows

    def unreadable(self, names: Collection[str]) -> UnreadableFiles | None:
        del names  # a server speaks for itself
        return None

    @property
    def duckdb(self) -> duckdb.DuckDBPyConnection | None:
        native = self._client.native_connection
        return native if isinstance(native, duckdb.DuckDBPyConnection) else None


def broken_table(
    client: JobClientBase, table_format: str | None, name: str
) -> UnreadableFiles | None:
    """Read all of a Delta table, as a load into one does; return what is wrong with its files."""
    if table_format != "delta":
        return None
    with open_sql(client, table_format) as sql:
        try:
            sql.table(name)
        except UnreadableFiles as error:
            return error
        except DatabaseUndefinedRelation:
            return None
        return sql.unreadable([name])
