"""Load what was read of a group: one dlt package for all that is whole, each table alone if that
fails; then mark what is gone, and count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, timezone
from typing import Any, Final, cast

import dlt
import pyarrow as pa
from dlt.common.destination.exceptions import DestinationException
from dlt.common.schema.typing import TColumnSchema, TSchemaContractDict
from dlt.extract import DltResource, DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment import windows
from analytics_assets.segment.errors import (
    AnalyticsError,
    DestinationUnreachable,
    OtherWorkspace,
    ResourceError,
    TooFewRows,
)
from analytics_assets.segment.model import Column, ColumnType, Endpoint
from analytics_assets.segment.months import Loaded, after_load
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.settings import LoadOptions, Log
from analytics_assets.segment.spans import span
from analytics_assets.segment.staging import Staging
from analytics_assets.segment.token_workspace import Workspace
from analytics_assets.segment.undeclared import Kept
from analytics_assets.warehouse.counts import count_rows
from analytics_assets.warehouse.deletions import mark_deleted
from analytics_assets.warehouse.destination import new_pipeline, restore
from analytics_assets.warehouse.dlt_config import only_errors_logged
from analytics_assets.warehouse.duckdb_file import MORE, for_rows, ran_out_of_memory
from analytics_assets.warehouse.faults import is_away, load_error
from analytics_assets.warehouse.forgetting import forget
from analytics_assets.warehouse.locks import open_database
from analytics_assets.warehouse.outcome import Outcome, TableCounts
from analytics_assets.warehouse.ownership import check_still_free, remember
from analytics_assets.warehouse.plain_files import replacing
from analytics_assets.warehouse.plan import GroupPlan
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import open_sql
from analytics_assets.warehouse.state import FIELD, stored_columns

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
) -> list[Outcome]:
    """Load what was read of a group; return what became of each resource.

    Args:
        plan: the group, all of it read.
        warehouse: where to load to.
        options: what may differ from run to run.
        log: told about what does not go as usual.
        workspace: whose rows they are, ``None`` if nobody can tell.

    Raises:
        OtherWorkspace: another run has meanwhile made the dataset that of another workspace.
    """
    judged = {r.endpoint.name: _judge(plan, r, options) for r in plan.readings}  # parents first
    for outcome in judged.values():
        parent = outcome.endpoint.parent and judged.get(outcome.endpoint.parent.resource)
        if parent and parent.failure and not (outcome.reading and outcome.reading.failure):
            outcome.failure = ResourceError(
                f"its parent list {parent.endpoint.name} is not loaded ({parent.failure})"
            )
    outcomes = [judged[r.endpoint.name] for r in plan.readings if r.staging]
    pa.default_memory_pool().release_unused()  # what the pages took
    if good := [outcome for outcome in outcomes if outcome.failure is None]:
        _load_good(plan, good, warehouse, log, workspace)
    return outcomes


def _load_good(
    plan: GroupPlan,
    good: Sequence[Outcome],
    warehouse: WarehouseSettings,
    log: Log,
    workspace: Workspace | None,
) -> None:
    """Load as one package, with more memory if that was too little, or else each table alone."""
    tables = [outcome.staging for outcome in good]
    sized = for_rows(warehouse, tables)
    try:
        _load_package(plan, plan.pipeline, good, sized, log, workspace)
        return
    except REFUSALS as error:
        refusal = error
    more = for_rows(warehouse, tables, times=MORE)
    if ran_out_of_memory(refusal) and more != sized:
        sized = more
    elif is_away(refusal) or len(good) == 1:
        for outcome in good:
            outcome.failure = load_error(refusal, warehouse)
        return
    log.warning(f"Loading {plan.group} as one package failed; loading each table by itself.")
    _load_alone(plan, good, sized, log, workspace)


def _judge(plan: GroupPlan, reading: Reading, options: LoadOptions) -> Outcome:
    """Decide whether a reading may be loaded."""
    outcome = Outcome(
        reading.endpoint,
        reading,
        failure=reading.failure,
        available=reading.extraction.available,
    )
    if reading.failure:
        return outcome
    held = plan.before.get(reading.endpoint.name)
    live = held.rows - held.deleted if held else 0
    # a row for each key; of a parent that is not loaded the keys are not known
    now = reading.staging.rows if reading.staging else reading.extraction.rows
    if live and not options.expect_fewer_rows and (now == 0 or now * 2 < live):
        outcome.failure = TooFewRows(
            f"the list has {now} rows where {live} were before, so nothing was loaded or marked"
            " as deleted; if that is right, run it with expect_fewer_rows: true"
        )
    return outcome


def _load_alone(
    plan: GroupPlan,
    outcomes: Sequence[Outcome],
    warehouse: WarehouseSettings,
    log: Log,
    workspace: Workspace | None,
) -> None:
    for number, outcome in enumerate(outcomes):
        pipeline = new_pipeline(plan.group, warehouse, plan.folder / str(number))
        try:
            with open_database(warehouse, pipeline, log):
                restore(warehouse, pipeline, log)
            _load_package(plan, pipeline, [outcome], warehouse, log, workspace)
        except REFUSALS as error:
            outcome.failure = load_error(error, warehouse)
        except OtherWorkspace:
            raise
        except AnalyticsError as error:
            outcome.failure = error
        finally:
            plan.pipeline.activate()  # dlt makes a new pipeline the active one


def _load_package(
    plan: GroupPlan,
    pipeline: Pipeline,
    outcomes: Sequence[Outcome],
    warehouse: WarehouseSettings,
    log: Log,
    workspace: Workspace | None,
) -> None:
    """Extract what was staged, normalize and load; then mark deletions and count."""
    source = table_source(outcomes, warehouse, pipeline, workspace)
    with span("extract"), only_errors_logged():
        pipeline.extract(source)
    with span("normalize"):
        pipeline.normalize()
    pa.default_memory_pool().release_unused()  # the database is going to need it
    with span("load"), open_database(warehouse, pipeline, log):
        if workspace and not plan.owner.remembered:
            check_still_free(plan.group, pipeline, warehouse.dataset, workspace)
        with replacing(pipeline, warehouse, [outcome.endpoint for outcome in outcomes]):
            info = pipeline.load()
            info.raise_on_failed_jobs()
        load_id = info.loads_ids[0]
        with span("mark"):
            marked, forgotten, counts = _mark_and_count(pipeline, warehouse, outcomes, load_id)
    for outcome in outcomes:
        name = outcome.endpoint.name
        outcome.load_id = load_id
        outcome.counts = counts.get(name)
        outcome.newly_deleted = marked.get(name, 0)
        outcome.forgotten = forgotten.get(name, 0)
        outcome.columns = _columns(pipeline, outcome)


def table_source(
    outcomes: Sequence[Outcome],
    warehouse: WarehouseSettings,
    pipeline: Pipeline,
    workspace: Workspace | None,
) -> DltSource:
    """Build the source that hands the staged rows to dlt, with keys, types and descriptions."""
    formats = pipeline.destination.capabilities().supported_loader_file_formats or ()
    resources = [
        _table_resource(outcome.reading, outcome.staging, warehouse, formats, workspace)
        for outcome in outcomes
        if outcome.reading
    ]

    group = outcomes[0].endpoint.group
    tables = dlt.source(
        lambda: resources, name=group, max_table_nesting=0, schema_contract=CONTRACT
    )
    return tables()


def _table_resource(
    reading: Reading,
    staging: Staging,
    warehouse: WarehouseSettings,
    formats: Collection[str],
    workspace: Workspace | None,
) -> DltResource:
    endpoint = reading.endpoint

    def rows() -> Iterator[pa.Table]:
        if workspace:
            remember(workspace)
        yield from staging.tables(reading.typer.undeclared)
        if endpoint.monthly:
            _note_months(reading, staging)
        if endpoint.window:
            _note_days(reading, staging)

    resource: DltResource = dlt.resource(
        rows,
        name=endpoint.name,
        primary_key=list(endpoint.key_columns),
        write_disposition=_write_disposition(warehouse),
        table_format=cast(Any, warehouse.table_format),
        file_format=_file_format(formats, warehouse, empty=not staging.rows),
        columns=column_hints(endpoint, reading.typer.undeclared.kept()),
    )
    if endpoint.cursor and endpoint.cursor_column:
        resource.apply_hints(
            incremental=dlt.sources.incremental(
                endpoint.cursor_column, lag=reading.lag, on_cursor_value_missing="include"
            )
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


def column_hints(endpoint: Endpoint, undeclared: Sequence[Kept] = ()) -> dict[str, TColumnSchema]:
    """Return the dlt form of the columns of a table."""
    hints: dict[str, TColumnSchema] = {
        column.name: {
            "name": column.name,
            "data_type": column.type,
            "nullable": column.name not in endpoint.key_columns,
            "description": column.description,
        }
        for column in endpoint.table_columns
    }
    for kept in undeclared:
        if kept.column:
            hint = {"name": kept.column, "data_type": kept.type, "nullable": True}
            hints[kept.column] = cast(TColumnSchema, hint | {FIELD: kept.field})
    return hints


def _note_months(reading: Reading, staging: Staging) -> None:
    """Move the state of a usage resource, in the same package as the rows it describes."""
    state = dlt.current.resource_state()
    today = datetime.now(timezone.utc).date()
    newest = min(staging.newest.date(), today) if staging.newest else None
    months = sorted(date.fromisoformat(chain) for chain in reading.extraction.chains)
    loaded = after_load(Loaded.from_state(state), months, newest)
    if loaded:
        state.update(loaded.to_state())


def _note_days(reading: Reading, staging: Staging) -> None:
    """Move the state of a resource that is asked for by windows, as :func:`_note_months` does."""
    state, extraction = dlt.current.resource_state(), reading.extraction
    today = datetime.now(timezone.utc).date()
    newest = min(staging.newest.date(), today) if staging.newest else None
    before = windows.LoadedDays.from_state(state)
    loaded = windows.after_load(before, extraction.chains, extraction.gone, newest)
    if loaded:
        state.update(loaded.to_state())


def _file_format(formats: Collection[str], warehouse: WarehouseSettings, *, empty: bool) -> Any:
    """Parquet where the destination takes it, else CSV, else what dlt prefers.

    dlt hands Parquet to PostgreSQL by way of ADBC, which refuses a file without rows.
    """
    wanted = ("parquet", "csv")
    if empty and warehouse.destination == "postgres":
        wanted = ("csv", "parquet")
    return next((name for name in wanted if name in formats), None)


def _mark_and_count(
    pipeline: Pipeline, warehouse: WarehouseSettings, outcomes: Sequence[Outcome], load_id: str
) -> tuple[Mapping[str, int], Mapping[str, int], Mapping[str, TableCounts]]:
    names = [outcome.endpoint.name for outcome in outcomes]
    still = [o.endpoint.name for o in outcomes if o.reading and not o.reading.extraction.moved]
    with open_sql(pipeline.destination_client(), warehouse.table_format) as sql:
        marked = mark_deleted(sql, still, load_id) if warehouse.marks_deletions else {}
        forgotten = forget(sql, pipeline, names, warehouse) if warehouse.forget_days else {}
        return marked, forgotten, count_rows(sql, names)


def _columns(pipeline: Pipeline, outcome: Outcome) -> Sequence[Column]:
    """Return the table's columns: the declared ones first, then those the API added."""
    declared = {column.name: column for column in outcome.endpoint.table_columns}
    stored = stored_columns(pipeline, outcome.endpoint)
    return [
        declared.get(name) or Column(name, cast(ColumnType, column.type), "")
        for name, column in stored.items()
    ]
