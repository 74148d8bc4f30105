"""What a run leaves in Dagster's storage: an event for all that people look at, and no others.

No postponed annotations here: Dagster reads the context's class from the signature of an op.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from dagster import (
    AssetCheckEvaluation,
    AssetCheckResult,
    AssetCheckSpec,
    AssetExecutionContext,
    AssetSpec,
    DagsterEventType,
    DagsterInstance,
    EventLogEntry,
    MaterializeResult,
    materialize,
    multi_asset,
)

from analytics_assets.orchestration.recording import NO_OUTPUTS, recorded
from analytics_assets_tests.harness import Project

SELECTED = ("labels", "sources")
CHECKS = ("first", "second")


def stored(instance: DagsterInstance) -> Sequence[EventLogEntry]:
    """Return all that the only run has left."""
    [run] = instance.get_runs()
    return instance.all_logs(run.run_id)


def test_each_check_is_stored_as_planned_and_as_found(project: Project) -> None:
    """Prevents a third event for each check, with commits of its own, that tells nobody anything.

    And a check that lacks its materialization, or a line with the names of all outputs instead.
    """
    instance = DagsterInstance.ephemeral()
    result = project.materialize(*SELECTED, instance=instance)
    entries = stored(instance)
    kinds = Counter(entry.dagster_event_type for entry in entries)
    evaluations = result.get_asset_check_evaluations()
    assert len(evaluations) > len(SELECTED)
    assert kinds[DagsterEventType.STEP_OUTPUT] == len(SELECTED)
    assert kinds[DagsterEventType.ASSET_MATERIALIZATION] == len(SELECTED)
    assert kinds[DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED] == len(evaluations)
    assert kinds[DagsterEventType.ASSET_CHECK_EVALUATION] == len(evaluations)
    assert not [entry for entry in entries if NO_OUTPUTS in entry.user_message]
    for evaluation in evaluations:
        latest = instance.get_latest_materialization_event(evaluation.asset_key)
        target = evaluation.target_materialization_data
        assert latest
        assert target
        assert (target.run_id, target.timestamp) == (latest.run_id, latest.timestamp)


@pytest.mark.parametrize("said", [CHECKS, CHECKS[:1]])
def test_check_without_a_result_is_still_told(said: Sequence[str]) -> None:
    """Prevents a check that nothing came of from being passed over, or named among all others."""

    @multi_asset(
        specs=[AssetSpec("table")],
        check_specs=[AssetCheckSpec(name, asset="table") for name in CHECKS],
        can_subset=True,
    )
    def load(
        context: AssetExecutionContext,
    ) -> Iterator[MaterializeResult[Any] | AssetCheckEvaluation]:
        checks = [AssetCheckResult(asset_key="table", check_name=n, passed=True) for n in said]
        yield from recorded(context, [MaterializeResult(asset_key="table", check_results=checks)])

    with DagsterInstance.ephemeral() as instance:
        assert materialize([load], instance=instance).success
        messages = [entry.user_message for entry in stored(instance)]
    told = [text for text in messages if NO_OUTPUTS in text or "without a result" in text]
    lacking = [name for name in CHECKS if name not in said]
    assert told == [f"Selected checks without a result: table/{name}." for name in lacking]
