"""The jobs: one per group, and one for what costs a request for each record of another list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dagster import AssetSelection, define_asset_job, in_process_executor

from analytics_assets.orchestration.deployment import DETAILS, AssetIndex, Deployment
from analytics_assets.orchestration.retries import RETRY_TAGS
from analytics_assets.orchestration.run_tags import run_tags
from analytics_assets.segment.model import Table


def build_jobs(deployment: Deployment, index: AssetIndex) -> Mapping[str, Any]:
    """Return a job for each group, without its details, and one for the details of all groups.

    Each loads what it selects and runs its checks. They are what ``define_asset_job`` returns, a
    type for which Dagster has no public name.
    """
    return {
        name: _job(name, endpoints, deployment, index)
        for name, endpoints in deployment.jobs.items()
    }


def _job(name: str, endpoints: Sequence[Table], deployment: Deployment, index: AssetIndex) -> Any:
    whose = "what costs a request for each record of another list"
    what = whose if name == DETAILS else f"the group {name}"
    return define_asset_job(
        deployment.named(f"{name}_job"),
        selection=AssetSelection.assets(*index.of(endpoints)),
        description=f"Loads {what}: {', '.join(e.name for e in endpoints)}.",
        tags={**RETRY_TAGS, **run_tags(deployment, endpoints)},
        # one op, in which all is read in parallel: a process more would only cost memory
        executor_def=in_process_executor,
    )
