"""Whether what was read may be loaded: compared with what the destination holds."""

from __future__ import annotations

from collections.abc import Sequence

from analytics_assets.segment.errors import AnalyticsError, ResourceError, TooFewRows
from analytics_assets.segment.extraction import UNAVAILABLE
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.settings import LoadOptions
from analytics_assets.warehouse.outcome import Baseline, Outcome
from analytics_assets.warehouse.plan import GroupPlan
from analytics_assets.warehouse.settings import WarehouseSettings


def judge_group(
    plan: GroupPlan, warehouse: WarehouseSettings, options: LoadOptions
) -> Sequence[Outcome]:
    """Decide for each resource to load whether it may be.

    What hangs on a list that may not be loaded may not be either.
    """
    judged = {r.endpoint.name: _judge(plan, r, warehouse, options) for r in plan.readings}
    for outcome in judged.values():  # parents come first
        parent = outcome.endpoint.parent and judged.get(outcome.endpoint.parent.resource)
        if parent and parent.failure and not outcome.read.failure:
            outcome.failure = ResourceError(
                f"its parent list {parent.endpoint.name} is not loaded ({parent.failure})"
            )
    return [judged[r.endpoint.name] for r in plan.readings if r.staging]


def _judge(
    plan: GroupPlan, reading: Reading, warehouse: WarehouseSettings, options: LoadOptions
) -> Outcome:
    outcome = Outcome(reading.endpoint, reading, available=reading.extraction.available)
    if not outcome.available:
        outcome.remarks.append(_unavailable_text(reading))
        return outcome
    outcome.failure = _failure(reading)
    before = plan.before.get(reading.endpoint.name)
    if before and not outcome.failure:
        _guard(outcome, before, warehouse, options)
    return outcome


def _guard(
    outcome: Outcome, before: Baseline, warehouse: WarehouseSettings, options: LoadOptions
) -> None:
    """Refuse a list that has lost too much, or whose loss plain files could not take back."""
    reading = outcome.read
    loss = "" if options.expect_fewer_rows else _loss(before, reading)
    if not warehouse.merges and _would_lose_unproved(reading):
        outcome.failure = ResourceError(
            f"{reading.extraction.doubts[0]}, and plain files cannot keep the rows that did not"
            " come; nothing was loaded"
        )
    elif loss and before.rows >= warehouse.guarded_rows:
        outcome.failure = TooFewRows(
            f"{loss}, so nothing was loaded or marked as deleted; if that is right, run it with"
            " expect_fewer_rows: true"
        )
    elif loss:
        outcome.remarks.append(f"{loss}; so short a list is loaded all the same")


def _loss(before: Baseline, reading: Reading) -> str:
    """Say that a list has lost more than half of its rows, nothing if it has not."""
    # a row for each key; of a parent that is not loaded the keys are not known
    now = reading.staging.rows if reading.staging else reading.extraction.rows
    if now * 2 < before.rows:
        when = "before" if before.rows == len(before.live) else "in the last 30 days"
        return f"the list has {now} rows where {before.rows} were {when}"
    missing = len(reading.staging.missing) if reading.staging else 0
    if missing * 2 > len(before.live):
        return f"of the {len(before.live)} rows that were there before {missing} are gone"
    return ""


def _would_lose_unproved(reading: Reading) -> bool:
    return bool(reading.extraction.doubts and reading.staging and reading.staging.missing)


def _unavailable_text(reading: Reading) -> str:
    """Say that the workspace or token lacks a product feature."""
    endpoint = reading.endpoint
    status = getattr(reading.failure, "status", None)
    return (
        f"{endpoint.name} is not available to this workspace or token: GET {endpoint.path} answered"
        f" HTTP {status}. It needs {endpoint.feature}. The table is empty."
    )


def _failure(reading: Reading) -> AnalyticsError | None:
    """Return why a reading failed; where a feature may have gone, with the way out."""
    failure, endpoint = reading.failure, reading.endpoint
    if not isinstance(failure, ResourceError) or failure.status not in UNAVAILABLE:
        return failure
    if not (endpoint.feature and failure.from_api and reading.loaded_before):
        return failure
    if reading.extraction.pages:  # a part of it is still there
        return failure
    return ResourceError(
        f"{failure}; it has been loaded before, so if the workspace no longer has"
        f" {endpoint.feature}, leave the asset out with ANALYTICS_EXCLUDE={endpoint.name}",
        status=failure.status,
        from_api=True,
    )
