"""The lists the sandbox serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Kind = Literal["list", "plain", "audit", "usage"]
Key = tuple[str, ...]


@dataclass(frozen=True)
class Resource:
    """One list of the service: where it is, and what its answers look like."""

    name: str
    path: str
    list_key: str
    kind: Kind = "list"
    key: Key = ("id",)
    total: bool = True
    last_next: Literal["null", "missing"] = "null"


def _resources() -> dict[str, Resource]:
    per_source, day = ("sourceId", "timestamp"), ("timestamp",)
    listed = (
        Resource("warehouses", "/warehouses", "warehouses"),
        Resource("sources", "/sources", "sources", last_next="missing"),
        Resource("destinations", "/destinations", "destinations"),
        Resource("reverse_etl_models", "/reverse-etl-models", "models", last_next="missing"),
        Resource("catalog_destinations", "/catalog/destinations", "destinationsCatalog"),
        Resource("catalog_sources", "/catalog/sources", "sourcesCatalog", last_next="missing"),
        Resource("catalog_warehouses", "/catalog/warehouses", "warehousesCatalog"),
        Resource("users", "/users", "users", last_next="missing"),
        Resource("labels", "/labels", "labels", "plain", ("key", "value")),
        Resource("roles", "/roles", "roles", total=False, last_next="missing"),
        Resource("audit_events", "/audit-events", "events", "audit", total=False),
        Resource("transformations", "/transformations", "transformations", last_next="missing"),
        Resource("spaces", "/spaces", "spaces"),
        Resource(
            "usage_api_calls_daily",
            "/usage/api-calls/daily",
            "dailyWorkspaceAPICallsUsage",
            "usage",
            day,
            last_next="missing",
        ),
        Resource("usage_mtu_daily", "/usage/mtu/daily", "dailyWorkspaceMTUUsage", "usage", day),
        Resource(
            "usage_api_calls_sources_daily",
            "/usage/api-calls/sources/daily",
            "dailyPerSourceAPICallsUsage",
            "usage",
            per_source,
            last_next="missing",
        ),
        Resource(
            "usage_mtu_sources_daily",
            "/usage/mtu/sources/daily",
            "dailyPerSourceMTUUsage",
            "usage",
            per_source,
        ),
    )
    return {resource.name: resource for resource in listed}


RESOURCES: Mapping[str, Resource] = _resources()
"""Every list of the sandbox by its name."""
