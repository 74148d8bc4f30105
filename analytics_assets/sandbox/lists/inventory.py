"""What is connected: sources, destinations, warehouses and what runs between them."""

from __future__ import annotations

import math

from analytics_assets.sandbox.company import BASE58, BASE62, MASK, Company, Ids, Record
from analytics_assets.sandbox.lists.catalog import DEPRECATED, brand, public
from analytics_assets.sandbox.lists.identity import labels_head
from analytics_assets.sandbox.resources import Embedded, Resource
from analytics_assets.sandbox.story import (
    DEPRECATED_DESTINATION,
    IDLE_SOURCES,
    SHARED_KEY,
    is_switched_off,
)

_SURFACES = ("Storefront", "Checkout", "Companion App", "Help Centre", "Billing", "Back Office")
_SURFACE_KINDS = ("Web", "iOS", "Android", "Server", "Cloud")


def _catalog_source_of(company: Company, index: int) -> int:
    return company.wrapped("catalog_sources", public(index * 31 + 5))


def catalog_destination_of(company: Company, index: int) -> int:
    """Give the index in the catalog of the tool behind a destination."""
    number = DEPRECATED if index == DEPRECATED_DESTINATION else public(index * 17 + 3)
    return company.wrapped("catalog_destinations", number)


def _catalog_warehouse_of(company: Company, index: int) -> int:
    return company.wrapped("catalog_warehouses", index * 5 + 2)


def _write_keys(company: Company, index: int) -> list[str]:
    number = (1, 1, 1, 2, 1, 1, 0, 1)[index % 8]
    return [company.secret("write-key", index, n)[:32] for n in range(number)]


def source_id(company: Company, index: int) -> Record:
    """Give the identifier of a source, which is all that other lists need of one."""
    return {"id": company.id_at("sources", index)}


