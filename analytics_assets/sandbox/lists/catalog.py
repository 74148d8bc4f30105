"""The three catalogs: what the service offers, the same for every workspace."""

from __future__ import annotations

import random

from analytics_assets.sandbox.company import (
    BASE58,
    BASE62,
    HEX,
    Company,
    IdCodec,
    Ids,
    Record,
    chance,
)
from analytics_assets.sandbox.resources import Resource

_STONES = (
    "Amber", "Basalt", "Cobalt", "Dolomite", "Ember", "Flint", "Garnet", "Hematite", "Indigo",
    "Jasper", "Kyanite", "Larch", "Marble", "Nickel", "Ochre", "Pyrite", "Quartz", "Russet",
    "Slate", "Topaz", "Umber",
)  # fmt: skip
_NOUNS = (
    "Abacus", "Beacon", "Compass", "Ferry", "Gauge", "Harbor", "Kiln", "Ledger", "Lantern",
    "Meadow", "Orchard", "Parcel", "Quarry", "Relay", "Signal", "Tally", "Urn", "Vista", "Weaver",
    "Yardstick",
)  # fmt: skip
_CATEGORIES = (
    "A/B Testing", "Advertising", "Analytics", "Attribution", "CRM", "Customer Success",
    "Data Warehouses", "Email Marketing", "Feature Flagging", "Heatmaps & Recordings", "Livechat",
    "Marketing Automation", "Performance Monitoring", "Personalization", "Raw Data", "Referrals",
    "SMS & Push Notifications", "Surveys", "Tag Managers", "Video",
)  # fmt: skip
_STATUSES = (
    "PUBLIC", "PUBLIC", "PUBLIC", "PUBLIC", "PUBLIC_BETA", "PRIVATE_BETA", "DEPRECATED",
    "PRIVATE_BUILDING", "PRIVATE_SUBMITTED", "UNAVAILABLE",
)  # fmt: skip
DEPRECATED = _STATUSES.index("DEPRECATED")
"""An entry of a catalogue that is deprecated."""
_FIELD_TYPES = (
    "STRING", "STRING", "TEXT", "INTEGER", "NUMBER", "BOOLEAN", "DATETIME", "OBJECT", "HIDDEN",
    "PASSWORD",
)  # fmt: skip
_OPTION_TYPES = ("string", "boolean", "number", "text-map", "array", "select", "mixed", "password")
_FIELD_WORDS = (
    "account", "address", "ad", "audience", "basket", "brand", "campaign", "cart", "channel",
    "click", "consent", "country", "coupon", "currency", "device", "email", "event", "external",
    "group", "list", "locale", "order", "page", "phone", "product", "profile", "quantity",
    "referrer", "revenue", "session", "tax", "timezone", "traits", "user", "value", "visit",
)  # fmt: skip
_FIELD_ENDINGS = ("Id", "Name", "Type", "Value", "Code", "Count", "Source", "At", "List", "Key")
_SENTENCES = (
    "Fill this in before the first event is delivered, otherwise events are held back.",
    "Leave it as it is unless the support team of the tool asks for another value.",
    "The value is read once per event, and a *missing value* is sent as an empty text.",
    "You find it under **Settings > Connections** of the tool, next to the project number.",
    "Only events which carry this property are forwarded; all others are counted and dropped.",
    "Changing it later affects new events only and does not rewrite what was sent before.",
    "Accepts plain text as well as a path such as `properties.order.total`.",
)
_WAREHOUSES = (
    ("postgres", "Postgres"), ("redshift", "Redshift"), ("bigquery", "BigQuery"),
    ("snowflake", "Snowflake"), ("databricks", "Databricks"), ("azuresqldb", "Azure SQL Database"),
    ("azuresqldw", "Azure SQL Data Warehouse"), ("db2", "Db2"), ("data-lakes", "Data Lake"),
    ("mysql", "MySQL"), ("clickhouse", "ClickHouse"), ("s3", "Object Storage"),
    ("redshift-serverless", "Redshift Serverless"), ("postgres-ssh", "Postgres over SSH"),
)  # fmt: skip


