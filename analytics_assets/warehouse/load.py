"""Load what was read: one dlt package for all that is whole, each table alone if that fails.

Pure dlt, no Dagster. :class:`GroupLoad` is the whole run of a group: restore the state, plan, read
without holding the database, load, mark deletions, count.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
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
from typing_extensions import Self

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.errors import AnalyticsError, ResourceError, root_message
from analytics_assets.segment.model import DELETED_AT, Column, ColumnType, Endpoint
from analytics_assets.segment.months import (
    Loaded,
    after_load,
    month_range,
    months_to_load,
    reload_range,
    usage_start,
)
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.settings import ApiSettings, LoadOptions, Log
from analytics_assets.segment.source import ReadingSession, not_available, read
from analytics_assets.warehouse.settings import WarehouseSettings, new_pipeline
from analytics_assets.warehouse.sql import Row, Sql, open_sql

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


@dataclass(frozen=True)
class LoadRequest:
    """What a run asks for of one group.

    Attributes:
        group: name of the group; it keys locks, pipeline and state.
        names: resources of the group, in the order of ``endpoints.py``.
        api: how to reach the API.
        warehouse: where to load to.
        options: what may differ from run to run.
    """

    group: str
    names: tuple[str, ...]
    api: ApiSettings
    warehouse: WarehouseSettings
    options: LoadOptions


class GroupLoad:
    """One run's load of a group, in three steps, each done once: ``plan``, ``read``, ``load``.

    From ``plan`` to ``close`` no other run loads the group, and what was read lies in a temporary
    folder. Another thread may do ``read``; all else belongs to the thread that plans.
    """

    def __init__(self, request: LoadRequest, log: Log) -> None:
        self.request = request
        self._log = log
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other runs load the group, and drop what was read."""
        self._open.close()

    def plan(self, *, ahead: bool = False) -> None:
        """Hold off other runs of the group, restore its state, work out what to ask for.

        Args:
            ahead: give up at once where this could only be done by waiting, or where nothing but
                a Dagster pool, which this run has not entered yet, holds off other runs.

        Raises:
            SettingError: a setting cannot work; nothing was asked for or changed.
            DestinationBusy: the destination stayed locked.
            AnalyticsError: it cannot be reached, or not be planned ahead.
        """
        request, log = self.request, self._log
        warehouse = request.warehouse
        if ahead:
            warehouse = replace(warehouse, lock_timeout=0, reader_timeout=0)
        warehouse.check()
        today = datetime.now(timezone.utc).date()
        start = usage_start(request.options.usage_start, today)
        window = reload_range(request.options.start_month, request.options.end_month, today)
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="analytics_assets_"))
        self._folder = Path(folder)
        self._pipeline = new_pipeline(request.group, warehouse, folder)
        if ahead and not warehouse.has_locks(self._pipeline):
            raise AnalyticsError(f"the destination {warehouse.destination!r} has no locks")
        self._open.enter_context(warehouse.exclusive(request.group, self._pipeline, log))
        endpoints = [BY_NAME[name] for name in request.names]
        self._before = _restore(self._pipeline, endpoints, warehouse, log)
        self._readings = [
            Reading(
                endpoint,
                _stored_types(self._pipeline, endpoint),
                self._folder / f"{endpoint.name}.arrows",
                months=_months(self._pipeline, endpoint, start, today, window),
                redact=request.api.redact,
                fingerprint_key=request.api.fingerprint_key,
            )
            for endpoint in endpoints
        ]
        self.session = ReadingSession(request.api, log, self._readings)
        self._open.enter_context(self.session)
        self._pipeline.deactivate()

    def read(self) -> None:
        """Read all resources at the same time; afterwards each is whole or has failed.

        Raises:
            TokenRejected: the API refused everything; nothing was changed.
        """
        self._pipeline.activate()  # it is so for one thread only
        try:
            read(self.session)
        finally:
            self._pipeline.deactivate()

    def load(
        self, then: Callable[[Pipeline, Sequence[Outcome]], None] | None = None
    ) -> list[Outcome]:
        """Load what was read; return what became of each resource.

        ``then`` is called at the end, while the destination is open.
        """
        request, log = self.request, self._log
        self._pipeline.activate()
        outcomes = [_judge(reading, self._before, request.options) for reading in self._readings]
        pa.default_memory_pool().release_unused()  # what the pages took
        _load(self._pipeline, outcomes, request, self._folder, log)
        if then:
            with request.warehouse.open(self._pipeline, log):
                then(self._pipeline, outcomes)
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
    request: LoadRequest,
    folder: Path,
    log: Log,
) -> None:
    """Load all that may be loaded in one package; if that fails, each table by itself."""
    good = [outcome for outcome in outcomes if outcome.failure is None]
    if not good:
        return
    try:
        _load_package(pipeline, good, request, log)
        return
    except PipelineStepFailed as error:
        if len(good) == 1:
            good[0].failure = _load_failure(error)
            return
        log.warning(f"Loading {request.group} as one package failed; loading each table by itself.")
    for number, outcome in enumerate(good):
        alone = new_pipeline(request.group, request.warehouse, folder / str(number))
        try:
            with request.warehouse.open(alone, log):
                alone.sync_destination()
            _load_package(alone, [outcome], request, log)
        except PipelineStepFailed as error:
            outcome.failure = _load_failure(error)


def _load_package(
    pipeline: Pipeline, outcomes: Sequence[Outcome], request: LoadRequest, log: Log
) -> None:
    """Extract from the spools, normalize and load; then mark deletions and count."""
    warehouse = request.warehouse
    dlt.config["normalize.parquet_normalizer.add_dlt_load_id"] = True  # _mark_deleted needs it
    source = table_source(outcomes, request.api, warehouse)
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
    """Merge by key; plain Parquet files only know all anew (lists) and one more (histories).

    A reading hands over each key once, so nothing has to sort the rows for that again: it would
    take the memory of a whole table.
    """
    if not warehouse.merges:
        return "replace" if endpoint.full_list else "append"
    strategy = "upsert" if warehouse.table_format == "delta" else "delete-insert"
    return {"disposition": "merge", "strategy": strategy, "deduplicated": True}


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
