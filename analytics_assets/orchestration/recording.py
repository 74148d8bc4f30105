"""How results reach Dagster: all that a person looks at, stored once, and nothing beside it.

Dagster stores an event with two or three commits, and would store three for each check: that it is
planned, its result, and that an output without a value was yielded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from dagster import (
    AssetCheckEvaluation,
    AssetCheckResult,
    AssetExecutionContext,
    MaterializeResult,
)

NO_OUTPUTS: Final = "did not yield or return expected outputs"
"""What Dagster logs at the end of a step: it looks for outputs only, and names them all."""


def recorded(
    context: AssetExecutionContext, results: Iterable[MaterializeResult[Any] | AssetCheckResult]
) -> Iterator[MaterializeResult[Any] | AssetCheckEvaluation]:
    """Yield what ``results`` say with as few events as it takes.

    Metadata go with the materialization; those of a result would go with its output, too. Checks
    come as evaluations, which have no output: it would only let others wait for a check that
    blocks, and none does. A selected check without a result is told in the log.
    """
    due, step = set(context.selected_asset_check_keys), context.get_step_execution_context()
    for result in results:
        if isinstance(result, MaterializeResult) and result.asset_key:
            context.add_asset_metadata(result.metadata or {}, result.asset_key)
            yield MaterializeResult(asset_key=result.asset_key)
        for check in _checks(result):
            evaluation = check.to_asset_check_evaluation(step)
            due.discard(evaluation.asset_check_key)
            yield evaluation
    context.log.addFilter(lambda record: NO_OUTPUTS not in record.getMessage())
    if due:
        names = ", ".join(sorted(f"{check.asset_key.path[-1]}/{check.name}" for check in due))
        context.log.warning(f"Selected checks without a result: {names}.")


def _checks(result: MaterializeResult[Any] | AssetCheckResult) -> Sequence[AssetCheckResult]:
    return [result] if isinstance(result, AssetCheckResult) else result.check_results or []
