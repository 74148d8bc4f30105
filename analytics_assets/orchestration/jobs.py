"""The jobs: one per group."""

from __future__ import annotations

from typing import Any

from dagster import AssetSelection, define_asset_job

from analytics_assets.orchestration.retries import RETRY_TAGS
from analytics_assets.segment.endpoints import GROUPS, in_group
from analytics_assets.segment.model import Group


def build_jobs() -> dict[Group, Any]:
    """Return a job for each group, which loads all of it and runs its checks.

    They are what ``define_asset_job`` returns, a type for which Dagster has no public name.
    """
    return {group: _job(group) for group in GROUPS}


def _job(group: Group) -> Any:
    names = ", ".join(endpoint.name for endpoint in in_group(group))
    return define_asset_job(
        f"{group}_job",
        selection=AssetSelection.groups(group),
        description=f"Loads the group {group}: {names}.",
        tags=RETRY_TAGS,
    )
