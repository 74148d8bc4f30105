"""Who may do what: users, roles, labels and groups."""

from __future__ import annotations

import math
import random

from analytics_assets.sandbox.company import BASE58, BASE62, Company, Ids, Record, chance
from analytics_assets.sandbox.lists.functions import function_id
from analytics_assets.sandbox.resources import Parent, Resource
from analytics_assets.sandbox.story import SILENT_ADMINISTRATOR

_ROLE_NAMES = (
    "Workspace Owner", "Workspace Member", "Minimal Workspace Access", "Source Admin",
    "Source Read-only", "Source Settings Editor", "Function Admin", "Function Read-only",
    "Warehouse Admin", "Warehouse Read-only", "Space Admin", "Space Read-only", "Audience Admin",
    "Audience Read-only", "Trait Admin", "Trait Read-only", "Journey Admin", "Journey Read-only",
    "Tracking Plan Admin", "Tracking Plan Read-only", "End User Privacy Admin",
    "Identity Admin",
)  # fmt: skip
_JOBS = ("Analyst", "Engineer", "Marketer", "Product Manager", "Data Steward", "Contractor")
_GROUP_NAMES = (
    "Data Platform", "Growth Marketing", "Product Analytics", "Customer Support", "Finance",
    "Mobile Engineering", "Privacy and Compliance", "External Agency", "Warehouse Administrators",
    "Workspace Owners",
)  # fmt: skip
_LABELS = {
    "environment": ("prod", "staging", "dev", "sandbox", "qa"),
    "team": ("growth", "payments", "search", "support", "logistics", "finance", "data", "brand"),
    "region": ("emea", "amer", "apac", "latam", "global"),
    "tier": ("gold", "silver", "bronze"),
    "type": ("web", "mobile", "server", "cloud"),
}


def users_head(company: Company, index: int) -> Record:
    """Give identifier, name and address of a user."""
    job = _JOBS[index % len(_JOBS)]
    return {
        "id": company.id_at("users", index),
        "name": f"{job} {index + 1}" if index % 12 else "",
        "email": f"{job.lower().replace(' ', '.')}.{index + 1}@example.com",
    }


def _users_tail(company: Company, index: int) -> Record:
    if index == SILENT_ADMINISTRATOR:
        everything = {"id": company.workspace_id, "type": "WORKSPACE"}
        return {"permissions": [{**_role(company, 0), "resources": [everything]}]}
    if (index + 1) % 10 == 0:
        return {}
    rng = company.rng("users", index)
    return {"permissions": [_permission(company, rng) for _ in range(rng.randrange(1, 4))]}


def _permission(company: Company, rng: random.Random) -> Record:
    role = rng.randrange(max(company.counts["roles"], 1))
    given: Record = {
        **_role(company, role),
        "resources": [_permission_resource(company, rng) for _ in range(rng.randrange(1, 3))],
    }
    if chance(rng, 0.3):
        given["labels"] = [labels_head(company, rng.randrange(25))]
    return given


def _role(company: Company, index: int) -> Record:
    return {
        "roleName": roles_head(company, index)["name"],
        "roleId": company.id_at("roles", index),
    }


def _permission_resource(company: Company, rng: random.Random) -> Record:
    kind = rng.choice(("FUNCTION", "SOURCE", "SPACE", "WAREHOUSE", "WORKSPACE"))
    number = rng.randrange(1000)
    identifiers = {
        "FUNCTION": function_id(company, number),
        "SOURCE": company.id_of("sources", number),
        "SPACE": company.id_of("spaces", number),
        "WAREHOUSE": company.id_of("warehouses", number),
        "WORKSPACE": company.workspace_id,
    }
    resource: Record = {"id": identifiers[kind], "type": kind}
    if kind == "SOURCE" and chance(rng, 0.5):
        resource["labels"] = [{**labels_head(company, number % 25), "description": "by label"}]
    return resource