def sources_head(company: Company, index: int) -> Record:
    """Give what is a source's own."""
    surface = _SURFACES[index % len(_SURFACES)]
    kind = _SURFACE_KINDS[index // len(_SURFACES) % len(_SURFACE_KINDS)]
    name = f"{surface} {kind} {index + 1}"
    head: Record = {
        **source_id(company, index),
        "slug": name.lower().replace(" ", "_"),
        "enabled": not is_switched_off(index),
        "writeKeys": _write_keys(company, index),
    }
    if index % 9:
        head["name"] = name if index % 10 else ""
    return head


def _sources_tail(company: Company, index: int) -> Record:
    rng = company.rng("sources", index)
    tail: Record = {
        "workspaceId": company.workspace_id,
        "labels": [labels_head(company, n) for n in rng.sample(range(25), rng.randrange(4))],
    }
    shapes: tuple[Record, ...] = (
        {},
        {"websiteUrl": "https://shop.example.com", "sampleRate": 1},
        {"apiKey": company.secret("source-api-key", index), "sampleRate": "0.5"},
        {"auth": {"type": "basic", "password": company.secret("source-password", index)}},
        {"apiKey": MASK * 12, "sampleRate": None, "paths": ["/orders", "/refunds"]},
    )
    if index % 6:
        tail["settings"] = shapes[index % 5]
    return tail


def _source_of_destination(company: Company, index: int) -> int:
    """Give the source of a destination; the first destinations meet each source once."""
    sources = max(company.counts["sources"], 1)
    if index >= sources:
        return (index * 13 + index // 7) % sources
    step = next(step for step in range(13, 13 + sources) if math.gcd(step, sources) == 1)
    return index * step % sources


def destinations_head(company: Company, index: int) -> Record:
    """Give what is a destination's own."""
    source = _source_of_destination(company, index)
    in_use = index < company.counts["sources"] or index % 5 != 0
    head: Record = {
        "id": company.id_at("destinations", index),
        "sourceId": company.id_of("sources", source),
        "enabled": in_use and source not in IDLE_SOURCES,
    }
    if index % 8:
        tool, _ = brand(catalog_destination_of(company, index))
        head["name"] = f"{tool} {index + 1}" if index % 11 else ""
    return head


def _destinations_tail(company: Company, index: int) -> Record:
    shapes = _destination_settings(company, index)
    return {"settings": shapes[index % len(shapes)]}


def _destination_settings(company: Company, index: int) -> tuple[Record, ...]:
    holder = SHARED_KEY[0] if index in SHARED_KEY else index

    def secret(kind: str) -> str:
        return company.secret("destination", kind, holder)

    return (
        {"apiKey": secret("api-key"), "sampleRate": 1, "region": "eu-west-1"},
        {"apiKey": MASK * 20, "sampleRate": "0.5", "eventMap": {"Order Completed": "order"}},
        {"username": "svc_events", "password": secret("password"), "port": 5432},
        {"region": "us-west-2", "secretId": secret("secret-id"), "stream": "events"},
        {
            "auth": {"type": "bearer", "token": secret("token")},
            "endpoint": f"https://svc_events:{secret('userinfo')}@ingest.example.com/v1",
            "port": "443",
        },
        {"headers": {"Authorization": f"Bearer {secret('header')}"}, "batch": True},
        {},
        {
            "clientId": f"client-{index}",
            "clientSecret": secret("client-secret"),
            "accounts": [
                {"name": "main", "accessToken": secret("account-main")},
                {"name": "backup", "accessToken": MASK * 16},
            ],
            "eventMap": ["Order Completed", "Order Refunded"],
        },
        {"apiKey": [MASK * 8, MASK * 8], "sampleRate": None, "batch": {"size": 500}},
        {"webhook_secret": secret("webhook"), "private-key": secret("private-key"), "port": ""},
    )


def warehouses_head(company: Company, index: int) -> Record:
    """Give what is a warehouse's own."""
    return {"id": company.id_at("warehouses", index)}


def _warehouses_tail(company: Company, index: int) -> Record:
    shapes: tuple[Record, ...] = (
        {
            "name": "Reporting",
            "gc-project": "harbor-supply-reporting",
            "location": "EU",
            "ciphertext": company.secret("warehouse-ciphertext", index),
        },
        {
            "name": "Events",
            "hostname": "db.example.com",
            "port": "5439",
            "database": "events",
            "encrypted": True,
            "ciphertext": company.secret("warehouse-ciphertext", index),
        },
        {"hostname": "lake.example.com", "port": 5432, "encrypted": "", "username": "loader"},
    )
    return {
        "workspaceId": company.workspace_id,
        "enabled": (index + 1) % 5 != 0,
        "settings": shapes[index % len(shapes)],
    }


def reverse_etl_models_head(company: Company, index: int) -> Record:
    """Give what is a model's own."""
    return {
        "id": company.id_at("reverse_etl_models", index),
        "sourceId": company.id_of("sources", index * 7 + 1),
        "name": f"{_SURFACES[index % len(_SURFACES)]} accounts {index + 1}",
    }


def _reverse_etl_models_tail(_company: Company, index: int) -> Record:
    column = ("account_id", "user_id", "email_hash")[index % 3]
    table = ("accounts", "orders", "subscriptions", "tickets")[index % 4]
    return {
        "description": "" if index % 4 == 0 else f"Everything we know per {column}",
        "enabled": index % 5 != 0,
        "query": f"select {column},\n       count(*) as n\nfrom analytics.{table}\ngroup by 1",
        "queryIdentifierColumn": column,
    }


def transformations_head(company: Company, index: int) -> Record:
    """Give what is a transformation's own."""
    return {
        "id": company.id_at("transformations", index),
        "workspaceId": company.workspace_id,
        "sourceId": company.id_of("sources", index * 11 + 2),
        "name": f"Tidy up events, rule {index + 1}",
    }


def _transformations_tail(company: Company, index: int) -> Record:
    shapes: tuple[Record, ...] = (
        {"newEventName": "order_cancelled", "propertyRenames": []},
        {"drop": True},
        {"propertyRenames": [{"oldName": "Category", "newName": "category"}]},
        {
            "hashPropertiesConfiguration": {
                "algorithm": "HMAC-SHA256",
                "key": company.secret("hash-key", index),
                "encoding": ("HEX", "BASE64")[index // 7 % 2],
                "paths": ["properties.email", "traits.phone"],
            }
        },
        {
            "propertyValueTransformations": [
                {"propertyPaths": ["properties.country"], "propertyValue": "unknown"}
            ],
            "drop": False,
        },
        {
            "fqlDefinedProperties": [{"fql": "lowercase(properties.plan)", "propertyName": "plan"}],
            "allowProperties": ["plan", "price"],
        },
        {
            "hashPropertiesConfiguration": {"algorithm": "SHA256", "paths": ["traits.email"]},
            "propertyDrops": ["properties.note"],
        },
    )
    tail: Record = {
        "enabled": (index + 1) % 4 != 0,
        "if": "event = 'Order Cancelled'" if index % 2 else "type = 'identify'",
        **shapes[index % len(shapes)],
    }
    if index % 3 == 0:
        tail["destinationMetadataId"] = company.id_of("catalog_destinations", index * 19)
    elif index % 8 == 1:
        tail["destinationId"] = company.id_of("destinations", index)
    return tail


def _spaces_head(company: Company, index: int) -> Record:
    names = ("Production", "Staging", "Playground")
    name = names[index % len(names)]
    suffix = f" {index + 1}" if index >= len(names) else ""
    slug = (name + suffix).lower().replace(" ", "-")
    identifier = company.id_at("spaces", index)
    return {"id": identifier, "slug": slug, "name": name + suffix}


def _workspace_head(company: Company, _index: int) -> Record:
    return {"id": company.workspace_id, "name": "Harbor Supply", "slug": "harbor-supply"}


ROWS = (
    Resource(
        "workspace",
        "/",
        "workspace",
        "single",
        size=1,
        head=_workspace_head,
    ),
    Resource(
        "warehouses",
        "/warehouses",
        "warehouses",
        one="warehouse",
        size=6,
        ids=Ids(BASE58, 22),
        head=warehouses_head,
        tail=_warehouses_tail,
        embedded=Embedded("catalog_warehouses", _catalog_warehouse_of),
    ),
    Resource(
        "sources",
        "/sources",
        "sources",
        one="source",
        linked="tracking_plan_sources",
        size=120,
        ids=Ids(BASE58, 22),
        head=sources_head,
        tail=_sources_tail,
        embedded=Embedded("catalog_sources", _catalog_source_of),
        last_next="missing",
    ),
    Resource(
        "destinations",
        "/destinations",
        "destinations",
        one="destination",
        size=200,
        ids=Ids(BASE58, 22),
        head=destinations_head,
        tail=_destinations_tail,
        embedded=Embedded("catalog_destinations", catalog_destination_of),
    ),
    Resource(
        "reverse_etl_models",
        "/reverse-etl-models",
        "models",
        one="reverseEtlModel",
        size=12,
        ids=Ids(BASE58, 22, salt="models"),
        head=reverse_etl_models_head,
        tail=_reverse_etl_models_tail,
        last_next="missing",
    ),
    Resource(
        "transformations",
        "/transformations",
        "transformations",
        one="transformation",
        size=25,
        ids=Ids(BASE58, 22),
        head=transformations_head,
        tail=_transformations_tail,
        last_next="missing",
    ),
    Resource(
        "spaces",
        "/spaces",
        "spaces",
        one="space",
        size=2,
        ids=Ids(BASE62, 27),
        head=_spaces_head,
    ),
)
