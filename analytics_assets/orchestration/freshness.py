"""Freshness: how old an asset may become, which follows from the schedule that loads it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Final, cast

from dagster import (
    AssetsDefinition,
    AssetSpec,
    FreshnessPolicy,
    TimeWindowPartitionsDefinition,
    apply_freshness_policy,
    map_asset_specs,
)

from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.schedules import cron_of

GRACE: Final = timedelta(hours=1)
"""A run may wait in the queue, for the database, and for its retries."""
START: Final = datetime(2024, 1, 1, tzinfo=timezone.utc)
A_WEEK: Final = timedelta(days=7)
LOOKS: Final = (9, 30, 440, 22_000)
"""Days to look at, as many as a schedule needs: the 29th of February needs the last."""
FEW_TICKS: Final = 12


def with_freshness(
    assets: AssetsDefinition, deployment: Deployment, index: AssetIndex
) -> Sequence[AssetsDefinition]:
    """Give every asset the freshness policy that goes with the schedule that loads it."""
    policies = {
        endpoint.name: policy
        for name, endpoints in deployment.jobs.items()
        for policy in [freshness_policy(cron_of(name, deployment))]
        for endpoint in endpoints
    }

    def with_policy(spec: AssetSpec) -> AssetSpec:
        return cast(AssetSpec, apply_freshness_policy(spec, policies[index.name(spec.key)]))

    return map_asset_specs(with_policy, [assets])


def freshness_policy(cron: str) -> FreshnessPolicy:
    """Return the policy that goes with a schedule: warn if a run is missing, fail if two are."""
    gap = longest_gap(cron)
    return FreshnessPolicy.time_window(fail_window=2 * gap + GRACE, warn_window=gap + GRACE)


def longest_gap(cron: str) -> timedelta:
    """Return the longest time between two ticks, as over a weekend of a schedule for weekdays."""
    found: list[datetime] = []
    for days in LOOKS:
        found = ticks(cron, days)
        # a week shows every gap of a schedule by hour and weekday; a rarer one ticks more often
        if len(found) > FEW_TICKS and found[-1] - START > A_WEEK:
            break
    return max(after - before for before, after in pairwise(found))


def ticks(cron: str, days: int) -> list[datetime]:
    """Return the ticks of a cron string, in UTC, over ``days`` days from ``START``."""
    windows = TimeWindowPartitionsDefinition(
        START, "%Y-%m-%dT%H:%M", cron_schedule=cron, timezone="UTC"
    )
    keys = windows.get_partition_keys(current_time=START + timedelta(days=days))
    return [datetime.fromisoformat(key).replace(tzinfo=timezone.utc) for key in keys]
