"""The assets: one op per group that loads any subset of the group's resources.

No postponed annotations here: Dagster reads the config class from the signature of an op.

What an asset shows is derived from its row in ``endpoints.py``; what a run does is in ``load.py``.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Final

from dagster import (
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    Config,
    Failure,
    MaterializeResult,
    multi_asset,
)
from dagster._core.errors import DagsterUserCodeProcessError
from dagster._utils.error import SerializableErrorInfo
from dagster_dlt import DagsterDltTranslator
from dagster_dlt.translator import DltResourceTranslatorData
from pydantic import Field

from analytics_assets.api import definition_source
from analytics_assets.endpoints import BY_NAME, GROUPS, Group
from analytics_assets.errors import AnalyticsError, SettingError, TokenRejected
from analytics_assets.load import LoadOptions, Outcome, load_group
from analytics_assets.metadata import definition_metadata, kinds, run_metadata, tags
from analytics_assets.resources import AnalyticsApi, Warehouse


_FINAL_ERRORS: Final = (SettingError, TokenRejected)
_rejected_runs: dict[str, str] = {}
"""Runs whose token the API has refused: the other groups of the run need not ask again."""


class FullListConfig(Config):  # type: ignore[misc]
    """Run config of the groups that read whole lists."""

    expect_fewer_rows: bool = Field(
        default=False,
        description="Accept a list that is empty or less than half of what it was, and mark the"
        " missing rows as deleted.",
    )

    def options(self) -> LoadOptions:
        """Return the options of the load."""
        return LoadOptions(expect_fewer_rows=self.expect_fewer_rows)


class UsageConfig(Config):  # type: ignore[misc]
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
            kinds=kinds(self._warehouse),
        )


def asset_specs(group: Group, warehouse: Warehouse) -> list[AssetSpec]:
    """Return the specs of a group, from a ``rest_api`` source that holds no token."""
    translator = Translator(warehouse)
    return [
        translator.get_asset_spec(DltResourceTranslatorData(resource=resource, pipeline=None))
        for resource in definition_source(group).selected_resources.values()
    ]


def build_assets(warehouse: Warehouse) -> list[AssetsDefinition]:
    """Return the assets of all groups, one op each."""
    return [_group_assets(group, warehouse) for group in GROUPS]


def _group_assets(group: Group, warehouse: Warehouse) -> AssetsDefinition:
    decorate = multi_asset(
        name=group, specs=asset_specs(group, warehouse), can_subset=True, pool=pool_name(group)
    )
    if group == "usage":

        def load_usage(
            context: AssetExecutionContext,
            config: UsageConfig,
            api: AnalyticsApi,
            warehouse: Warehouse,
        ) -> Iterator[MaterializeResult]:
            yield from _materialize(context, group, config.options(), api, warehouse)

        return decorate(load_usage)

    def load_lists(
        context: AssetExecutionContext,
        config: FullListConfig,
        api: AnalyticsApi,
        warehouse: Warehouse,
    ) -> Iterator[MaterializeResult]:
        yield from _materialize(context, group, config.options(), api, warehouse)

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
) -> Iterator[MaterializeResult]:
    """Load the selected assets of a group; report each, then fail if any of them failed."""
    selected = {key.to_user_string() for key in context.selected_asset_keys}
    names = [name for name in BY_NAME if name in selected]
    _raise_if_token_was_rejected(context.run_id)
    try:
        outcomes = load_group(
            group, names, api.settings(), warehouse.settings(), options, context.log
        )
    except AnalyticsError as error:
        if isinstance(error, TokenRejected):
            _rejected_runs[context.run_id] = str(error)
        raise _failure(str(error), passing=not isinstance(error, _FINAL_ERRORS)) from None
    for outcome in outcomes:
        if outcome.loaded:
            yield MaterializeResult(
                asset_key=outcome.endpoint.name, metadata=run_metadata(outcome, warehouse)
            )
        elif not outcome.available:
            context.log.warning(unavailable_text(outcome))
        for warning in outcome.reading.warnings:
            context.log.warning(f"{outcome.endpoint.name}: {warning}")
    _raise_failures(outcomes)


def _raise_if_token_was_rejected(run_id: str) -> None:
    if run_id in _rejected_runs:
        raise _failure(_rejected_runs[run_id], passing=False)


def failure_text(outcome: Outcome) -> str:
    """Name the asset, the request and what happened, in one line."""
    endpoint = outcome.endpoint
    return f"{endpoint.name} (GET {endpoint.path}): {outcome.failure}"


def unavailable_text(outcome: Outcome) -> str:
    """Say that the workspace or token lacks a product feature."""
    endpoint = outcome.endpoint
    status = getattr(outcome.failure, "status", None)
    return (
        f"{endpoint.name} is not available to this workspace or token: GET {endpoint.path} answered"
        f" HTTP {status}. It needs {endpoint.feature}. The table stays as it was."
    )


def _raise_failures(outcomes: Sequence[Outcome]) -> None:
    failed = [o for o in outcomes if o.failure is not None and o.available]
    if not failed:
        return
    text = "\n".join(failure_text(outcome) for outcome in failed)
    loaded = sum(outcome.loaded for outcome in outcomes)
    passing = any(getattr(outcome.failure, "passing", False) for outcome in failed)
    raise _failure(
        f"{len(failed)} of {len(outcomes)} assets failed, {loaded} loaded.\n{text}", passing=passing
    )


class PlainFailure(Failure, DagsterUserCodeProcessError):
    """A failure that Dagster shows as its text alone: there is nothing in it to debug.

    Dagster hoists the error info of a ``DagsterUserCodeProcessError`` in place of a traceback.
    """

    def __init__(self, text: str, *, passing: bool) -> None:
        Failure.__init__(self, description=text, allow_retries=passing)
        self.user_code_process_error_infos = [SerializableErrorInfo(text, [], None)]


def _failure(text: str, *, passing: bool) -> Failure:
    return PlainFailure(text, passing=passing)
