"""What each report should say, worked out in plain Python from what the sandbox serves.

Nothing of the project's own code is used: neither its SQL nor its tables.
"""

from __future__ import annotations

import json
import math
import statistics
from calendar import monthrange
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from typing import Any

from analytics_assets_tests.harness import Row, fingerprint

Record = Mapping[str, Any]


@dataclass(frozen=True)
class World:
    """What there is to know.

    Attributes:
        served: gives the records of a list, none of one that is not available.
        now: the present moment.
        loaded_from: the first day of usage that a first load asks for.
        secrets: every credential in the clear.
        plan_mtu: tracked users that the plan includes.
        plan_api_calls: API calls that the plan includes.
    """

    served: Callable[[str], list[Record]]
    now: datetime
    loaded_from: datetime
    secrets: Iterable[str] = ()
    plan_mtu: int | None = None
    plan_api_calls: int | None = None


def moment(text: str) -> datetime:
    """Read a time of the API."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def source_name(source: Record | None) -> str | None:
    """Return the name of a source, or its slug."""
    return (source.get("name") or source["slug"]) if source else None


def access_review(world: World) -> list[Row]:
    """Give a row per person and permission, and per invitation."""
    groups = {group["id"]: group for group in world.served("groups")}
    memberships: dict[str, list[Record]] = defaultdict(list)
    for member in world.served("group_users"):
        memberships[member["id"]].append(groups[member["userGroupId"]])
    roles = {role["id"]: role["name"] for role in world.served("roles")}
    names = {s["id"]: source_name(s) for s in world.served("sources")}
    names |= {each["id"]: each["name"] for each in world.served("spaces")}
    names |= {each["id"]: each["name"] for each in world.served("workspace")}
    names |= {each["id"]: each["displayName"] for each in world.served("functions")}
    seen: dict[str, datetime] = {}
    for event in world.served("audit_events"):
        when = moment(event["timestamp"])
        seen[event["actor"]] = max(when, seen.get(event["actor"], when))
    rows = []
    for user in world.served("users"):
        last = seen.get(f"user/{user['id']}")
        held = dict(permissions(user, memberships[user["id"]]))
        nothing: Any = {("", "", "", ""): (None, None, None)}
        for (way, role, resource, labels), (group, role_name, kind) in (held or nothing).items():
            role_name = roles.get(role, role_name)  # noqa: PLW2901 - the name it has now
            rows.append(
                {
                    "person_id": user["id"],
                    "name": user.get("name"),
                    "email": user["email"],
                    "status": "MEMBER",
                    "granted_through": way,
                    "group_name": group,
                    "role_id": role,
                    "role": role_name,
                    "resource_type": kind,
                    "resource_id": resource,
                    "resource_name": names.get(resource),
                    "limited_to": labels,
                    "administrator": role_name == "Workspace Owner",
                    "last_seen": last,
                    "days_inactive": (world.now.date() - last.date()).days if last else None,
                }
            )
    empty = dict.fromkeys(("granted_through", "role_id", "resource_id", "limited_to"), "")
    for address in [invite["email"] for invite in world.served("invites")]:
        invited = {"person_id": address, "email": address, "status": "INVITED"}
        rows.append({**invited, **empty, "administrator": False})
    for invite in world.served("group_invites"):
        group = groups[invite["userGroupId"]]
        invited = {"person_id": invite["email"], "email": invite["email"], "status": "INVITED"}
        through = {"granted_through": group["id"], "group_name": group["name"]}
        rows.append({**invited, **empty, **through, "administrator": False})
    return rows


def permissions(user: Record, groups: Iterable[Record]) -> Iterator[tuple[Any, Any]]:
    """Yield the key of each permission of a person, and what is not part of it."""
    ways = [("DIRECT", None, user), *((group["id"], group["name"], group) for group in groups)]
    for way, name, holder in ways:
        for given in holder.get("permissions") or ():
            for resource in given.get("resources") or [{}]:
                labels = [*(given.get("labels") or ()), *(resource.get("labels") or ())]
                limited_to = ", ".join(sorted({f"{one['key']}:{one['value']}" for one in labels}))
                key = (way, given["roleId"], resource.get("id", ""), limited_to)
                yield key, (name, given["roleName"], resource.get("type"))


def changes(world: World) -> list[Row]:
    """Give a row per audit event."""
    users = {user["id"]: user for user in world.served("users")}
    things: dict[str, str | None] = {s["id"]: source_name(s) for s in world.served("sources")}
    things |= {each["id"]: each.get("name") or each["email"] for each in users.values()}
    things |= {each["id"]: None for each in world.served("warehouses")}
    things |= {each["id"]: each["displayName"] for each in world.served("functions")}
    for table in (
        "destinations",
        "reverse_etl_models",
        "transformations",
        "spaces",
        "tracking_plans",
        "groups",
        "roles",
    ):
        things |= {each["id"]: each.get("name") or None for each in world.served(table)}
    rows = []
    for event in world.served("audit_events"):
        kind, _, identifier = event["actor"].partition("/")
        user = users.get(identifier, {}) if kind == "user" else {}
        thing = event["resourceId"]
        rows.append(
            {
                "id": event["id"],
                "told_by": "audit trail",
                "moment": moment(event["timestamp"]),
                "who": actor_name(event, users),
                "who_kind": kind,
                "who_id": identifier,
                "has_left": kind == "user" and not user,
                "what": event["type"],
                "thing_kind": event["resourceType"],
                "thing_id": thing,
                "thing_name": things.get(thing) or event["resourceName"] or None,
                "thing_has_gone": False if thing in things else None,
                "changed_columns": None,
            }
        )
    return rows


def routing(world: World) -> list[Row]:
    """Give a row per source and what it feeds."""
    sources = {source["id"]: source for source in world.served("sources")}
    plans = {plan["id"]: plan["name"] for plan in world.served("tracking_plans")}
    planned = {row["id"]: row["trackingPlanId"] for row in world.served("tracking_plan_sources")}
    catalog = {entry["id"]: entry for entry in world.served("catalog_destinations")}
    switched_on = {
        table: Counter(each["destinationId"] for each in world.served(table) if each["enabled"])
        for table in ("destination_filters", "destination_subscriptions")
    }
    warehouses = {warehouse["id"]: warehouse for warehouse in world.served("warehouses")}
    rows = []

    def add(source_id: str, target: Record, **row: Any) -> None:
        if source := sources.get(source_id):
            rows.append(
                {
                    "source_id": source_id,
                    "source_name": source_name(source),
                    "target_id": target["id"],
                    "source_enabled": source["enabled"],
                    "target_enabled": target["enabled"],
                    "flows": source["enabled"] and target["enabled"],
                    "tracking_plan_id": planned.get(source_id),
                    "tracking_plan": plans.get(planned.get(source_id, "")),
                    **row,
                }
            )

    for destination in world.served("destinations"):
        entry = catalog[destination["metadata"]["id"]]
        add(
            destination["sourceId"],
            destination,
            target_kind="DESTINATION",
            target_name=destination.get("name") or entry["name"],
            integration=entry["name"],
            deprecated=entry["status"] == "DEPRECATED",
            filters=switched_on["destination_filters"][destination["id"]],
            subscriptions=switched_on["destination_subscriptions"][destination["id"]],
        )
    for fed in world.served("warehouse_connected_sources"):
        warehouse = warehouses[fed["warehouseId"]]
        name = warehouse["metadata"]["name"]
        shown = {"target_kind": "WAREHOUSE", "target_name": name, "integration": name}
        add(fed["id"], warehouse, **shown, deprecated=None, filters=0, subscriptions=0)
    return rows


def governance_gaps(world: World) -> list[Row]:
    """Give a row per gap."""
    sources = {source["id"]: source for source in world.served("sources")}
    plans = {p["id"]: p["name"] for p in world.served("tracking_plans") if p["type"] == "LIVE"}
    planned = {
        row["id"]: row["trackingPlanId"]
        for row in world.served("tracking_plan_sources")
        if row["trackingPlanId"] in plans and row["id"] in sources
    }
    rules = {
        (rule["trackingPlanId"], rule.get("key", ""))
        for rule in world.served("tracking_plan_rules")
        if rule["type"] == "TRACK" and not rule.get("deprecatedAt")
    }
    gaps: list[tuple[str, str, str, str, int | None]] = []
    for number, source in sources.items():
        if source["enabled"] and number not in planned and planned:
            gaps.append(("source without plan", number, "", "", None))
    bare = plans.keys() - planned.values() if planned else ()
    gaps += [("plan without source", "", plan, "", None) for plan in bare]
    for settings in world.served("source_schema_settings"):
        number = settings["sourceId"]
        is_open = (settings.get("track") or {}).get("allowUnplannedEvents")
        if is_open and number in planned and sources[number]["enabled"]:
            gaps.append(("unplanned events let through", number, planned[number], "", None))
    for (number, event), count in tracked(world).items():
        if count and number in planned and (planned[number], event) not in rules:
            gaps.append(("unplanned event", number, planned[number], event, count))
    return [
        {
            "gap": gap,
            "source_id": number,
            "source_name": source_name(sources.get(number)),
            "tracking_plan_id": plan,
            "tracking_plan": plans.get(plan),
            "event": event,
            "events_last_30_days": count,
        }
        for gap, number, plan, event, count in gaps
    ]


def tracked(world: World) -> dict[tuple[str, str], int]:
    """Return how often each event of each source came in, in the last 30 days."""
    counts: dict[tuple[str, str], int] = defaultdict(int)
    for each in world.served("events_volume"):
        if each["eventType"].upper() == "TRACK":
            recent = [
                d for d in each["series"] if moment(d["time"]) > world.now - timedelta(days=30)
            ]
            counts[each["source"]["id"], each["eventName"]] += sum(d["count"] for d in recent)
    return counts


RISKS = {
    "DEPRECATED": "deprecated",
    "UNAVAILABLE": "unavailable",
    "PUBLIC_BETA": "beta",
    "PRIVATE_BETA": "beta",
}


def catalog_risk(world: World) -> list[Row]:
    """Give a row per source and destination of a kind that is not simply public."""
    sources = {source["id"]: source for source in world.served("sources")}
    calls: dict[str, int] = defaultdict(int)
    for source_id, day, used in daily(world, "usage_api_calls_sources_daily"):
        if day > world.now - timedelta(days=30):
            calls[source_id] += used
    rows = []
    for kind, records in (
        ("SOURCE", sources.values()),
        ("DESTINATION", world.served("destinations")),
    ):
        catalog = {e["id"]: e for e in world.served(f"catalog_{kind.lower()}s")}
        for record in records:
            entry = catalog[record["metadata"]["id"]]
            source = record if kind == "SOURCE" else sources.get(record["sourceId"])
            if entry["status"] not in RISKS:
                continue
            name = source_name(record) if kind == "SOURCE" else record.get("name") or entry["name"]
            source_id = record.get("sourceId", record["id"])
            rows.append(
                {
                    "kind": kind,
                    "id": record["id"],
                    "name": name,
                    "enabled": record["enabled"],
                    "source_id": source_id,
                    "source_name": source_name(source),
                    "integration_id": entry["id"],
                    "integration": entry["name"],
                    "status": entry["status"],
                    "risk": RISKS[entry["status"]],
                    "api_calls_last_30_days": calls[source_id],
                }
            )
    return rows


def shared_credentials(world: World) -> list[Row]:
    """Give a row per place of a credential that stands in several."""
    fields = {
        "sources": ("settings", "writeKeys"),
        "destinations": ("settings",),
        "warehouses": ("settings",),
        "transformations": ("hashPropertiesConfiguration",),
        "reverse_etl_models": ("query",),
    }
    places: dict[str, list[Row]] = defaultdict(list)
    for table, names in fields.items():
        for record in world.served(table):
            for field in names:
                text = json.dumps(record.get(field))
                for secret in world.secrets:
                    if secret in text:
                        places[secret].append(place(table, record, field))
    return [
        {**row, "fingerprint": fingerprint(secret), "places": len(rows)}
        for secret, rows in places.items()
        if len(rows) > 1
        for row in rows
    ]


def place(table: str, record: Record, field: str) -> Row:
    """Say where a credential stands."""
    spelled = {"writeKeys": "write_keys"}
    spelled["hashPropertiesConfiguration"] = "hash_properties_configuration"
    name = source_name(record) if table == "sources" else record.get("name") or None
    return {
        "kind": table,
        "id": record["id"],
        "name": None if table == "warehouses" else name,
        "field": spelled.get(field, field),
        "enabled": record["enabled"],
    }


def actor_name(event: Record, users: Mapping[str, Record]) -> str:
    """Return the name of who caused an event."""
    kind, _, identifier = event["actor"].partition("/")
    user = users.get(identifier, {}) if kind == "user" else {}
    known = user.get("name") or user.get("email") or event.get("actorEmail")
    return known or f"{kind} {identifier}"


def idle_sources(world: World) -> list[Row]:
    """Give a row per enabled source that serves nobody."""
    users: dict[str, Record] = {user["id"]: user for user in world.served("users")}
    fed: dict[str, list[bool]] = defaultdict(list)
    for destination in world.served("destinations"):
        fed[destination["sourceId"]].append(destination["enabled"])
    enabled = {warehouse["id"] for warehouse in world.served("warehouses") if warehouse["enabled"]}
    links = world.served("warehouse_connected_sources")
    taken = Counter(link["id"] for link in links if link["warehouseId"] in enabled)
    last_call: dict[str, datetime] = {}
    calls: dict[str, int] = defaultdict(int)
    for source_id, day, used in daily(world, "usage_api_calls_sources_daily"):
        if used > 0 and day >= world.loaded_from:
            last_call[source_id] = day
        if day > world.now - timedelta(days=30):
            calls[source_id] += used
    touched: dict[str, Record] = {}
    for event in sorted(world.served("audit_events"), key=lambda e: (e["timestamp"], e["id"])):
        touched[event["resourceId"]] = event
    rows = []
    for source in world.served("sources"):
        number, last = source["id"], touched.get(source["id"])
        reasons = [] if any(fed[number]) or taken[number] else ["no destination"]
        reasons += ["no API calls"] if any(calls.values()) and not calls[number] else []
        if source["enabled"] and reasons:
            rows.append(
                {
                    "source_id": number,
                    "name": source_name(source),
                    "reason": ", ".join(reasons),
                    "enabled_destinations": fed[number].count(True),
                    "disabled_destinations": fed[number].count(False),
                    "enabled_warehouses": taken[number],
                    "api_calls_last_30_days": calls[number],
                    "last_call": last_call.get(number),
                    "last_changed": moment(last["timestamp"]) if last else None,
                    "last_changed_by": actor_name(last, users) if last else None,
                    "labels": ", ".join(
                        sorted(f"{one['key']}:{one['value']}" for one in source.get("labels", ()))
                    ),
                }
            )
    return rows


COUNTERS = {"apiCalls": ("apiCalls",), "identified": ("identified", "neverIdentified")}


def daily(world: World, table: str) -> list[tuple[str, datetime, int]]:
    """Return source, day and the day's own use of each usage row, in order."""
    months: dict[tuple[str, int, int], int] = {}
    days = []
    for row in sorted(world.served(table), key=lambda r: (r.get("sourceId", ""), r["timestamp"])):
        day, source = moment(row["timestamp"]), row.get("sourceId", "")
        counter = next(names for name, names in COUNTERS.items() if name in row)
        total = sum(int(row[name]) for name in counter)
        month = (source, day.year, day.month)
        days.append((source, day, total - months.get(month, 0)))
        months[month] = total
    return days


