"""What the latest materializations of the assets of a run say, asked for once."""

from __future__ import annotations

from collections.abc import Mapping

from dagster import AssetExecutionContext, AssetKey, AssetMaterialization

Latest = Mapping[AssetKey, AssetMaterialization]
"""The latest materialization of each asset that has one, as it was when the run began."""


def latest_materializations(context: AssetExecutionContext) -> Latest:
    """Return those of the assets that are selected, or a check of which is."""
    checked = {check.asset_key for check in context.selected_asset_check_keys}
    keys = sorted(checked | set(context.selected_asset_keys))
    events = (
        (record.asset_entry.asset_key, record.asset_entry.last_materialization)
        for record in context.instance.get_asset_records(keys)
    )
    return {
        key: event.asset_materialization
        for key, event in events
        if event is not None and event.asset_materialization is not None
    }
