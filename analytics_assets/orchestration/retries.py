"""Retries of whole runs: which runs get them, how long they wait, and which failures end them.

Dagster's daemon starts a failed run again (``run_retries: enabled: true`` in ``dagster.yaml``) as
its tags say, whatever the failure was: a step's ``Failure(allow_retries=False)`` is heeded by op
retry policies only, and there is no pause. Both are added here, around the work of a step:

- A failure that cannot pass takes the retries away from its own run, by the tag that Dagster looks
  at when the run has ended. The status of the run is decided after its steps, so that is in time.
- A retry waits before it begins, twice as long each time.

Op retry policies would not do: they run a step again as a whole, where a retry of the run takes up
the assets that are missing, and they end with the process, so they are no help when that is lost.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Final, TypeVar

from dagster import AssetExecutionContext

from analytics_assets.orchestration.failures import allows_retries

Result = TypeVar("Result")

BACKOFF_TAG: Final = "analytics_assets/retry_backoff_seconds"
RETRY_TAGS: Final[Mapping[str, str]] = {
    "dagster/max_retries": "3",
    "dagster/retry_strategy": "FROM_ASSET_FAILURE",  # of a group, only what is missing
    BACKOFF_TAG: "60",
}
"""Tags of the runs that nobody watches. A run started by hand fails at once, for the one who waits
for it to see why."""
NO_RETRY_TAG: Final = {"dagster/retry_on_asset_or_op_failure": "false"}
LONGEST_BACKOFF: Final = 3600.0


def with_run_retries(context: AssetExecutionContext, results: Iterable[Result]) -> Iterator[Result]:
    """Yield ``results``, after a pause if this run is a retry; end the retries if they are no use.

    What ``results`` raises is passed on as it is.
    """
    _pause(context)
    try:
        yield from results
    except Exception as error:
        if not allows_retries(error):
            context.instance.add_run_tags(context.run.run_id, dict(NO_RETRY_TAG))
        raise


def _pause(context: AssetExecutionContext) -> None:
    """Wait until so long after the run was requested; the steps of a run wait once in all."""
    seconds = backoff_seconds(context.run.tags)
    record = context.instance.get_run_record_by_id(context.run.run_id) if seconds else None
    if record is None:
        return
    age = datetime.now(timezone.utc) - record.create_timestamp
    left = min(seconds, seconds - age.total_seconds())
    if left > 0:
        context.log.info(f"This run is a retry: it begins in {left:.0f} s.")
        time.sleep(left)


def is_retried(context: AssetExecutionContext) -> bool:
    """Tell whether Dagster starts this run again if it fails in a way that may pass."""
    instance, tags = context.instance, context.run.tags
    if not instance.run_retries_enabled:
        return False
    try:
        limit = int(tags.get("dagster/max_retries", instance.run_retries_max_retries))
        return int(tags.get("dagster/retry_number", "0")) < limit
    except ValueError:
        return False  # tags can be edited by hand


def backoff_seconds(tags: Mapping[str, str]) -> float:
    """Return how long the n-th retry waits: its backoff tag times 2^(n-1); 0 for a first run."""
    number = tags.get("dagster/retry_number", "0")
    base = tags.get(BACKOFF_TAG, "0")
    try:
        retry, seconds = int(number), float(base)
    except ValueError:
        return 0.0  # tags can be edited by hand; a bad one must not cost the run
    return min(seconds * 2.0 ** (retry - 1), LONGEST_BACKOFF) if 0 < retry < 64 else 0.0  # noqa: PLR2004
