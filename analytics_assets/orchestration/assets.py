"""The assets: one op that loads any subset of the workspace's resources, and its reports.

No postponed annotations here: Dagster reads the config class from the signature of an op.

What an asset shows is derived from its row in ``endpoints.py``.
"""

import os
from collections.abc import Iterator
from typing import Any, Final

from dagster import (
    AssetCheckEvaluation,
    AssetExecutionContext,
    AssetsDefinition,
    Config,
    MaterializeResult,
    multi_asset,
)
from dagster_dlt import DagsterDltTranslator
from pydantic import Field

from analytics_assets.orchestration.check_results import check_specs
from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.latest import latest_materializations
from analytics_assets.orchestration.materialize import materialize
from analytics_assets.orchestration.recording import recorded
from analytics_assets.orchestration.reports import report_check_specs
from analytics_assets.orchestration.retries import with_run_retries
from analytics_assets.orchestration.terminal import shown
from analytics_assets.orchestration.translator import asset_specs
from analytics_assets.segment.settings import LoadOptions

OP_NAME: Final = "segment"
POOL: Final = "analytics_assets"
"""The Dagster pool that keeps runs apart on destinations without locks of their own."""


class LoadConfig(Config):
    """Run config: what to load again, and what to accept."""

    start_month: str | None = Field(
        default=None,
        description="First month of usage and volume to load again, YYYY-MM; default: end_month.",
    )
    end_month: str | None = Field(
        default=None,
        description="Last month of usage and volume to load again, YYYY-MM; default: the current"
        " one.",
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


def build_assets(
    deployment: Deployment, translator: DagsterDltTranslator
) -> tuple[AssetsDefinition, AssetIndex]:
    """Return the assets of a workspace, which one op loads, and which row each was built from.

    Raises:
        SettingError: the translator gives two assets the same key.
    """
    specs, index = asset_specs(deployment, translator)

    @multi_asset(
        name=deployment.named(OP_NAME),
        specs=specs,
        check_specs=[
            *(s for e in deployment.endpoints for s in check_specs(e, index.keys[e.name])),
            *report_check_specs(deployment, index),
        ],
        can_subset=True,
        pool=deployment.named(POOL),
        required_resource_keys={deployment.named("api"), deployment.named("warehouse")},
    )
    def load_workspace(
        context: AssetExecutionContext, config: LoadConfig
    ) -> Iterator[MaterializeResult[Any] | AssetCheckEvaluation]:
        latest = latest_materializations(context)
        results = materialize(context, config.options(), deployment, index, latest)
        seen = shown(results, context, deployment, index, latest)
        yield from with_run_retries(context, recorded(context, seen))

    return load_workspace, index
