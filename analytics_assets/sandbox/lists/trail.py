"""What happened: the bodies of audit events."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from analytics_assets.sandbox.company import Company, Record, chance
from analytics_assets.sandbox.lists.identity import users_head
from analytics_assets.sandbox.lists.inventory import (
    destinations_head,
    reverse_etl_models_head,
    sources_head,
    transformations_head,
    warehouses_head,
)
from analytics_assets.sandbox.resources import Resource

AUDIT_EVENT_TYPES: Mapping[str, tuple[str, ...]] = {
    "source": (
        "Source Created",
        "Source Deleted",
        "Source Disabled",
        "Source Enabled",
        "Source Modified",
        "Source Settings Modified",
    ),
    "integration": ("Integration Created", "Integration Deleted", "Integration Disabled"),
    "storage_destination": (
        "Storage Destination Created",
        "Storage Destination Deleted",
        "Storage Destination Enabled",
        "Storage Destination Modified",
        "Storage Destination Settings Validation",
    ),
    "warehouse_credential": (
        "Warehouse Credential Created",
        "Warehouse Credential Deleted",
        "Warehouse Credential Modified",
    ),
    "destination_filter": (
        "Destination Filter Created",
        "Destination Filter Deleted",
        "Destination Filter Disabled",
        "Destination Filter Enabled",
    ),
    "model": (
        "Model Created",
        "Model Deleted",
        "Model Settings Saved",
        "Model State Change Toggled",
    ),
    "transformation": (
        "Transformation Created",
        "Transformation Deleted",
        "Transformation Updated",
    ),
    "user": (
        "Group Memberships Deleted",
        "Invite Deleted",
        "New Segment User Invited to Workspace",
        "Non-Segment User Invited to Workspace",
        "Policy Created",
        "Policy Deleted",
        "User Policy Updated",
    ),
    "group": (
        "Subjects Added to Group",
        "User Added To User Group",
        "User Group Created",
        "User Group Deleted",
        "User Group Policy Updated",
        "User Group Updated",
        "User Removed From User Group",
    ),
    "label": ("Label Created", "Label Deleted"),
    "audience": (
        "Audience Created",
        "Audience Deleted",
        "Audience Modified",
        "Audience Preview Created",
        "Audience Run Forced",
    ),
    "computed_trait": (
        "Computed Trait Created",
        "Computed Trait Deleted",
        "Computed Trait Modified",
    ),
    "profiles_warehouse": (
        "Profiles Sync Warehouse Created",
        "Profiles Sync Warehouse Deleted",
        "Profiles Sync Warehouse Modified",
        "Profiles Sync Warehouse Retrieved",
        "Profiles Sync Warehouse Updated",
    ),
    "filter": ("Filter Created", "Filter Deleted", "Filter Updated"),
}
"""Names of audit events by the kind of thing they are about."""

_CONCERNS: Mapping[str, tuple[str, Callable[[Company, int], Record]]] = {
    "source": ("sources", sources_head),
    "integration": ("destinations", destinations_head),
    "storage_destination": ("warehouses", warehouses_head),
    "model": ("reverse_etl_models", reverse_etl_models_head),
    "transformation": ("transformations", transformations_head),
    "user": ("users", users_head),
}
_VARIANT_LIMIT = 600


def audit_variants(company: Company) -> int:
    """Tell how many different audit event bodies there are."""
    return min(max(company.counts["audit_events"], 1), _VARIANT_LIMIT)


def audit_tail(company: Company, index: int) -> Record:
    """Give everything of an audit event but its identifier and its time."""
    rng = company.rng("audit_events", index)
    kind = rng.choice(tuple(AUDIT_EVENT_TYPES))
    tail: Record = {"type": rng.choice(AUDIT_EVENT_TYPES[kind])}
    if chance(rng, 0.7):
        user = users_head(company, rng.randrange(max(company.counts["users"], 1)))
        tail.update(actor=f"user/{user['id']}", actorEmail=user["email"])
    else:
        token = company.id_at("tokens", rng.randrange(5))
        tail["actor"] = f"public-api-token/{token}"
    tail.update(_audit_resource(company, rng, kind))
    return tail


def _audit_resource(company: Company, rng: random.Random, kind: str) -> Record:
    number = rng.randrange(10_000)
    if kind not in _CONCERNS:
        identifier = company.id_at("others", number)
        return {
            "resourceId": identifier,
            "resourceType": kind,
            "resourceName": f"{kind.replace('_', ' ').capitalize()} {number}",
        }
    name, make = _CONCERNS[kind]
    head = make(company, company.wrapped(name, number))
    return {
        "resourceId": head["id"],
        "resourceType": kind,
        "resourceName": head.get("name", ""),
    }


ROWS = (Resource("audit_events", "/audit-events", "events", "audit", size=4500, total=False),)
