"""The wire contract must be about everything that the sandbox serves, and agree with its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from analytics_assets.sandbox import RESOURCES
from analytics_assets_tests import wire
from analytics_assets_tests.wire_contract import contract_of, regenerate_wire_contract

FACTS: dict[str, Any] = {
    "resources": {
        "ships": {
            "path": "/ports/{portId}/ships",
            "data_selector": "data.ships",
            "record_type": "Ship",
            "primary_key": ["portId", "id"],
            "paginated": True,
            "query_params": {
                "flag": {"required": True, "enum": ["BLUE", "RED"], "is": "the colour"},
                "startTime": {"required": True, "is": "first moment"},
                "endTime": {"required": True, "is": "the moment after the last"},
                "groupBy": {"required": False, "options": ["mast", "flag"]},
                "pagination.count": "optional, 1-50 (send 50)",
            },
            "rate_limit": "25 requests per minute",
            "needs_feature": "Harbour",
            "response_envelope": {
                "tide": {"type": "Tide", "is": "x"},
                "ships": {"type": "list<Ship>"},
            },
        },
        "other": {},
    },
    "types": {
        "Ship": {"fields": {"id": {"type": "string", "is": "x"}, "masts": {"type": "list<Mast>"}}},
        "Mast": {"fields": {"key": {"type": "string", "secret": "in the clear"}}},
        "Tide": {"fields": {"height": {"type": "number"}}},
        "Other": {"fields": {}},
    },
    "parents": {"ships": {"parent": "ports"}},
    "audit_event_types": {"documented": {"ships": {"types": {"Ship Sunk": [], "Ship Built": []}}}},
}
EXAMPLE = {"data": {"ships": [], "pagination": {"current": "MQ=="}}}


def test_contract_is_about_every_list() -> None:
    """Prevents a list from being served that no test compares with the facts."""
    assert set(wire.RESOURCES) == set(RESOURCES)


@pytest.mark.parametrize("name", sorted(RESOURCES))
def test_table_agrees_with_the_contract(name: str) -> None:
    """Prevents a row from saying something else than the facts, where no answer shows it."""
    row, fact = RESOURCES[name], wire.RESOURCES[name]
    parent = () if row.parent is None else (row.parent.field,)
    assert ([*row.key] if row.alone else [*parent, *row.key]) == fact["key"]
    assert (row.path, f"data.{row.list_key}") == (fact["path"], fact["selector"])
    assert (row.kind == "single") == fact.get("single", False)
    assert (row.kind in ("list", "audit", "usage", "volume")) == fact["paginated"]
    assert (row.kind == "volume") == ("window" in fact)
    assert row.bare == (fact["type"] == "string")
    assert row.page_limit == fact.get("page_limit", 1000)
    assert row.rate_limit == fact.get("rate_limit")
    if row.parent is not None:
        on = {"resource": row.parent.name, "field": row.parent.field}
        fields = wire.CONTRACT["types"].get(fact["type"], {})
        assert (on, row.parent.in_record) == (fact["parent"], row.parent.field in fields)
    choice = fact.get("choice")
    assert (row.choice is None) == (choice is None)
    if row.choice is not None:
        values = sorted(row.choice.values)
        given = {"field": row.choice.field, "values": values, "required": row.choice.required}
        assert given == choice


def test_contract_follows_the_facts() -> None:
    """Prevents a regenerated contract from leaving out what the facts say of a list."""
    contract = contract_of(["ships"], [FACTS], {"ships": EXAMPLE})
    assert contract["resources"] == {
        "ships": {
            "path": "/ports/{portId}/ships",
            "selector": "data.ships",
            "type": "Ship",
            "key": ["portId", "id"],
            "paginated": True,
            "period": False,
            "needs_feature": True,
            "parent": {"resource": "ports", "field": "portId"},
            "window": ["startTime", "endTime"],
            "group_by": ["flag", "mast"],
            "beside": {"tide": "Tide"},
            "choice": {"field": "flag", "values": ["BLUE", "RED"], "required": True},
            "page_limit": 50,
            "rate_limit": 25,
            "total": False,
            "first_offset": 1,
        }
    }
    assert contract["types"] == {
        "Ship": {"id": {"type": "string"}, "masts": {"type": "list<Mast>"}},
        "Mast": {"key": {"type": "string", "secret": True}},
        "Tide": {"height": {"type": "number"}},
    }
    assert contract["audit_event_types"] == {"ships": ["Ship Built", "Ship Sunk"]}


def test_unknown_lists_and_missing_facts_are_told(tmp_path: Path) -> None:
    """Prevents a contract that silently lacks a list, or a traceback without a way out."""
    with pytest.raises(LookupError, match="nothing of boats"):
        contract_of(["ships", "boats"], [FACTS], {})
    with pytest.raises(FileNotFoundError, match="SEGMENT_API_FACTS"):
        regenerate_wire_contract(tmp_path)
