"""One workspace as a code location deploys it: its names, its assets, and what stays in code.

What Dagster shows and lets people change at launch is in the two resources. What it must not show
or let them change is here, and reaches the run by the closure of its operation: how to get at the
token, a destination object with its credentials, and whether secrets are replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dagster import AssetKey

from analytics_assets.orchestration.resources import AnalyticsApi, Warehouse
from analytics_assets.reports.model import GROUP as REPORTS
from analytics_assets.reports.model import Report
from analytics_assets.segment.endpoints import ENDPOINTS, GROUPS
from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.model import Endpoint, Table
from analytics_assets.segment.settings import ApiSettings
from analytics_assets.warehouse.settings import WarehouseSettings

PINNED: Final[Mapping[str, Sequence[str]]] = {
    "api": ("token_variable", "base_url"),
    "warehouse": ("destination", "dataset", "duckdb_path", "table_format"),
}
"""Fields of the resources that a launch must not change: where the token goes, and the rows."""
DETAILS: Final = "details"
"""Job and tag of the assets that cost a request for each record of another list."""
JOBS: Final[tuple[str, ...]] = (*GROUPS, DETAILS, REPORTS)
"""All jobs, each of which has a schedule."""


@dataclass(frozen=True)
class Deployment:
    """One workspace in one code location.

    Attributes:
        name: what the names of its op, jobs, schedules, sensors, resources and pool begin with;
            ``None`` for none.
        key_prefix: what its asset keys begin with.
        endpoints: its tables, in the order of ``endpoints.py``.
        reports: its reports.
        api: how to reach the API.
        warehouse: where to load to.
        destination: dlt destination object with its credentials; ``None``: ``warehouse`` names it.
        token: gives the token; ``None``: the variable that ``api`` names does.
        redact: whether secrets are replaced; ``None``: as ``ANALYTICS_REDACT_SECRETS`` says.
        owners: who answers for the assets; ``None``: as ``ANALYTICS_OWNERS`` says.
        tags: tags that every asset carries.
        crons: cron strings by job, a group or ``details``, before those of the environment.
        sensor_seconds: seconds between two looks at the audit trail; ``None``: as
            ``ANALYTICS_SENSOR_SECONDS`` says.
        plan_mtu: tracked users a month that the plan includes; ``None``: as ``ANALYTICS_PLAN_MTU``
            says, if it does.
        plan_api_calls: the same of API calls, and ``ANALYTICS_PLAN_API_CALLS``.
    """

    name: str | None = None
    key_prefix: Sequence[str] = ()
    endpoints: Sequence[Endpoint] = ENDPOINTS
    reports: Sequence[Report] = ()
    api: AnalyticsApi = field(default_factory=AnalyticsApi)
    warehouse: Warehouse = field(default_factory=Warehouse)
    destination: Any = field(default=None, repr=False)
    token: Callable[[], str] | None = field(default=None, repr=False)
    redact: bool | None = None
    owners: Sequence[str] | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    crons: Mapping[str, str] = field(default_factory=dict)
    sensor_seconds: int | None = None
    plan_mtu: int | None = None
    plan_api_calls: int | None = None

    @property
    def workspace(self) -> str:
        """What tells its runs from those of other workspaces: its name, else its dataset."""
        return self.name or self.warehouse.dataset_name()

    def named(self, what: str) -> str:
        """Return the name of a definition of this workspace."""
        return f"{self.name}_{what}" if self.name else what

    def key(self, name: str) -> AssetKey:
        """Return the key of an asset that no translator has a say in."""
        return AssetKey([*self.key_prefix, name])

    @property
    def jobs(self) -> Mapping[str, Sequence[Table]]:
        """What each job loads: a group without its details, the details of all, or the reports."""
        found: dict[str, Sequence[Table]] = {
            group: [e for e in self.endpoints if e.group == group and not e.detail]
            for group in GROUPS
        }
        found[DETAILS] = [endpoint for endpoint in self.endpoints if endpoint.detail]
        found[REPORTS] = self.reports
        return {name: own for name, own in found.items() if own}

    def api_settings(self, resources: Any) -> ApiSettings:
        """Return the checked settings of the API, of the resources of a run or a sensor.

        Raises:
            SettingError: the text names the setting and what to do.
        """
        api: AnalyticsApi = getattr(resources, self.named("api"))
        return api.settings(token=self.token, redact=self.redact)

    def warehouse_settings(self, resources: Any) -> WarehouseSettings:
        """Return the checked settings of the destination, of the resources of a run.

        Raises:
            SettingError: the text names the setting and what to do.
        """
        warehouse: Warehouse = getattr(resources, self.named("warehouse"))
        return warehouse.settings(destination=self.destination)

    def refuse_changes(self, run_config: Mapping[str, Any]) -> None:
        """Refuse a launch that would send the token, or the rows, to another place.

        Args:
            run_config: what the run was launched with.

        Raises:
            SettingError: it names the field and where it is set.
        """
        for resource, instance in (("api", self.api), ("warehouse", self.warehouse)):
            given = run_config.get("resources", {}).get(self.named(resource)) or {}
            for name in PINNED[resource]:
                value = (given.get("config") or {}).get(name)
                if value is not None and value != getattr(instance, name):
                    raise SettingError(
                        f"The run config sets {name} of {self.named(resource)}, which cannot be"
                        " changed by a launch; set it where the code location is defined, or by its"
                        " ANALYTICS_ variable."
                    )


@dataclass(frozen=True)
class AssetIndex:
    """Which asset was built from which row of ``endpoints.py``, or report, whatever its key is.

    Attributes:
        keys: asset keys by the name of the row or report.
    """

    keys: Mapping[str, AssetKey]

    def name(self, key: AssetKey) -> str:
        """Return the row or report that an asset was built from.

        Raises:
            StopIteration: the asset is somebody else's.
        """
        return next(name for name, own in self.keys.items() if own == key)

    def of(self, tables: Sequence[Table]) -> Sequence[AssetKey]:
        """Return the keys of the assets of some rows or reports."""
        return [self.keys[table.name] for table in tables]
