"""The jobs: one per group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster import AssetSelection, define_asset_job, in_process_executor

from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.retries import RETRY_TAGS
from analytics_assets.segment.model import Group


def build_jobs(deployment: Deployment, index: AssetIndex) -> Mapping[Group, Any]:
    """Return a job for each group, which loads all of it and runs its checks.

    They are what ``define_asset_job`` returns, a type for which Dagster has no public name.
    """
    return {group: _job(group, deployment, index) for group in deployment.groups}


def _job(group: Group, deployment: Deployment, index: AssetIndex) -> Any:
    endpoints = deployment.in_group(group)
    return define_asset_job(
        deployment.named(f"{group}_job"),
        selection=AssetSelection.assets(*index.of(endpoints)),
        description=f"Loads the group {group}: {', '.join(e.name for e in endpoints)}.",
        tags=RETRY_TAGS,
        # one op, in which all is read in parallel: a process more would only cost memory
        executor_def=in_process_executor,
    )
