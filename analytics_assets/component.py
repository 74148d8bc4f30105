"""A workspace as a Dagster component: ``build_segment_definitions`` in a ``defs.yaml``.

No postponed annotations here: Dagster reads what a component takes from them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, TypeAlias

from dagster import (
    AssetSpec,
    Component,
    ComponentLoadContext,
    Definitions,
    Resolvable,
    Scaffolder,
    ScaffoldRequest,
    scaffold_component,
    scaffold_with,
)
from dagster.components.utils.translation import TranslationFn, TranslationFnResolver
from dagster_dlt.translator import DltResourceTranslatorData

from analytics_assets.orchestration.factory import build_segment_definitions
from analytics_assets.orchestration.translator import SegmentTranslator

Translation: TypeAlias = Annotated[
    TranslationFn[DltResourceTranslatorData],
    TranslationFnResolver[DltResourceTranslatorData](lambda data: {"resource": data.resource}),
]

__all__ = ["SegmentWorkspaceComponent"]


class SegmentWorkspaceScaffolder(Scaffolder):
    """Writes a ``defs.yaml`` that runs as soon as the token's variable is set."""

    def scaffold(self, request: ScaffoldRequest) -> None:
        """Write the file."""
        name = request.target_path.name
        # dg knows a component by the module that is registered, whatever name it was asked for by
        known = replace(request, type_name=f"{__name__}.{SegmentWorkspaceComponent.__name__}")
        scaffold_component(known, {"name": name, "token": f"{name.upper()}_API_TOKEN"})


@scaffold_with(SegmentWorkspaceScaffolder)
@dataclass
class SegmentWorkspaceComponent(Component, Resolvable):
    """A Twilio Segment workspace: its own metadata and usage, as assets in your warehouse.

    Attributes:
        name: what the names of the op, jobs, schedules, sensors, resources and the pool begin with;
            each workspace needs its own.
        key_prefix: what the asset keys begin with; default: the name.
        token: name of the environment variable that holds the API token, never the token itself.
        base_url: of the region; ``https://eu1.api.segmentapis.com`` for the EU.
        destination: name of a dlt destination, whose credentials dlt finds in its own
            configuration; default ``ANALYTICS_DESTINATION``, else ``duckdb``.
        dataset: schema of the tables; default ``analytics_<name>``.
        table_format: ``delta`` for Delta tables on the filesystem destination.
        select: names of assets, or of groups, to have; default: all.
        owners: e-mail addresses and teams (``team:data``) that answer for the assets.
        tags: tags of every asset.
        crons: cron strings by job (the groups, such as ``inventory``, ``details`` and
            ``reports``), in UTC.
        sensor_seconds: seconds between two looks at the audit trail.
        plan_mtu: tracked users a month that the plan includes, for ``month_forecast``.
        plan_api_calls: API calls a month that the plan includes.
        redact_secrets: false stores secrets as they are served.
        translation: changes what each asset shows, as with other components; ``{{ spec }}`` is
            the asset as it would be, ``{{ resource.name }}`` its table.
    """

    name: str
    token: str = "ANALYTICS_API_TOKEN"  # noqa: S105 - the name of a variable
    key_prefix: str | list[str] | None = None
    base_url: str | None = None
    destination: str | None = None
    dataset: str | None = None
    table_format: str | None = None
    select: Sequence[str] | None = None
    owners: Sequence[str] | None = None
    tags: Mapping[str, str] | None = None
    crons: Mapping[str, str] | None = None
    sensor_seconds: int | None = None
    plan_mtu: int | None = None
    plan_api_calls: int | None = None
    redact_secrets: bool | None = None
    translation: Translation | None = None

    def build_defs(self, context: ComponentLoadContext) -> Definitions:  # noqa: ARG002 - Dagster's
        """Return the definitions of the workspace."""
        return build_segment_definitions(
            name=self.name,
            key_prefix=self.key_prefix,
            token=self.token,
            base_url=self.base_url,
            destination=self.destination,
            dataset=self.dataset,
            table_format=self.table_format,
            translator=_Translator(self.translation) if self.translation else None,
            select=self.select,
            owners=self.owners,
            tags=self.tags,
            crons=self.crons,
            sensor_seconds=self.sensor_seconds,
            plan_mtu=self.plan_mtu,
            plan_api_calls=self.plan_api_calls,
            redact_secrets=self.redact_secrets,
        )


class _Translator(SegmentTranslator):
    """Applies the ``translation`` of a ``defs.yaml``."""

    def __init__(self, translation: TranslationFn[DltResourceTranslatorData]) -> None:
        self._translation = translation

    def get_asset_spec(self, data: DltResourceTranslatorData) -> AssetSpec:
        """Describe the asset of one dlt resource."""
        return self._translation(super().get_asset_spec(data), data)
