"""What was dropped or changed by hand: made again before a run reads anything, or said how.

dlt goes by the schema that it has stored and never looks again at the tables themselves: one that
has gone would be the destination's complaint in every later run. So the two are compared here.
What is missing is made again; where that would lose something, and where a table is somebody
else's, the assets concerned are refused, with the way out.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from dlt.common.destination.exceptions import DestinationException
from dlt.common.exceptions import DltException
from dlt.common.schema import Schema
from dlt.destinations.exceptions import DatabaseException
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.errors import AnalyticsError, ResourceError, SettingError
from analytics_assets.segment.foreign_text import root_message
from analytics_assets.segment.model import ColumnType, Endpoint, Group, Table
from analytics_assets.segment.settings import Log
from analytics_assets.warehouse.destination import restore
from analytics_assets.warehouse.emptied import emptied
from analytics_assets.warehouse.other_pipelines import refuse_other_pipelines
from analytics_assets.warehouse.own_tables import RECORD_CHANGES
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import open_sql
from analytics_assets.warehouse.standing import (
    DLT_TABLES,
    VERSIONS,
    Standing,
    look,
    look_at_staging,
)
from analytics_assets.warehouse.state import (
    drop_misshapen,
    forget,
    is_sound,
    stored_schema,
    stored_types,
)
from analytics_assets.warehouse.table_faults import LOAD_ID, Comparison, columns_text


@dataclass
class Healed:
    """What a run finds, once what could be made again has been.

    Attributes:
        types: columns and types of the tables that are there, by table.
        refused: why an asset may not be loaded, or changes not be recorded, by name of the table.
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
    return _heal(pipeline, group, endpoints, warehouse, log)


def heal_replaced(
    pipeline: Pipeline, group: str, tables: Sequence[Table], warehouse: WarehouseSettings, log: Log
) -> Mapping[str, ResourceError]:
    """Compare tables that are going to be replaced as a whole; return why some may not be, by name.

    Args:
        pipeline: in step with the destination, which is open.
        group: the schema that dlt stores of the tables.
        tables: what is to be replaced.
        warehouse: the destination.
        log: told what has been made again.

    Raises:
        AnalyticsError: dlt's own tables are broken, or the destination does not answer.
    """
    return _heal(pipeline, group, tables, warehouse, log).refused


def _heal(
    pipeline: Pipeline, group: str, tables: Sequence[Table], warehouse: WarehouseSettings, log: Log
) -> Healed:
    if pipeline.default_schema_name is None:
        _adopt_schema(pipeline, group)
    try:
        schema = stored_schema(pipeline)
        standing, staging = _look(pipeline, schema, tables, warehouse)
        refuse_other_pipelines(pipeline, schema, _endpoints(tables), standing, warehouse, log)
        return _Healing(pipeline, schema, group, warehouse, standing, staging, log).of(tables)
    except (DestinationException, PipelineStepFailed) as error:
        raise AnalyticsError(
            f"The tables of the dataset {warehouse.dataset!r} cannot be compared with what dlt has"
            f" stored of them: {root_message(error)}"
        ) from None


def _look(
    pipeline: Pipeline,
    schema: Schema,
    tables: Sequence[Table],
    warehouse: WarehouseSettings,
) -> tuple[Standing, Standing | None]:
    names = [table.name for table in tables]
    written = [*tables, *_also_written(tables)]
    known = [table.name for table in written if stored_types(schema, table)]
    with pipeline.destination_client() as client:
        standing = look(client, warehouse, [table.name for table in written], known)
        staging = look_at_staging(client, names) if warehouse.stages else None
    for name, needed in DLT_TABLES.items():
        missing = needed.difference(standing.tables.get(name, needed))
        if missing or name in standing.views:
            what = f"has lost {columns_text(missing)}" if missing else "is a view"
            raise SettingError(
                f"The table {name} of the dataset {standing.dataset!r}, in which dlt keeps what it"
                f" has loaded, {what}; drop it, and the next run makes it again."
            )
    return standing, staging


def _also_written(tables: Sequence[Table]) -> Sequence[Table]:
    """Return the table in which a load of lists records what it changes."""
    lists = any(endpoint.full_list for endpoint in _endpoints(tables))
    return [RECORD_CHANGES] if lists else []


def _endpoints(tables: Sequence[Table]) -> list[Endpoint]:
    return [table for table in tables if isinstance(table, Endpoint)]


def _adopt_schema(pipeline: Pipeline, group: str) -> None:
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


