"""The assets: one op that loads any subset of the workspace's resources.

No postponed annotations here: Dagster reads the config class from the signature of an op.

What an asset shows is derived from its row in ``endpoints.py``.
"""

import os
from collections.abc import Iterator
from typing import Any, Final

from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetKey,
    AssetsDefinition,
    AssetSpec,
    Config,
    MaterializeResult,
    multi_asset,
)
from dagster_dlt import DagsterDltTranslator
from dagster_dlt.translator import DltResourceTranslatorData
from dlt import resource as dlt_resource
from pydantic import Field

from analytics_assets.orchestration.check_results import check_specs
from analytics_assets.orchestration.materialize import materialize
from analytics_assets.orchestration.metadata import definition_metadata, kinds, owners, tags
from analytics_assets.orchestration.resources import AnalyticsApi, Warehouse
from analytics_assets.orchestration.retries import with_run_retries
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.settings import LoadOptions

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
        results = materialize(context, config.options(), api, warehouse)
        yield from with_run_retries(context, results)

    return load_workspace
