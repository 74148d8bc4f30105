"""The assets: one op per group that loads any subset of the group's resources.

No postponed annotations here: Dagster reads the config class from the signature of an op. What only
a run needs is imported by the run, so that definitions load fast.

What an asset shows is derived from its row in ``endpoints.py``; what a run does is in ``load.py``.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    Config,
    DagsterInstance,
    Failure,
    MaterializeResult,
    multi_asset,
)
from dagster._core.errors import DagsterUserCodeProcessError
from dagster_dlt import DagsterDltTranslator
from dagster_dlt.translator import DltResourceTranslatorData
from dagster_shared.error import SerializableErrorInfo
from dlt import resource as dlt_resource
from pydantic import Field

from analytics_assets.orchestration import charts
from analytics_assets.orchestration.check_results import (
    check_results,
    check_specs,
    figures_metadata,
)
from analytics_assets.orchestration.metadata import (
    definition_metadata,
    kinds,
    owners,
    run_metadata,
    tags,
)
from analytics_assets.orchestration.resources import AnalyticsApi, Warehouse
from analytics_assets.orchestration.retries import with_run_retries
from analytics_assets.segment.endpoints import BY_NAME, GROUPS, in_group
from analytics_assets.segment.errors import AnalyticsError, SettingError, TokenRejected
from analytics_assets.segment.model import Group
from analytics_assets.segment.settings import LoadOptions
from analytics_assets.warehouse.checks.examination import Past
from analytics_assets.warehouse.checks.findings import Findings
from analytics_assets.warehouse.settings import WarehouseSettings

if TYPE_CHECKING:
    from dlt.pipeline.pipeline import Pipeline

    from analytics_assets.warehouse.load import LoadRequest, Outcome

_FINAL_ERRORS: Final = (SettingError, TokenRejected)
_rejected_runs: dict[str, str] = {}
"""Runs whose token the API has refused: the other groups of the run need not ask again."""


class FullListConfig(Config):
    """Run config of the groups that read whole lists."""

    expect_fewer_rows: bool = Field(
        default=False,
        description="Accept a list that is empty or less than half of what it was, and mark the"
        " missing rows as deleted.",
    )

    def options(self) -> LoadOptions:
        """Return the options of the load."""
        return LoadOptions(
            # checked by every group: a setting that is wrong stops the run before any request
            usage_start=os.environ.get("ANALYTICS_USAGE_START"),
            expect_fewer_rows=self.expect_fewer_rows,
        )


class UsageConfig(Config):
    """Run config of the usage group: months to load again."""

    start_month: str | None = Field(
        default=None, description="First month to load again, YYYY-MM; default: end_month."
    )
    end_month: str | None = Field(
        default=None, description="Last month to load again, YYYY-MM; default: the current one."
    )

    def options(self) -> LoadOptions:
        """Return the options of the load."""
        return LoadOptions(
            usage_start=os.environ.get("ANALYTICS_USAGE_START"),
            start_month=self.start_month,
            end_month=self.end_month,
        )


class Translator(DagsterDltTranslator):
    """Asset key, group and everything shown come from the row of ``endpoints.py``."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def get_asset_spec(self, data: DltResourceTranslatorData) -> AssetSpec:
        """Describe the asset of one dlt resource."""
        endpoint = BY_NAME[data.resource.name]
        return AssetSpec(
            key=AssetKey(endpoint.name),
            group_name=endpoint.group,
            description=endpoint.description,
            metadata=definition_metadata(endpoint, self._warehouse),
            tags=tags(endpoint),
            owners=owners(),
            kinds=kinds(self._warehouse),
        )


def asset_specs(group: Group, warehouse: Warehouse) -> list[AssetSpec]:
    """Return the specs of a group, from dlt resources that stand for those of the run.

    The ``rest_api`` resources themselves are built by the run, which has the token; to build them
    here as well would cost each start of Dagster half a second.
    """
    translator = Translator(warehouse)
    resources = [dlt_resource([], name=endpoint.name) for endpoint in in_group(group)]
    return [
        translator.get_asset_spec(DltResourceTranslatorData(resource=resource, pipeline=None))
        for resource in resources
    ]


def build_assets(warehouse: Warehouse) -> list[AssetsDefinition]:
    """Return the assets of all groups, one op each."""
    return [_group_assets(group, warehouse) for group in GROUPS]