def labels_head(_company: Company, index: int) -> Record:
    """Give key and value of a label."""
    pairs = [(key, value) for key, values in _LABELS.items() for value in values]
    if index < len(pairs):
        key, value = pairs[index]
        return {"key": key, "value": value}
    return {"key": ("cost-centre", "project")[index % 2], "value": f"{1000 + index}"}


def _labels_tail(_company: Company, index: int) -> Record:
    kind = index % 3
    if kind == 0:
        return {}
    return {"description": "" if kind == 1 else f"Set by the platform team, rule {index}"}


def roles_head(company: Company, index: int) -> Record:
    """Give identifier and name of a role."""
    name = _ROLE_NAMES[index % len(_ROLE_NAMES)]
    if index >= len(_ROLE_NAMES):
        name = f"{name} {index + 1}"
    return {"id": company.id_at("roles", index), "name": name}


def _roles_tail(_company: Company, index: int) -> Record:
    rights = "see but not change" if index % 2 else "see and change"
    return {"description": f"May {rights} what belongs to this part of the workspace."}


def _members_of(company: Company, group: int) -> int:
    usual = company.rng("group_sizes", group).randrange(3, 41)
    return min(company.counts.get("group_users", usual), company.counts["users"])


def _groups_head(company: Company, index: int) -> Record:
    name = _GROUP_NAMES[index % len(_GROUP_NAMES)]
    return {
        "id": company.id_at("groups", index),
        "name": name if index < len(_GROUP_NAMES) else f"{name} {index + 1}",
        "memberCount": _members_of(company, index),
    }


def _groups_tail(company: Company, index: int) -> Record:
    if (index + 1) % 6 == 0:
        return {}
    rng = company.rng("groups", index)
    return {"permissions": [_permission(company, rng) for _ in range(rng.randrange(3))]}


def _group_users_head(company: Company, group: int, index: int) -> Record:
    users = company.counts["users"]
    rng = company.rng("group_users", group)
    first, step = rng.randrange(users), rng.randrange(1, users + 1)
    while math.gcd(step, users) != 1:  # or some would come twice
        step += 1
    return users_head(company, (first + index * step) % users)


def _invited_of(company: Company, group: int) -> int:
    usual = company.counts.get("group_invites", (2, 0, 1, 0, 3)[group % 5])
    return min(usual, company.counts["invites"])


def _group_invites_head(company: Company, group: int, index: int) -> Record:
    return _invites_head(company, company.wrapped("invites", group * 3 + index))


def _invites_head(company: Company, index: int) -> Record:
    job = company.rng("invites", index).choice(_JOBS)
    return {"email": f"{job.lower().replace(' ', '.')}.invited.{index + 1}@example.com"}


ROWS = (
    Resource(
        "users",
        "/users",
        "users",
        one="user",
        size=150,
        ids=Ids(BASE58, 22),
        head=users_head,
        tail=_users_tail,
        last_next="missing",
    ),
    Resource(
        "invites",
        "/invites",
        "invites",
        key=("email",),
        size=12,
        head=_invites_head,
        bare=True,
        last_next="missing",
    ),
    Resource(
        "labels",
        "/labels",
        "labels",
        "plain",
        ("key", "value"),
        size=60,
        head=labels_head,
        tail=_labels_tail,
    ),
    Resource(
        "roles",
        "/roles",
        "roles",
        size=22,
        ids=Ids(BASE62, 27),
        head=roles_head,
        tail=_roles_tail,
        total=False,
        last_next="missing",
    ),
    Resource(
        "groups",
        "/groups",
        "userGroups",
        one="userGroup",
        size=10,
        ids=Ids(BASE58, 22),
        head=_groups_head,
        tail=_groups_tail,
        total=False,
        last_next="missing",
    ),
    Resource(
        "group_users",
        "/groups/{userGroupId}/users",
        "users",
        parent=Parent("groups", "userGroupId", _members_of),
        head=_group_users_head,
        last_next="missing",
    ),
    Resource(
        "group_invites",
        "/groups/{userGroupId}/invites",
        "emails",
        key=("email",),
        parent=Parent("groups", "userGroupId", _invited_of),
        head=_group_invites_head,
        bare=True,
        last_next="missing",
    ),
)
