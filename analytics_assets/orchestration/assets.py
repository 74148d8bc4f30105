"""The assets: one op that loads any subset of the workspace's resources.

No postponed annotations here: Dagster reads the config class from the signature of an op. What only
a run needs is imported by the run, so that definitions load fast.

What an asset shows is derived from its row in ``endpoints.py``; what a run does is in ``load.py``.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
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
from analytics_assets.orchestration.checks import Findings, Past, check_specs, evaluate_alone, look
from analytics_assets.orchestration.metadata import (
    definition_metadata,
    kinds,
    owners,
    run_metadata,
    tags,
)
from analytics_assets.orchestration.resources import AnalyticsApi, Warehouse
from analytics_assets.orchestration.retries import with_run_retries
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS, GROUPS
from analytics_assets.segment.errors import AnalyticsError, SettingError, TokenRejected
from analytics_assets.segment.settings import LoadOptions
from analytics_assets.segment.spans import span
from analytics_assets.warehouse.settings import WarehouseSettings

if TYPE_CHECKING:
    from dlt.pipeline.pipeline import Pipeline

    from analytics_assets.warehouse.outcome import Outcome

_FINAL_ERRORS: Final = (SettingError, TokenRejected)
OP_NAME: Final = "segment"
POOL: Final = "analytics_assets"
"""The Dagster pool that keeps runs apart on destinations without locks of their own."""


class LoadConfig(Config):
    """Run config: what to load again, and what to accept."""

    start_month: str | None = Field(
        default=None,
        description="First month of usage to load again, YYYY-MM; default: end_month.",
    )
    end_month: str | None = Field(
        default=None,
        description="Last month of usage to load again, YYYY-MM; default: the current one.",
    )
    audit_start: str | None = Field(
        default=None, description="Day from which audit events are loaded again, YYYY-MM-DD."
    )
    expect_fewer_rows: bool = Field(
        default=False,
        description="Accept a list that is empty or less than half of what it was, and mark the"
        " missing rows as deleted.",
    )

    def options(self) -> LoadOptions:
        """Return the options of the load."""
        return LoadOptions(
            usage_start=os.environ.get("ANALYTICS_USAGE_START"),
            start_month=self.start_month,
            end_month=self.end_month,
            audit_start=self.audit_start,
            expect_fewer_rows=self.expect_fewer_rows,
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
            deps=[AssetKey(endpoint.parent.resource)] if endpoint.parent else [],
            description=endpoint.description,
            metadata=definition_metadata(endpoint, self._warehouse),
            tags=tags(endpoint),
            owners=owners(),
            kinds=kinds(self._warehouse),
        )


def asset_specs(warehouse: Warehouse) -> list[AssetSpec]:
    """Return the specs of all assets, from dlt resources that stand for those of the run.

    The ``rest_api`` resources themselves are built by the run, which has the token; to build them
    here as well would cost each start of Dagster half a second.
    """
    translator = Translator(warehouse)
    resources = [dlt_resource([], name=endpoint.name) for endpoint in ENDPOINTS]
    return [
        translator.get_asset_spec(DltResourceTranslatorData(resource=resource, pipeline=None))
        for resource in resources
    ]


def build_assets(warehouse: Warehouse) -> AssetsDefinition:
    """Return the assets of the workspace, which one op loads."""

    @multi_asset(
        name=OP_NAME,
        specs=asset_specs(warehouse),
        check_specs=[spec for endpoint in ENDPOINTS for spec in check_specs(endpoint)],
        can_subset=True,
        pool=POOL,
    )
    def load_workspace(
        context: AssetExecutionContext,
        config: LoadConfig,
        api: AnalyticsApi,
        warehouse: Warehouse,
    ) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
        results = _materialize(context, config.options(), api, warehouse)
        yield from with_run_retries(context, results)

    return load_workspace


def _materialize(
    context: AssetExecutionContext,
    options: LoadOptions,
    api: AnalyticsApi,
    warehouse: Warehouse,
) -> Iterator[MaterializeResult[Any] | AssetCheckResult]:
    """Load and check what is selected; report each asset, then fail if any failed."""
    with span("import"):
        from analytics_assets.warehouse.load import load_groups
        from analytics_assets.warehouse.outcome import LoadRequest

    selected = {key.to_user_string() for key in context.selected_asset_keys}
    names = tuple(name for name in BY_NAME if name in selected)
    outcomes: list[Outcome] = []
    try:
        run = _Run(context, names, options, warehouse.settings())
        if any(BY_NAME[name].monthly for name in names):
            charts.import_ahead()  # while the API is waited for
        request = LoadRequest(names, api.settings(), run.warehouse, options) if names else None
        for group in load_groups(request, run.look, context.log) if request else ():
            outcomes += group
            yield from run.results(group, warehouse)
        yield from run.check_alone()
    except AnalyticsError as error:
        raise _failure(str(error), passing=not isinstance(error, _FINAL_ERRORS)) from None
    _raise_failures(outcomes)


def _selected_checks(context: AssetExecutionContext) -> Mapping[str, list[str]]:
    """Return the names of the selected checks, by asset."""
    checks: dict[str, list[str]] = {}
    for key in sorted(context.selected_asset_check_keys):
        checks.setdefault(key.asset_key.to_user_string(), []).append(key.name)
    return checks


class _Run:
    """What the checks of a run need to know, and what they found.

    Args:
        context: of the op.
        names: selected assets.
        options: what may differ from run to run.
        warehouse: where the tables are.
    """

    def __init__(
        self,
        context: AssetExecutionContext,
        names: Sequence[str],
        options: LoadOptions,
        warehouse: WarehouseSettings,
    ) -> None:
        self.warehouse = warehouse
        self._context = context
        self._names = names
        self._checks = _selected_checks(context)
        self._options = options
        self._findings = Findings()

    def look(self, pipeline: "Pipeline", outcomes: "Sequence[Outcome]") -> None:
        """Check what has been loaded of a group."""
        loaded = [outcome.endpoint.name for outcome in outcomes if outcome.loaded]
        due = {name: checks for name, checks in self._checks.items() if name in loaded}
        log = self._context.log
        self._findings = Findings()
        try:
            self._findings = look(pipeline, self.warehouse, loaded, due, self._past, log)
        except Exception as error:  # noqa: BLE001 - the rows are loaded: their assets must not fail
            log.warning(f"The checks could not be run: {type(error).__name__}: {error}")

    def results(
        self, outcomes: "Sequence[Outcome]", warehouse: Warehouse
    ) -> Iterator[MaterializeResult[Any]]:
        """Report what has been loaded of a group, and warn of what has not."""
        log = self._context.log
        for outcome in outcomes:
            name = outcome.endpoint.name
            if outcome.loaded:
                yield MaterializeResult(
                    asset_key=name,
                    metadata={
                        **self._findings.metadata.get(name, {}),
                        **run_metadata(outcome, warehouse),
                    },
                    check_results=self._findings.results.get(name, []),
                )
            elif not outcome.available:
                log.warning(unavailable_text(outcome))
            for warning in outcome.warnings:
                log.warning(f"{name}: {warning}")

    def check_alone(self) -> Iterator[AssetCheckResult]:
        """Run the checks that are selected without their assets, on the tables as they are."""
        alone = {name: names for name, names in self._checks.items() if name not in self._names}
        for group in GROUPS:
            checks = {name: n for name, n in alone.items() if BY_NAME[name].group == group}
            if checks:
                yield from evaluate_alone(
                    group, checks, self._past, self.warehouse, self._context.log
                )

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