def _group_assets(group: Group, warehouse: Warehouse) -> AssetsDefinition:
    decorate = multi_asset(
        name=group,
        specs=asset_specs(group, warehouse),
        check_specs=[spec for endpoint in in_group(group) for spec in check_specs(endpoint)],
        can_subset=True,
        pool=pool_name(group),
    )
    if group == "usage":

        def load_usage(
            context: AssetExecutionContext,
            config: UsageConfig,
            api: AnalyticsApi,
            warehouse: Warehouse,
        ) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
            results = _materialize(context, group, config.options(), api, warehouse)
            yield from with_run_retries(context, results)

        return decorate(load_usage)

    def load_lists(
        context: AssetExecutionContext,
        config: FullListConfig,
        api: AnalyticsApi,
        warehouse: Warehouse,
    ) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
        results = _materialize(context, group, config.options(), api, warehouse)
        yield from with_run_retries(context, results)

    return decorate(load_lists)


def pool_name(group: Group) -> str:
    """Return the Dagster pool that keeps two runs of a group apart on server destinations."""
    return f"analytics_{group}"


def _materialize(
    context: AssetExecutionContext,
    group: Group,
    options: LoadOptions,
    api: AnalyticsApi,
    warehouse: Warehouse,
) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
    """Load and check what is selected of a group; report each asset, then fail if any failed."""
    from analytics_assets.warehouse.load import LoadRequest

    selected = {key.to_user_string() for key in context.selected_asset_keys}
    names = [name for name in BY_NAME if name in selected]
    checks = _selected_checks(context)
    try:
        run = _GroupRun(context, names, checks, options, warehouse.settings())
    except SettingError as error:
        raise _failure(str(error), passing=False) from None
    if not names:
        yield from run.check_alone(group)
        return
    _raise_if_token_was_rejected(context.run.run_id)
    if "usage" in context.job_def.graph.node_names():
        charts.import_ahead()  # whichever group of the run is first to wait for the API
    try:
        request = LoadRequest(group, tuple(names), api.settings(), run.warehouse, options)
        following = _following(context, request)
        with warehouse.loads.loading(request, following, context.log) as load:
            outcomes = load.load(run.look)
    except AnalyticsError as error:
        if isinstance(error, TokenRejected):
            _rejected_runs[context.run.run_id] = str(error)
        raise _failure(str(error), passing=not isinstance(error, _FINAL_ERRORS)) from None
    for outcome in outcomes:
        name = outcome.endpoint.name
        if outcome.loaded:
            yield MaterializeResult(
                asset_key=name,
                metadata={
                    **figures_metadata(name, run.findings.figures.get(name), context.log),
                    **run_metadata(outcome, warehouse),
                },
                check_results=check_results(run.findings.results.pop(name, [])),
            )
        elif not outcome.available:
            context.log.warning(unavailable_text(outcome))
        for warning in outcome.reading.warnings:
            context.log.warning(f"{name}: {warning}")
    for results in run.findings.results.values():
        yield from check_results(results)
    _raise_failures(outcomes)


def _following(context: AssetExecutionContext, request: "LoadRequest") -> "LoadRequest | None":
    """Return what the step after this one is going to ask for, if that is one of the groups.

    ``None`` as well if another process executes it.
    """
    step = context.get_step_execution_context()
    steps = [*step.execution_plan.step_keys_to_execute, ""]
    group = steps[steps.index(step.step.key) + 1]
    selected = {key.to_user_string() for key in context.job_def.asset_layer.selected_asset_keys}
    names = tuple(name for name in BY_NAME if BY_NAME[name].group == group and name in selected)
    if not names:
        return None
    config = step.resolved_run_config.ops[group].config
    options = (UsageConfig if group == "usage" else FullListConfig)(**config).options()
    return replace(request, group=group, names=names, options=options)


def _selected_checks(context: AssetExecutionContext) -> Mapping[str, list[str]]:
    """Return the names of the selected checks, by asset."""
    checks: dict[str, list[str]] = {}
    for key in sorted(context.selected_asset_check_keys):
        checks.setdefault(key.asset_key.to_user_string(), []).append(key.name)
    return checks


