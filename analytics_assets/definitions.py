"""The code location's table of contents."""

from __future__ import annotations

from dagster import Definitions, in_process_executor

from analytics_assets.orchestration.assets import build_assets
from analytics_assets.orchestration.freshness import with_freshness
from analytics_assets.orchestration.jobs import build_jobs
from analytics_assets.orchestration.resources import AnalyticsApi, Warehouse
from analytics_assets.orchestration.schedules import build_schedules
from analytics_assets.orchestration.sensors import build_sensors
from analytics_assets.segment.spans import span

with span("definitions"):
    _warehouse = Warehouse()
    _jobs = build_jobs()

    defs = Definitions(
        assets=with_freshness([build_assets(_warehouse)]),
        jobs=list(_jobs.values()),
        schedules=build_schedules(_jobs),
        sensors=build_sensors(),
        resources={"api": AnalyticsApi(), "warehouse": _warehouse},
        # DuckDB has one writer process, and what is loaded is read in parallel anyway.
        executor=in_process_executor,
    )
