"""Whom profiles belong to and what is worked out for them: audiences and computed traits."""

from __future__ import annotations

from analytics_assets.sandbox.company import BASE58, Company, Ids, Record, stamp
from analytics_assets.sandbox.resources import Parent, Resource

_AUDIENCES = 20
_TRAITS = 5
_APART = 1_000_003
_SEGMENTS = (
    "Loyal Customers", "Lost Carts", "New Sign-ups", "Trial Users", "Big Spenders",
    "Silent Accounts",
)  # fmt: skip
_FIGURES = ("Orders", "Revenue", "Last Visit", "Favourite Category", "Days Since Order")
_STATES = ("Live", "Computing", "Failed", "Disabled", "Live")


def _own(company: Company, name: str, space: int, index: int, title: str) -> Record:
    return {
        "id": f"{company.id_at(name, index * _APART + space)}",
        "spaceId": company.id_at("spaces", space),
        "name": title,
        "key": title.lower().replace(" ", "_"),
    }


def _shared(company: Company, index: int) -> Record:
    number = company.seed + index
    shared: Record = {
        "enabled": (index + 1) % 4 != 0,
        "createdBy": company.id_of("users", index * 5 + 1),
        "updatedBy": company.id_of("users", index * 11 + 2),
        "createdAt": stamp(number),
        "updatedAt": stamp(number, 1),
    }
    if index % 3:
        shared["description"] = "" if index % 3 == 1 else "Kept by the team that sends the letters."
    if index % 5:
        shared["status"] = _STATES[index % len(_STATES)]
    return shared


def _audiences_head(company: Company, space: int, index: int) -> Record:
    title = f"{_SEGMENTS[index % len(_SEGMENTS)]} {index + 1}"
    return _own(company, "audiences", space, index, title)


def _audiences_tail(company: Company, index: int) -> Record:
    query = f'event("Order Completed").within({index + 1} days).count() >= {index % 4 + 1}'
    definitions: tuple[Record | None, ...] = (
        {"query": query}, None, {"query": query, "targetEntity": None}, {"query": query},
    )  # fmt: skip
    kind = ("USERS", "USERS", "ACCOUNTS", "USERS", "LINKED")[index % 5]
    tail: Record = {
        **_shared(company, index),
        "audienceType": kind,
        "computeCadence": {"type": "REALTIME" if index % 2 else "BATCH"},
        "definition": definitions[index % 4],
    }
    if index % 6:
        tail["size"] = {
            "count": index * 1009 % 50_000,
            "type": ("ENTITIES", "USERS", "ACCOUNTS")[index % 3],
        }
    if index % 7:
        tail["options"] = {
            "filterByExternalIds": ["user_id"],
            "includeHistoricalData": index % 2 == 0,
        }
    return tail


def _computed_traits_head(company: Company, space: int, index: int) -> Record:
    title = f"{_FIGURES[index % len(_FIGURES)]} {index + 1}"
    return _own(company, "computed_traits", space, index, title)


def _computed_traits_tail(company: Company, index: int) -> Record:
    query = f'event("Order Completed").within({index + 7} days).sum("revenue")'
    kind = "USERS" if (index + 1) % 4 else "ACCOUNTS"
    tail: Record = {
        **_shared(company, index),
        "definition": {"query": query, "type": kind} if index % 6 else None,
    }
    if index % 2:
        tail["options"] = {"includeAnonymousUsers": index % 3 == 0, "backfillDurationDays": 30}
    return tail


ROWS = (
    Resource(
        "audiences",
        "/spaces/{spaceId}/audiences",
        "audiences",
        ids=Ids(BASE58, 22, prefix="aud_"),
        parent=Parent(
            "spaces",
            "spaceId",
            lambda company, _space: company.counts.get("audiences", _AUDIENCES),
            in_record=True,
        ),
        head=_audiences_head,
        tail=_audiences_tail,
        variants=60,
        page_limit=200,
        rate_limit=60,
    ),
    Resource(
        "computed_traits",
        "/spaces/{spaceId}/computed-traits",
        "computedTraits",
        ids=Ids(BASE58, 22, prefix="ct_"),
        parent=Parent(
            "spaces",
            "spaceId",
            lambda company, _space: company.counts.get("computed_traits", _TRAITS),
            in_record=True,
        ),
        head=_computed_traits_head,
        tail=_computed_traits_tail,
        variants=60,
        rate_limit=25,
    ),
)