def public(number: int) -> int:
    """Give the entry of a catalogue that comes at this place among the public ones."""
    entries = _STATUSES.count("PUBLIC")
    return number // entries * len(_STATUSES) + number % entries


def brand(index: int) -> tuple[str, str]:
    """Give name and slug of the tool behind a catalog entry."""
    first = _STONES[index % len(_STONES)]
    second = _NOUNS[index % len(_NOUNS)]  # the two lengths share no divisor
    generation = index // (len(_STONES) * len(_NOUNS))
    suffix = f" {generation + 1}" if generation else ""
    name = f"{first} {second}{suffix}"
    return name, name.lower().replace(" ", "-")


def _logos(rng: random.Random, slug: str) -> Record:
    logos: Record = {"default": f"https://assets.example.com/logos/{slug}-default.svg"}
    mark = f"https://assets.example.com/logos/{slug}-mark.svg"
    others: tuple[Record, ...] = (
        {}, {"mark": mark}, {"mark": None, "alt": ""}, {"mark": "", "alt": None},
    )  # fmt: skip
    return {**logos, **rng.choice(others)}


def _any_value(rng: random.Random) -> object:
    values: tuple[object, ...] = (
        "", "eu-west-1", True, False, 2, 0.25, {}, {"Order Completed": "purchase"}, [],
        ["name", "plan"], None,
    )  # fmt: skip
    return rng.choice(values)


def _text(rng: random.Random, sentences: int) -> str:
    return " ".join(rng.sample(_SENTENCES, sentences))


def _field_key(rng: random.Random) -> str:
    word, ending = rng.choice(_FIELD_WORDS), rng.choice(_FIELD_ENDINGS)
    style = rng.randrange(4)
    if style == 0:
        return f"{word}_{ending.lower()}"
    if style == 1:
        return f"{word}-{ending.lower()}"
    return f"{word}{ending}"


def _option(_company: Company, rng: random.Random, name: str) -> Record:
    option: Record = {"name": name, "type": rng.choice(_OPTION_TYPES)}
    if chance(rng, 0.85):
        option["defaultValue"] = _any_value(rng)
    option["required"] = chance(rng, 0.4)
    if chance(rng, 0.9):
        option["description"] = _text(rng, rng.randrange(1, 3))
    if chance(rng, 0.8):
        option["label"] = name.replace("_", " ").capitalize()
    return option


