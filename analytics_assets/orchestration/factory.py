"""A workspace as Dagster definitions that merge with any others: the front door in code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from dagster import ConfigurableResource, Definitions, EnvVar
from dagster_dlt import DagsterDltTranslator

from analytics_assets.orchestration.assets import build_assets
from analytics_assets.orchestration.deployment import JOBS, Deployment
from analytics_assets.orchestration.freshness import with_freshness
from analytics_assets.orchestration.included import included
from analytics_assets.orchestration.jobs import build_jobs
from analytics_assets.orchestration.resources import AnalyticsApi, Warehouse
from analytics_assets.orchestration.schedules import DEFAULT_CRON, build_schedules
from analytics_assets.orchestration.sensors import build_sensors
from analytics_assets.orchestration.translator import SegmentTranslator, workspace_spec
from analytics_assets.reports.catalogue import reports
from analytics_assets.reports.model import GROUP as REPORTS
from analytics_assets.reports.model import Report
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.model import Endpoint

Token = EnvVar | str | Callable[[], str]
Resource = TypeVar("Resource", bound="ConfigurableResource[Any]")

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+")
_KEY_PART: Final = re.compile(r"[A-Za-z0-9_]+")
_DATASETS: Final[dict[tuple[str, ...], str | None]] = {}
"""Which workspace of this process loads into which dataset."""


def build_segment_definitions(  # noqa: PLR0913 - each is a setting of a deployment
    *,
    name: str | None = None,
    key_prefix: str | Sequence[str] | None = None,
    token: Token = "ANALYTICS_API_TOKEN",  # noqa: S107 - the name of a variable
    base_url: str | None = None,
    destination: Any = None,
    dataset: str | None = None,
    table_format: str | None = None,
    translator: DagsterDltTranslator | None = None,
    select: Sequence[str] | None = None,
    owners: Sequence[str] | None = None,
    tags: Mapping[str, str] | None = None,
    crons: Mapping[str, str] | None = None,
    sensor_seconds: int | None = None,
    plan_mtu: int | None = None,
    plan_api_calls: int | None = None,
    redact_secrets: bool | None = None,
    api: AnalyticsApi | None = None,
    warehouse: Warehouse | None = None,
) -> Definitions:
    """Return the definitions of one workspace: assets, checks, jobs, schedules, sensor, resources.

    They merge with any others by ``Definitions.merge``, and force no executor and no logger on
    them. What is not given is read from the ``ANALYTICS_`` variables, as in the project itself.

    Args:
        name: what the names of the op, jobs, schedules, sensors, resources and the pool begin with,
            such as ``eu``: ``eu_inventory_job``. Each workspace of a deployment needs its own.
        key_prefix: what the asset keys begin with; default: the name.
        token: ``EnvVar`` or name of the variable that holds the API token, or a callable that
            returns it, for secret managers. Never the token itself: Dagster shows resource config.
        base_url: of the region, such as ``https://eu1.api.segmentapis.com``.
        destination: name of a dlt destination, or a destination object with its credentials.
        dataset: schema of the tables, a workspace's own; default with a name: ``analytics_<name>``.
        table_format: ``delta`` for Delta tables on the filesystem destination.
        translator: says how assets look, as with dagster-dlt; a subclass of
            :class:`SegmentTranslator`. What it returns holds everywhere.
        select: names of assets, or of groups, to have; default: all but what ``ANALYTICS_EXCLUDE``
            names.
        owners: e-mail addresses and teams (``team:data``) that answer for the assets.
        tags: tags of every asset.
        crons: cron strings by job (the groups, such as ``inventory``, ``details`` and
            ``reports``), in UTC.
        sensor_seconds: seconds between two looks at the audit trail.
        plan_mtu: tracked users a month that the plan includes, for ``month_forecast``.
        plan_api_calls: API calls a month that the plan includes.
        redact_secrets: false stores secrets as they are served.
        api: values of the other fields of the API resource: time-outs, page size, retries.
        warehouse: values of the other fields of the warehouse resource.

    Raises:
        SettingError: an argument cannot work; the text names it and what to do.
    """
    _check_name(name)
    variable, secret = _token(token)
    dataset = dataset or (f"analytics_{name}" if name and warehouse is None else None)
    deployment = Deployment(
        name=name,
        key_prefix=_prefix(name if key_prefix is None else key_prefix),
        endpoints=_selected(select),
        reports=_selected_reports(select),
        api=_with(AnalyticsApi, api, token_variable=variable, base_url=base_url),
        warehouse=_with(
            Warehouse, warehouse, dataset=dataset, table_format=table_format, **_place(destination)
        ),
        destination=None if isinstance(destination, str) else destination,
        token=secret,
        redact=redact_secrets,
        owners=owners,
        tags=tags or {},
        crons=_crons(crons or {}),
        sensor_seconds=sensor_seconds,
        plan_mtu=plan_mtu,
        plan_api_calls=plan_api_calls,
    )
    _claim_dataset(deployment)
    return _definitions(deployment, translator or SegmentTranslator())


def _definitions(deployment: Deployment, translator: DagsterDltTranslator) -> Definitions:
    assets, index = build_assets(deployment, translator)
    jobs = build_jobs(deployment, index)
    return Definitions(
        assets=[workspace_spec(deployment), *with_freshness(assets, deployment, index)],
        jobs=list(jobs.values()),
        schedules=build_schedules(deployment, jobs),
        sensors=build_sensors(deployment, index),
        resources={
            deployment.named("api"): deployment.api,
            deployment.named("warehouse"): deployment.warehouse,
        },
    )


def _check_name(name: str | None) -> None:
    if name is not None and not _NAME.fullmatch(name):
        raise SettingError(
            f"name is {name!r}; use lower-case letters, digits and single underscores between them,"
            " beginning with a letter."
        )


def _prefix(prefix: str | Sequence[str] | None) -> Sequence[str]:
    parts = [prefix] if isinstance(prefix, str) else list(prefix or ())
    if not all(isinstance(part, str) and _KEY_PART.fullmatch(part) for part in parts):
        raise SettingError(
            f"key_prefix is {prefix!r}, which is no asset key; use letters, digits and underscores,"
            " or a list of such names."
        )
    return parts


def _token(token: Token) -> tuple[str, Callable[[], str] | None]:
    """Return the variable that holds the token, and the callable that gives it, if one does."""
    if isinstance(token, EnvVar):
        return token.env_var_name, None
    if callable(token):
        return "", token
    if not (isinstance(token, str) and _VARIABLE.fullmatch(token)):
        raise SettingError(
            "token takes an EnvVar, the name of a variable such as SEGMENT_TOKEN, or a callable"
            " that returns the token; the token itself would be shown by Dagster."
        )
    return token, None


def _selected(select: Sequence[str] | None) -> Sequence[Endpoint]:
    if select is None:
        return included()
    wanted = [select] if isinstance(select, str) else list(select)
    unknown = [n for n in wanted if n not in BY_NAME and n not in JOBS and n not in reports()]
    if unknown or not wanted:
        raise SettingError(
            f"select names {', '.join(map(repr, unknown)) or 'nothing'}, which is no asset and no"
            f" group; use names such as 'sources', or the groups {', '.join(JOBS)}."
        )
    return [e for e in ENDPOINTS if e.name in wanted or e.group in wanted]


def _selected_reports(select: Sequence[str] | None) -> Sequence[Report]:
    wanted = [REPORTS] if select is None else [select] if isinstance(select, str) else select
    return [report for name, report in reports().items() if {name, REPORTS} & set(wanted)]


def _crons(crons: Mapping[str, str]) -> Mapping[str, str]:
    if unknown := sorted(set(crons) - set(DEFAULT_CRON)):
        named = ", ".join(map(repr, unknown))
        raise SettingError(f"crons names {named}; it takes the jobs {', '.join(DEFAULT_CRON)}.")
    return crons


def _place(destination: Any) -> Mapping[str, Any]:
    """Return the fields of the warehouse resource that a destination stands for."""
    if destination is None or isinstance(destination, str):
        return {"destination": destination}
    kind = str(getattr(destination, "destination_type", "")).rpartition(".")[2]
    if not kind:
        raise SettingError(
            "destination takes the name of a dlt destination, or a destination object such as"
            " dlt.destinations.postgres(...)."
        )
    if kind != "duckdb":
        return {"destination": kind}
    path = destination.config_params.get("credentials")
    if not isinstance(path, (str, Path)):
        raise SettingError(
            "A DuckDB destination takes the path of its file and nothing else, as the project opens"
            ' it itself; write dlt.destinations.duckdb("segment.duckdb").'
        )
    return {"destination": kind, "duckdb_path": str(path)}


def _with(kind: type[Resource], given: Resource | None, **values: Any) -> Resource:
    """Return a resource with some of its fields set anew; a value that is not given leaves one."""
    kept = {name: getattr(given, name) for name in given.model_fields_set} if given else {}
    return kind(**kept | {name: value for name, value in values.items() if value})


def _claim_dataset(deployment: Deployment) -> None:
    """Refuse two workspaces in one dataset: dlt would mix their staging tables and their state."""
    warehouse = deployment.warehouse
    credentials = getattr(deployment.destination, "config_params", "")
    path = str(warehouse.file()) if warehouse.destination_name() == "duckdb" else str(credentials)
    place = (warehouse.destination_name(), path, warehouse.dataset_name())
    owner = _DATASETS.setdefault(place, deployment.name)
    if owner != deployment.name:
        raise SettingError(
            f"The workspaces {owner!r} and {deployment.name!r} load into the same dataset"
            f" {warehouse.dataset_name()!r}; give each a dataset of its own."
        )
