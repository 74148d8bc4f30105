"""The sensor on the audit trail, asked as Dagster's daemon asks it, on a real HTTP server."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from dagster import DagsterInstance, ExecuteInProcessResult, RunRequest, build_sensor_context

from analytics_assets.definitions import defs
from analytics_assets.orchestration.resources import AnalyticsApi
from analytics_assets_tests.harness import Project, environment, own_sensor

Tick = Any
"""What ``evaluate_tick`` returns; Dagster has no public name for it."""


class Follower:
    """The sensor with its cursor, as the daemon keeps it.

    Only what the daemon would store is kept: the cursor that a tick returns.
    """

    def __init__(
        self, project: Project, instance: DagsterInstance | None = None, **api: Any
    ) -> None:
        self.project = project
        self.instance = instance or DagsterInstance.ephemeral()
        self.cursor: str | None = None
        self._api = {"backoff_factor": 0, **api}

    def tick(self, cursor: str | None = None) -> Tick:
        """Evaluate the sensor once; the cursor is kept, and the requests are counted anew."""
        before = cursor or self.cursor
        self.project.sandbox.clear()
        with environment(self.project.env):
            sensor = own_sensor()
            with build_sensor_context(
                instance=self.instance,
                cursor=before,
                definitions=defs,
                resources={"api": AnalyticsApi(**self._api)},
            ) as context:
                result = sensor.evaluate_tick(context)
        self.cursor = result.cursor
        return result

    @property
    def requests(self) -> int:
        """Requests of the last tick."""
        return self.project.sandbox.count()

    def happen(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Let something happen in the workspace a second later."""
        sandbox = self.project.sandbox
        sandbox.clock = timedelta(seconds=1)
        record: dict[str, Any] = sandbox.workspace.add_event(type=kind, **fields)
        return record


def selected(result: Tick) -> set[str]:
    """Return the assets of the one run that a tick requests."""
    assert result.run_requests is not None
    (request,) = result.run_requests
    assert request.asset_selection
    names = [key.to_user_string() for key in request.asset_selection]
    assert len(names) == len(set(names))
    return set(names)


def run_key(result: Tick) -> str:
    """Return the key of the one run that a tick requests."""
    assert result.run_requests
    key: str = result.run_requests[0].run_key
    assert key
    return key


def stamp(follower: Follower, **since: float) -> str:
    """Return a moment relative to the workspace's present, as the API writes it."""
    moment = follower.project.sandbox.clock() + timedelta(**since)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def start(
    project: Project, request: RunRequest, instance: DagsterInstance
) -> ExecuteInProcessResult:
    """Run what a sensor requests in this process, with the tags that the daemon adds."""
    job = defs.resolve_implicit_global_asset_job_def()
    tags = {**request.tags, "dagster/run_key": str(request.run_key)}
    with environment(project.env):
        return job.execute_in_process(
            instance=instance,
            tags=tags,
            asset_selection=list(request.asset_selection or ()),
            run_config={
                "resources": {"api": {"config": {"backoff_factor": 0}}},
                **(request.run_config or {}),
            },
            raise_on_error=False,
        )
