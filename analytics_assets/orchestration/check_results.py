"""Dagster's form of what the checks find: specs beforehand, results and metadata after a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    MetadataValue,
    TableRecord,
)

from analytics_assets.orchestration.deployment import AssetIndex
from analytics_assets.segment.model import Endpoint
from analytics_assets.warehouse.checks.catalogue import checks_of
from analytics_assets.warehouse.checks.examination import Verdict
from analytics_assets.warehouse.checks.findings import Figures, Finding

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


def figures_metadata(figures: Figures | None) -> dict[str, Any]:
    """Return figures for the next run of an asset to compare with, none if they are not known."""
    empty = figures.empty_columns if figures else None
    return {} if empty is None else {"empty_columns": list(empty)}
