"""Dagster assets that keep a copy of a Segment workspace's own metadata in a warehouse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analytics_assets.definitions import defs

__all__ = ["defs"]


def __getattr__(name: str) -> Any:
    """Load the definitions when they are asked for, so that the dlt half stays free of Dagster."""
    if name == "defs":
        from analytics_assets.definitions import defs

        return defs
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name ``defs`` too: Dagster looks for definitions among the names of a module."""
    return [*globals(), "defs"]
