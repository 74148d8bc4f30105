"""The code location's table of contents."""

from __future__ import annotations

from dagster import Definitions, in_process_executor

from analytics_assets.assets import build_assets
from analytics_assets.resources import AnalyticsApi, Warehouse

_warehouse = Warehouse()

defs = Definitions(
    assets=build_assets(_warehouse),
    resources={"api": AnalyticsApi(), "warehouse": _warehouse},
    # DuckDB has one writer process, and a group's resources are read in parallel anyway.
    executor=in_process_executor,
)