class _Healing:
    """Compares what stands in the destination with what should, table by table."""

    def __init__(
        self,
        pipeline: Pipeline,
        schema: Schema,
        group: str,
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
        self._compared = Comparison(schema, warehouse, standing, staging)
        self._healed = Healed()

    def of(self, tables: Sequence[Table]) -> Healed:
        """Judge and heal ``tables``, and where a load of them records what it changes."""
        healed, written = self._healed, [*tables, *_also_written(tables)]
        for table in written:
            if fault := self._compared.fault(table):
                self._refuse(table.name, fault)
        written = [table for table in written if table.name not in healed.refused]
        sound = [table for table in tables if table.name not in healed.refused]
        healed.types = {table.name: self._compared.types(table) for table in sound}
        self._make_tables(self._gone_of_dlt())
        # before the tables: what is there again must never be taken for loaded
        endpoints = _endpoints(sound)
        untrue = {endpoint.name for endpoint in endpoints if self._untrue(endpoint)}
        others = [endpoint for endpoint in endpoints if endpoint.name not in untrue]
        forget(self._pipeline, self._group, untrue | self._emptied(others))
        self._make_tables(self._gone(written))
        self._add_columns(written)
        self._drop_staging(sound)
        return healed

    def _refuse(self, name: str, fault: str) -> None:
        end = "" if name == RECORD_CHANGES.name else "; nothing was loaded"
        self._healed.refused[name] = ResourceError(f"{fault}{end}")

    def _untrue(self, table: Endpoint) -> bool:
        """Tell whether the state makes no sense, or that of a history claims more than there is."""
        if not is_sound(self._pipeline, table):
            self._log.warning(f"{table.name}: its state makes no sense, so all is loaded again.")
            return True
        if table.full_list:
            return False
        gone = [name for name in self._compared.missing(table, self._standing) if name != LOAD_ID]
        return bool(gone) or table.name not in self._standing.tables

    def _emptied(self, endpoints: Sequence[Endpoint]) -> frozenset[str]:
        """Return the histories whose state is not true, as all of their rows were removed."""
        names = emptied(self._pipeline, endpoints, self._warehouse)
        for name in sorted(names):
            self._log.warning(f"{name}: its rows have been removed, so all is loaded again.")
        return names

    # Making again what is missing.

    def _gone_of_dlt(self) -> list[str]:
        known = self._schema.tables if self._pipeline.default_schema_name else ()
        return [n for n in DLT_TABLES if n in known and n not in self._standing.tables]

    def _gone(self, tables: Sequence[Table]) -> list[str]:
        """Return the tables that dlt takes to be there, and that are not."""
        stored = [table.name for table in tables if stored_types(self._schema, table)]
        return [name for name in stored if name not in self._standing.tables]

    def _make_tables(self, names: Sequence[str]) -> None:
        if not names or VERSIONS not in self._standing.tables:
            return  # dlt makes tables by itself where it finds no schema
        with self._pipeline.destination_client() as client:
            for name in names:
                self._try(name, partial(client.update_stored_schema, [name], force=True))
        self._log.warning(f"Made again, as it had been dropped: {', '.join(names)}.")

    def _add_columns(self, tables: Sequence[Table]) -> None:
        for table in tables:
            name, columns = table.name, self._standing.tables.get(table.name, {})
            wrong = [column for column, _ in self._compared.mistyped(table, columns)]
            if bad := [*self._compared.missing(table, self._standing), *wrong]:
                self._try(name, partial(self._add, name, bad, wrong))
                changed = "dropped or changed" if wrong else "dropped"
                self._log.warning(f"{name}: made again, as {changed} before: {columns_text(bad)}.")

    def _add(self, table: str, names: Collection[str], wrong: Collection[str]) -> None:
        with open_sql(self._pipeline.destination_client()) as sql:
            for statement in self._alterations(table, names, wrong):
                sql.rows(statement)
            if LOAD_ID in names:  # a row without it would never count as one that did not come
                place, column = sql.table(table), sql.column(LOAD_ID)
                sql.rows(f"UPDATE {place} SET {column} = '' WHERE {column} IS NULL")

    def _alterations(
        self, table: str, names: Collection[str], wrong: Collection[str]
    ) -> Iterator[str]:
        """Yield the SQL that drops and adds columns; without NOT NULL, as there may be rows."""
        client: Any = self._pipeline.destination_client()
        place = client.sql_client.make_qualified_table_name(table)
        for name in wrong:
            yield f"ALTER TABLE {place} DROP COLUMN {client.sql_client.escape_column_name(name)}"
        if table not in self._schema.tables:
            return  # dlt adds what a table lacks that it does not know yet
        prepared = client.prepare_load_table(table)
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
            self._refuse(name, f"its table cannot be made whole again: {root_message(error)}")

    def _drop_staging(self, tables: Sequence[Table]) -> None:
        """Let dlt make the tables again in which rows stay for the length of a load only.

        It looks for what is missing there if it finds no schema stored beside them.
        """
        staging = self._staging
        if staging is None:
            return
        bad = [
            t.name
            for t in tables
            if self._compared.missing(t, staging)
            or self._compared.mistyped(t, staging.tables.get(t.name, {}))
        ]
        gone = any(table.name not in staging.tables for table in tables)
        if bad or (gone and VERSIONS in staging.tables):
            client: Any
            with self._pipeline.destination_client() as client, client.with_staging_dataset():
                client.sql_client.drop_tables(VERSIONS, *bad)