class _GroupRun:
    """What the checks of a run need to know, and what they found."""

    def __init__(
        self,
        context: AssetExecutionContext,
        names: Sequence[str],
        checks: Mapping[str, list[str]],
        options: LoadOptions,
        warehouse: WarehouseSettings,
    ) -> None:
        self.warehouse = warehouse
        self.findings = Findings()
        self._context = context
        self._names = names
        self._checks = checks
        self._options = options

    def look(self, pipeline: "Pipeline", outcomes: "Sequence[Outcome]") -> None:
        """Check what has been loaded, and the assets of which only checks are selected."""
        from analytics_assets.warehouse.checks.run import look

        loaded = [outcome.endpoint.name for outcome in outcomes if outcome.loaded]
        due = {
            name: checks
            for name, checks in self._checks.items()
            if name in loaded or name not in self._names
        }
        log = self._context.log
        try:
            self.findings = look(pipeline, self.warehouse, loaded, due, self._past, log)
        except Exception as error:  # noqa: BLE001 - the rows are loaded: their assets must not fail
            log.warning(f"The checks could not be run: {type(error).__name__}: {error}")

    def check_alone(self, group: Group) -> list[AssetCheckResult]:
        """Run the selected checks on the tables as they are."""
        from analytics_assets.warehouse.checks.run import evaluate_alone

        log = self._context.log
        try:
            found = evaluate_alone(group, self._checks, self._past, self.warehouse, log)
        except AnalyticsError as error:
            raise _failure(str(error), passing=not isinstance(error, _FINAL_ERRORS)) from None
        return check_results(found)

    def _past(self, name: str) -> Past:
        return past(self._context.instance, name, fewer_expected=self._options.expect_fewer_rows)


def past(instance: DagsterInstance, name: str, *, fewer_expected: bool = False) -> Past:
    """Return what the latest materialization of an asset recorded."""
    event = instance.get_latest_materialization_event(AssetKey(name))
    if event is None or event.asset_materialization is None:
        return Past(fewer_expected=fewer_expected)
    values: dict[str, Any] = {
        key: value.value for key, value in event.asset_materialization.metadata.items()
    }
    rows, empty = values.get("dagster/row_count"), values.get("empty_columns")
    return Past(
        live_rows=None if rows is None else rows - values.get("deleted_rows", 0),
        empty_columns=None if empty is None else frozenset(empty),
        fewer_expected=fewer_expected,
    )


def _raise_if_token_was_rejected(run_id: str) -> None:
    if run_id in _rejected_runs:
        raise _failure(_rejected_runs[run_id], passing=False)


def failure_text(outcome: "Outcome") -> str:
    """Name the asset, the request and what happened, in one line."""
    endpoint = outcome.endpoint
    return f"{endpoint.name} (GET {endpoint.path}): {outcome.failure}"


def unavailable_text(outcome: "Outcome") -> str:
    """Say that the workspace or token lacks a product feature."""
    endpoint = outcome.endpoint
    status = getattr(outcome.failure, "status", None)
    return (
        f"{endpoint.name} is not available to this workspace or token: GET {endpoint.path} answered"
        f" HTTP {status}. It needs {endpoint.feature}. The table stays as it was."
    )


def _raise_failures(outcomes: "Sequence[Outcome]") -> None:
    failed = [o for o in outcomes if o.failure is not None and o.available]
    if not failed:
        return
    text = "\n".join(failure_text(outcome) for outcome in failed)
    loaded = sum(outcome.loaded for outcome in outcomes)
    passing = any(getattr(outcome.failure, "passing", False) for outcome in failed)
    raise _failure(
        f"{len(failed)} of {len(outcomes)} assets failed, {loaded} loaded.\n{text}", passing=passing
    )


class _ShownAsText(DagsterUserCodeProcessError):
    """An error that Dagster shows as its text alone.

    Dagster hoists the error info of a ``DagsterUserCodeProcessError`` in place of a traceback.
    """

    def __init__(self, text: str) -> None:
        info = SerializableErrorInfo(f"{text}\n", [], None)
        super().__init__(text, user_code_process_error_infos=[info])  # type: ignore[no-untyped-call]


class PlainFailure(Failure, _ShownAsText):
    """A failure without a traceback: there is nothing in it to debug."""

    def __init__(self, text: str, *, passing: bool) -> None:
        super().__init__(description=text, allow_retries=passing)


def _failure(text: str, *, passing: bool) -> Failure:
    return PlainFailure(text, passing=passing)
