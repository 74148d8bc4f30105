"""Load what was read: one dlt package for all that is whole, each table alone if that fails.

Pure dlt, no Dagster. :func:`load_group` is the whole run of a group: restore the state, plan, read
without holding the database, load, mark deletions, count.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any, Final, cast

import dlt
import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema, TSchemaContractDict
from dlt.destinations.exceptions import DatabaseUndefinedRelation
from dlt.extract import DltResource, DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.api import not_available, read
from analytics_assets.endpoints import BY_NAME, DELETED_AT, Column, ColumnType, Endpoint
from analytics_assets.errors import AnalyticsError, ResourceError, root_message
from analytics_assets.months import (
    Loaded,
    after_load,
    month_range,
    months_to_load,
    reload_range,
    usage_start,
)
from analytics_assets.reading import Reading
from analytics_assets.settings import ApiSettings, LoadOptions, Log
from analytics_assets.sql import Row, Sql, open_sql
from analytics_assets.warehouse import WarehouseSettings, new_pipeline

CONTRACT: Final[TSchemaContractDict] = {
    "tables": "evolve",
    "columns": "evolve",
    "data_type": "freeze",
}


@dataclass(frozen=True)
class TableCounts:
    """Rows in a table, and how many of them carry ``deleted_at``."""

    rows: int
    deleted: int


@dataclass
class Outcome:
    """What became of one asset in this run.

    Attributes:
        endpoint: the row of ``endpoints.py``.
        reading: counts and timings of the extraction.
        failure: why it is not loaded, ``None`` if it is.
        available: false if the workspace or token lacks the feature.
        counts: rows in the table after the load, ``None`` if it is not loaded.
        newly_deleted: rows that this run marked as deleted.
        load_id: dlt's load id, ``None`` if it is not loaded.
        columns: the columns the table has now, in order.
    """

    endpoint: Endpoint
    reading: Reading
    failure: AnalyticsError | None = None
    available: bool = True
    counts: TableCounts | None = None
    newly_deleted: int = 0
    load_id: str | None = None
    columns: Sequence[Column] = field(default_factory=tuple)

    @property
    def loaded(self) -> bool:
        """Whether the table now holds what the API served."""
        return self.load_id is not None


def load_group(
    group: str,
    names: Sequence[str],
    api: ApiSettings,
    warehouse: WarehouseSettings,
    options: LoadOptions,
    log: Log,
    then: Callable[[Pipeline, Sequence[Outcome]], None] | None = None,
) -> list[Outcome]:
    """Read and load the resources ``names`` of ``group``; return what became of each.

    ``then`` is called at the end, while the destination is open and no other run loads the group.

    Raises:
        SettingError: a setting cannot work; nothing was asked for or changed.
        TokenRejected: the API refused everything; nothing was changed.
        DestinationBusy: the destination stayed locked.
    """
    endpoints = [BY_NAME[name] for name in names]
    warehouse.check()
    today = datetime.now(timezone.utc).date()
    start = usage_start(options.usage_start, today)
    window = reload_range(options.start_month, options.end_month, today)
    with tempfile.TemporaryDirectory(prefix="analytics_assets_") as folder:
        pipeline = new_pipeline(group, warehouse, folder)
        with warehouse.exclusive(group, pipeline, log):
            before = _restore(pipeline, endpoints, warehouse, log)
            readings = []
            for endpoint in endpoints:
                months = _months(pipeline, endpoint, start, today, window)
                stored = _stored_types(pipeline, endpoint)
                spool = Path(folder) / f"{endpoint.name}.arrows"
                readings.append(Reading(endpoint, stored, spool, months=months, redact=api.redact))
            read(api, readings, log)
            outcomes = [_judge(reading, before, options) for reading in readings]
            pa.default_memory_pool().release_unused()  # what the pages took
            _load(pipeline, outcomes, group, api, warehouse, Path(folder), log)
            if then:
                with warehouse.open(pipeline, log):
                    then(pipeline, outcomes)
            return outcomes


def _restore(
    pipeline: Pipeline, endpoints: Sequence[Endpoint], warehouse: WarehouseSettings, log: Log
) -> Mapping[str, TableCounts]:
    """Bring state and schema back from the destination; count what full lists hold now."""
    with warehouse.open(pipeline, log):
        warehouse.restore(pipeline)
        full_lists = [e.name for e in endpoints if e.full_list and _stored_types(pipeline, e)]
        if not full_lists:
            return {}
        with open_sql(pipeline.destination_client(), warehouse.table_format) as sql:
            return _count_rows(sql, full_lists)


def _stored_types(pipeline: Pipeline, endpoint: Endpoint) -> Mapping[str, ColumnType]:
    """Return the types of the columns that the destination's table has."""
    if pipeline.default_schema_name is None:
        return {}
    table = pipeline.default_schema.tables.get(endpoint.name)
    columns = table["columns"] if table else {}
    return {
        name: cast(ColumnType, column["data_type"])
        for name, column in columns.items()
        if "data_type" in column
    }


