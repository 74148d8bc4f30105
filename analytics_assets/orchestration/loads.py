"""What has been loaded since a moment, as Dagster's event log says."""

from __future__ import annotations

from collections.abc import Iterable

from dagster import AssetKey, DagsterInstance


def loaded_since(
    instance: DagsterInstance, keys: Iterable[AssetKey], moment: float
) -> frozenset[AssetKey]:
    """Return the assets that a run has loaded which began at ``moment`` (a timestamp) or later.

    A run that had begun before may have read its list before whatever happened then.
    """
    return frozenset(key for key in keys if _begun(instance, key) >= moment)


def _begun(instance: DagsterInstance, key: AssetKey) -> float:
    """Return when the run began that loaded an asset last; 0 if none did."""
    event = instance.get_latest_materialization_event(key)
    if event is None:
        return 0.0
    record = instance.get_run_record_by_id(event.run_id)
    # the record of an old run may have been purged
    return (record.start_time if record else None) or event.timestamp
