"""What was dropped or changed by hand: made again before a run reads anything, or said how.

dlt goes by the schema that it has stored and never looks again at the tables themselves: one that
has gone would be the destination's complaint in every later run. So the two are compared here.
What is missing is made again; where that would lose something, and where a table is somebody
else's, the assets concerned are refused, with the way out.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from dlt.common.destination.exceptions import DestinationException
from dlt.common.exceptions import DltException
from dlt.common.schema import Schema
from dlt.destinations.exceptions import DatabaseException
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.errors import AnalyticsError, ResourceError, SettingError
from analytics_assets.segment.foreign_text import root_message
from analytics_assets.segment.model import DELETED_AT, ColumnType, Endpoint, Group
from analytics_assets.segment.settings import Log
from analytics_assets.warehouse.destination import restore
from analytics_assets.warehouse.own_tables import RECORD_CHANGES
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import open_sql
from analytics_assets.warehouse.standing import (
    DLT_TABLES,
    VERSIONS,
    Columns,
    Standing,
    look,
    look_at_staging,
)
from analytics_assets.warehouse.state import (
    declared_types,
    drop_misshapen,
    forget,
    is_sound,
    stored_schema,
    stored_types,
)

LOAD_ID: Final = "_dlt_load_id"
ROW_ID: Final = "_dlt_id"
"""dlt gives it to every row that it normalizes itself, and to none of a table of ours."""
TYPES_READ_BACK: Final = ("duckdb", "postgres")
"""Destinations that give every type of ours back as it was declared."""
AGAIN: Final = "and the next run loads all of it again"


@dataclass
class Healed:
    """What a run finds, once what could be made again has been.

    Attributes:
        types: columns and types of the tables that are there, by table.
        refused: why an asset may not be loaded, by name.
    """

    types: dict[str, Mapping[str, ColumnType]] = field(default_factory=dict)
    refused: dict[str, ResourceError] = field(default_factory=dict)


def restore_and_heal(
    pipeline: Pipeline,
    group: Group,
    endpoints: Sequence[Endpoint],
    warehouse: WarehouseSettings,
    log: Log,
) -> Healed:
    """Bring state and schema back from the destination, which is open, and compare it with them.

    Args:
        pipeline: the pipeline of the group.
        group: its name.
        endpoints: what is to be loaded of it.
        warehouse: the destination.
        log: told what has been made again.

    Raises:
        SettingError: dlt's own tables are broken, or those of another dlt pipeline stand in place
            of the ones to load.
        AnalyticsError: the destination cannot be reached, or does not do what is asked of it.
    """
    try:
        restore(warehouse, pipeline, log)
    except AnalyticsError:
        with suppress(DestinationException):
            # it may be a table of dlt's that is broken
            _look(pipeline, stored_schema(pipeline), endpoints, warehouse)
        raise
    if drop_misshapen(pipeline):
        log.warning(f"Parts of the state of the {group} group make no sense and are forgotten.")
    if pipeline.default_schema_name is None:
        _adopt_schema(pipeline, group)
    try:
        schema = stored_schema(pipeline)
        standing, staging = _look(pipeline, schema, endpoints, warehouse)
        _refuse_other_pipelines(pipeline, schema, endpoints, standing, warehouse, log)
        return _Healing(pipeline, schema, group, warehouse, standing, staging, log).of(endpoints)
    except (DestinationException, PipelineStepFailed) as error:
        raise AnalyticsError(
            f"The tables of the dataset {warehouse.dataset!r} cannot be compared with what dlt has"
            f" stored of them: {root_message(error)}"
        ) from None


def _look(
    pipeline: Pipeline,
    schema: Schema,
    endpoints: Sequence[Endpoint],
    warehouse: WarehouseSettings,
) -> tuple[Standing, Standing | None]:
    names = [endpoint.name for endpoint in endpoints]
    known = [endpoint.name for endpoint in endpoints if stored_types(schema, endpoint)]
    if RECORD_CHANGES.name in schema.tables:
        names, known = [*names, RECORD_CHANGES.name], [*known, RECORD_CHANGES.name]
    with pipeline.destination_client() as client:
        standing = look(client, warehouse, names, known)
        staging = look_at_staging(client, names) if warehouse.stages else None
    for name, needed in DLT_TABLES.items():
        missing = needed.difference(standing.tables.get(name, needed))
        if missing or name in standing.views:
            what = f"has lost {_columns(missing)}" if missing else "is a view"
            raise SettingError(
                f"The table {name} of the dataset {standing.dataset!r}, in which dlt keeps what it"
                f" has loaded, {what}; drop it, and the next run makes it again."
            )
    return standing, staging


def _adopt_schema(pipeline: Pipeline, group: Group) -> None:
    """Take the schema that is stored, where the state that names it has gone, or never came."""
    try:
        with pipeline.destination_client() as client:
            stored = client.get_stored_schema(group)  # type: ignore[attr-defined]
        schema = Schema.from_dict(json.loads(stored.schema)) if stored else None
    except (ValueError, KeyError, DltException):  # not there, or tampered with: as good as none
        return
    if schema:
        pipeline.schemas.save_schema(schema)
        with pipeline.managed_state():
            cast(Any, pipeline).default_schema_name = schema.name  # None at first, dlt's types say


def _refuse_other_pipelines(
    pipeline: Pipeline,
    schema: Schema,
    endpoints: Sequence[Endpoint],
    standing: Standing,
    warehouse: WarehouseSettings,
    log: Log,
) -> None:
    """Refuse to load beside the tables of a plain dlt script; name secrets that it left.

    Raises:
        SettingError: one of the tables to load is such a table.
    """
    clear = [name for name in _clear_text_tables() if name in standing.names]
    secrets = f"{', '.join(clear)} hold{'' if len(clear) > 1 else 's'} secrets in clear text"
    if _others(schema, endpoints, standing):
        with pipeline.destination_client() as client:
            everything = look(client, warehouse, list(BY_NAME), ())
        others = ", ".join(_others(schema, ENDPOINTS, everything))
        more = f" ({secrets})" if clear else ""
        raise SettingError(
            f"The dataset {standing.dataset!r} holds tables that another dlt pipeline made:"
            f" {others}{more}. Load into another dataset, with ANALYTICS_DATASET, or"
            " drop them with their child tables, and the next run makes them anew."
        )
    if clear:
        log.warning(f"In the dataset {standing.dataset!r}, {secrets}; drop what is not needed.")


def _others(schema: Schema, endpoints: Iterable[Endpoint], standing: Standing) -> list[str]:
    """Return the tables whose rows dlt has normalized itself."""
    return [
        endpoint.name
        for endpoint in endpoints
        if ROW_ID in standing.tables.get(endpoint.name, ())
        and ROW_ID not in stored_types(schema, endpoint)
    ]


def _clear_text_tables() -> list[str]:
    """Return the child tables into which dlt, left to itself, would put lists of secrets."""
    return [f"{e.name}__{column.name}" for e in ENDPOINTS for column in e.columns if column.secret]


class _Healing:
    """Compares what stands in the destination with what should, table by table."""

    def __init__(
        self,
        pipeline: Pipeline,
        schema: Schema,
        group: Group,
        warehouse: WarehouseSettings,
        standing: Standing,
        staging: Standing | None,
        log: Log,
    ) -> None:
        self._pipeline = pipeline
        self._schema = schema
        self._group = group
        self._warehouse = warehouse
        self._standing = standing
        self._staging = staging
        self._log = log
        self._healed = Healed()

    def of(self, endpoints: Sequence[Endpoint]) -> Healed:
        """Judge and heal the tables of ``endpoints``."""
        healed = self._healed
        for endpoint in endpoints:
            if fault := self._fault(endpoint) or self._staging_fault(endpoint):
                healed.refused[endpoint.name] = ResourceError(f"{fault}; nothing was loaded")
        sound = [endpoint for endpoint in endpoints if endpoint.name not in healed.refused]
        healed.types = {endpoint.name: self._types(endpoint) for endpoint in sound}
        self._make_tables(self._gone_of_dlt())
        # before the tables: what is there again must never be taken for loaded
        forget(self._pipeline, self._group, [e.name for e in sound if self._untrue(e)])
        self._make_tables(self._gone(sound))
        self._add_columns(sound)
        self._drop_staging(sound)
        return healed

    # What is wrong with a table.

    def _fault(self, endpoint: Endpoint) -> str | None:
        """Say why rows must not go into a table as it stands, ``None`` if they may."""
        standing, name = self._standing, endpoint.name
        if name in standing.views:
            return f"{name} is a view in the dataset {standing.dataset!r}; {_RENAME_IT}"
        columns = standing.tables.get(name)
        if columns is None:
            return None
        if not self._is_ours(endpoint, columns):
            return (
                f"the dataset {standing.dataset!r} holds a table {name} of somebody else's;"
                " rename it, or load into another dataset, with ANALYTICS_DATASET"
            )
        lost = [key for key in endpoint.key_columns if key not in columns]
        if lost:
            return (
                f"its table has lost {_columns(lost)}, part of the key; put it back, or drop the"
                f" table, {AGAIN}"
            )
        if wrong := self._other_types(endpoint, columns):
            return (
                f"in its table {', '.join(wrong)}; give it the type that it had, or drop the table,"
                f" {AGAIN}"
            )
        return None

    def _is_ours(self, endpoint: Endpoint, columns: Columns) -> bool:
        """Tell by its columns whether a table is one that a load has made."""
        known = stored_types(self._schema, endpoint)
        if known:  # a few may have been dropped
            there = sum(name in columns for name in known)
            return LOAD_ID in columns or there * 2 > len(known)
        made = {LOAD_ID, *endpoint.key_columns, *([DELETED_AT] if endpoint.full_list else [])}
        return made <= columns.keys()

    def _staging_fault(self, endpoint: Endpoint) -> str | None:
        staging, name = self._staging, endpoint.name
        if staging is None:
            return None
        if name in staging.views or LOAD_ID not in staging.tables.get(name, (LOAD_ID,)):
            return (
                f"the dataset {staging.dataset!r}, in which dlt puts rows before it merges them,"
                f" holds another {'view' if name in staging.views else 'table'} {name};"
                " rename or drop it, and the next run makes its own"
            )
        return None

    def _other_types(self, endpoint: Endpoint, columns: Columns) -> list[str]:
        if self._warehouse.destination not in TYPES_READ_BACK:
            return []
        expected = self._expected(endpoint)
        return [
            f"the column {name} is {columns[name]} where {kind} belongs"
            for name, kind in expected.items()
            if columns.get(name) and columns[name] != kind
        ]

    def _expected(self, endpoint: Endpoint) -> Mapping[str, ColumnType]:
        return {**declared_types(endpoint), **stored_types(self._schema, endpoint)}

    def _types(self, endpoint: Endpoint) -> Mapping[str, ColumnType]:
        """Return the types of a table: as stored, or as found where nothing is stored."""
        stored = stored_types(self._schema, endpoint)
        found = self._standing.tables.get(endpoint.name, {})
        kinds: Any = {name: kind for name, kind in found.items() if kind}
        return stored or {**declared_types(endpoint), **kinds} if found else stored

    def _missing(self, endpoint: Endpoint, standing: Standing) -> list[str]:
        """Return the columns that dlt has stored and the table lacks; none without a table."""
        columns = standing.tables.get(endpoint.name)
        stored = stored_types(self._schema, endpoint)
        return [] if columns is None else [name for name in stored if name not in columns]

    def _untrue(self, endpoint: Endpoint) -> bool:
        """Tell whether the state makes no sense, or that of a history claims more than there is."""
        if not is_sound(self._pipeline, endpoint):
            self._log.warning(f"{endpoint.name}: its state makes no sense, so all is loaded again.")
            return True
        if endpoint.full_list:
            return False
        gone = [name for name in self._missing(endpoint, self._standing) if name != LOAD_ID]
        return bool(gone) or endpoint.name not in self._standing.tables

    # Making again what is missing.

    def _gone_of_dlt(self) -> list[str]:
        known = self._schema.tables if self._pipeline.default_schema_name else ()
        return [n for n in DLT_TABLES if n in known and n not in self._standing.tables]

    def _gone(self, endpoints: Sequence[Endpoint]) -> list[str]:
        """Return the tables that dlt takes to be there, and that are not."""
        stored = [e.name for e in endpoints if stored_types(self._schema, e)]
        if RECORD_CHANGES.name in self._schema.tables:
            stored.append(RECORD_CHANGES.name)
        return [name for name in stored if name not in self._standing.tables]

    def _make_tables(self, names: Sequence[str]) -> None:
        if not names or VERSIONS not in self._standing.tables:
            return  # dlt makes tables by itself where it finds no schema
        with self._pipeline.destination_client() as client:
            for name in names:
                self._try(name, partial(client.update_stored_schema, [name], force=True))
        self._log.warning(f"Made again, as it had been dropped: {', '.join(names)}.")

    def _add_columns(self, endpoints: Sequence[Endpoint]) -> None:
        missing = {e.name: self._missing(e, self._standing) for e in endpoints}
        for name, columns in missing.items():
            if columns:
                self._try(name, partial(self._add, name, columns))
                self._log.warning(f"{name}: made again, as dropped before: {_columns(columns)}.")

    def _add(self, table: str, names: Collection[str]) -> None:
        with open_sql(self._pipeline.destination_client()) as sql:
            for statement in self._alterations(table, names):
                sql.rows(statement)
            if LOAD_ID in names:  # a row without it would never count as one that did not come
                place, column = sql.table(table), sql.column(LOAD_ID)
                sql.rows(f"UPDATE {place} SET {column} = '' WHERE {column} IS NULL")

    def _alterations(self, table: str, names: Collection[str]) -> Iterator[str]:
        """Yield the SQL that adds columns; without NOT NULL, as there may be rows."""
        client: Any = self._pipeline.destination_client()
        prepared = client.prepare_load_table(table)
        place = client.sql_client.make_qualified_table_name(table)
        for name in names:
            kind = client.type_mapper.to_destination_type(prepared["columns"][name], prepared)
            column = client.sql_client.escape_column_name(name)
            yield f"ALTER TABLE {place} ADD COLUMN {column} {kind}"

    def _try(self, name: str, make: Any) -> None:
        try:
            make()
        except DatabaseException as error:
            if name in DLT_TABLES:
                raise SettingError(f"{name} cannot be made again: {root_message(error)}") from None
            self._healed.refused[name] = ResourceError(
                f"its table cannot be made whole again: {root_message(error)}; nothing was loaded"
            )

    def _drop_staging(self, endpoints: Sequence[Endpoint]) -> None:
        """Let dlt make the tables again in which rows stay for the length of a load only.

        It looks for what is missing there if it finds no schema stored beside them.
        """
        staging = self._staging
        if staging is None:
            return
        bad = [
            e.name
            for e in endpoints
            if self._missing(e, staging) or self._other_types(e, staging.tables.get(e.name, {}))
        ]
        gone = any(endpoint.name not in staging.tables for endpoint in endpoints)
        if bad or (gone and VERSIONS in staging.tables):
            client: Any
            with self._pipeline.destination_client() as client, client.with_staging_dataset():
                client.sql_client.drop_tables(VERSIONS, *bad)


_RENAME_IT: Final = "rename or drop it, and the next run makes the table"


def _columns(names: Collection[str]) -> str:
    return f"the column{'' if len(names) == 1 else 's'} {', '.join(sorted(names))}"
