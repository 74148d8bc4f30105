"""Reports as Dagster sees them: their specs, their parameters, and what their pages show."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Final

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    AssetSpec,
    AutomationCondition,
    MaterializeResult,
    MetadataValue,
)

from analytics_assets.orchestration.charts import can_draw
from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.metadata import (
    kinds,
    ordered,
    owners,
    preview,
    table_name,
    table_schema,
    tags,
)
from analytics_assets.orchestration.report_charts import report_chart
from analytics_assets.orchestration.resources import Warehouse
from analytics_assets.reports.catalogue import reports
from analytics_assets.reports.model import GROUP, Report
from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.settings import Log
from analytics_assets.segment.spans import span
from analytics_assets.warehouse.settings import WarehouseSettings

if TYPE_CHECKING:
    from analytics_assets.reports.answers import Parameters
    from analytics_assets.reports.run import ReportOutcome

SHOWN: Final = 5
"""Rows of an answer that its page shows."""
OFFENDERS: Final = 10
"""Rows that a check shows."""
MOST_DAYS: Final = 36_500
MOST_SILENT_DAYS: Final = 55
"""The report looks back over eight weeks."""
SPIKE_FACTORS: Final = (1.0, 1000.0)
_OF_THE_PLAN: Final = "the whole number that the plan includes a month"
_OF_DAYS: Final = "a whole number of days, at most {}"


@dataclass(frozen=True)
class ReportPages:
    """What the pages of reports are made from, besides their answers.

    Attributes:
        warehouse: where the reports are.
        index: their keys.
        checks: names of the selected checks, by report.
        failed: the tables that this run was to load and could not.
    """

    warehouse: Warehouse
    index: AssetIndex
    checks: Mapping[str, Sequence[str]]
    failed: Collection[str]


def report_spec(report: Report, deployment: Deployment, deps: Sequence[AssetKey]) -> AssetSpec:
    """Describe a report; it depends on the tables that its SQL names."""
    warehouse = deployment.warehouse
    return AssetSpec(
        key=deployment.key(report.name),
        group_name=GROUP,
        deps=deps,
        description=f"{report.header.question}\n\n{report.header.description}",
        metadata={
            "dagster/column_schema": table_schema(report, report.table_columns),
            "dagster/table_name": table_name(report, warehouse),
            "dagster/storage_kind": warehouse.destination_name(),
            "question": report.header.question,
            "key": ", ".join(report.key_columns),
            "sql": MetadataValue.md(f"```sql\n{report.sql}\n```"),
        },
        tags={**tags(report), **deployment.tags},
        owners=owners(deployment.owners),
        kinds=kinds(warehouse) | {"sql"},
        automation_condition=when_tables_change(),
    )


def report_check_specs(deployment: Deployment, index: AssetIndex) -> list[AssetCheckSpec]:
    """Return the checks of all reports."""
    return [
        AssetCheckSpec(warn.name, asset=index.keys[report.name], description=f"Warns: {warn.text}")
        for report in deployment.reports
        for warn in report.header.warns
    ]


def when_tables_change() -> AutomationCondition[Any]:
    """Return the condition under which a report is due: a table of it was loaded without it.

    Not ``eager``, which stays silent while any table has never been loaded, such as one whose
    product feature the workspace lacks.
    """
    due = AutomationCondition.any_deps_updated().since_last_handled()
    busy = AutomationCondition.any_deps_in_progress() | AutomationCondition.in_progress()
    return due & ~busy


def parameters(deployment: Deployment) -> Parameters:
    """Return what reports are told, the plan as the deployment gives it, or the environment.

    Raises:
        SettingError: a limit is no number; the text names the variable.
    """
    from analytics_assets.reports.answers import Parameters

    usual = Parameters(datetime.now(timezone.utc))
    return Parameters(
        usual.now,
        deployment.plan_mtu or _whole("ANALYTICS_PLAN_MTU", _OF_THE_PLAN),
        deployment.plan_api_calls or _whole("ANALYTICS_PLAN_API_CALLS", _OF_THE_PLAN),
        _whole("ANALYTICS_INACTIVE_DAYS", _OF_DAYS.format(MOST_DAYS), MOST_DAYS)
        or usual.inactive_days,
        _whole("ANALYTICS_SILENT_DAYS", _OF_DAYS.format(MOST_SILENT_DAYS), MOST_SILENT_DAYS)
        or usual.silent_days,
        _factor("ANALYTICS_SPIKE_FACTOR") or usual.spike_factor,
    )


def _whole(variable: str, what: str, most: int = 2**63 - 1) -> int | None:
    text = os.environ.get(variable, "").strip().replace("_", "")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:19]) <= most):
        raise SettingError(f"{variable} is {text!r}; set it to {what}, or leave it out.")
    return int(text)


def _factor(variable: str) -> float | None:
    text = os.environ.get(variable, "").strip()
    if not text:
        return None
    low, high = SPIKE_FACTORS
    try:
        factor = float(text)
    except ValueError:
        factor = 0.0
    if not low <= factor <= high:
        raise SettingError(
            f"{variable} is {text!r}; set it to a number from {low:g} to {high:g}, or leave it out."
        )
    return factor


def run_selected_reports(
    names: Sequence[str],
    checks: Mapping[str, Sequence[str]],
    warehouse: WarehouseSettings,
    told: Parameters,
    log: Log,
) -> Sequence[ReportOutcome]:
    """Answer and load the selected reports; answer those of which only checks are selected."""
    from analytics_assets.reports.run import run_reports

    wanted = [report for name, report in reports().items() if name in names or name in checks]
    return run_reports(wanted, warehouse, told, log, load=names) if wanted else ()


def report_results(
    outcomes: Sequence[ReportOutcome], pages: ReportPages, log: Log
) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
    """Report what has been loaded, and warn of what a report could not read as it is now.

    Args:
        outcomes: what became of the reports.
        pages: what their pages are made from besides.
        log: told of each warning.
    """
    for outcome in outcomes:
        warnings = [*_warnings(outcome, pages.failed)]
        for warning in warnings:
            log.warning(f"{outcome.report.name}: {warning}")
        found = [*_check_results(outcome, pages)]
        if outcome.loaded:
            yield MaterializeResult(
                asset_key=pages.index.keys[outcome.report.name],
                metadata=_run_metadata(outcome, warnings, pages.warehouse, log),
                check_results=found,
            )
        elif outcome.failure is None:
            yield from found


def _check_results(outcome: ReportOutcome, pages: ReportPages) -> Iterator[AssetCheckResult]:
    name = outcome.report.name
    selected = pages.checks.get(name, ())
    for warn in outcome.report.header.warns:
        rows = outcome.offenders.get(warn.name)
        if warn.name not in selected or rows is None:
            continue
        count, shown = rows.num_rows, preview(outcome.report, rows.slice(0, OFFENDERS))
        said = f"{count} of {len(outcome.answer or ())} rows: {warn.text}" if count else ""
        tables = [table for table in outcome.not_there if table in pages.index.keys]
        missing = [*_without(tables, outcome.lost)]
        if missing:
            told = f"{'; '.join(missing)}; materialize it, and the report again."
            said = f"{said} Besides, {told}" if said else told[0].upper() + told[1:]
        yield AssetCheckResult(
            asset_key=pages.index.keys[name],
            check_name=warn.name,
            passed=not count and not missing,
            severity=AssetCheckSeverity.WARN,
            description=said or "There is nothing to look at.",
            metadata={"offenders": count, **({"first_offenders": shown} if shown else {})},
        )


def _warnings(outcome: ReportOutcome, failed: Collection[str]) -> Iterator[str]:
    if old := [name for name in outcome.report.reads if name in failed]:
        yield f"{', '.join(old)} failed in this run and was read as it was before"
    yield from _without(outcome.not_there, outcome.lost)


def _without(tables: Sequence[str], columns: Sequence[str]) -> Iterator[str]:
    if tables:
        yield f"there is no table {', '.join(tables)} yet, so what would come from it is empty"
    if columns:
        yield f"there is no column {', '.join(columns)}, so what would come from it is empty"


def _run_metadata(
    outcome: ReportOutcome, warnings: Sequence[str], warehouse: Warehouse, log: Log
) -> Mapping[str, Any]:
    report, answer = outcome.report, outcome.answer
    metadata: dict[str, Any] = {
        **_chart(outcome, log),
        **{name: value for name, value in outcome.figures.items() if value is not None},
        "dagster/table_name": table_name(report, warehouse),
        "dagster/column_schema": table_schema(report, report.table_columns),
        "dagster/row_count": answer.num_rows if answer else 0,
        "seconds": round(outcome.seconds, 3),
    }
    if (rows := preview(report, answer.slice(0, SHOWN) if answer else None)) is not None:
        metadata["preview"] = rows
    if warnings:
        metadata["warnings"] = MetadataValue.md("\n".join(f"- {text}" for text in warnings))
    return ordered(metadata)


def _chart(outcome: ReportOutcome, log: Log) -> Mapping[str, Any]:
    """Return a picture, if there is one; it adorns, and must not fail the asset."""
    if outcome.answer is None or not can_draw():
        return {}
    try:
        with span("chart"):
            today = datetime.now(timezone.utc).date()
            chart = report_chart(outcome.report.name, outcome.answer, today)
    except Exception as error:  # noqa: BLE001 - the rows are loaded: their asset must not fail
        what = f"{type(error).__name__}: {foreign_text(str(error))}"
        log.warning(f"{outcome.report.name}: no chart for its page: {what}")
        return {}
    return {"chart": chart} if chart else {}


def report_failure_text(outcome: ReportOutcome) -> str:
    """Name the report and what happened, in one line."""
    return f"{outcome.report.name} (report): {outcome.failure}"
