"""How a resource of the API becomes an asset: the extension point that dagster-dlt's users know."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Final, TypeVar

from dagster import AssetKey, AssetSpec, MetadataValue
from dagster_dlt import DagsterDltTranslator
from dagster_dlt.translator import DltResourceTranslatorData
from dlt import resource as dlt_resource

from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.metadata import definition_metadata, kinds, owners, tags
from analytics_assets.orchestration.reports import report_spec
from analytics_assets.reports.catalogue import reports
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.model import Table
from analytics_assets.warehouse.own_tables import filled_by

WORKSPACE: Final = "segment_workspace"
"""The workspace itself, which no run makes: every table begins there."""
Any_ = TypeVar("Any_", bound=DagsterDltTranslator)


class SegmentTranslator(DagsterDltTranslator):
    """Asset key, group and everything shown come from the row of ``endpoints.py``, or the report.

    Subclass it, call ``super().get_asset_spec(data)``, and return what you want to see: keys,
    groups, tags and owners hold everywhere, in runs, checks, jobs, schedules and the sensor.
    ``data.resource.name`` is the name of the table.
    """

    deployment = Deployment()

    def get_asset_spec(self, data: DltResourceTranslatorData) -> AssetSpec:
        """Describe the asset of one dlt resource, or of a report."""
        deployment, name = self.deployment, data.resource.name
        if name in reports():
            tables = {endpoint.name for endpoint in deployment.endpoints}
            lists = dict.fromkeys(n for table in reports()[name].reads for n in filled_by(table))
            read = [self._key(each) for each in lists if each in tables]
            return report_spec(reports()[name], deployment, read)
        endpoint = BY_NAME[name]
        parent = endpoint.parent and BY_NAME[endpoint.parent.resource]
        return AssetSpec(
            key=deployment.key(name),
            group_name=endpoint.group,
            deps=[
                self._key(parent.name)
                if parent in deployment.endpoints and parent
                else deployment.key(WORKSPACE)
            ],
            description=endpoint.description,
            metadata=definition_metadata(endpoint, deployment.warehouse),
            tags={**tags(endpoint), **deployment.tags},
            owners=owners(deployment.owners),
            kinds=kinds(deployment.warehouse),
        )

    def _key(self, name: str) -> AssetKey:
        return self.get_asset_spec(_data(name)).key


def workspace_spec(deployment: Deployment) -> AssetSpec:
    """Return the external asset that the tables come from."""
    return AssetSpec(
        deployment.key(WORKSPACE),
        description="The Segment workspace, as its Public API shows it.",
        metadata={"api_docs": MetadataValue.url("https://docs.segmentapis.com")},
        kinds={"segment"},
    )


def bound(translator: Any_, deployment: Deployment) -> Any_:
    """Return a copy of a translator that speaks of a deployment."""
    found = copy.copy(translator)
    if isinstance(found, SegmentTranslator):
        found.deployment = deployment
    return found


def _data(name: str) -> DltResourceTranslatorData:
    """Return a dlt resource that stands for that of the run.

    The ``rest_api`` resources themselves are built by the run, which has the token; to build them
    here as well would cost each start of Dagster half a second.
    """
    return DltResourceTranslatorData(resource=dlt_resource([], name=name), pipeline=None)


def asset_specs(
    deployment: Deployment, translator: DagsterDltTranslator
) -> tuple[Sequence[AssetSpec], AssetIndex]:
    """Return the specs of the assets of a deployment, and which row each was built from.

    Raises:
        SettingError: the translator gives two assets the same key.
    """
    own = bound(translator, deployment)
    tables: list[Table] = [*deployment.endpoints, *deployment.reports]
    specs = {table.name: own.get_asset_spec(_data(table.name)) for table in tables}
    keys = {name: spec.key for name, spec in specs.items()}
    if len(set(keys.values())) < len(keys):
        raise SettingError(
            f"The translator {type(translator).__name__} gives two assets the same key; each"
            " resource needs a key of its own."
        )
    return list(specs.values()), AssetIndex(keys)
