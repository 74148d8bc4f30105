"""The code location's table of contents: one workspace, as the environment sets it."""

from __future__ import annotations

from dagster import Definitions, in_process_executor

from analytics_assets.orchestration.factory import build_segment_definitions
from analytics_assets.segment.spans import span

with span("definitions"):
    defs = Definitions.merge(
        build_segment_definitions(),
        # DuckDB has one writer process, and what is loaded is read in parallel anyway.
        Definitions(executor=in_process_executor),
    )