def _months(
    pipeline: Pipeline,
    endpoint: Endpoint,
    start: date,
    today: date,
    window: tuple[date, date] | None,
) -> list[date]:
    if not endpoint.monthly:
        return []
    if window:
        return month_range(*window)
    return months_to_load(_loaded_months(pipeline, endpoint), start, today)


def _loaded_months(pipeline: Pipeline, endpoint: Endpoint) -> Loaded | None:
    sources = cast(Mapping[str, Any], pipeline.state).get("sources", {})
    state = sources.get(endpoint.group, {}).get("resources", {}).get(endpoint.name, {})
    return Loaded.from_state(state)


def _judge(reading: Reading, before: Mapping[str, TableCounts], options: LoadOptions) -> Outcome:
    """Decide whether a reading may be loaded."""
    endpoint = reading.endpoint
    outcome = Outcome(endpoint, reading, failure=reading.failure)
    if reading.failure:
        outcome.available = not not_available(reading)
        return outcome
    held = before.get(endpoint.name)
    live = held.rows - held.deleted if held else 0
    now = reading.kept_rows  # a row for each key
    if live and not options.expect_fewer_rows and (now == 0 or now * 2 < live):
        outcome.failure = ResourceError(
            f"the list has {now} rows where {live} were before, so nothing was loaded or marked"
            " as deleted; if that is right, run it with expect_fewer_rows: true"
        )
    return outcome


def _load(
    pipeline: Pipeline,
    outcomes: Sequence[Outcome],
    group: str,
    api: ApiSettings,
    warehouse: WarehouseSettings,
    folder: Path,
    log: Log,
) -> None:
    """Load all that may be loaded in one package; if that fails, each table by itself."""
    good = [outcome for outcome in outcomes if outcome.failure is None]
    if not good:
        return
    try:
        _load_package(pipeline, good, api, warehouse, log)
        return
    except PipelineStepFailed as error:
        if len(good) == 1:
            good[0].failure = _load_failure(error)
            return
        log.warning(f"Loading {group} as one package failed; loading each table by itself.")
    for number, outcome in enumerate(good):
        alone = new_pipeline(group, warehouse, folder / str(number))
        try:
            with warehouse.open(alone, log):
                alone.sync_destination()
            _load_package(alone, [outcome], api, warehouse, log)
        except PipelineStepFailed as error:
            outcome.failure = _load_failure(error)


def _load_package(
    pipeline: Pipeline,
    outcomes: Sequence[Outcome],
    api: ApiSettings,
    warehouse: WarehouseSettings,
    log: Log,
) -> None:
    """Extract from the spools, normalize and load; then mark deletions and count."""
    dlt.config["normalize.parquet_normalizer.add_dlt_load_id"] = True  # _mark_deleted needs it
    source = table_source(outcomes, api, warehouse)
    pipeline.extract(source, loader_file_format=_file_format(pipeline))
    pipeline.normalize()
    pa.default_memory_pool().release_unused()  # the database is going to need it
    with warehouse.open(pipeline, log):
        info = pipeline.load()
        info.raise_on_failed_jobs()
        load_id = info.loads_ids[0]
        marked, counts = _mark_and_count(pipeline, warehouse, outcomes, load_id)
    for outcome in outcomes:
        name = outcome.endpoint.name
        outcome.load_id = load_id
        outcome.counts = counts.get(name)
        outcome.newly_deleted = marked.get(name, 0)
        outcome.columns = _columns(pipeline, outcome)


def table_source(
    outcomes: Sequence[Outcome], api: ApiSettings, warehouse: WarehouseSettings
) -> DltSource:
    """Build the source that hands the kept rows to dlt, with keys, types and descriptions."""
    resources = [_table_resource(outcome.reading, api, warehouse) for outcome in outcomes]

    group = outcomes[0].endpoint.group
    tables = dlt.source(
        lambda: resources, name=group, max_table_nesting=0, schema_contract=CONTRACT
    )
    return tables()


def _table_resource(
    reading: Reading, api: ApiSettings, warehouse: WarehouseSettings
) -> DltResource:
    endpoint = reading.endpoint

    def rows() -> Iterator[pa.Table]:
        yield from reading.tables()
        if endpoint.monthly:
            _note_months(reading)

    resource: DltResource = dlt.resource(
        rows,
        name=endpoint.name,
        primary_key=list(endpoint.column_keys),
        write_disposition=_write_disposition(endpoint, warehouse),
        table_format=cast(Any, warehouse.table_format),
        columns=column_hints(endpoint, reading.undeclared),
    )
    if endpoint.cursor and endpoint.cursor_column:
        resource.apply_hints(
            incremental=dlt.sources.incremental(
                endpoint.cursor_column, lag=api.overlap_minutes * 60
            )
        )
    return resource


