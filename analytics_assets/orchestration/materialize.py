"""What the operation does: load what is selected, answer reports, fail last if any failed.

What only a run needs is imported by the run, so that definitions load fast.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from traceback import format_tb
from typing import TYPE_CHECKING, Any

from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetMaterialization,
    AssetObservation,
    MaterializeResult,
)

from analytics_assets.orchestration.check_results import check_results, figures_metadata
from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.environment import misspelt_variables
from analytics_assets.orchestration.failures import failure_of, step_failure
from analytics_assets.orchestration.housekeeping import (
    event_files_open,
    import_arrow,
    little_garbage_collection,
)
from analytics_assets.orchestration.latest import Latest
from analytics_assets.orchestration.metadata import ordered, run_figures, run_metadata
from analytics_assets.orchestration.not_run import checks_not_run
from analytics_assets.orchestration.reports import (
    ReportPages,
    parameters,
    report_failure_text,
    report_results,
    run_selected_reports,
)
from analytics_assets.orchestration.resources import Warehouse
from analytics_assets.orchestration.terminal import TerminalLog
from analytics_assets.orchestration.translator import WORKSPACE
from analytics_assets.reports.catalogue import reports
from analytics_assets.segment.endpoints import BY_NAME, GROUPS
from analytics_assets.segment.errors import AnalyticsError
from analytics_assets.segment.foreign_text import foreign_text, root_message
from analytics_assets.segment.settings import LoadOptions
from analytics_assets.segment.spans import Recorder, recorded, span
from analytics_assets.warehouse.checks.examination import Past
from analytics_assets.warehouse.checks.findings import Findings
from analytics_assets.warehouse.notes import Notes

if TYPE_CHECKING:
    from dlt.pipeline.pipeline import Pipeline

    from analytics_assets.reports.run import ReportOutcome
    from analytics_assets.warehouse.outcome import Outcome


def materialize(
    context: AssetExecutionContext,
    options: LoadOptions,
    deployment: Deployment,
    index: AssetIndex,
    latest: Latest,
) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
    """Load and check what is selected; report each asset, then fail if any failed."""
    with (
        little_garbage_collection(),
        event_files_open(context.instance, context.run_id),
        recorded() as recorder,
    ):
        yield from _materialize(context, options, deployment, index, latest, recorder)


def _materialize(
    context: AssetExecutionContext,
    options: LoadOptions,
    deployment: Deployment,
    index: AssetIndex,
    latest: Latest,
    recorder: Recorder,
) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
    with span("import"):
        import_arrow()
        from analytics_assets.warehouse.load import load_groups
        from analytics_assets.warehouse.outcome import LoadRequest

    selected = [n for n, key in index.keys.items() if key in context.selected_asset_keys]
    names = tuple(name for name in selected if name in BY_NAME)
    asked = [name for name in selected if name in reports()]
    outcomes: list[Outcome] = []
    answered: Sequence[ReportOutcome] = ()
    checks, said = _selected_checks(context, index), set[str]()
    for sentence in misspelt_variables():
        context.log.warning(sentence)
    try:
        deployment.refuse_changes(context.run.run_config)
        # a setting that cannot work is refused before anything is asked for
        told = parameters(deployment)
        run = _Run(context, names, options, deployment, index, latest)
        api = deployment.api_settings(context.resources) if names else None
        request = LoadRequest(names, api, run.warehouse, options) if api else None
        log = TerminalLog(context.log)
        for group in load_groups(request, run.look, log) if request else ():
            outcomes += group
            yield from run.results(group)
        if asked or run.report_checks:
            answered = run_selected_reports(
                asked, run.report_checks, run.warehouse, told, context.log
            )
            yield from run.report_results(answered, outcomes)
        if outcomes:
            run.observe(outcomes, recorder)
        for result in run.check_alone():
            said.add(index.name(result.asset_key) if result.asset_key else "")
            yield result
    except AnalyticsError as error:
        said |= {o.endpoint.name for o in outcomes} | {o.report.name for o in answered}
        reasons = dict.fromkeys(sorted(checks.keys() - said), error)
        reasons |= {**_reasons(outcomes), **_unanswered(answered)}
        yield from checks_not_run(context, index, checks, reasons, transient=error.transient)
        raise failure_of(error) from None
    except Exception as error:  # noqa: BLE001 - Dagster would store its text as it is
        context.log.error("".join(format_tb(error.__traceback__)))
        text = f"Unexpected {type(error).__name__}: {root_message(error)}"
        raise step_failure(text, allow_retries=True) from None
    reasons = {**_reasons(outcomes), **_unanswered(answered)}
    transient = any(reason.transient for reason in reasons.values())
    yield from checks_not_run(context, index, checks, reasons, transient=transient)
    _raise_failures(outcomes, answered)


def _selected_checks(context: AssetExecutionContext, index: AssetIndex) -> Mapping[str, list[str]]:
    """Return the names of the selected checks, by resource."""
    checks: dict[str, list[str]] = {}
    for key in sorted(context.selected_asset_check_keys):
        checks.setdefault(index.name(key.asset_key), []).append(key.name)
    return checks


def _of_lists(checks: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
    """Return the checks of lists, without those of reports."""
    return {name: found for name, found in checks.items() if name in BY_NAME}


class _Run:
    """What the checks of a run need to know, and what they found.

    Args:
        context: of the op.
        names: selected resources.
        options: what may differ from run to run.
        deployment: the workspace.
        index: its assets.
        latest: what the loads before have recorded.
    """

    def __init__(
        self,
        context: AssetExecutionContext,
        names: Sequence[str],
        options: LoadOptions,
        deployment: Deployment,
        index: AssetIndex,
        latest: Latest,
    ) -> None:
        self.warehouse = deployment.warehouse_settings(context.resources)
        self._resource: Warehouse = getattr(context.resources, deployment.named("warehouse"))
        self._context = context
        self._deployment = deployment
        self._names = names
        self._index = index
        self._latest = latest
        selected = _selected_checks(context, index)
        self._checks = _of_lists(selected)
        self.report_checks = {name: selected[name] for name in selected.keys() - self._checks}
        self._options = options
        self._findings = Findings()
        self._notes: dict[str, Notes] = {}
        self._warnings: dict[str, Sequence[str]] = {}

    def look(self, pipeline: Pipeline, outcomes: Sequence[Outcome]) -> None:
        """Check what has been loaded of a group."""
        from analytics_assets.warehouse.checks.run import look

        loaded = [outcome.endpoint.name for outcome in outcomes if outcome.loaded]
        self._notes = {outcome.endpoint.name: outcome.notes for outcome in outcomes}
        due = {name: checks for name, checks in self._checks.items() if name in loaded}
        log = self._context.log
        self._warnings |= {o.endpoint.name: o.warnings for o in outcomes if o.loaded}
        try:
            found = look(pipeline, self.warehouse, loaded, due, self._past, log)
            self._findings.add(found)  # while the group before is reported
        except Exception as error:  # noqa: BLE001 - the rows are loaded: their assets must not fail
            what = f"{type(error).__name__}: {foreign_text(str(error))}"
            log.warning(f"The checks could not be run: {what}")

    def results(self, outcomes: Sequence[Outcome]) -> Iterator[MaterializeResult[Any]]:
        """Report what has been loaded of a group, and warn of what has not."""
        log = self._context.log
        for outcome in outcomes:
            name = outcome.endpoint.name
            if outcome.loaded:
                yield MaterializeResult(
                    asset_key=self._index.keys[name],
                    metadata=ordered(
                        {
                            **figures_metadata(self._findings.figures.get(name)),
                            **run_metadata(outcome, self._resource),
                        }
                    ),
                    check_results=check_results(self._findings.results.get(name, []), self._index),
                )
            for warning in outcome.warnings:
                log.warning(f"{name}: {warning}")

    def observe(self, outcomes: Sequence[Outcome], recorder: Recorder) -> None:
        """Note on the page of the workspace what the run has cost in all."""
        key = self._deployment.key(WORKSPACE)
        self._context.log_event(AssetObservation(key, metadata=run_figures(outcomes, recorder)))

    def report_results(
        self, answered: Sequence[ReportOutcome], outcomes: Sequence[Outcome]
    ) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
        """Report what has been answered after some tables."""
        failed = _reasons(outcomes)
        shown = ReportPages(self._resource, self._index, self.report_checks, failed)
        yield from report_results(answered, shown, self._context.log)

    def check_alone(self) -> Iterator[AssetCheckResult]:
        """Run the checks that are selected without their assets, on the tables as they are."""
        from analytics_assets.warehouse.checks.run import evaluate_alone

        log = self._context.log
        alone = {name: names for name, names in self._checks.items() if name not in self._names}
        for group in GROUPS:
            checks = {name: n for name, n in alone.items() if BY_NAME[name].group == group}
            if checks:
                found = evaluate_alone(group, checks, self._past, self.warehouse, log)
                yield from check_results(found, self._index)

    def _past(self, name: str) -> Past:
        found = past(self._latest.get(self._index.keys[name]))
        return replace(
            found,
            fewer_expected=self._options.expect_fewer_rows,
            warnings=self._warnings.get(name, found.warnings),
            notes=self._notes.get(name, found.notes),
        )


def past(last: AssetMaterialization | None) -> Past:
    """Return what the latest materialization of an asset recorded."""
    if last is None:
        return Past()
    values: dict[str, Any] = {key: value.value for key, value in last.metadata.items()}
    rows, empty = values.get("dagster/row_count"), values.get("empty_columns")
    return Past(
        live_rows=None if rows is None else rows - values.get("deleted_rows", 0),
        empty_columns=None if empty is None else frozenset(empty),
        notes=Notes.from_json(values["notes"]) if "notes" in values else Notes(),
        warnings=values.get("warnings", ()),
    )


def failure_text(outcome: Outcome) -> str:
    """Name the asset, the request and what happened, in one line."""
    endpoint = outcome.endpoint
    return f"{endpoint.name} (GET {endpoint.path}): {outcome.failure}"


def _reasons(outcomes: Sequence[Outcome]) -> dict[str, AnalyticsError]:
    """Return why assets have failed, by name."""
    return {o.endpoint.name: o.failure for o in outcomes if o.failure is not None}


def _unanswered(answered: Sequence[ReportOutcome]) -> dict[str, AnalyticsError]:
    """Return why reports have failed, by name."""
    return {o.report.name: o.failure for o in answered if o.failure is not None}


def _raise_failures(outcomes: Sequence[Outcome], answered: Sequence[ReportOutcome]) -> None:
    reasons = _reasons(outcomes)
    unanswered = [outcome for outcome in answered if outcome.failure is not None]
    if not reasons and not unanswered:
        return
    failed = [outcome for outcome in outcomes if outcome.endpoint.name in reasons]
    texts = [*map(failure_text, failed), *map(report_failure_text, unanswered)]
    loaded = sum(o.loaded for o in outcomes) + sum(o.loaded for o in answered)
    failures = [*reasons.values(), *(o.failure for o in unanswered)]
    transient = any(failure.transient for failure in failures if failure)
    asked, text = len(outcomes) + len(answered), "\n".join(texts)
    raise step_failure(
        f"{len(texts)} of {asked} assets failed, {loaded} loaded.\n{text}",
        allow_retries=transient,
    )
