"""Where data goes and what happens to it on its way: what hangs on sources and destinations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

from analytics_assets.sandbox.company import BASE58, MASK, Company, Ids, Record, stamp
from analytics_assets.sandbox.lists.catalog import action_head
from analytics_assets.sandbox.lists.inventory import (
    catalog_destination_of,
    destinations_head,
    source_id,
)
from analytics_assets.sandbox.resources import Embedded, Parent, Resource
from analytics_assets.sandbox.story import IDLE_SOURCES, OPEN_SOURCES

_SUBSCRIPTIONS = (1, 2, 0, 3, 1)
_FILTERS = (0, 1, 0, 2, 0)
_APART = 1_000_003
"""More than any list has records: what hangs on two parents is never of the same number."""
_EVENTS = ("Order Completed", "Cart Updated", "Checkout Started", "Signed Up")


def _subscriptions_of(company: Company, destination: int) -> int:
    return company.counts.get("destination_subscriptions", _SUBSCRIPTIONS[destination % 5])


def _destination_subscriptions_head(company: Company, destination: int, index: int) -> Record:
    action = action_head(company, catalog_destination_of(company, destination), index % 2)
    head: Record = {
        "id": company.id_at("destination_subscriptions", index * _APART + destination),
        "name": f"{action['name']} {index + 1}",
        "actionId": action["id"],
        "actionSlug": action["slug"],
        "destinationId": company.id_at("destinations", destination),
    }
    if (destination + 17) % 20 == 0 == index and company.counts["reverse_etl_models"]:
        head["modelId"] = company.id_of("reverse_etl_models", destination // 20)
        head["reverseETLSchedule"] = _schedule(destination // 20)
    elif index % 2:
        head["modelId"] = ""
    return head


def _schedule(number: int) -> Record:
    return (
        {"strategy": "PERIODIC", "config": {"interval": "6h"}},
        {"strategy": "MANUAL"},
        {"strategy": "SPECIFIC_DAYS", "config": {"days": [1, 4], "hours": [6], "timezone": "UTC"}},
        {"strategy": "CRON", "config": {"spec": "0 */4 * * *", "timezone": "UTC"}},
        {"strategy": "MANUAL", "config": None},
    )[number % 5]


def _destination_subscriptions_tail(company: Company, index: int) -> Record:
    event = _EVENTS[index % len(_EVENTS)]
    shapes: tuple[Record, ...] = (
        {"event_name": {"@path": "$.event"}, "user_id": {"@path": "$.userId"}},
        {},
        {"subject": {"@template": "{{properties.plan}} of {{userId}}"}, "batch": True, "size": 100},
        {"apiKey": MASK * 16, "email": {"@path": "$.traits.email"}},
        {"url": "https://hooks.example.com/in", "token": company.secret("subscription", index)},
    )
    return {
        "enabled": index % 6 != 0,
        "trigger": f'type = "track" and event = "{event}"' if index % 3 else 'type = "identify"',
        "settings": shapes[index % len(shapes)],
    }


def _filters_of(company: Company, destination: int) -> int:
    return company.counts.get("destination_filters", _FILTERS[destination % 5])


def _destination_filters_head(company: Company, destination: int, index: int) -> Record:
    return {
        "id": company.id_at("destination_filters", index * _APART + destination),
        "sourceId": destinations_head(company, destination)["sourceId"],
        "destinationId": company.id_at("destinations", destination),
        "title": f"Keep {_EVENTS[(destination + index) % len(_EVENTS)]} out, rule {index + 1}",
    }


def _destination_filters_tail(company: Company, index: int) -> Record:
    shapes: tuple[Record, ...] = (
        {"type": "DROP"},
        {"type": "SAMPLE", "percent": 0.25, "path": "userId"},
        {"type": "DROP_PROPERTIES", "fields": {"properties": ["email"], "": ["context"]}},
        {"type": "SAMPLE", "percent": 1},
        {"type": "ALLOW_PROPERTIES", "fields": {"traits": ["plan", "seats"]}},
    )
    event, number = _EVENTS[index % len(_EVENTS)], company.seed + index
    tail: Record = {
        "if": f'type = "track" and event = "{event}"' if index % 2 else '!(type = "track")',
        "actions": [shapes[index % len(shapes)]],
        "enabled": (index + 1) % 4 != 0,
        "createdAt": stamp(number),
        "updatedAt": stamp(number, 1),
    }
    if index % 3:
        tail["description"] = "" if index % 3 == 1 else "Asked for by the team that owns the tool."
    return tail


def _connected_to(company: Company, warehouse: int) -> int:
    usual = company.rng("warehouse_sizes", warehouse).randrange(5, 46)
    wanted = company.counts.get("warehouse_connected_sources", usual)
    return min(wanted, len(_connectable(company.counts["sources"])))


def _connected_source(company: Company, warehouse: int, index: int) -> int:
    sources = _connectable(company.counts["sources"])
    rng = company.rng("warehouse_connected_sources", warehouse)
    first, step = rng.randrange(len(sources)), rng.randrange(1, len(sources) + 1)
    while math.gcd(step, len(sources)) != 1:  # or some would come twice
        step += 1
    return sources[(first + index * step) % len(sources)]


@lru_cache(maxsize=8)
def _connectable(sources: int) -> Sequence[int]:
    return [number for number in range(sources) if number not in IDLE_SOURCES]


def _warehouse_connected_sources_head(company: Company, warehouse: int, index: int) -> Record:
    return source_id(company, _connected_source(company, warehouse, index))


def _source_schema_settings_tail(company: Company, index: int) -> Record:
    if index == 0:
        return {}
    rest: Record = {
        "allowTraitsOnViolations": True,
        "allowUnplannedTraits": index % 2 == 0,
        "commonEventOnViolations": ("ALLOW", "BLOCK", "OMIT_TRAITS")[index % 3],
    }
    tail: Record = {
        "track": {
            "allowUnplannedEvents": index == OPEN_SOURCES[0],
            "allowUnplannedEventProperties": True,
            "allowEventOnViolations": index % 4 == 1,
            "allowPropertiesOnViolations": True,
            "commonEventOnViolations": ("ALLOW", "BLOCK", "OMIT_PROPERTIES")[index % 3],
        },
        "identify": rest,
        "group": rest if index % 5 else {},
        "forwardingViolationsTo": company.id_of("sources", index * 7) if index % 3 == 0 else "",
    }
    if index % 4:
        tail["forwardingBlockedEventsTo"] = ""
    return tail


ROWS = (
    Resource(
        "destination_subscriptions",
        "/destinations/{destinationId}/subscriptions",
        "subscriptions",
        alone=True,
        ids=Ids(BASE58, 22),
        parent=Parent("destinations", "destinationId", _subscriptions_of, in_record=True),
        head=_destination_subscriptions_head,
        tail=_destination_subscriptions_tail,
        variants=20_000,
        last_next="missing",
    ),
    Resource(
        "destination_filters",
        "/destination/{destinationId}/filters",
        "filters",
        alone=True,
        ids=Ids(BASE58, 22),
        parent=Parent("destinations", "destinationId", _filters_of, in_record=True),
        head=_destination_filters_head,
        tail=_destination_filters_tail,
        variants=60,
        last_next="missing",
    ),
    Resource(
        "warehouse_connected_sources",
        "/warehouses/{warehouseId}/connected-sources",
        "sources",
        parent=Parent("warehouses", "warehouseId", _connected_to),
        head=_warehouse_connected_sources_head,
        embedded=Embedded("sources", _connected_source, under=""),
        last_next="missing",
    ),
    Resource(
        "source_schema_settings",
        "/sources/{sourceId}/settings",
        "settings",
        "single",
        key=(),
        parent=Parent("sources", "sourceId", lambda _company, _source: 1),
        tail=_source_schema_settings_tail,
        variants=60,
        echo=True,
    ),
)
