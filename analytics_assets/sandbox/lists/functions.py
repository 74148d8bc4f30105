"""What customers programmed themselves: functions, asked for by their kind."""

from __future__ import annotations

from datetime import datetime, timedelta

from analytics_assets.sandbox.company import BASE58, Company, Ids, Record
from analytics_assets.sandbox.resources import Choice, Resource

_PREFIXES = {
    "SOURCE": "sfnc",
    "DESTINATION": "dfnc",
    "INSERT_DESTINATION": "ifnd",
    "INSERT_SOURCE": "ifns",
    "INSERT_TRANSFORMATION": "ifnt",
}
_KINDS = (*_PREFIXES, "SOURCE", "DESTINATION", "SOURCE", "DESTINATION", "SOURCE")
_SUBJECTS = (
    "Loyalty Points", "Refund Requests", "Store Visits", "Survey Answers", "Delivery Tracking",
    "Stock Levels", "Phone Orders", "Gift Cards",
)  # fmt: skip
_ROLES = {
    "SOURCE": "Webhook",
    "DESTINATION": "Forwarder",
    "INSERT_DESTINATION": "Enrichment",
    "INSERT_SOURCE": "Filter",
    "INSERT_TRANSFORMATION": "Mapping",
}
_START = datetime(2023, 2, 1, 9)


def function_id(company: Company, index: int) -> str:
    """Give the identifier of a function; an index beyond the list is wrapped round."""
    index = company.wrapped("functions", index)
    return f"{_PREFIXES[_KINDS[index % len(_KINDS)]]}_{company.id_at('functions', index)}"


def _functions_head(company: Company, index: int) -> Record:
    kind = _KINDS[index % len(_KINDS)]
    created = _START + timedelta(hours=index * 157 % 20_000, milliseconds=index * 7919 % 60_000)
    identifier = company.id_at("functions", index)
    head: Record = {
        "id": f"{_PREFIXES[kind]}_{identifier}",
        "resourceType": kind,
        "createdAt": f"{created.isoformat(timespec='milliseconds')}Z",
        "createdBy": company.id_of("users", index * 17 + 4),
        "displayName": f"{_SUBJECTS[index % len(_SUBJECTS)]} {_ROLES[kind]} {index + 1}",
    }
    if kind in ("SOURCE", "DESTINATION"):
        head["catalogId"] = identifier
    return head


def _functions_tail(_company: Company, index: int) -> Record:
    tail: Record = {}
    if index % 4:
        tail["description"] = "" if index % 4 == 1 else "Looked after by the platform team."
    if index % 3:
        tail["logoUrl"] = f"https://assets.example.com/functions/{index % 7}.svg"
    return tail


ROWS = (
    Resource(
        "functions",
        "/functions",
        "functions",
        one="function",
        size=40,
        ids=Ids(BASE58, 22),
        head=_functions_head,
        tail=_functions_tail,
        choice=Choice("resourceType", tuple(_PREFIXES)),
        total=False,
        last_next="missing",
        first_offset=1,
    ),
)
