"""The invented company behind the sandbox: how the body of each record is made.

Every function here is pure: the same seed and the same index give the same record. A record is
made in two halves, so that a hundred thousand of them stay cheap. The *head* holds what is its own
(identifiers, names, keys) and is made on demand; the *tail* holds everything else, is taken from a
limited number of variants and therefore serialised only once.
"""

from __future__ import annotations

import base64
import hashlib
import math
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Record = dict[str, Any]

BASE_COUNTS: Mapping[str, int] = {
    "warehouses": 6,
    "sources": 120,
    "destinations": 200,
    "reverse_etl_models": 12,
    "catalog_destinations": 420,
    "catalog_sources": 380,
    "catalog_warehouses": 14,
    "users": 150,
    "labels": 60,
    "roles": 22,
    "audit_events": 4500,
    "transformations": 25,
    "spaces": 3,
}
"""Records per list in a workspace of scale 1."""

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

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HEX = "0123456789abcdef"

MASK = "\u2022"
"""The bullet with which the service hides a secret."""

_CREDENTIAL_KEYS = frozenset(
    {
        "accesstoken",
        "apikey",
        "authorization",
        "ciphertext",
        "clientsecret",
        "encrypted",
        "password",
        "privatekey",
        "secretid",
        "token",
        "webhooksecret",
    }
)
_SECRET_MIN_LENGTH = 16
_USERINFO = re.compile(r"://[^/:@\s]+:([^/:@\s]+)@")
_VARIANT_LIMIT = 600
_KEPT_IDS = 20_000

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
_ROLE_NAMES = (
    "Workspace Owner", "Workspace Member", "Minimal Workspace Access", "Source Admin",
    "Source Read-only", "Source Settings Editor", "Function Admin", "Function Read-only",
    "Warehouse Admin", "Warehouse Read-only", "Space Admin", "Space Read-only", "Audience Admin",
    "Audience Read-only", "Trait Admin", "Trait Read-only", "Journey Admin", "Journey Read-only",
    "Tracking Plan Admin", "Tracking Plan Read-only", "End User Privacy Admin",
    "Identity Admin",
)  # fmt: skip
_JOBS = ("Analyst", "Engineer", "Marketer", "Product Manager", "Data Steward", "Contractor")
_LABELS = {
    "environment": ("prod", "staging", "dev", "sandbox", "qa"),
    "team": ("growth", "payments", "search", "support", "logistics", "finance", "data", "brand"),
    "region": ("emea", "amer", "apac", "latam", "global"),
    "tier": ("gold", "silver", "bronze"),
    "type": ("web", "mobile", "server", "cloud"),
}
_SURFACES = ("Storefront", "Checkout", "Companion App", "Help Centre", "Billing", "Back Office")
_SURFACE_KINDS = ("Web", "iOS", "Android", "Server", "Cloud")
_WAREHOUSES = (
    ("postgres", "Postgres"), ("redshift", "Redshift"), ("bigquery", "BigQuery"),
    ("snowflake", "Snowflake"), ("databricks", "Databricks"), ("azuresqldb", "Azure SQL Database"),
    ("azuresqldw", "Azure SQL Data Warehouse"), ("db2", "Db2"), ("data-lakes", "Data Lake"),
    ("mysql", "MySQL"), ("clickhouse", "ClickHouse"), ("s3", "Object Storage"),
    ("redshift-serverless", "Redshift Serverless"), ("postgres-ssh", "Postgres over SSH"),
)  # fmt: skip


