"""What happened: the bodies of audit events."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from analytics_assets.sandbox.company import Company, Record
from analytics_assets.sandbox.lists.identity import users_head
from analytics_assets.sandbox.lists.inventory import (
    destinations_head,
    reverse_etl_models_head,
    sources_head,
    transformations_head,
    warehouses_head,
)
from analytics_assets.sandbox.resources import Resource
from analytics_assets.sandbox.story import SILENT_ADMINISTRATOR

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
_BY_PEOPLE = (1, 2, 3, 4, 6, 7, 9)
"""Which events of ten a person causes; an API token causes the others."""


def audit_variants(company: Company) -> int:
    """Tell how many different audit event bodies there are."""
    return min(max(company.counts["audit_events"], 1), _VARIANT_LIMIT)


def audit_tail(company: Company, index: int) -> Record:
    """Give everything of an audit event but its identifier and its time."""
    rng = company.rng("audit_events", index)
    kind = rng.choice(tuple(AUDIT_EVENT_TYPES))
    tail: Record = {"type": rng.choice(AUDIT_EVENT_TYPES[kind])}
    if index % 10 in _BY_PEOPLE:
        number = index // 10 * len(_BY_PEOPLE) + _BY_PEOPLE.index(index % 10)
        user = users_head(company, _somebody(company, number))
        tail.update(actor=f"user/{user['id']}", actorEmail=user["email"])
    else:
        token = company.id_at("tokens", rng.randrange(5))
        tail["actor"] = f"public-api-token/{token}"
    tail.update(_audit_resource(company, rng, kind))
    return tail


def _somebody(company: Company, number: int) -> int:
    """Give a user, each in turn, but for the one who does nothing."""
    found = number % max(company.counts["users"], 1)
    return found - 1 if found == SILENT_ADMINISTRATOR else found


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
