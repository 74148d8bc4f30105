"""Tables that are files, plain Parquet or Delta, for questions in SQL; and which of them is broken.

Files are opened here, as dlt's own SQL over buckets and Delta tables needs DuckDB extensions from
the network and, in dlt 1.31, a call that duckdb 2.0 no longer has: DuckDB reads the files by way of
pyarrow and deltalake, which get file system and credentials from dlt.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import Any, Final, cast

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.destinations.exceptions import DatabaseUndefinedRelation

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.errors import UnreadableFiles
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.warehouse.faults import is_away
from analytics_assets.warehouse.own_tables import RECORD_CHANGES

_LOAD_ID: Final = re.compile(r"\d{10}\.\d+")
"""dlt's load id, a time in seconds, within the name of a file."""
_NAMED_BY_LOAD: Final = re.compile(r".*\{load_id\}[^/]*\.\{ext\}")
"""A layout that gives files the load id in their names, and an ending."""
_LOG: Final = "_delta_log"
"""The folder in which a Delta table keeps its log."""
READING_ERRORS: Final = (duckdb.InvalidInputException, duckdb.IOException)
"""What DuckDB makes of an error of pyarrow or deltalake."""


def load_id(path: str) -> str:
    """Return the load id in the name of a file; nothing if it has none."""
    found = _LOAD_ID.search(PurePath(path).name)
    return found.group() if found else ""


def parquet_files(client: Any, name: str) -> list[str]:
    """Return the files that loads have made of a table; none without a folder.

    Others may lie there, such as copies, notes and what file managers leave. A layout that gives
    files no load id or no ending gives less to tell them by.
    """
    layout = str(client.config.layout)
    files = files_in(client, name)
    if layout.endswith(".{ext}"):
        files = [path for path in files if path.endswith(".parquet")]
    return [path for path in files if load_id(path)] if _NAMED_BY_LOAD.fullmatch(layout) else files


def files_in(client: Any, name: str) -> list[str]:
    """Return all files in the folder of a table; none without one."""
    try:
        return cast("list[str]", client.list_table_files(name))
    except DestinationUndefinedEntity:
        return []


def is_broken(error: BaseException) -> bool:
    """Tell whether an error of reading a file is about the file, not the way to it.

    What pyarrow finds wrong in a file is at times a plain ``OSError``, without a number.
    """
    if isinstance(error, (pa.ArrowInvalid, pa.ArrowNotImplementedError, FileNotFoundError)):
        return True
    return type(error) is OSError and error.errno is None and not is_away(error)