class IdCodec:
    """Turns an index into an identifier that looks random, and such an identifier back."""

    def __init__(self, alphabet: str, length: int, salt: str) -> None:
        """Prepare identifiers of ``length`` characters of ``alphabet``."""
        self._known: dict[int, str] = {}
        self._alphabet = alphabet
        self._length = length
        self._size: int = len(alphabet) ** length
        rng = rng_for(salt)
        self._offset: int = rng.randrange(self._size)
        self._factor: int = rng.randrange(self._size // 3, self._size)
        while math.gcd(self._factor, self._size) != 1:
            self._factor += 1
        self._inverse: int = pow(self._factor, -1, self._size)

    def encode(self, index: int) -> str:
        """Give the identifier of the record with this index."""
        known = self._known.get(index)
        if known is None:
            known = self._make(index)
            if index < _KEPT_IDS:
                self._known[index] = known
        return known

    def _make(self, index: int) -> str:
        number = (index * self._factor + self._offset) % self._size
        if self._alphabet == HEX:
            return f"{number:0{self._length}x}"
        base = len(self._alphabet)
        letters = []
        for _ in range(self._length):
            number, digit = divmod(number, base)
            letters.append(self._alphabet[digit])
        return "".join(letters)

    def decode(self, text: str) -> int:
        """Give the index an identifier was made from; any text gives some number."""
        number = 0
        base = len(self._alphabet)
        letters = text if self._alphabet == HEX else text[::-1]
        for letter in letters:
            number = number * base + max(self._alphabet.find(letter), 0)
        return ((number - self._offset) * self._inverse) % self._size


@dataclass(frozen=True)
class Blueprint:
    """How the records of one list are made from their index."""

    head: Callable[[int], Record]
    tail: Callable[[int], Record]
    variants: int
    codec: IdCodec | None = None
    embeds: str | None = None
    embedded_index: Callable[[int], int] = lambda index: index


def rng_for(salt: str) -> random.Random:
    """Give a random generator that depends on nothing but the salt."""
    return random.Random(salt)  # noqa: S311 - invented data, not cryptography


def _chance(rng: random.Random, share: float) -> bool:
    return rng.random() < share


def is_secret(key: str, value: object) -> bool:
    """Tell whether a setting is a credential in the clear, by its name and its value."""
    plain = "".join(letter for letter in key.lower() if letter.isalnum())
    return (
        plain in _CREDENTIAL_KEYS
        and isinstance(value, str)
        and len(value) >= _SECRET_MIN_LENGTH
        and MASK not in value
    )


def secrets_in(value: object) -> set[str]:
    """Collect the credentials within free-form settings, at any depth."""
    found: set[str] = set()
    if isinstance(value, dict):
        for key, item in value.items():
            if is_secret(key, item):
                found.add(item.removeprefix("Bearer "))
            found |= secrets_in(item)
    elif isinstance(value, list):
        for item in value:
            found |= secrets_in(item)
    elif isinstance(value, str):
        found.update(_USERINFO.findall(value))
    return found


class Company:
    """Makes the records of one invented company."""

    def __init__(self, seed: int, counts: Mapping[str, int]) -> None:
        """Prepare the company for a seed and for the number of records of each list."""
        self.seed = seed
        self.counts = counts
        self._codecs = {
            "warehouses": IdCodec(BASE58, 22, f"{seed}:warehouses"),
            "sources": IdCodec(BASE58, 22, f"{seed}:sources"),
            "destinations": IdCodec(BASE58, 22, f"{seed}:destinations"),
            "reverse_etl_models": IdCodec(BASE58, 22, f"{seed}:models"),
            "catalog_destinations": IdCodec(HEX, 24, f"{seed}:catalog_destinations"),
            "catalog_sources": IdCodec(BASE62, 10, f"{seed}:catalog_sources"),
            "catalog_warehouses": IdCodec(BASE62, 10, f"{seed}:catalog_warehouses"),
            "users": IdCodec(BASE58, 22, f"{seed}:users"),
            "roles": IdCodec(BASE62, 27, f"{seed}:roles"),
            "transformations": IdCodec(BASE58, 22, f"{seed}:transformations"),
            "spaces": IdCodec(BASE62, 27, f"{seed}:spaces"),
            "tokens": IdCodec(BASE62, 8, f"{seed}:tokens"),
            "others": IdCodec(BASE58, 22, f"{seed}:others"),
        }
        self.workspace_id = IdCodec(BASE58, 22, f"{seed}:workspace").encode(1)

    def workspace(self) -> Record:
        """Give the record of the workspace itself."""
        return {"id": self.workspace_id, "name": "Harbor Supply", "slug": "harbor-supply"}

    def id_of(self, name: str, index: int) -> str:
        """Give the identifier of a record; an index beyond the list is wrapped round."""
        return self._codecs[name].encode(index % max(self.counts.get(name, 1), 1))

    def blueprints(self) -> dict[str, Blueprint]:
        """Give the blueprint of every list except the audit events."""
        embedded = {
            "sources": ("catalog_sources", self._catalog_source_of),
            "destinations": ("catalog_destinations", self._catalog_destination_of),
            "warehouses": ("catalog_warehouses", self._catalog_warehouse_of),
        }
        plans = {}
        for name, base in BASE_COUNTS.items():
            if name == "audit_events":
                continue
            embeds, embedded_index = embedded.get(name, (None, int))
            plans[name] = Blueprint(
                head=getattr(self, f"_{name}_head"),
                tail=getattr(self, f"_{name}_tail"),
                variants=base,
                codec=self._codecs.get(name),
                embeds=embeds,
                embedded_index=embedded_index,
            )
        return plans

    def audit_variants(self) -> int:
        """Tell how many different audit event bodies there are."""
        return min(max(self.counts["audit_events"], 1), _VARIANT_LIMIT)

    def _rng(self, name: str, index: int) -> random.Random:
        return rng_for(f"{self.seed}:{name}:{index}")

    def _secret(self, *parts: object) -> str:
        text = ":".join(str(part) for part in (self.seed, *parts))
        digest = hashlib.blake2b(text.encode(), digest_size=30).digest()
        return base64.b64encode(digest, altchars=b"xQ").decode()

    # ---------------------------------------------------------------- catalog

    @staticmethod
    def _brand(index: int) -> tuple[str, str]:
        first = _STONES[index % len(_STONES)]
        second = _NOUNS[index % len(_NOUNS)]  # the two lengths share no divisor
        generation = index // (len(_STONES) * len(_NOUNS))
        suffix = f" {generation + 1}" if generation else ""
        name = f"{first} {second}{suffix}"
        return name, name.lower().replace(" ", "-")

    @staticmethod
    def _logos(rng: random.Random, slug: str) -> Record:
        logos: Record = {"default": f"https://assets.example.com/logos/{slug}-default.svg"}
        mark = f"https://assets.example.com/logos/{slug}-mark.svg"
        others: tuple[Record, ...] = (
            {}, {"mark": mark}, {"mark": None, "alt": ""}, {"mark": "", "alt": None},
        )  # fmt: skip
        return {**logos, **rng.choice(others)}

    @staticmethod
    def _any_value(rng: random.Random) -> object:
        values: tuple[object, ...] = (
            "", "eu-west-1", True, False, 2, 0.25, {}, {"Order Completed": "purchase"}, [],
            ["name", "plan"], None,
        )  # fmt: skip
        return rng.choice(values)

    @staticmethod
    def _text(rng: random.Random, sentences: int) -> str:
        return " ".join(rng.sample(_SENTENCES, sentences))

    @staticmethod
    def _field_key(rng: random.Random) -> str:
        word, ending = rng.choice(_FIELD_WORDS), rng.choice(_FIELD_ENDINGS)
        style = rng.randrange(4)
        if style == 0:
            return f"{word}_{ending.lower()}"
        if style == 1:
            return f"{word}-{ending.lower()}"
        return f"{word}{ending}"

    def _option(self, rng: random.Random, name: str) -> Record:
        option: Record = {"name": name, "type": rng.choice(_OPTION_TYPES)}
        if _chance(rng, 0.85):
            option["defaultValue"] = self._any_value(rng)
        option["required"] = _chance(rng, 0.4)
        if _chance(rng, 0.9):
            option["description"] = self._text(rng, rng.randrange(1, 3))
        if _chance(rng, 0.8):
            option["label"] = name.replace("_", " ").capitalize()
        return option

    def _options(self, rng: random.Random, number: int) -> list[Record]:
        names = ["apiKey", "password", "api-key", "_version", "secretId", "region", "eventMap"]
        chosen = rng.sample(names, min(number, len(names)) // 2)
        chosen += [self._field_key(rng) for _ in range(number - len(chosen))]
        return [self._option(rng, name) for name in chosen]

    @staticmethod
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
            _chance(rng, 0.5),
            rng.randrange(1000),
        )
        return rng.choice(shapes)

    def _action_field(self, rng: random.Random, action_id: str, order: int) -> Record:
        key = self._field_key(rng)
        field: Record = {
            "id": f"{action_id}{order:02d}",
            "sortOrder": order,
            "fieldKey": key,
            "label": key.replace("_", " ").title(),
            "type": rng.choice(_FIELD_TYPES),
            "description": self._text(rng, 1),
            "required": order == 0,
            "multiple": _chance(rng, 0.1),
            "dynamic": _chance(rng, 0.1),
            "allowNull": _chance(rng, 0.2),
        }
        if _chance(rng, 0.7):
            field["defaultValue"] = rng.choice((self._mapping(rng, key), self._any_value(rng)))
        if _chance(rng, 0.4):
            field["choices"] = rng.choice(
                (
                    None,
                    [{"label": "Yes", "value": True}, {"label": "No", "value": False}],
                    [{"label": "Purchase", "value": "purchase"}],
                    ["small", "large"],
                )
            )
        if _chance(rng, 0.3):
            field["placeholder"] = f"for example {key}-1"
        if _chance(rng, 0.3):
            field["hidden"] = _chance(rng, 0.5)
        return field

    def _action(self, rng: random.Random, index: int, order: int) -> Record:
        action_id = IdCodec(BASE58, 22, f"{self.seed}:action:{index}").encode(order)
        verb = rng.choice(("Send", "Upsert", "Track", "Sync", "Remove"))
        noun = rng.choice(_FIELD_WORDS)
        return {
            "id": action_id,
            "slug": f"{verb.lower()}-{noun}-{order}",
            "name": f"{verb} {noun}",
            "description": self._text(rng, 1),
            "platform": rng.choice(("CLOUD", "CLOUD", "MOBILE", "WEB")),
            "hidden": _chance(rng, 0.1),
            "defaultTrigger": rng.choice((None, 'type = "track"', 'type = "identify"')),
            "fields": [self._action_field(rng, action_id, number) for number in range(4)],
        }

    def _preset(self, rng: random.Random, action_id: str, order: int) -> Record:
        keys = [self._field_key(rng) for _ in range(5)]
        if order == 0:
            keys += ["campaignId", "campaign_id"]
        return {
            "actionId": action_id,
            "name": f"Preset {order + 1}",
            "fields": {key: self._mapping(rng, key) for key in keys},
            "trigger": f'type = "track" and event = "{rng.choice(_FIELD_WORDS)} viewed"',
        }

    def _supported(self, rng: random.Random) -> Record:
        def flags(*names: str) -> Record:
            kept = [name for name in names if _chance(rng, 0.9)]
            return {name: _chance(rng, 0.6) for name in kept}

        features: Record = flags("replay", "browserUnbundling", "browserUnbundlingPublic")
        features["cloudModeInstances"] = rng.choice(("0", "1", "SINGLE", "MULTIPLE", "NONE"))
        if _chance(rng, 0.8):
            features["deviceModeInstances"] = rng.choice(("0", "1", "NONE", "SINGLE"))
        return {
            "supportedFeatures": features,
            "supportedMethods": flags("track", "pageview", "identify", "group", "alias"),
            "supportedPlatforms": flags(
                "browser", "mobile", "server", "warehouse", "cloudAppObject", "linkedAudiences"
            ),
        }

    def _catalog_destinations_head(self, index: int) -> Record:
        name, slug = self._brand(index)
        identifier = self._codecs["catalog_destinations"].encode(index)
        return {"id": identifier, "name": name, "slug": slug}

    def _catalog_destinations_tail(self, index: int) -> Record:
        rng = self._rng("catalog_destinations", index)
        name, slug = self._brand(index)
        actions = [self._action(rng, index, order) for order in range(2)]
        tail: Record = {
            "description": f"Deliver events to {name}. " + self._text(rng, 1),
            "logos": self._logos(rng, slug),
            "options": self._options(rng, rng.randrange(2, 6)),
            "status": rng.choice(_STATUSES),
            "previousNames": [name] if _chance(rng, 0.7) else [],
            "categories": rng.sample(_CATEGORIES, rng.randrange(1, 4)),
            "website": f"https://{slug}.example.com",
            "components": [
                {"type": kind, "code": f"https://code.example.com/{slug}-{kind.lower()}"}
                for kind in rng.sample(("ANDROID", "BROWSER", "IOS", "SERVER"), 2)
            ],
            **self._supported(rng),
            "actions": actions,
            "presets": [self._preset(rng, a["id"], order) for order, a in enumerate(actions)],
        }
        tail["components"][0]["owner"] = rng.choice(("PARTNER", "SEGMENT"))
        if _chance(rng, 0.5):
            tail["contacts"] = [
                {"email": f"partners@{slug}.example.com", "role": "support", "isPrimary": True},
                {"email": f"desk@{slug}.example.com", "name": f"{name} desk"},
            ]
        if _chance(rng, 0.5):
            tail.update(partnerOwned=_chance(rng, 0.5), supportedRegions=["us-west-2"])
        if _chance(rng, 0.2):
            tail.update(regionEndpoints=["US", "EU"], multiInstanceSupportedVersion="1.2.0")
        return tail

    def _catalog_sources_head(self, index: int) -> Record:
        name, slug = self._brand(index + 7)
        identifier = self._codecs["catalog_sources"].encode(index)
        return {"id": identifier, "slug": f"{slug}-events", "name": f"{name} Events"}

    def _catalog_sources_tail(self, index: int) -> Record:
        rng = self._rng("catalog_sources", index)
        name, slug = self._brand(index + 7)
        tail: Record = {
            "categories": rng.sample(_CATEGORIES, rng.randrange(3)),
            "description": f"Collects what happens in {name}." if index % 5 else "",
            "logos": self._logos(rng, slug),
            "options": self._options(rng, rng.randrange(4)),
            "isCloudEventSource": _chance(rng, 0.5),
            "status": rng.choice(_STATUSES),
        }
        if _chance(rng, 0.6):
            tail["partnerOwned"] = _chance(rng, 0.5)
        return tail

    def _catalog_warehouses_head(self, index: int) -> Record:
        slug, name = _WAREHOUSES[index % len(_WAREHOUSES)]
        if index >= len(_WAREHOUSES):
            slug, name = f"{slug}-{index}", f"{name} {index}"
        identifier = self._codecs["catalog_warehouses"].encode(index)
        return {"id": identifier, "slug": slug, "name": name}

    def _catalog_warehouses_tail(self, index: int) -> Record:
        rng = self._rng("catalog_warehouses", index)
        slug, name = _WAREHOUSES[index % len(_WAREHOUSES)]
        names = ("port", "database", "hostname", "password", "username", "ciphertext")
        return {
            "description": f"Stores every event in {name}",
            "logos": self._logos(rng, slug),
            "options": [{"name": key, "required": True, "type": "string"} for key in names],
        }

    # -------------------------------------------------------------- workspace

    def _catalog_source_of(self, index: int) -> int:
        return (index * 31 + 5) % max(self.counts["catalog_sources"], 1)

    def _catalog_destination_of(self, index: int) -> int:
        return (index * 17 + 3) % max(self.counts["catalog_destinations"], 1)

    def _catalog_warehouse_of(self, index: int) -> int:
        return (index * 5 + 2) % max(self.counts["catalog_warehouses"], 1)

    def _write_keys(self, index: int) -> list[str]:
        number = (1, 1, 1, 2, 1, 1, 0, 1)[index % 8]
        return [self._secret("write-key", index, n)[:32] for n in range(number)]

    def _sources_head(self, index: int) -> Record:
        surface = _SURFACES[index % len(_SURFACES)]
        kind = _SURFACE_KINDS[index // len(_SURFACES) % len(_SURFACE_KINDS)]
        name = f"{surface} {kind} {index + 1}"
        head: Record = {
            "id": self._codecs["sources"].encode(index),
            "slug": name.lower().replace(" ", "_"),
            "writeKeys": self._write_keys(index),
        }
        if index % 9:
            head["name"] = name if index % 10 else ""
        return head

    def _sources_tail(self, index: int) -> Record:
        rng = self._rng("sources", index)
        tail: Record = {
            "workspaceId": self.workspace_id,
            "enabled": _chance(rng, 0.85),
            "labels": [self._labels_head(n) for n in rng.sample(range(25), rng.randrange(4))],
        }
        shapes: tuple[Record, ...] = (
            {},
            {"websiteUrl": "https://shop.example.com", "sampleRate": 1},
            {"apiKey": self._secret("source-api-key", index), "sampleRate": "0.5"},
            {"auth": {"type": "basic", "password": self._secret("source-password", index)}},
            {"apiKey": MASK * 12, "sampleRate": None, "paths": ["/orders", "/refunds"]},
        )
        if index % 6:
            tail["settings"] = shapes[index % 5]
        return tail

    def _destinations_head(self, index: int) -> Record:
        head: Record = {
            "id": self._codecs["destinations"].encode(index),
            "sourceId": self.id_of("sources", index * 13 + index // 7),
        }
        if index % 8:
            brand, _ = self._brand(self._catalog_destination_of(index))
            head["name"] = f"{brand} {index + 1}" if index % 11 else ""
        return head

    def _destinations_tail(self, index: int) -> Record:
        rng = self._rng("destinations", index)
        shapes = self._destination_settings(index)
        return {"enabled": _chance(rng, 0.8), "settings": shapes[index % len(shapes)]}

    def _destination_settings(self, index: int) -> tuple[Record, ...]:
        def secret(kind: str) -> str:
            return self._secret("destination", kind, index)

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

    def _warehouses_head(self, index: int) -> Record:
        return {"id": self._codecs["warehouses"].encode(index)}

    def _warehouses_tail(self, index: int) -> Record:
        shapes: tuple[Record, ...] = (
            {
                "name": "Reporting",
                "gc-project": "harbor-supply-reporting",
                "location": "EU",
                "ciphertext": self._secret("warehouse-ciphertext", index),
            },
            {
                "name": "Events",
                "hostname": "db.example.com",
                "port": "5439",
                "database": "events",
                "encrypted": True,
                "ciphertext": self._secret("warehouse-ciphertext", index),
            },
            {"hostname": "lake.example.com", "port": 5432, "encrypted": "", "username": "loader"},
        )
        return {
            "workspaceId": self.workspace_id,
            "enabled": (index + 1) % 5 != 0,
            "settings": shapes[index % len(shapes)],
        }

    def _reverse_etl_models_head(self, index: int) -> Record:
        return {
            "id": self._codecs["reverse_etl_models"].encode(index),
            "sourceId": self.id_of("sources", index * 7 + 1),
            "name": f"{_SURFACES[index % len(_SURFACES)]} accounts {index + 1}",
        }

    def _reverse_etl_models_tail(self, index: int) -> Record:
        column = ("account_id", "user_id", "email_hash")[index % 3]
        table = ("accounts", "orders", "subscriptions", "tickets")[index % 4]
        return {
            "description": "" if index % 4 == 0 else f"Everything we know per {column}",
            "enabled": index % 5 != 0,
            "query": f"select {column},\n       count(*) as n\nfrom analytics.{table}\ngroup by 1",
            "queryIdentifierColumn": column,
        }

    def _users_head(self, index: int) -> Record:
        job = _JOBS[index % len(_JOBS)]
        return {
            "id": self._codecs["users"].encode(index),
            "name": f"{job} {index + 1}" if index % 12 else "",
            "email": f"{job.lower().replace(' ', '.')}.{index + 1}@example.com",
        }

    def _users_tail(self, index: int) -> Record:
        if (index + 1) % 10 == 0:
            return {}
        rng = self._rng("users", index)
        return {"permissions": [self._permission(rng) for _ in range(rng.randrange(1, 4))]}

    def _permission(self, rng: random.Random) -> Record:
        role = rng.randrange(max(self.counts["roles"], 1))
        permission: Record = {
            "roleName": self._roles_head(role)["name"],
            "roleId": self._codecs["roles"].encode(role),
            "resources": [self._permission_resource(rng) for _ in range(rng.randrange(1, 3))],
        }
        if _chance(rng, 0.3):
            permission["labels"] = [self._labels_head(rng.randrange(25))]
        return permission

    def _permission_resource(self, rng: random.Random) -> Record:
        kind = rng.choice(("FUNCTION", "SOURCE", "SPACE", "WAREHOUSE", "WORKSPACE"))
        number = rng.randrange(1000)
        identifiers = {
            "FUNCTION": self._codecs["others"].encode(number),
            "SOURCE": self.id_of("sources", number),
            "SPACE": self.id_of("spaces", number),
            "WAREHOUSE": self.id_of("warehouses", number),
            "WORKSPACE": self.workspace_id,
        }
        resource: Record = {"id": identifiers[kind], "type": kind}
        if kind == "SOURCE" and _chance(rng, 0.5):
            resource["labels"] = [{**self._labels_head(number % 25), "description": "by label"}]
        return resource

    def _labels_head(self, index: int) -> Record:
        pairs = [(key, value) for key, values in _LABELS.items() for value in values]
        if index < len(pairs):
            key, value = pairs[index]
            return {"key": key, "value": value}
        return {"key": ("cost-centre", "project")[index % 2], "value": f"{1000 + index}"}

    def _labels_tail(self, index: int) -> Record:
        kind = index % 3
        if kind == 0:
            return {}
        return {"description": "" if kind == 1 else f"Set by the platform team, rule {index}"}

    def _roles_head(self, index: int) -> Record:
        name = _ROLE_NAMES[index % len(_ROLE_NAMES)]
        if index >= len(_ROLE_NAMES):
            name = f"{name} {index + 1}"
        return {"id": self._codecs["roles"].encode(index), "name": name}

    def _roles_tail(self, index: int) -> Record:
        rights = "see but not change" if index % 2 else "see and change"
        return {"description": f"May {rights} what belongs to this part of the workspace."}

    def _transformations_head(self, index: int) -> Record:
        return {
            "id": self._codecs["transformations"].encode(index),
            "workspaceId": self.workspace_id,
            "sourceId": self.id_of("sources", index * 11 + 2),
            "name": f"Tidy up events, rule {index + 1}",
        }

    def _transformations_tail(self, index: int) -> Record:
        shapes: tuple[Record, ...] = (
            {"newEventName": "order_cancelled", "propertyRenames": []},
            {"drop": True},
            {"propertyRenames": [{"oldName": "Category", "newName": "category"}]},
            {
                "hashPropertiesConfiguration": {
                    "algorithm": "HMAC-SHA256",
                    "key": self._secret("hash-key", index),
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
                "fqlDefinedProperties": [
                    {"fql": "lowercase(properties.plan)", "propertyName": "plan"}
                ],
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
            tail["destinationMetadataId"] = self.id_of("catalog_destinations", index * 19)
        elif index % 8 == 1:
            tail["destinationId"] = self.id_of("destinations", index)
        return tail

    def _spaces_head(self, index: int) -> Record:
        names = ("Production", "Staging", "Playground")
        name = names[index % len(names)]
        suffix = f" {index + 1}" if index >= len(names) else ""
        slug = (name + suffix).lower().replace(" ", "-")
        identifier = self._codecs["spaces"].encode(index)
        return {"id": identifier, "slug": slug, "name": name + suffix}

    def _spaces_tail(self, _index: int) -> Record:
        return {}

    # ----------------------------------------------------------- audit events

    def audit_tail(self, index: int) -> Record:
        """Give everything of an audit event but its identifier and its time."""
        rng = self._rng("audit_events", index)
        kind = rng.choice(tuple(AUDIT_EVENT_TYPES))
        tail: Record = {"type": rng.choice(AUDIT_EVENT_TYPES[kind])}
        if _chance(rng, 0.7):
            user = self._users_head(rng.randrange(max(self.counts["users"], 1)))
            tail.update(actor=f"user/{user['id']}", actorEmail=user["email"])
        else:
            token = self._codecs["tokens"].encode(rng.randrange(5))
            tail["actor"] = f"public-api-token/{token}"
        tail.update(self._audit_resource(rng, kind))
        return tail

    def _audit_resource(self, rng: random.Random, kind: str) -> Record:
        lists = {
            "source": "sources",
            "integration": "destinations",
            "storage_destination": "warehouses",
            "model": "reverse_etl_models",
            "transformation": "transformations",
            "user": "users",
        }
        number = rng.randrange(10_000)
        name = lists.get(kind)
        if name is None:
            identifier = self._codecs["others"].encode(number)
            return {
                "resourceId": identifier,
                "resourceType": kind,
                "resourceName": f"{kind.replace('_', ' ').capitalize()} {number}",
            }
        head = getattr(self, f"_{name}_head")(number % max(self.counts[name], 1))
        return {
            "resourceId": head["id"],
            "resourceType": kind,
            "resourceName": head.get("name", ""),
        }