def midnight(world: World) -> datetime:
    """Return the beginning of today."""
    return world.now.replace(hour=0, minute=0, second=0, microsecond=0)


def metered(world: World) -> Iterator[tuple[str, list[tuple[str, str, datetime, int]]]]:
    """Yield each meter, and source, event, day and use of each of its rows."""
    for meter, table in (
        ("api_calls", "usage_api_calls_sources_daily"),
        ("mtu", "usage_mtu_sources_daily"),
    ):
        yield meter, [(source, "", day, used) for source, day, used in daily(world, table)]
    rows: list[tuple[str, str, datetime, int]] = []
    for each in world.served("events_volume"):
        what = (each["source"]["id"], each.get("eventName") or each["eventType"])
        rows += [(*what, moment(day["time"]), day["count"]) for day in each["series"]]
    yield "events", rows


def cost_drivers(world: World) -> list[Row]:
    """Give a row per meter and source, and per event."""
    sources = {source["id"]: source for source in world.served("sources")}
    result = []
    for meter, rows in metered(world):
        days = [row for row in rows if row[2] < midnight(world)]
        last = max((day for _, _, day, _ in days), default=world.now)
        used: dict[tuple[str, str], int] = defaultdict(int)
        before: dict[tuple[str, str], int] = defaultdict(int)
        by_day: dict[tuple[str, str], dict[datetime, int]] = defaultdict(dict)
        for number, event, day, count in days:
            if day > last - timedelta(days=56):
                by_day[number, event][day] = count
            if day > last - timedelta(days=28):
                used[number, event] += count
            elif day > last - timedelta(days=56):
                before[number, event] += count
        everyone = sorted(used.keys() | before.keys())
        most = sorted(everyone, key=lambda each: -used[each])
        grown = sorted(everyone, key=lambda each: before[each] - used[each])
        for key in everyone:
            change, source = used[key] - before[key], sources.get(key[0])
            own = by_day[key]
            usual = [own[d] for d in own if d < last and d.weekday() == last.weekday()]
            result.append(
                {
                    "meter": meter,
                    "source_id": key[0],
                    "event": key[1],
                    "source_name": source_name(source),
                    "enabled": source["enabled"] if source else None,
                    "used": used[key],
                    "share": used[key] / (sum(used.values()) or 1),
                    "used_before": before[key],
                    "change": change,
                    "change_percent": 100 * change / before[key] if before[key] else None,
                    "rank": most.index(key) + 1,
                    "growth_rank": grown.index(key) + 1,
                    "as_of": last,
                    "last_used": max((day for day, count in own.items() if count), default=None),
                    "last_day": own.get(last, 0),
                    "usual_day": statistics.mean(usual) if usual else None,
                }
            )
    return result