def _options(company: Company, rng: random.Random, number: int) -> list[Record]:
    names = ["apiKey", "password", "api-key", "_version", "secretId", "region", "eventMap"]
    chosen = rng.sample(names, min(number, len(names)) // 2)
    chosen += [_field_key(rng) for _ in range(number - len(chosen))]
    return [_option(company, rng, name) for name in chosen]


def _mapping(rng: random.Random, key: str) -> object:
    snake = key.replace("-", "_").lower()
    shapes: tuple[object, ...] = (
        {"@path": f"$.properties.{snake}"},
        {
            "@if": {
                "exists": {"@path": f"$.traits.{snake}"},
                "then": {"@path": f"$.traits.{snake}"},
                "else": {"@path": f"$.properties.{snake}"},
            }
        },
        {
            "@arrayPath": [
                "$.properties.products",
                {"id": {"@path": "$.product_id"}, "price": {"@path": "$.price"}},
            ]
        },
        {"@template": "{{properties." + snake + "}}"},
        f"$.context.{snake}",
        chance(rng, 0.5),
        rng.randrange(1000),
    )
    return rng.choice(shapes)


def _action_field(_company: Company, rng: random.Random, action_id: str, order: int) -> Record:
    key = _field_key(rng)
    field: Record = {
        "id": f"{action_id}{order:02d}",
        "sortOrder": order,
        "fieldKey": key,
        "label": key.replace("_", " ").title(),
        "type": rng.choice(_FIELD_TYPES),
        "description": _text(rng, 1),
        "required": order == 0,
        "multiple": chance(rng, 0.1),
        "dynamic": chance(rng, 0.1),
        "allowNull": chance(rng, 0.2),
    }
    if chance(rng, 0.7):
        field["defaultValue"] = rng.choice((_mapping(rng, key), _any_value(rng)))
    if chance(rng, 0.4):
        field["choices"] = rng.choice(
            (
                None,
                [{"label": "Yes", "value": True}, {"label": "No", "value": False}],
                [{"label": "Purchase", "value": "purchase"}],
                ["small", "large"],
            )
        )
    if chance(rng, 0.3):
        field["placeholder"] = f"for example {key}-1"
    if chance(rng, 0.3):
        field["hidden"] = chance(rng, 0.5)
    return field


def action_head(company: Company, index: int, order: int) -> Record:
    """Give identifier, slug and name of an action of a tool; each tool has two."""
    rng = company.rng(f"action:{index}", order)
    verb = rng.choice(("Send", "Upsert", "Track", "Sync", "Remove"))
    noun = rng.choice(_FIELD_WORDS)
    return {
        "id": IdCodec(Ids(BASE58, 22), f"{company.seed}:action:{index}").encode(order),
        "slug": f"{verb.lower()}-{noun}-{order}",
        "name": f"{verb} {noun}",
    }


def _action(company: Company, rng: random.Random, index: int, order: int) -> Record:
    head = action_head(company, index, order)
    return {
        **head,
        "description": _text(rng, 1),
        "platform": rng.choice(("CLOUD", "CLOUD", "MOBILE", "WEB")),
        "hidden": chance(rng, 0.1),
        "defaultTrigger": rng.choice((None, 'type = "track"', 'type = "identify"')),
        "fields": [_action_field(company, rng, head["id"], number) for number in range(4)],
    }


def _preset(_company: Company, rng: random.Random, action_id: str, order: int) -> Record:
    keys = [_field_key(rng) for _ in range(5)]
    if order == 0:
        keys += ["campaignId", "campaign_id"]
    return {
        "actionId": action_id,
        "name": f"Preset {order + 1}",
        "fields": {key: _mapping(rng, key) for key in keys},
        "trigger": f'type = "track" and event = "{rng.choice(_FIELD_WORDS)} viewed"',
    }


def _supported(_company: Company, rng: random.Random) -> Record:
    def flags(*names: str) -> Record:
        kept = [name for name in names if chance(rng, 0.9)]
        return {name: chance(rng, 0.6) for name in kept}

    features: Record = flags("replay", "browserUnbundling", "browserUnbundlingPublic")
    features["cloudModeInstances"] = rng.choice(("0", "1", "SINGLE", "MULTIPLE", "NONE"))
    if chance(rng, 0.8):
        features["deviceModeInstances"] = rng.choice(("0", "1", "NONE", "SINGLE"))
    return {
        "supportedFeatures": features,
        "supportedMethods": flags("track", "pageview", "identify", "group", "alias"),
        "supportedPlatforms": flags(
            "browser", "mobile", "server", "warehouse", "cloudAppObject", "linkedAudiences"
        ),
    }


def _catalog_destinations_head(company: Company, index: int) -> Record:
    name, slug = brand(index)
    identifier = company.id_at("catalog_destinations", index)
    return {"id": identifier, "name": name, "slug": slug}


def _catalog_destinations_tail(company: Company, index: int) -> Record:
    rng = company.rng("catalog_destinations", index)
    name, slug = brand(index)
    actions = [_action(company, rng, index, order) for order in range(2)]
    tail: Record = {
        "description": f"Deliver events to {name}. " + _text(rng, 1),
        "logos": _logos(rng, slug),
        "options": _options(company, rng, rng.randrange(2, 6)),
        "status": _STATUSES[index % len(_STATUSES)],
        "previousNames": [name] if chance(rng, 0.7) else [],
        "categories": rng.sample(_CATEGORIES, rng.randrange(1, 4)),
        "website": f"https://{slug}.example.com",
        "components": [
            {"type": kind, "code": f"https://code.example.com/{slug}-{kind.lower()}"}
            for kind in rng.sample(("ANDROID", "BROWSER", "IOS", "SERVER"), 2)
        ],
        **_supported(company, rng),
        "actions": actions,
        "presets": [_preset(company, rng, a["id"], order) for order, a in enumerate(actions)],
    }
    tail["components"][0]["owner"] = rng.choice(("PARTNER", "SEGMENT"))
    if chance(rng, 0.5):
        tail["contacts"] = [
            {"email": f"partners@{slug}.example.com", "role": "support", "isPrimary": True},
            {"email": f"desk@{slug}.example.com", "name": f"{name} desk"},
        ]
    if chance(rng, 0.5):
        tail.update(partnerOwned=chance(rng, 0.5), supportedRegions=["us-west-2"])
    if chance(rng, 0.2):
        tail.update(regionEndpoints=["US", "EU"], multiInstanceSupportedVersion="1.2.0")
    return tail


def _catalog_sources_head(company: Company, index: int) -> Record:
    name, slug = brand(index + 7)
    identifier = company.id_at("catalog_sources", index)
    return {"id": identifier, "slug": f"{slug}-events", "name": f"{name} Events"}


def _catalog_sources_tail(company: Company, index: int) -> Record:
    rng = company.rng("catalog_sources", index)
    name, slug = brand(index + 7)
    tail: Record = {
        "categories": rng.sample(_CATEGORIES, rng.randrange(3)),
        "description": f"Collects what happens in {name}." if index % 5 else "",
        "logos": _logos(rng, slug),
        "options": _options(company, rng, rng.randrange(4)),
        "isCloudEventSource": chance(rng, 0.5),
        "status": _STATUSES[index % len(_STATUSES)],
    }
    if chance(rng, 0.6):
        tail["partnerOwned"] = chance(rng, 0.5)
    return tail


def _catalog_warehouses_head(company: Company, index: int) -> Record:
    slug, name = _WAREHOUSES[index % len(_WAREHOUSES)]
    if index >= len(_WAREHOUSES):
        slug, name = f"{slug}-{index}", f"{name} {index}"
    identifier = company.id_at("catalog_warehouses", index)
    return {"id": identifier, "slug": slug, "name": name}


def _catalog_warehouses_tail(company: Company, index: int) -> Record:
    rng = company.rng("catalog_warehouses", index)
    slug, name = _WAREHOUSES[index % len(_WAREHOUSES)]
    names = ("port", "database", "hostname", "password", "username", "ciphertext")
    return {
        "description": f"Stores every event in {name}",
        "logos": _logos(rng, slug),
        "options": [{"name": key, "required": True, "type": "string"} for key in names],
    }


ROWS = (
    Resource(
        "catalog_destinations",
        "/catalog/destinations",
        "destinationsCatalog",
        one="destinationMetadata",
        size=420,
        grows=False,
        ids=Ids(HEX, 24),
        head=_catalog_destinations_head,
        tail=_catalog_destinations_tail,
    ),
    Resource(
        "catalog_sources",
        "/catalog/sources",
        "sourcesCatalog",
        one="sourceMetadata",
        size=380,
        grows=False,
        ids=Ids(BASE62, 10),
        head=_catalog_sources_head,
        tail=_catalog_sources_tail,
        last_next="missing",
    ),
    Resource(
        "catalog_warehouses",
        "/catalog/warehouses",
        "warehousesCatalog",
        one="warehouseMetadata",
        size=14,
        grows=False,
        ids=Ids(BASE62, 10),
        head=_catalog_warehouses_head,
        tail=_catalog_warehouses_tail,
    ),
)