def _write_disposition(endpoint: Endpoint, warehouse: WarehouseSettings) -> Any:
    """Merge by key; plain Parquet files only know all anew (lists) and one more (histories)."""
    if not warehouse.merges:
        return "replace" if endpoint.full_list else "append"
    strategy = "upsert" if warehouse.table_format == "delta" else "delete-insert"
    return {"disposition": "merge", "strategy": strategy}


def column_hints(
    endpoint: Endpoint, undeclared: Mapping[str, ColumnType]
) -> dict[str, TColumnSchema]:
    """Return the dlt form of the columns of a table."""
    hints: dict[str, TColumnSchema] = {
        column.name: {
            "name": column.name,
            "data_type": column.type,
            "nullable": column.name not in endpoint.column_keys,
            "description": column.description,
        }
        for column in endpoint.table_columns
    }
    for name, kind in undeclared.items():
        hints[name] = {"name": name, "data_type": kind, "nullable": True}
    return hints


def _note_months(reading: Reading) -> None:
    """Move the state of a usage resource, in the same package as the rows it describes."""
    state = dlt.current.resource_state()
    today = datetime.now(timezone.utc).date()
    newest = min(reading.newest.date(), today) if reading.newest else None
    loaded = after_load(Loaded.from_state(state), reading.months, newest)
    if loaded:
        state.update(loaded.to_state())


def _file_format(pipeline: Pipeline) -> Any:
    """Parquet where the destination takes it, else CSV, else what dlt prefers."""
    formats = pipeline.destination.capabilities().supported_loader_file_formats
    return next((wanted for wanted in ("parquet", "csv") if wanted in formats), None)


def _mark_and_count(
    pipeline: Pipeline, warehouse: WarehouseSettings, outcomes: Sequence[Outcome], load_id: str
) -> tuple[Mapping[str, int], Mapping[str, TableCounts]]:
    names = [outcome.endpoint.name for outcome in outcomes]
    with open_sql(pipeline.destination_client(), warehouse.table_format) as sql:
        marked = _mark_deleted(sql, names, load_id) if warehouse.marks_deletions else {}
        return marked, _count_rows(sql, names)


def _mark_deleted(sql: Sql, names: Sequence[str], load_id: str) -> Mapping[str, int]:
    """Give ``deleted_at`` to the rows of full lists that this load did not bring.

    The merge rewrites every row that came, load id included, and so clears the mark of one that
    has come back.
    """
    marked: dict[str, int] = {}
    for name in names:
        if not BY_NAME[name].full_list:
            continue
        table = sql.table(name)
        where = f"_dlt_load_id <> '{load_id}' AND {DELETED_AT} IS NULL"
        [(count,)] = sql.rows(f"SELECT count(*) FROM {table} WHERE {where}")
        marked[name] = int(count)
        if count:
            sql.rows(f"UPDATE {table} SET {DELETED_AT} = CURRENT_TIMESTAMP WHERE {where}")
    return marked


def _count_rows(sql: Sql, names: Sequence[str]) -> dict[str, TableCounts]:
    """Count the rows of tables, in one query, and those of full lists marked as deleted."""
    try:
        rows = sql.rows(" UNION ALL ".join(_count(sql, name) for name in names))
    except DatabaseUndefinedRelation:  # dropped by hand: let the others be counted
        rows = [row for name in names for row in _count_if_there(sql, name)]
    return {name: TableCounts(int(total), int(deleted)) for name, total, deleted in rows}


def _count(sql: Sql, name: str) -> str:
    deleted = f"count({DELETED_AT})" if BY_NAME[name].full_list else "0"
    return f"SELECT '{name}', count(*), {deleted} FROM {sql.table(name)}"


def _count_if_there(sql: Sql, name: str) -> Sequence[Row]:
    try:
        return sql.rows(_count(sql, name))
    except DatabaseUndefinedRelation:
        return []


def _columns(pipeline: Pipeline, outcome: Outcome) -> Sequence[Column]:
    """Return the table's columns: the declared ones first, then those the API added."""
    declared = {column.name: column for column in outcome.endpoint.table_columns}
    stored = _stored_types(pipeline, outcome.endpoint)
    return [declared.get(name) or Column(name, kind, "") for name, kind in stored.items()]


def _load_failure(error: PipelineStepFailed) -> ResourceError:
    return ResourceError(
        f"the destination did not take its rows: {root_message(error)}; the table stays as it was"
    )


class _KnownWarning(logging.Filter):
    """Drops dlt's warning that JSON columns travel as text: here that is what is meant."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "when merging arrow schema with dlt schema" not in record.getMessage()


logging.getLogger("dlt").addFilter(_KnownWarning())