class FileTables(ABC):
    """Tables become views when they are first named; a report calls its own views like them."""

    def __init__(self, client: Any, connection: duckdb.DuckDBPyConnection) -> None:
        self._client = client
        self._connection = connection
        self._opened: dict[str, ds.Dataset] = {}

    def table(self, name: str) -> str:
        """Return what to select from.

        Raises:
            DatabaseUndefinedRelation: no load has made files of it.
            UnreadableFiles: they are broken.
        """
        if name not in self._opened:
            dataset = self._dataset(name)
            self._connection.register(_view(name), dataset)
            self._opened[name] = dataset
        return self.column(_view(name))

    def fields(self, name: str) -> pa.Schema:
        """Return the columns that the files of a table have; none if they cannot be read."""
        try:
            self.table(name)
        except UnreadableFiles:  # which is told where rows of it are wanted
            return pa.schema([])
        return self._opened[name].schema

    def column(self, name: str) -> str:
        """Return the quoted name of a column."""
        return '"' + name.replace('"', '""') + '"'

    def rows(self, query: str, limit: int | None = None) -> Sequence[Sequence[Any]]:
        """Return the rows of a query, at most ``limit`` of them.

        Raises:
            UnreadableFiles: the files of a table in it are broken.
        """
        with self._explained(query):
            found = self._connection.execute(query)
            return found.fetchall() if limit is None else found.fetchmany(limit)

    def batches(self, query: str, size: int) -> Iterator[Sequence[Sequence[Any]]]:
        """Yield the rows of a query, ``size`` at a time; raises as :meth:`rows`."""
        with self._explained(query):
            found = self._connection.execute(query)
            while rows := found.fetchmany(size):
                yield rows

    def unreadable(self, names: Collection[str]) -> UnreadableFiles | None:
        """Read all of some tables that were opened; return what is wrong with the first broken."""
        for name in names:
            if name in self._opened and (found := _broken_file(self._opened[name])):
                return self._unreadable(name, *found)
        return None

    @property
    def duckdb(self) -> duckdb.DuckDBPyConnection | None:
        """The DuckDB that answers."""
        return self._connection

    @contextmanager
    def _explained(self, query: str) -> Iterator[None]:
        try:
            yield
        except READING_ERRORS:
            named = [name for name in self._opened if self.column(_view(name)) in query]
            if found := self.unreadable(named):
                raise found from None
            raise

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Tell whether loads have made files of a table."""

    @abstractmethod
    def _dataset(self, name: str) -> ds.Dataset:
        """Return the files of a table; raises as :meth:`table`."""

    @abstractmethod
    def _unreadable(self, name: str, file: str, why: str) -> UnreadableFiles:
        """Return the error of a table, one of whose files is broken."""


class ParquetTables(FileTables):
    """Folders of Parquet files."""

    def exists(self, name: str) -> bool:
        """Tell whether loads have made files of a table."""
        return bool(parquet_files(self._client, name))

    def _dataset(self, name: str) -> ds.Dataset:
        files = parquet_files(self._client, name)
        if not files:
            raise DatabaseUndefinedRelation(FileNotFoundError(name))
        # the columns of all files: those of later loads may be more
        schemas = [self._schema(name, path) for path in files]
        try:
            schema = pa.unify_schemas(schemas)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UnreadableFiles(
                f"the Parquet files of the table {name} do not fit together; remove those that no"
                f" load has made: {foreign_text(str(error))}"
            ) from None
        return ds.dataset(files, schema, filesystem=self._client.fs_client, format="parquet")

    def _schema(self, name: str, path: str) -> pa.Schema:
        try:
            with self._client.fs_client.open(path, "rb") as file:
                return pq.read_schema(file)
        except (pa.ArrowException, OSError) as error:
            if is_broken(error):
                raise self._unreadable(name, path, str(error)) from None
            raise

    def _unreadable(self, name: str, file: str, why: str) -> UnreadableFiles:
        del why  # pyarrow's own words, of bytes and magic, help nobody
        kept = name in BY_NAME and not BY_NAME[name].full_list
        what = "the folder" if kept else "it"  # a history without one of its files has a gap
        return UnreadableFiles(
            f"the file {foreign_text(PurePath(file).name)} in the folder of the table {name} cannot"
            f" be read as Parquet; remove {what}{_again(name)}"
        )


class DeltaTables(FileTables):
    """Delta tables."""

    def exists(self, name: str) -> bool:
        """Tell whether loads have made a Delta table."""
        from deltalake import DeltaTable

        return bool(DeltaTable.is_deltatable(*self._place(name)))

    def _dataset(self, name: str) -> ds.Dataset:
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        if not self.exists(name):
            raise DatabaseUndefinedRelation(FileNotFoundError(name))
        location, options = self._place(name)
        try:
            table = DeltaTable(location, storage_options=options)
            dataset, files = table.to_pyarrow_dataset(), table.file_uris()
        except DeltaError as error:
            if is_away(error):
                raise
            raise self._unreadable(name, _LOG, str(error).partition("\n")[0]) from None
        there = {PurePath(path).name for path in files_in(self._client, name)}
        for file in files:
            if PurePath(file).name not in there:
                raise self._unreadable(name, file, "it is not there")
        return dataset

    def _place(self, name: str) -> tuple[str, dict[str, str]]:
        """Return where a table is, and deltalake's options to get there."""
        from dlt.common.libs.deltalake import deltalake_storage_options

        config = self._client.config
        options = deltalake_storage_options(config.credentials, config.deltalake_storage_options)
        return self._client.get_open_table_location("delta", name), options

    def _unreadable(self, name: str, file: str, why: str) -> UnreadableFiles:
        return UnreadableFiles(
            f"{foreign_text(PurePath(file).name)} in the folder of the Delta table {name} cannot be"
            f" read ({foreign_text(why)}); put it back, or remove the folder{_again(name)}",
            replaceable=file != _LOG,
        )


def _view(name: str) -> str:
    return f"files of {name}"


def _again(name: str) -> str:
    return "" if name == RECORD_CHANGES.name else ", and the next run loads all of it again"


def _broken_file(dataset: ds.Dataset) -> tuple[str, str] | None:
    """Return the path of the first file that cannot be read, and why."""
    for fragment in dataset.get_fragments():
        try:
            for batch in fragment.to_batches():
                batch.validate(full=True)
        except (pa.ArrowException, OSError) as error:
            if is_broken(error):
                return fragment.path, str(error)
            raise
    return None
