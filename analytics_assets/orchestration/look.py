"""One look of the sensor on the audit trail: what is new, what is missing, what to request."""

from __future__ import annotations

import time
from typing import Final

from dagster import (
    DagsterRun,
    DagsterRunStatus,
    RunRequest,
    RunsFilter,
    SensorEvaluationContext,
    SensorResult,
)

from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.following import Following
from analytics_assets.orchestration.loads import loaded_since
from analytics_assets.orchestration.retries import REQUESTED_AGAIN
from analytics_assets.orchestration.run_tags import WORKSPACE_TAG, run_tags
from analytics_assets.orchestration.schedules import NOT_BEGUN
from analytics_assets.segment.audit_trail import News, assets_to_refresh, new_events, summary
from analytics_assets.segment.errors import AnalyticsError
from analytics_assets.segment.model import Table

QUIET: Final = "Nothing has changed."
ENDED: Final = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)


def look(
    context: SensorEvaluationContext, deployment: Deployment, index: AssetIndex
) -> SensorResult:
    """Return what one look leads to: a run, or the reason why there is none."""
    try:
        before = Following.from_json(context.cursor)
        news = new_events(deployment.api_settings(context.resources), before.trail, context.log)
    except AnalyticsError as error:
        return SensorResult(skip_reason=_said(error))
    names = [name for name in assets_to_refresh(news, context.log) if name in index.keys]
    now = time.time()
    state = before.with_changes(names, now)
    state = state.without(_settled(context, state, index))
    if names or state.trail is None:
        # without a cursor, note where the first look was, so that nothing after it is lost
        state = Following(news.cursor, state.wanted, state.asked)
    if under_way := _under_way(context, state.asked, deployment):
        return _waiting(state, under_way)
    return _request(context, state, news, now, deployment, index)


def _said(error: AnalyticsError) -> str:
    """Tell a pause that ends by itself from one that somebody has to end."""
    return str(error) if error.transient else f"Paused, nothing is requested: {error}"


def _settled(context: SensorEvaluationContext, state: Following, index: AssetIndex) -> set[str]:
    """Return what has been loaded since it was wanted, or is no asset any more."""
    return {
        name
        for name, wanted in state.wanted.items()
        if name not in index.keys
        or loaded_since(context.instance, [index.keys[name]], wanted.since)
    }


def _under_way(
    context: SensorEvaluationContext, asked: str, deployment: Deployment
) -> DagsterRun | None:
    """Return the run that was requested last, unless it has ended."""
    tags = {"dagster/run_key": asked, WORKSPACE_TAG: deployment.workspace}
    runs = context.instance.get_runs(RunsFilter(tags=tags), limit=1) if asked else []
    return next((run for run in runs if run.status not in ENDED), None)


def _waiting(state: Following, run: DagsterRun) -> SensorResult:
    """Leave to the next request what has changed while a run waits or loads."""
    what = "waits in the queue" if run.status in NOT_BEGUN else "is under way"
    said = f"Run {run.run_id} {what}. To be loaded: {', '.join(state.wanted) or 'nothing'}."
    return SensorResult(skip_reason=said, cursor=state.to_json())


def _request(
    context: SensorEvaluationContext,
    state: Following,
    news: News,
    now: float,
    deployment: Deployment,
    index: AssetIndex,
) -> SensorResult:
    due = state.due(now)
    if not due:
        missing = ", ".join(state.wanted)
        said = f"Not loaded yet, and requested again later: {missing}." if missing else QUIET
        return SensorResult(skip_reason=said, cursor=state.to_json())
    saw = summary(news.events) or "what was requested before and has not been loaded"
    tables: list[Table] = [table for table in deployment.endpoints if table.name in due]
    context.log.info(f"New audit events: {saw}. Loading {', '.join(t.name for t in tables)}.")
    key = state.key(due, news.key)
    request = RunRequest(
        run_key=key,
        asset_selection=list(index.of(tables)),
        tags={**REQUESTED_AGAIN, **run_tags(deployment, tables, "audit trail", saw)},
    )
    return SensorResult(run_requests=[request], cursor=state.after_request(due, key, now).to_json())
