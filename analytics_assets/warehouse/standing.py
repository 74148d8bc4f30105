"""What really stands in the destination: tables, views, columns. dlt's stored schema has no say."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

import duckdb
from dlt.common.destination.client import JobClientBase, WithStagingDataset
from dlt.common.schema import Schema
from dlt.common.schema.typing import PIPELINE_STATE_TABLE_NAME
from dlt.common.schema.utils import pipeline_state_table
from dlt.destinations.exceptions import DatabaseException

from analytics_assets.segment.errors import UnreadableFiles
from analytics_assets.warehouse.file_tables import FileTables
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import open_files

OF_DLT: Final = Schema("known")
"""A schema without tables but dlt's own, to know their names and columns by."""
VERSIONS: Final = OF_DLT.version_table_name
LOADS: Final = OF_DLT.loads_table_name
DLT_TABLES: Final[Mapping[str, frozenset[str]]] = {
    VERSIONS: frozenset(OF_DLT.tables[VERSIONS]["columns"]),
    LOADS: frozenset(OF_DLT.tables[LOADS]["columns"]),
    PIPELINE_STATE_TABLE_NAME: frozenset(pipeline_state_table()["columns"]),
}
"""dlt's own tables and their columns."""

Columns = Mapping[str, str]
"""Columns by name in lower case, with dlt's name of the type, empty where it has none."""


@dataclass(frozen=True)
class Standing:
    """What a dataset holds.

    Attributes:
        dataset: its name.
        tables: the columns of each table that was asked for and is there.
        views: names that are views.
        names: everything that is there, asked for or not.
        required: of each table the columns that must hold a value and have no default.
        unreadable: why the files of a table cannot be read, by its name.
    """

    dataset: str
    tables: Mapping[str, Columns]
    views: frozenset[str]
    names: frozenset[str]
    required: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unreadable: Mapping[str, UnreadableFiles] = field(default_factory=dict)


def look(
    client: JobClientBase,
    warehouse: WarehouseSettings,
    names: Collection[str],
    known: Collection[str],
) -> Standing:
    """Look at tables of the dataset.

    Args:
        client: the destination, open.
        warehouse: where the tables are.
        names: tables to look at; dlt's own come with them.
        known: tables whose columns dlt has stored. It vouches for those of files, which nobody
            alters and which are many to open.
    """
    if warehouse.destination == "filesystem":
        return _look_at_files(client, warehouse, names, known)
    return _look_in_sql(client, [*names, *DLT_TABLES])


def look_at_staging(client: JobClientBase, names: Collection[str]) -> Standing | None:
    """Look at the dataset in which dlt puts rows before it merges them; ``None`` without one."""
    if not isinstance(client, WithStagingDataset):
        return None
    with client.with_staging_dataset():
        return _look_in_sql(client, [*names, VERSIONS])


def _look_in_sql(client: Any, names: Collection[str]) -> Standing:
    if not client.is_storage_initialized():
        return Standing(client.sql_client.dataset_name, {}, frozenset(), frozenset())
    found = {name: columns for name, columns in client.get_storage_tables(names) if columns}
    kinds = _kinds(client)
    return Standing(
        client.sql_client.dataset_name,
        {
            name: {c.lower(): str(column.get("data_type") or "") for c, column in columns.items()}
            for name, columns in found.items()
        },
        frozenset(name for name, kind in kinds.items() if "VIEW" in kind),
        frozenset(found) | frozenset(kinds),
        _required(client),
    )


def _kinds(client: Any) -> Mapping[str, str]:
    """Return the kind of each table of the dataset."""
    query = "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = %s"
    found = [*_listed(client, query)]
    if client.config.destination_type == "postgres":
        query = "SELECT matviewname, 'VIEW' FROM pg_matviews WHERE schemaname = %s"
        found += _listed(client, query)
    return {str(name).lower(): str(kind).upper() for name, kind in found}


def _required(client: Any) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    query = (
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = %s"
        " AND is_nullable = 'NO' AND column_default IS NULL"
    )
    if client.config.destination_type == "postgres":
        query += " AND is_identity = 'NO' AND is_generated = 'NEVER'"
    for table, column in _listed(client, query):
        found.setdefault(str(table).lower(), set()).add(str(column).lower())
    return {table: frozenset(columns) for table, columns in found.items()}


def _listed(client: Any, query: str) -> Sequence[Sequence[Any]]:
    """Ask what is in the dataset; nothing where the server has no such list."""
    try:
        return client.sql_client.execute_sql(query, client.sql_client.dataset_name) or ()
    except DatabaseException:
        return ()


def _look_at_files(
    client: Any, warehouse: WarehouseSettings, names: Collection[str], known: Collection[str]
) -> Standing:
    listed = client.get_storage_tables(DLT_TABLES)
    tables: dict[str, Columns] = {
        name: dict.fromkeys(DLT_TABLES[name], "") for name, columns in listed if columns
    }
    unreadable: dict[str, UnreadableFiles] = {}
    with open_files(client, warehouse.table_format) as files:
        for name in filter(files.exists, names):
            stored = client.schema.tables[name]["columns"] if name in known else ()
            tables[name] = dict.fromkeys(stored, "")
            try:
                if warehouse.merges:
                    files.table(name)  # it has a log, which tells of every file
                if not stored:
                    tables[name] = dict.fromkeys(_file_columns(files, name), "")
            except UnreadableFiles as error:
                unreadable[name] = error
    folders = frozenset(_folders(client))
    return Standing(client.dataset_name, tables, frozenset(), folders, unreadable=unreadable)


def _file_columns(files: FileTables, name: str) -> Collection[str]:
    """Return the columns of a table's files; none if they are no table at all."""
    try:
        found = files.rows(f"DESCRIBE SELECT * FROM {files.table(name)}")
    except duckdb.Error:
        return ()
    return [str(column).lower() for column, *_ in found]


def _folders(client: Any) -> set[str]:
    if not client.fs_client.isdir(client.dataset_path):
        return set()
    paths = client.fs_client.ls(client.dataset_path, detail=False)
    return {PurePosixPath(str(path).replace("\\", "/")).name for path in paths}
