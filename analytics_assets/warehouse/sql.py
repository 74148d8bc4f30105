"""Questions to the destination in SQL: the same calls for a server, for DuckDB and for files.

Pure dlt, no Dagster. Files are opened here, as dlt's own SQL over buckets and Delta tables needs
DuckDB extensions from the network and, in dlt 1.31, a call that duckdb 2.0 no longer has: DuckDB
reads the files by way of pyarrow and deltalake, which get file system and credentials from dlt.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, Protocol

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
from dlt.common.destination.client import JobClientBase
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.destinations.sql_client import SqlClientBase

from analytics_assets.segment.errors import UnreadableFiles
from analytics_assets.segment.foreign_text import foreign_text

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
        """Return the rows of a query, at most ``limit`` of them; none for other statements."""

    def batches(self, query: str, size: int) -> Iterator[Sequence[Row]]:
        """Yield the rows of a query, ``size`` at a time."""

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
        with duckdb.connect() as connection:
            kind = _DeltaTables if table_format == "delta" else _ParquetFiles
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

    @property
    def duckdb(self) -> duckdb.DuckDBPyConnection | None:
        native = self._client.native_connection
        return native if isinstance(native, duckdb.DuckDBPyConnection) else None


class _Files(ABC):
    """Tables become views when they are first named; a report calls its own views like them."""

    def __init__(self, client: Any, connection: duckdb.DuckDBPyConnection) -> None:
        self._client = client
        self._connection = connection
        self._views: set[str] = set()

    def table(self, name: str) -> str:
        view = f"files of {name}"
        if name not in self._views:
            self._connection.register(view, self._dataset(name))
            self._views.add(name)
        return self.column(view)

    def column(self, name: str) -> str:
        return '"' + name.replace('"', '""') + '"'

    def rows(self, query: str, limit: int | None = None) -> Sequence[Row]:
        found = self._connection.execute(query)
        return found.fetchall() if limit is None else found.fetchmany(limit)

    def batches(self, query: str, size: int) -> Iterator[Sequence[Row]]:
        found = self._connection.execute(query)
        while rows := found.fetchmany(size):
            yield rows

    @property
    def duckdb(self) -> duckdb.DuckDBPyConnection | None:
        return self._connection

    @abstractmethod
    def _dataset(self, name: str) -> ds.Dataset:
        """Return the files of a table.

        Raises:
            DatabaseUndefinedRelation: it has none.
            UnreadableFiles: they are broken.
        """


class _ParquetFiles(_Files):
    def _dataset(self, name: str) -> ds.Dataset:
        files = parquet_files(self._client, name)
        if not files:
            raise DatabaseUndefinedRelation(FileNotFoundError(name))
        dataset = ds.dataset(files, filesystem=self._client.fs_client, format="parquet")
        # the columns of all files: those of later loads may be more
        schemas = [_schema_of(fragment, name) for fragment in dataset.get_fragments()]
        try:
            return dataset.replace_schema(pa.unify_schemas(schemas))
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UnreadableFiles(
                f"the Parquet files of the table {name} do not fit together; remove those that no"
                f" load has made: {foreign_text(str(error))}"
            ) from None


def parquet_files(client: Any, name: str) -> list[str]:
    """Return the files of a table; others may lie in its folder, as file managers leave some.

    A layout that gives files no ending gives nothing to tell them by.

    Raises:
        DestinationUndefinedEntity: the table has no folder.
    """
    files: list[str] = client.list_table_files(name)
    told = str(client.config.layout).endswith(".{ext}")
    return [path for path in files if path.endswith(".parquet")] if told else files


def _schema_of(fragment: ds.Fragment, table: str) -> pa.Schema:
    try:
        return fragment.physical_schema
    except pa.ArrowInvalid:
        raise UnreadableFiles(
            f"the file {foreign_text(PurePath(fragment.path).name)} in the folder of the table"
            f" {table} cannot be read as Parquet; remove it"
        ) from None


class _DeltaTables(_Files):
    def _dataset(self, name: str) -> ds.Dataset:
        from deltalake import DeltaTable
        from dlt.common.libs.deltalake import deltalake_storage_options

        config = self._client.config
        options = deltalake_storage_options(config.credentials, config.deltalake_storage_options)
        location = self._client.get_open_table_location("delta", name)
        if not DeltaTable.is_deltatable(location, options):
            raise DatabaseUndefinedRelation(FileNotFoundError(name))
        return DeltaTable(location, storage_options=options).to_pyarrow_dataset()
