"""Dagster assets that keep a copy of a Segment workspace's own metadata in a warehouse."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analytics_assets.component import SegmentWorkspaceComponent
    from analytics_assets.definitions import defs
    from analytics_assets.orchestration.alerts import failed_checks_sensor
    from analytics_assets.orchestration.factory import build_segment_definitions
    from analytics_assets.orchestration.resources import AnalyticsApi, Warehouse
    from analytics_assets.orchestration.stale import stale_sensor
    from analytics_assets.orchestration.translator import SegmentTranslator

__all__ = [
    "AnalyticsApi",
    "SegmentTranslator",
    "SegmentWorkspaceComponent",
    "Warehouse",
    "build_segment_definitions",
    "defs",
    "failed_checks_sensor",
    "stale_sensor",
]

_HOMES = {
    "AnalyticsApi": "orchestration.resources",
    "SegmentTranslator": "orchestration.translator",
    "SegmentWorkspaceComponent": "component",
    "Warehouse": "orchestration.resources",
    "build_segment_definitions": "orchestration.factory",
    "defs": "definitions",
    "failed_checks_sensor": "orchestration.alerts",
    "stale_sensor": "orchestration.stale",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for, so that one part does not cost the import of the others."""
    if home := _HOMES.get(name):
        with _no_search_for_garbage():
            return getattr(importlib.import_module(f"{__name__}.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@contextmanager
def _no_search_for_garbage() -> Iterator[None]:
    """Import without looking for garbage hundreds of times among objects of which all stay."""
    if not gc.isenabled() or gc.get_freeze_count():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()  # what is there counts as old, and is not looked through at once
        gc.unfreeze()
        gc.enable()


def __dir__() -> list[str]:
    """Name ``defs`` too: Dagster looks for definitions among the names of a module."""
    return [*globals(), "defs"]
