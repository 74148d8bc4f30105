"""What events may look like: tracking plans and their rules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from analytics_assets.sandbox.company import BASE62, Company, Ids, Record, chance, stamp
from analytics_assets.sandbox.lists.inventory import source_id
from analytics_assets.sandbox.resources import Choice, Embedded, Parent, Resource
from analytics_assets.sandbox.story import PLAN_WITHOUT_SOURCE, UNGOVERNED_SOURCES

_AREAS = ("Storefront", "Checkout", "Companion App", "Help Centre", "Billing", "Back Office")
_TOPICS = ("Core Events", "Marketing Events", "Server Events", "Experiments", "Identity")
_PLAN_TYPES = (
    "LIVE", "LIVE", "ENGAGE", "LIVE", "PROPERTY_LIBRARY", "LIVE", "RULE_LIBRARY", "LIVE", "LIVE",
    "TEMPLATE",
)  # fmt: skip
_THINGS = (
    "Product", "Order", "Cart", "Checkout Step", "Coupon", "Payment", "Refund", "Shipment",
    "Review", "Search", "Banner", "Newsletter", "Account", "Subscription", "Invoice", "Ticket",
    "Survey", "Wishlist", "Store", "Gift Card",
)  # fmt: skip
_ACTIONS = (
    "Viewed", "Started", "Completed", "Updated", "Removed", "Clicked", "Shared", "Failed",
    "Requested", "Cancelled",
)  # fmt: skip
EVENT_NAMES: Final = len(_THINGS) * len(_ACTIONS)
"""How many events there are, before their names get a number."""
_OTHER_RULES: tuple[tuple[str, str | None, int], ...] = (
    ("COMMON", None, 1), ("IDENTIFY", None, 1), ("IDENTIFY", None, 2), ("GROUP", "", 1),
    ("PAGE", "Checkout", 1), ("SCREEN", None, 1),
)  # fmt: skip
_PROPERTIES: dict[str, Record] = {
    "order_id": {"type": "string", "description": "Identifier of the order in the shop"},
    "product_id": {"type": ["string", "integer"]},
    "email": {"type": "string", "format": "email"},
    "revenue": {"type": "number", "minimum": 0, "description": "In the currency of the order"},
    "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
    "quantity": {"type": "integer", "minimum": 1, "maximum": 999},
    "coupon": {"type": ["string", "null"]},
    "is_gift": {"type": "boolean", "default": False},
    "channel": {"type": "string", "enum": ["web", "ios", "android", "store"]},
    "placed_at": {"type": "string", "format": "date-time"},
    "products": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"sku": {"type": "string"}, "price": {"type": "number"}},
            "required": ["sku"],
        },
    },
    "$referrer": {"type": "string", "format": "uri"},
    "password": {"not": {}, "description": "Must never be sent"},
    "apiKey": {"type": "string", "maxLength": 0},
}
_TOKEN: Record = {
    "type": "string",
    "description": "One-time token of the payment form",
    "pattern": "^tok_[A-Za-z0-9]{24}$",
}


def _tracking_plans_head(company: Company, index: int) -> Record:
    name = f"{_AREAS[index % len(_AREAS)]} {_TOPICS[index // len(_AREAS) % len(_TOPICS)]}"
    generation = index // (len(_AREAS) * len(_TOPICS))
    number = company.seed + index
    identifier = company.id_at("tracking_plans", index)
    return {
        "id": identifier,
        "name": f"{name} {generation + 1}" if generation else name,
        "resourceSchemaId": f"rs_{identifier[:2:-1]}",
        "slug": "",
        "type": _PLAN_TYPES[index % len(_PLAN_TYPES)],
        "updatedAt": stamp(number, 1),
        "createdAt": stamp(number),
    }


def _tracking_plans_tail(_company: Company, index: int) -> Record:
    if index % 5 == 0:
        return {}
    return {"description": "" if index % 3 else "What the team agreed to send from here."}


def _rules_of(company: Company, plan: int) -> int:
    usual = company.rng("tracking_plan_sizes", plan).randrange(10, 61)
    return company.counts.get("tracking_plan_rules", usual)


def event_name(number: int) -> str:
    """Give the name of an event."""
    thing = _THINGS[number % len(_THINGS)]
    action = _ACTIONS[(number // len(_THINGS) + number) % len(_ACTIONS)]
    generation = number // (len(_THINGS) * len(_ACTIONS))
    return f"{thing} {action} {generation + 1}" if generation else f"{thing} {action}"


def _rule_of(plan: int, index: int) -> tuple[str, str | None, int, bool]:
    """Give type, key and version of a rule, and whether there is a later version."""
    if index < len(_OTHER_RULES):
        kind, key, version = _OTHER_RULES[index]
        return kind, key, version, index == 1
    block, place = divmod(index - len(_OTHER_RULES), 7)  # five events, the last in three versions
    event = plan * 11 + block * 5 + min(place, 4)
    return "TRACK", event_name(event), max(place - 3, 1), place in (4, 5)


def _tracking_plan_rules_head(company: Company, plan: int, index: int) -> Record:
    kind, key, version, outdated = _rule_of(plan, index)
    head: Record = {"type": kind, "version": version}
    if key is not None:
        head["key"] = key
    number = company.seed + plan * 97 + index
    head["createdAt"] = stamp(number)
    if index % 7:
        head["updatedAt"] = stamp(number, 1)
    if outdated:
        head["deprecatedAt"] = stamp(number, 2)
    return head


def _tracking_plan_rules_tail(company: Company, variant: int) -> Record:
    if (variant + 1) % 41 == 0:
        return {"jsonSchema": None}
    rng = company.rng("json_schemas", variant)
    names = rng.sample(tuple(_PROPERTIES), rng.randrange(2, 9))
    properties = {name: _PROPERTIES[name] for name in names}
    if variant % 4 == 0:
        properties["token"] = _TOKEN
    traits: Record = {"type": "object"}
    if chance(rng, 0.3):
        traits["properties"] = {"plan": {"type": "string"}, "seats": {"type": "integer"}}
    return {
        "jsonSchema": {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "properties": {
                "context": {"type": "object"},
                "traits": traits,
                "properties": {
                    "type": "object",
                    "properties": properties,
                    "required": names[:2],
                    "additionalProperties": chance(rng, 0.5),
                },
            },
        }
    }


@lru_cache(maxsize=8)
def _in_use(plans: int) -> Sequence[int]:
    """Give the indexes of the plans that sources follow: live ones, of so many plans."""
    live = [n for n in range(plans) if _PLAN_TYPES[n % len(_PLAN_TYPES)] == "LIVE"]
    return [number for number in live if number != PLAN_WITHOUT_SOURCE]


def plan_of(company: Company, source: int) -> int | None:
    """Give the index of the plan that a source follows."""
    plans = _in_use(company.counts["tracking_plans"])
    return plans[source % len(plans)] if plans and source not in UNGOVERNED_SOURCES else None


def events_of(company: Company, plan: int) -> Sequence[str]:
    """Give the events that a plan names, without those that it has given up."""
    rules = [_rule_of(plan, index) for index in range(_rules_of(company, plan))]
    names = (key for kind, key, _, outdated in rules if kind == "TRACK" and not outdated)
    return list(dict.fromkeys(filter(None, names)))


def _sources_of(company: Company, plan: int) -> Sequence[int]:
    """Give the indexes of the sources that follow a plan."""
    plans = _in_use(company.counts["tracking_plans"])
    if plan not in plans:
        return ()
    own = range(plans.index(plan), company.counts["sources"], len(plans))
    return [n for n in own if n not in UNGOVERNED_SOURCES][
        : company.counts.get("tracking_plan_sources")
    ]


def _source_of(company: Company, plan: int, index: int) -> int:
    return _sources_of(company, plan)[index]


def _tracking_plan_sources_head(company: Company, plan: int, index: int) -> Record:
    return source_id(company, _source_of(company, plan, index))


ROWS = (
    Resource(
        "tracking_plans",
        "/tracking-plans",
        "trackingPlans",
        one="trackingPlan",
        size=30,
        ids=Ids(BASE62, 27, prefix="tp_"),
        head=_tracking_plans_head,
        tail=_tracking_plans_tail,
        choice=Choice(
            "type",
            ("ENGAGE", "LIVE", "PROPERTY_LIBRARY", "RULE_LIBRARY", "TEMPLATE"),
            required=False,
        ),
        total=False,
        last_next="missing",
    ),
    Resource(
        "tracking_plan_rules",
        "/tracking-plans/{trackingPlanId}/rules",
        "rules",
        key=("type", "key", "version"),
        parent=Parent("tracking_plans", "trackingPlanId", _rules_of),
        head=_tracking_plan_rules_head,
        tail=_tracking_plan_rules_tail,
        variants=600,
        total=False,
        last_next="missing",
        rate_limit=200,
    ),
    Resource(
        "tracking_plan_sources",
        "/tracking-plans/{trackingPlanId}/sources",
        "sources",
        parent=Parent(
            "tracking_plans",
            "trackingPlanId",
            lambda company, plan: len(_sources_of(company, plan)),
        ),
        head=_tracking_plan_sources_head,
        embedded=Embedded("sources", _source_of, under=""),
        last_next="missing",
    ),
)
