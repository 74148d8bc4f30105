"""Load what was read of a group: one dlt package for all that is whole, each table alone if that
fails; then mark what is gone, and count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, cast

import dlt
import pyarrow as pa
from dlt.common.destination.exceptions import DestinationException
from dlt.common.schema import Schema
from dlt.common.schema.typing import TColumnSchema, TSchemaContractDict
from dlt.extract import DltResource, DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.errors import (
    AnalyticsError,
    DestinationUnreachable,
    OtherWorkspace,
    ResourceError,
)
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.model import Column, ColumnType, Table
from analytics_assets.segment.odd_values import Kept
from analytics_assets.segment.settings import LoadOptions, Log
from analytics_assets.segment.spans import span
from analytics_assets.segment.token_workspace import Workspace
from analytics_assets.warehouse.counts import count_rows, rows_of_load
from analytics_assets.warehouse.deletions import mark_deleted
from analytics_assets.warehouse.destination import new_pipeline, prepare_folder, restore
from analytics_assets.warehouse.dlt_config import only_errors_logged
from analytics_assets.warehouse.duckdb_file import (
    MORE,
    allow_memory,
    for_rows,
    ran_out_of_memory,
)
from analytics_assets.warehouse.faults import is_away, load_error
from analytics_assets.warehouse.forgetting import forget
from analytics_assets.warehouse.judgement import judge_group
from analytics_assets.warehouse.outcome import Outcome, TableCounts
from analytics_assets.warehouse.own_tables import RECORD_CHANGES
from analytics_assets.warehouse.ownership import check_still_free, remember
from analytics_assets.warehouse.parts import fill_parts
from analytics_assets.warehouse.plain_files import replacing
from analytics_assets.warehouse.plan import GroupPlan
from analytics_assets.warehouse.record_changes import changes_of, untold
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import broken_table, open_sql
from analytics_assets.warehouse.state import FIELD, note_load, stored_columns, stored_schema
from analytics_assets.warehouse.state import forget as forget_state

CONTRACT: Final[TSchemaContractDict] = {
    "tables": "evolve",
    "columns": "evolve",
    "data_type": "freeze",
}
REFUSALS: Final = (PipelineStepFailed, DestinationException, DestinationUnreachable)
"""What a destination that does not take rows raises."""


def load_group(
    plan: GroupPlan,
    warehouse: WarehouseSettings,
    options: LoadOptions,
    log: Log,
    workspace: Workspace | None,
) -> Sequence[Outcome]:
    """Load what was read of a group; return what became of each resource.

    Args:
        plan: the group, all of it read.
        warehouse: where to load to; the caller has it open.
        options: what may differ from run to run.
        log: told about what does not go as usual.
        workspace: whose rows they are, ``None`` if nobody can tell.

    Raises:
        OtherWorkspace: another run has meanwhile made the dataset that of another workspace.
    """
    outcomes = judge_group(plan, warehouse, options)
    pa.default_memory_pool().release_unused()  # what the pages took
    if good := [outcome for outcome in outcomes if outcome.failure is None]:
        _load_good(_Load(plan, warehouse, options, log, workspace), good)
    return outcomes


@dataclass(frozen=True)
class _Load:
    """What all packages of a group share."""

    plan: GroupPlan
    warehouse: WarehouseSettings
    options: LoadOptions
    log: Log
    workspace: Workspace | None


def _load_good(load: _Load, good: Sequence[Outcome]) -> None:
    """Load as one package, with more memory if that was too little, or else each table alone."""
    tables = [outcome.staging for outcome in good]
    sized = replace(load, warehouse=for_rows(load.warehouse, tables))
    changes: pa.Table | None = None
    try:
        changes = _changes(sized, load.plan.pipeline, good)
        _load_package(sized, load.plan.pipeline, good, changes)
        return
    except REFUSALS as error:
        refusal = error
    more = replace(load, warehouse=for_rows(load.warehouse, tables, times=MORE))
    if ran_out_of_memory(refusal) and more != sized:
        sized = more
        allow_memory(sized.warehouse)
    elif is_away(refusal) or len(good) == 1:
        for outcome in good:
            outcome.failure = _failure(load, load.plan.pipeline, outcome, refusal)
        return
    load.log.warning(
        f"Loading {load.plan.group} as one package failed; loading each table by itself."
    )
    _load_alone(sized, good, changes)


def _load_alone(load: _Load, outcomes: Sequence[Outcome], changes: pa.Table | None) -> None:
    """Load each table by itself, with its part of the changes: some may have been merged before."""
    plan, warehouse = load.plan, load.warehouse
    for number, outcome in enumerate(outcomes):
        pipeline = new_pipeline(plan.group, warehouse, plan.folder / str(number))
        try:
            restore(warehouse, pipeline, load.log)
            if changes is None:
                own = _changes(load, pipeline, [outcome])
            else:
                own = untold(pipeline, warehouse, changes, outcome.endpoint.name)
            _load_package(load, pipeline, [outcome], own)
        except REFUSALS as error:
            outcome.failure = _failure(load, pipeline, outcome, error)
        except OtherWorkspace:
            raise
        except AnalyticsError as error:
            outcome.failure = error
        finally:
            plan.pipeline.activate()  # dlt makes a new pipeline the active one


def _failure(load: _Load, pipeline: Pipeline, outcome: Outcome, error: Exception) -> AnalyticsError:
    """Return why the destination did not take rows: broken files, or what it says itself."""
    told, kind = load_error(error, load.warehouse), load.warehouse.table_format
    if told.transient:
        return told
    return broken_table(pipeline.destination_client(), kind, outcome.endpoint.name) or told


def _load_package(
    load: _Load, pipeline: Pipeline, outcomes: Sequence[Outcome], changes: pa.Table | None
) -> None:
    """Extract what was staged, normalize and load; then mark deletions and count."""
    plan, warehouse, workspace = load.plan, load.warehouse, load.workspace
    source = table_source(outcomes, warehouse, load.options, pipeline, workspace, changes)
    with span("extract"), only_errors_logged():
        pipeline.extract(source)
    with span("normalize"):
        pipeline.normalize()
    pa.default_memory_pool().release_unused()  # the database is going to need it
    with span("load"):
        if workspace and not plan.owner.remembered:
            check_still_free(plan.group, pipeline, warehouse.dataset, workspace)
        prepare_folder(pipeline)
        lists = [o.endpoint.name for o in outcomes if o.endpoint.full_list]
        with replacing(pipeline, warehouse, lists):
            # DuckDB has one thread: jobs side by side would only take more memory
            info = pipeline.load(workers=1) if warehouse.is_duckdb else pipeline.load()
            info.raise_on_failed_jobs()
        load_id = info.loads_ids[0]
        with span("mark"):
            taken = _without_swallowed(load, pipeline, outcomes, load_id)
            marked, forgotten, counts = _mark_and_count(load, pipeline, taken, load_id)
    schema = stored_schema(pipeline)
    for outcome in taken:
        name = outcome.endpoint.name
        outcome.load_id = load_id
        outcome.counts = counts.get(name)
        outcome.newly_deleted = marked.get(name, 0)
        outcome.forgotten = forgotten.get(name, 0)
        outcome.columns = _columns(schema, outcome)


def _without_swallowed(
    load: _Load, pipeline: Pipeline, outcomes: Sequence[Outcome], load_id: str
) -> Sequence[Outcome]:
    """Return those whose rows are all in the table; fail the others, and forget what they noted.

    A trigger, rule or policy of a database may drop rows without a word.
    """
    if load.warehouse.destination == "filesystem":
        return outcomes
    with open_sql(pipeline.destination_client()) as sql:
        found = rows_of_load(sql, [outcome.endpoint.name for outcome in outcomes], load_id)
    for outcome in outcomes:
        rows, there = outcome.staging.rows, found[outcome.endpoint.name]
        if there < rows:
            outcome.failure = ResourceError(
                f"of {rows} rows that were loaded {there} are in the table; look for a trigger,"
                " rule or policy of the database that drops the others"
            )
    swallowed = [outcome.endpoint.name for outcome in outcomes if outcome.failure]
    forget_state(pipeline, load.plan.group, swallowed)
    return [outcome for outcome in outcomes if outcome.failure is None]


def _changes(load: _Load, pipeline: Pipeline, outcomes: Sequence[Outcome]) -> pa.Table | None:
    """Return what the load is going to change, ``None`` if that is not known.

    The rows matter more than a record of them.
    """
    if not any(outcome.endpoint.full_list for outcome in outcomes):
        return None
    with span("compare"):
        try:
            changes = changes_of(pipeline, load.warehouse, outcomes, load.log)
        except REFUSALS:
            raise
        except Exception as error:  # noqa: BLE001 - what is lost is told, and the rows are loaded
            what = f"{type(error).__name__}: {foreign_text(str(error))}"
            load.log.warning(f"What changes in {load.plan.group} could not be recorded: {what}")
            return None
    if changes and load.plan.unrecorded:
        what = f"{RECORD_CHANGES.name}: {load.plan.unrecorded}"
        load.log.warning(f"What changes in {load.plan.group} is not recorded. {what}")
        return changes.slice(0, 0)
    return changes


def table_source(
    outcomes: Sequence[Outcome],
    warehouse: WarehouseSettings,
    options: LoadOptions,
    pipeline: Pipeline,
    workspace: Workspace | None,
    changes: pa.Table | None = None,
) -> DltSource:
    """Build the source that hands the staged rows to dlt, with keys, types and descriptions."""
    formats = pipeline.destination.capabilities().supported_loader_file_formats or ()
    resources = [
        _table_resource(outcome, warehouse, options, formats, workspace) for outcome in outcomes
    ]
    if changes:
        resources.append(_changes_resource(changes, warehouse, formats))
    group = outcomes[0].endpoint.group
    tables = dlt.source(
        lambda: resources, name=group, max_table_nesting=0, schema_contract=CONTRACT
    )
    return tables()


def _table_resource(
    outcome: Outcome,
    warehouse: WarehouseSettings,
    options: LoadOptions,
    formats: Collection[str],
    workspace: Workspace | None,
) -> DltResource:
    endpoint, reading, staging = outcome.endpoint, outcome.read, outcome.staging

    def rows() -> Iterator[pa.Table]:
        if workspace:
            remember(workspace)
        yield from staging.tables(reading.typer.undeclared)
        note_load(
            dlt.current.resource_state(),
            reading,
            available=outcome.available,
            fewer=options.expect_fewer_rows,
        )

    return dlt.resource(
        rows,
        name=endpoint.name,
        primary_key=list(endpoint.key_columns),
        write_disposition=_write_disposition(warehouse),
        table_format=cast(Any, warehouse.table_format),
        file_format=file_format(formats, warehouse, empty=not staging.rows),
        columns=column_hints(endpoint, reading.typer.undeclared.kept()),
    )


def _changes_resource(
    changes: pa.Table, warehouse: WarehouseSettings, formats: Collection[str]
) -> DltResource:
    resource: DltResource = dlt.resource(
        lambda: iter([changes]),
        name=RECORD_CHANGES.name,
        write_disposition="append",
        table_format=cast(Any, warehouse.table_format),
        file_format=file_format(formats, warehouse, empty=False),
        columns=column_hints(RECORD_CHANGES),
    )
    return resource


def _write_disposition(warehouse: WarehouseSettings) -> Any:
    """Merge by key; plain Parquet files can only be added: see ``plain_files.py`` for lists.

    A reading hands over each key once, so nothing has to sort the rows for that again: it would
    take the memory of a whole table.
    """
    if not warehouse.merges:
        return "append"
    strategy = "upsert" if warehouse.table_format == "delta" else "delete-insert"
    return {"disposition": "merge", "strategy": strategy, "deduplicated": True}


def column_hints(table: Table, undeclared: Sequence[Kept] = ()) -> dict[str, TColumnSchema]:
    """Return the dlt form of the columns of a table."""
    hints: dict[str, TColumnSchema] = {
        column.name: {
            "name": column.name,
            "data_type": column.type,
            "nullable": column.name not in table.key_columns,
            "description": column.description,
        }
        for column in table.table_columns
    }
    for kept in undeclared:
        if kept.column:
            hint = {"name": kept.column, "data_type": kept.type, "nullable": True}
            hints[kept.column] = cast(TColumnSchema, hint | {FIELD: kept.field})
    return hints


def file_format(formats: Collection[str], warehouse: WarehouseSettings, *, empty: bool) -> Any:
    """Parquet where the destination takes it, else CSV, else what dlt prefers.

    dlt hands Parquet to PostgreSQL by way of ADBC, which refuses a file without rows.
    """
    wanted = ("parquet", "csv")
    if empty and warehouse.destination == "postgres":
        wanted = ("csv", "parquet")
    return next((name for name in wanted if name in formats), None)


def _mark_and_count(
    load: _Load, pipeline: Pipeline, outcomes: Sequence[Outcome], load_id: str
) -> tuple[Mapping[str, int], Mapping[str, int], Mapping[str, TableCounts]]:
    warehouse, recorded = load.warehouse, load.plan.unrecorded is None
    if not outcomes:
        return {}, {}, {}
    names = [outcome.endpoint.name for outcome in outcomes]
    proved = [o.endpoint.name for o in outcomes if not o.read.extraction.doubts]
    with open_sql(pipeline.destination_client(), warehouse.table_format) as sql:
        marked = mark_deleted(sql, proved, load_id) if warehouse.marks_deletions else {}
        if warehouse.marks_deletions:
            for outcome in outcomes:
                fill_parts(sql, pipeline, outcome.endpoint)
        forgotten = forget(sql, pipeline, names, warehouse, recorded=recorded)
        return marked, forgotten, count_rows(sql, names)


def _columns(schema: Schema, outcome: Outcome) -> Sequence[Column]:
    """Return the table's columns: the declared ones first, then those the API added."""
    declared = {column.name: column for column in outcome.endpoint.table_columns}
    stored = stored_columns(schema, outcome.endpoint)
    return [
        declared.get(name) or Column(name, cast(ColumnType, column.type), "")
        for name, column in stored.items()
    ]
