"""The checks of assets that were not loaded: they say why, where people look for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from dagster import AssetCheckResult, AssetCheckSeverity, AssetExecutionContext

from analytics_assets.orchestration.check_results import check_results
from analytics_assets.orchestration.deployment import AssetIndex
from analytics_assets.orchestration.retries import is_retried
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.errors import AnalyticsError, TooFewRows
from analytics_assets.warehouse.checks.catalogue import checks_of
from analytics_assets.warehouse.checks.examination import Check, Verdict
from analytics_assets.warehouse.checks.findings import Finding
from analytics_assets.warehouse.checks.keys_and_counts import NOT_HALVED


def checks_not_run(
    context: AssetExecutionContext,
    index: AssetIndex,
    checks: Mapping[str, Sequence[str]],
    reasons: Mapping[str, AnalyticsError],
    *,
    transient: bool,
) -> Iterator[AssetCheckResult]:
    """Yield a result for each check of an asset, list or report, that was not loaded.

    Args:
        context: of the op.
        index: the assets of the workspace.
        checks: names of the selected checks, by asset.
        reasons: why an asset was not loaded, by name.
        transient: whether the run may well succeed later. If Dagster starts it again, nothing is
            said here: the retry would leave out the checks that have a result.
    """
    if transient and is_retried(context):
        return
    for name, reason in reasons.items():
        wanted = checks.get(name, ())
        if name not in BY_NAME:
            yield from (_of_report(index, name, check, reason) for check in wanted)
            continue
        found = [check for check in checks_of(BY_NAME[name]) if check.name in wanted]
        findings = [Finding(name, check, _verdict(check, reason)) for check in found]
        yield from check_results(findings, index)


def _of_report(
    index: AssetIndex, name: str, check: str, reason: AnalyticsError
) -> AssetCheckResult:
    return AssetCheckResult(
        asset_key=index.keys[name],
        check_name=check,
        passed=False,
        severity=AssetCheckSeverity.WARN,
        description=_not_run(reason),
    )


def _verdict(check: Check, reason: AnalyticsError) -> Verdict:
    text = str(reason)
    if check is NOT_HALVED and isinstance(reason, TooFewRows):
        return Verdict(False, f"{text[:1].upper()}{text[1:]}.")
    return Verdict(False, _not_run(reason), severity="WARN")


def _not_run(reason: AnalyticsError) -> str:
    return f"Not run: {str(reason).rstrip('.')}."