def months_earlier(month: date, number: int) -> date:
    """Return the first day of an earlier month."""
    index = month.year * 12 + month.month - 1 - number
    return date(index // 12, index % 12 + 1, 1)


def month_forecast(world: World) -> list[Row]:
    """Give a row per meter."""
    rows = []
    for meter, table, plan in (
        ("api_calls", "usage_api_calls_daily", world.plan_api_calls),
        ("mtu", "usage_mtu_daily", world.plan_mtu),
    ):
        days = {
            day.date(): float(used) for _, day, used in daily(world, table) if day < midnight(world)
        }
        if days:
            rows.append({"meter": meter, **forecast(days, plan)})
    return rows


def forecast(days: Mapping[date, float], plan: int | None) -> Row:
    """Work out the forecast of one meter; the method is told in the report's description."""
    as_of = max(days)
    month = (as_of + timedelta(days=1)).replace(day=1)
    length = monthrange(month.year, month.month)[1]
    passed = (as_of - month).days + 1
    weigh = weights(days, as_of, month)
    recent = [d for d in days if d > as_of - timedelta(days=28)]
    scale = sum(days[d] for d in recent) / sum(weigh(d) for d in recent)
    rest = {month + timedelta(days=n): 0.0 for n in range(passed, length)}
    rest = {day: scale * weigh(day) for day in rest}
    ratios = [days[d] / (scale * weigh(d)) for d in days if d > as_of - timedelta(days=56)]
    ahead, squares = sum(rest.values()), sum(used**2 for used in rest.values())
    spread = math.sqrt(squares + ahead**2 * (1 / 28 + 1 / (3 * max(len(rest), 1))))
    margin = 2.2 * statistics.stdev(ratios) * spread

    def used_in(back: int, until: int = 31) -> int | None:
        start, end = months_earlier(month, back), months_earlier(month, back - 1)
        found = [used for day, used in days.items() if start <= day < end and day.day <= until]
        return round(sum(found)) if found else None

    to_date = used_in(0) or 0
    total = to_date + ahead
    return {
        "month": at_midnight(month),
        "as_of": at_midnight(as_of),
        "days_passed": passed,
        "days_in_month": length,
        "month_to_date": to_date,
        "last_month_same_day": used_in(1, passed),
        "two_months_ago_same_day": used_in(2, passed),
        "three_months_ago_same_day": used_in(3, passed),
        "last_month": used_in(1),
        "forecast_month_end": round(total),
        "forecast_low": round(max(to_date, total - margin)),
        "forecast_high": round(total + margin),
        "plan_limit": plan,
        "plan_reached_on": reached({**days, **rest}, month, plan),
        "above_plan": None if plan is None else total > plan,
    }


def reached(days: Mapping[date, float], month: date, plan: int | None) -> datetime | None:
    """Return the day on which a plan is used up."""
    used = 0.0
    for day in sorted(day for day in days if day >= month):
        used += days[day]
        if plan is not None and used >= plan:
            return at_midnight(day)
    return None


def weights(days: Mapping[date, float], as_of: date, month: date) -> Callable[[date], float]:
    """Return what is usual for a day, by its weekday and by its place in the month."""
    by_weekday: dict[int, list[float]] = defaultdict(list)
    for day, used in days.items():
        if day > as_of - timedelta(days=56):
            by_weekday[day.weekday()].append(used)
    average = {weekday: statistics.mean(used) for weekday, used in by_weekday.items()}
    overall = statistics.mean(average.values())
    factor = {weekday: used / overall for weekday, used in average.items()}
    shapes: dict[int, list[float]] = defaultdict(list)
    for back in (1, 2, 3):
        start, end = months_earlier(month, back), months_earlier(month, back - 1)
        level = {d: used / factor[d.weekday()] for d, used in days.items() if start <= d < end}
        for day, used in level.items():
            shapes[day.day].append(used / statistics.mean(level.values()))
    shape = {day: statistics.mean(values) for day, values in shapes.items()}
    return lambda day: factor[day.weekday()] * shape.get(day.day, shape.get(28, 1.0))


def at_midnight(day: date) -> datetime:
    """Return the beginning of a day."""
    return datetime(day.year, day.month, day.day, tzinfo=timezone.utc)


def history(_: World) -> list[Row]:
    """Give no rows: the first load of a list is no change. See ``test_record_changes.py``."""
    return []


EXPECTED: Mapping[str, Callable[[World], list[Row]]] = {
    "access_review": access_review,
    "catalog_risk": catalog_risk,
    "changes": changes,
    "cost_drivers": cost_drivers,
    "governance_gaps": governance_gaps,
    "history": history,
    "idle_sources": idle_sources,
    "month_forecast": month_forecast,
    "routing": routing,
    "shared_credentials": shared_credentials,
}
