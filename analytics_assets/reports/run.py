"""Answer reports over the tables as they stand, and load the answers as tables."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import dlt
import duckdb
import pyarrow as pa
from dlt.extract import DltResource
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.reports.answers import (
    Parameters,
    answer,
    figures,
    offenders,
    set_parameters,
)
from analytics_assets.reports.inputs import open_inputs
from analytics_assets.reports.model import GROUP, Report
from analytics_assets.segment.errors import AnalyticsError, ResourceError
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.settings import Log
from analytics_assets.segment.spans import span
from analytics_assets.warehouse.connections import interruptible
from analytics_assets.warehouse.destination import (
    new_pipeline,
    pipeline_name,
    prepare_folder,
    restore,
)
from analytics_assets.warehouse.dlt_config import configure_dlt, only_errors_logged
from analytics_assets.warehouse.faults import is_away, load_error
from analytics_assets.warehouse.healing import heal_replaced
from analytics_assets.warehouse.known_secrets import learn_secrets
from analytics_assets.warehouse.locks import exclusive, open_database
from analytics_assets.warehouse.own_tables import RECORD_CHANGES
from analytics_assets.warehouse.package import CONTRACT, REFUSALS, column_hints, file_format
from analytics_assets.warehouse.pinned import check_target, refuse_settings
from analytics_assets.warehouse.plain_files import replacing
from analytics_assets.warehouse.settings import WarehouseSettings


@dataclass
class ReportOutcome:
    """What became of a report in this run.

    Attributes:
        report: the report.
        failure: why it is not loaded, ``None`` if it is.
        answer: its rows, ``None`` if there is no answer.
        figures: its figures, by name.
        offenders: rows that its checks find wrong, by the name of the check.
        seconds: what the answer took.
        load_id: dlt's load id, ``None`` if it is not loaded.
        not_there: tables that it reads and that the destination does not have.
        lost: columns that it reads and that their tables do not have, such as ``users.name``.
    """

    report: Report
    failure: AnalyticsError | None = None
    answer: pa.Table | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    offenders: Mapping[str, pa.Table] = field(default_factory=dict)
    seconds: float = 0.0
    load_id: str | None = None
    not_there: Sequence[str] = ()
    lost: Sequence[str] = ()

    @property
    def loaded(self) -> bool:
        """Whether the table now holds the answer."""
        return self.load_id is not None


def run_reports(
    reports: Sequence[Report],
    warehouse: WarehouseSettings,
    parameters: Parameters,
    log: Log,
    *,
    load: Collection[str] | None = None,
) -> list[ReportOutcome]:
    """Answer reports and load the answers; return what became of each.

    A report that fails costs no other one anything. What it reads and is not there is empty.

    Args:
        reports: the reports.
        warehouse: where the tables are and the answers go.
        parameters: what the reports are told.
        log: told about waits and what does not go as usual.
        load: names of those to load, ``None`` for all; the others are answered for their checks.
    """
    configure_dlt(1)
    learn_secrets()
    outcomes = [ReportOutcome(report) for report in reports]
    with interruptible(), tempfile.TemporaryDirectory(prefix="analytics_assets_") as folder:
        try:
            refuse_settings(GROUP, pipeline_name(GROUP))
            pipeline = new_pipeline(GROUP, warehouse, folder)
            with exclusive(GROUP, warehouse, pipeline, log) as still_held:
                check_target(warehouse, pipeline)
                with open_database(warehouse, pipeline, log):
                    answers = _answers(pipeline, warehouse, outcomes, parameters, log)
                    still_held()
                    wanted = [o for o in outcomes if load is None or o.report.name in load]
                    _heal(pipeline, warehouse, [o for o in wanted if not o.failure], log)
                    _load(pipeline, warehouse, answers, wanted, Path(folder), log)
        except AnalyticsError as error:
            for outcome in outcomes:
                outcome.failure = outcome.failure or error
    return outcomes


def _answers(
    pipeline: Pipeline,
    warehouse: WarehouseSettings,
    outcomes: Sequence[ReportOutcome],
    parameters: Parameters,
    log: Log,
) -> Mapping[str, pa.Table]:
    """Return the answer of each report that has one; note in the outcome why another has not."""
    found: dict[str, pa.Table] = {}
    reports = [outcome.report for outcome in outcomes]
    with span("report"):
        restore(warehouse, pipeline, log)
        folder = Path(pipeline.pipelines_dir)
        with open_inputs(pipeline, warehouse, reports, folder) as inputs:
            set_parameters(inputs.connection, parameters)
            for outcome in outcomes:
                reads = outcome.report.reads
                # there is no record of changes as long as nothing has changed
                missing = inputs.not_there - {RECORD_CHANGES.name}
                outcome.not_there = [name for name in reads if name in missing]
                outcome.lost = [
                    f"{table}.{name}"
                    for table, names in reads.items()
                    for name in sorted(inputs.lost.get(table, frozenset()) & set(names))
                ]
                broken = [error for name, error in inputs.unreadable.items() if name in reads]
                if broken:
                    outcome.failure = broken[0]
                    continue
                begun = perf_counter()
                try:
                    found[outcome.report.name] = _answer(inputs.connection, outcome)
                except Exception as error:  # noqa: BLE001 - it is this report's own trouble
                    reason = f"{type(error).__name__}: {foreign_text(str(error))}"
                    unforeseen = ResourceError(f"the report could not be answered: {reason}")
                    outcome.failure = inputs.broken(reads) or unforeseen
                outcome.seconds = perf_counter() - begun
    return found


def _answer(connection: duckdb.DuckDBPyConnection, outcome: ReportOutcome) -> pa.Table:
    rows = answer(connection, outcome.report)
    outcome.figures = figures(connection, outcome.report, rows)
    outcome.offenders = offenders(connection, outcome.report, rows)
    outcome.answer = rows
    return rows


def _heal(
    pipeline: Pipeline, warehouse: WarehouseSettings, outcomes: Sequence[ReportOutcome], log: Log
) -> None:
    """Make again what was dropped by hand; note in the outcome why a table may not be replaced."""
    reports = [outcome.report for outcome in outcomes]
    refused = heal_replaced(pipeline, GROUP, reports, warehouse, log) if reports else {}
    for outcome in outcomes:
        outcome.failure = outcome.failure or refused.get(outcome.report.name)


def _load(
    pipeline: Pipeline,
    warehouse: WarehouseSettings,
    answers: Mapping[str, pa.Table],
    outcomes: Sequence[ReportOutcome],
    folder: Path,
    log: Log,
) -> None:
    """Load all answers as one package; each by itself if that fails."""
    good = [outcome for outcome in outcomes if outcome.failure is None]
    if not good:
        return
    try:
        _load_package(pipeline, warehouse, answers, good)
    except REFUSALS as error:
        if is_away(error) or len(good) == 1:
            for outcome in good:
                outcome.failure = load_error(error, warehouse)
            return
        log.warning("Loading the reports as one package failed; loading each table by itself.")
        for number, outcome in enumerate(good):
            alone = new_pipeline(GROUP, warehouse, folder / str(number))
            restore(warehouse, alone, log)
            _load(alone, warehouse, answers, [outcome], folder, log)


def _load_package(
    pipeline: Pipeline,
    warehouse: WarehouseSettings,
    answers: Mapping[str, pa.Table],
    outcomes: Sequence[ReportOutcome],
) -> None:
    formats = pipeline.destination.capabilities().supported_loader_file_formats or ()
    tables = [
        _resource(outcome.report, answers[outcome.report.name], warehouse, formats)
        for outcome in outcomes
    ]
    source = dlt.source(lambda: tables, name=GROUP, max_table_nesting=0, schema_contract=CONTRACT)
    with span("extract"), only_errors_logged():
        pipeline.extract(source())
    with span("normalize"):
        pipeline.normalize()
    with span("load"):
        prepare_folder(pipeline)
        with replacing(pipeline, warehouse, [outcome.report.name for outcome in outcomes]):
            info = pipeline.load()
            info.raise_on_failed_jobs()
    for outcome in outcomes:
        outcome.load_id = info.loads_ids[0]


def _resource(
    report: Report, answer: pa.Table, warehouse: WarehouseSettings, formats: Collection[str]
) -> DltResource:
    resource: DltResource = dlt.resource(
        lambda: iter([answer]),
        name=report.name,
        primary_key=list(report.key_columns),
        write_disposition="replace" if warehouse.merges else "append",
        table_format=cast(Any, warehouse.table_format),
        file_format=file_format(formats, warehouse, empty=not answer.num_rows),
        columns=column_hints(report),
    )
    return resource
