"""Tables that another dlt pipeline has made where ours are to go, such as a script of dlt's own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from dlt.common.schema import Schema
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.settings import Log
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.standing import Standing, look
from analytics_assets.warehouse.state import stored_types

ROW_ID: Final = "_dlt_id"
"""dlt gives it to every row that it normalizes itself, and to none of a table of ours."""


def refuse_other_pipelines(
    pipeline: Pipeline,
    schema: Schema,
    endpoints: Sequence[Endpoint],
    standing: Standing,
    warehouse: WarehouseSettings,
    log: Log,
) -> None:
    """Refuse to load beside the tables of a plain dlt script; name secrets that it left.

    Args:
        pipeline: the pipeline of the group.
        schema: what dlt has stored of its tables.
        endpoints: what is to be loaded.
        standing: what the dataset holds.
        warehouse: the destination.
        log: told of the secrets.

    Raises:
        SettingError: one of the tables to load is such a table.
    """
    clear = [name for name in _clear_text_tables() if name in standing.names]
    secrets = f"{', '.join(clear)} hold{'' if len(clear) > 1 else 's'} secrets in clear text"
    if _others(schema, endpoints, standing):
        with pipeline.destination_client() as client:
            everything = look(client, warehouse, list(BY_NAME), ())
        others = ", ".join(_others(schema, ENDPOINTS, everything))
        more = f" ({secrets})" if clear else ""
        raise SettingError(
            f"The dataset {standing.dataset!r} holds tables that another dlt pipeline made:"
            f" {others}{more}. Load into another dataset, with ANALYTICS_DATASET, or"
            " drop them with their child tables, and the next run makes them anew."
        )
    if clear:
        log.warning(f"In the dataset {standing.dataset!r}, {secrets}; drop what is not needed.")


def _others(schema: Schema, endpoints: Iterable[Endpoint], standing: Standing) -> list[str]:
    """Return the tables whose rows dlt has normalized itself."""
    return [
        endpoint.name
        for endpoint in endpoints
        if ROW_ID in standing.tables.get(endpoint.name, ())
        and ROW_ID not in stored_types(schema, endpoint)
    ]


def _clear_text_tables() -> list[str]:
    """Return the child tables into which dlt, left to itself, would put lists of secrets."""
    return [f"{e.name}__{column.name}" for e in ENDPOINTS for column in e.columns if column.secret]
