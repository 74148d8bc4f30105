"""Dagster's form of what the checks find: specs beforehand, results and metadata after a run."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timezone
from typing import Any, Final

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    MetadataValue,
    TableRecord,
)

from analytics_assets.orchestration.charts import usage_chart
from analytics_assets.orchestration.deployment import AssetIndex
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.settings import Log
from analytics_assets.segment.spans import span
from analytics_assets.warehouse.checks.catalogue import checks_of
from analytics_assets.warehouse.checks.examination import Verdict
from analytics_assets.warehouse.checks.findings import DailyFigures, Figures, Finding

SHOWN: Final = 10
"""Offenders listed in the metadata of a check."""


def check_specs(endpoint: Endpoint, key: AssetKey) -> list[AssetCheckSpec]:
    """Return the checks of an asset."""
    return [
        AssetCheckSpec(check.name, asset=key, description=check.description(endpoint))
        for check in checks_of(endpoint)
    ]


def check_results(findings: Iterable[Finding], index: AssetIndex) -> list[AssetCheckResult]:
    """Return findings as Dagster records them."""
    return [
        AssetCheckResult(
            asset_key=index.keys[finding.asset],
            check_name=finding.check.name,
            passed=finding.verdict.passed,
            severity=AssetCheckSeverity(finding.severity),
            description=finding.verdict.text,
            metadata=_metadata(finding.verdict),
        )
        for finding in findings
    ]


def _metadata(verdict: Verdict) -> dict[str, Any]:
    if verdict.passed or not verdict.offenders:
        return dict(verdict.figures)
    records = [TableRecord(dict(record)) for record in verdict.offenders[:SHOWN]]
    return {
        **verdict.figures,
        "offenders": len(verdict.offenders),
        "first_offenders": MetadataValue.table(records),
    }


def figures_metadata(asset: str, figures: Figures | None, log: Log) -> dict[str, Any]:
    """Return figures for the page of an asset, and for its next run to compare with.

    Args:
        asset: name of the asset.
        figures: what its table shows, ``None`` if that could not be found out.
        log: told if the chart could not be drawn: it adorns, and must not fail the asset.
    """
    if figures is None:
        return {}
    empty = figures.empty_columns
    metadata: dict[str, Any] = {} if empty is None else {"empty_columns": list(empty)}
    return metadata | (_chart(asset, figures.daily, log) if figures.daily else {})


def _chart(asset: str, daily: DailyFigures, log: Log) -> dict[str, Any]:
    today = datetime.now(timezone.utc).date()
    try:
        with span("chart"):
            chart = usage_chart(asset, daily.columns, daily.days, today)
    except Exception as error:  # noqa: BLE001 - the rows are loaded: their asset must not fail
        what = f"{type(error).__name__}: {foreign_text(str(error))}"
        log.warning(f"{asset}: no chart for its page: {what}")
        return {}
    return {"chart": chart} if chart else {}
