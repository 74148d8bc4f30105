"""The wire contract: what answers of the service look like, for each list that the sandbox serves.

``data/wire_contract.json`` is made from the facts on the API, which are not part of this
repository: two files named ``segment_public_api*.json`` and a folder ``examples`` of official
example answers. Make it anew when the sandbox has one more list::

    python -m analytics_assets_tests.regenerate

They are looked for in the folder that ``SEGMENT_API_FACTS`` names, else in ``../shared/api`` as
seen from the repository.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from analytics_assets.sandbox import RESOURCES

CONTRACT_FILE = Path(__file__).parent / "data" / "wire_contract.json"
EXAMPLES_FOLDER = Path(__file__).parent / "data" / "examples"
FACTS_VARIABLE = "SEGMENT_API_FACTS"
_REPOSITORY = Path(__file__).resolve().parents[1]
_FILES = ("segment_public_api.json", "segment_public_api_more.json")
_USUAL_PAGE = 1000
_ASKS_FOR_MORE = frozenset({"include"})
"""Parameters that add to the records of a list, where others choose among them."""

Facts = Mapping[str, Any]


def regenerate_wire_contract(folder: Path | None = None) -> None:
    """Write the contract of every list that the sandbox serves.

    Args:
        folder: where the facts on the API are; see the head of this module for the default.

    Raises:
        FileNotFoundError: the facts are not there.
        LookupError: the facts know nothing of a list.
    """
    folder = facts_folder(folder)
    facts = [json.loads((folder / name).read_text()) for name in _FILES]
    examples = {
        path.stem: json.loads(path.read_text()) for path in (folder / "examples").glob("*.json")
    }
    contract = contract_of(RESOURCES, facts, examples)
    CONTRACT_FILE.write_text(json.dumps(contract, indent=1, ensure_ascii=False) + "\n")


def regenerate_examples(folder: Path | None = None) -> None:
    """Copy the official example of every list that the sandbox serves and that has one.

    Raises:
        FileNotFoundError: the facts are not there.
    """
    for path in (facts_folder(folder) / "examples").glob("*.json"):
        if path.stem in RESOURCES:
            (EXAMPLES_FOLDER / path.name).write_bytes(path.read_bytes())


def facts_folder(folder: Path | None) -> Path:
    """Return the folder of the facts.

    Raises:
        FileNotFoundError: it does not hold them.
    """
    folder = folder or Path(os.environ.get(FACTS_VARIABLE, _REPOSITORY.parent / "shared" / "api"))
    missing = [name for name in _FILES if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"The facts on the API ({', '.join(missing)}) are not in {folder}; name their folder"
            f" in {FACTS_VARIABLE}."
        )
    return folder


def contract_of(names: Iterable[str], facts: Iterable[Facts], examples: Facts) -> dict[str, Any]:
    """Give the contract of some lists by the facts, and by the examples for what these leave open.

    Raises:
        LookupError: the facts know nothing of a list.
    """
    wanted = set(names)
    known: dict[str, Any] = {}
    types: dict[str, Any] = {}
    parents: dict[str, Any] = {}
    events: dict[str, Any] = {}
    for part in facts:
        known |= part["resources"]
        types |= part["types"]
        parents |= part.get("parents", {})
        events |= part.get("audit_event_types", {}).get("documented", {})
    if wanted - set(known):
        raise LookupError(f"The facts know nothing of {', '.join(sorted(wanted - set(known)))}.")
    resources = {
        name: _resource(fact, parents.get(name), examples.get(name))
        for name, fact in known.items()
        if name in wanted
    }
    return {
        "resources": resources,
        "types": _types(
            [
                kind
                for resource in resources.values()
                for kind in (resource["type"], *resource.get("beside", {}).values())
            ],
            types,
        ),
        "audit_event_types": {kind: sorted(fact["types"]) for kind, fact in events.items()},
    }


def _resource(fact: Facts, parent: Facts | None, example: Facts | None) -> dict[str, Any]:
    resource: dict[str, Any] = {
        "path": fact["path"],
        "selector": fact["data_selector"],
        "type": fact["record_type"],
        "key": fact["primary_key"],
        "paginated": fact["paginated"],
        "period": "period" in fact["query_params"],
        "needs_feature": "needs_feature" in fact,
    }
    if stage := re.match(r"v1|alpha|beta", fact.get("stage", "")):
        resource["stage"] = "v1" + stage[0].removeprefix("v1")
    if events := fact.get("audit_events", {}).get("documented"):
        resource["audit_events"] = sorted(events)
    if fact.get("personal_data"):
        resource["personal_data"] = True
    if "single" in fact.get("kind", ""):
        resource["single"] = True
    field = re.search(r"\{(\w+)\}", fact["path"])
    if parent is not None and field is not None:
        resource["parent"] = {"resource": parent["parent"], "field": field[1]}
    if {"startTime", "endTime"} <= {*_required(fact["query_params"])}:
        resource["window"] = ["startTime", "endTime"]
    if dimensions := fact["query_params"].get("groupBy"):
        resource["group_by"] = sorted(dimensions["options"])
    if "response_envelope" in fact:
        beside = fact["response_envelope"].items()
        resource["beside"] = {key: rule["type"] for key, rule in beside if key != _list_key(fact)}
    resource |= _parameters(fact["query_params"])
    limit = re.match(r"(\d+) requests per minute", fact["rate_limit"])
    if limit is not None:
        resource["rate_limit"] = int(limit[1])
    if example is not None:
        resource |= _paging(example["data"].get("pagination"))
    return resource


def _required(params: Facts) -> Iterable[str]:
    return (name for name, rule in params.items() if isinstance(rule, Mapping) and rule["required"])


def _list_key(fact: Facts) -> str:
    return str(fact["data_selector"].removeprefix("data."))


def _paging(page: Facts | None) -> dict[str, Any]:
    """Give what an example shows of paging that is not usual."""
    found: dict[str, Any] = {}
    if page is not None:
        if "totalEntries" not in page:
            found["total"] = False
        first = base64.b64decode(page["current"])
        if first.isdigit() and int(first):
            found["first_offset"] = int(first)
    return found


def _parameters(params: Facts) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, rule in params.items():
        if isinstance(rule, Mapping) and "enum" in rule and name not in _ASKS_FOR_MORE:
            found["choice"] = {
                "field": name,
                "values": rule["enum"],
                "required": rule["required"],
            }
        limit = re.search(r"1-(\d+)", str(rule)) if name == "pagination.count" else None
        if limit is not None and int(limit[1]) < _USUAL_PAGE:
            found["page_limit"] = int(limit[1])
    return found


def _types(wanted: list[str], types: Facts) -> dict[str, Any]:
    """Give the types that records are made of, at any depth."""
    found: dict[str, Any] = {}
    while wanted:
        for name in re.findall(r"\w+", wanted.pop(0)):  # of list<A>, and of "one of A, B"
            if name in types and name not in found:
                fields = types[name]["fields"]
                found[name] = {field: _rule(fact) for field, fact in fields.items()}
                wanted = [fact["type"] for fact in fields.values()] + wanted
    return found


def _rule(fact: Facts) -> dict[str, Any]:
    kept = {key: value for key, value in fact.items() if key != "is"}
    return {**kept, "secret": True} if "secret" in kept else kept
