"""The table of endpoints against the API's contract; nothing here needs a network."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, get_args

import pytest
from dlt.common.normalizers.naming.snake_case import NamingConvention

from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS, GROUPS, in_group
from analytics_assets.segment.model import Column, ColumnType, Endpoint, Parent, Reference, Values
from analytics_assets_tests.harness import records, unfolded

pytestmark = pytest.mark.unit
HERE = Path(__file__).parent
CONTRACT = json.loads((HERE / "data" / "wire_contract.json").read_text(encoding="utf-8"))
EXAMPLES = sorted((HERE / "data" / "examples").glob("*.json"))

# In answers of real workspaces, but not in the SDK.
UNDOCUMENTED = {
    "transformations": {"workspaceId": "text", "destinationId": "text", "propertyDrops": "json"},
    "tracking_plans": {"resourceSchemaId": "text"},
}
# Plain numbers that the contract says no more about, and that count.
WHOLE = {
    "tracking_plan_rules": {"version": "bigint"},
    "groups": {"memberCount": "bigint"},
    "events_volume": {"count": "bigint"},
}
# About a whole window, and so not of a day; or said by sources already.
LEFT_OUT = {"events_volume": {"total", "source.name"}}
# In the official example of 2023, and no longer in the SDK.
WITHDRAWN = {"reverse_etl_models": {"scheduleStrategy", "scheduleConfig"}}
# Offered as alpha only: the contract names no feature for it, yet not every workspace has it.
GATED_WITHOUT_NAME = {"reverse_etl_models"}
# Free-form objects whose values are masked key by key.
MASKED_BY_KEY = {"settings"}
# Definitions, which are stored as they are but for credentials in them.
JUDGED_BY_SHAPE = {"query"}
# Names that the load itself adds to a table.
RESERVED = {"deleted_at", "_dlt_id", "_dlt_load_id"}

SOURCES = BY_NAME["sources"]
every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)


def wire_fields(endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    """Return the documented top-level fields of an endpoint's records."""
    resource = CONTRACT["resources"][endpoint.name]
    record_type = resource["type"]
    if record_type == "string":  # a list of bare strings, of which the loader makes records
        field = {"type": "string", "required": True, "personal_data": "personal_data" in resource}
        return {resource["key"][-1]: field}
    documented: dict[str, dict[str, Any]] = CONTRACT["types"][record_type]
    if endpoint.ids_only:
        return {name: field for name, field in documented.items() if name in resource["key"]}
    return spread(documented, endpoint.unfold) if endpoint.unfold else documented


def spread(documented: dict[str, dict[str, Any]], series: str) -> dict[str, dict[str, Any]]:
    """Return the fields of an item of a series beside those of its record, objects taken apart."""
    fields: dict[str, dict[str, Any]] = {}
    for wire, field in documented.items():
        inner = CONTRACT["types"].get(item_type(field["type"]))
        prefix = "" if wire == series else f"{wire}."
        fields |= {prefix + name: rule for name, rule in inner.items()} if inner else {wire: field}
    return fields


def column_type(field: dict[str, Any]) -> str:
    """Return the column type that a field of the contract calls for."""
    scalar = {
        ("string", None): "text",
        ("string", "FQL expression"): "text",
        ("string", "ISO-8601 UTC"): "timestamp",
        ("string", "integer in a string"): "bigint",
        ("number", None): "double",
        ("number", "unix seconds"): "timestamp",
        ("boolean", None): "bool",
    }
    nested = field["type"] not in {"string", "number", "boolean"}
    return "json" if nested else scalar[field["type"], field.get("format")]


def item_type(type_name: str) -> str:
    """Return ``T`` of ``list<T>``, and any other type as it is."""
    found = re.fullmatch(r"list<(.+)>", type_name)
    return found.group(1) if found else type_name


def holds(field: dict[str, Any], flag: str) -> bool:
    """Tell whether the contract flags a field, or anything inside it at any depth."""
    nested = CONTRACT["types"].get(item_type(field["type"]), {})
    return bool(field.get(flag)) or any(holds(inner, flag) for inner in nested.values())


def references() -> Iterator[tuple[Endpoint, Reference]]:
    """Yield every declared reference with the endpoint that declares it."""
    for endpoint in ENDPOINTS:
        for reference in endpoint.references:
            yield endpoint, reference


def test_rows_stand_by_group() -> None:
    """A row out of place, or a group without a row, is shown where nobody looks for it."""
    assert [e for group in GROUPS for e in in_group(group)] == list(ENDPOINTS)
    assert all(in_group(group) for group in GROUPS)


def test_names_and_paths_are_unique() -> None:
    """Two rows of one name share a table; a copied path loads the wrong list."""
    for attribute in ("name", "path"):
        values = [getattr(endpoint, attribute) for endpoint in ENDPOINTS]
        assert len(set(values)) == len(values), attribute
    assert list(BY_NAME.values()) == list(ENDPOINTS)
    assert all(BY_NAME[endpoint.name] is endpoint for endpoint in ENDPOINTS)


def test_every_resource_of_the_contract_has_a_row() -> None:
    """A resource that is in the contract and not in the table is never loaded."""
    assert BY_NAME.keys() == CONTRACT["resources"].keys()


@every_endpoint
def test_requests_match_the_contract(endpoint: Endpoint) -> None:
    """A wrong path or selector loads another list, as audit events from /roles once did."""
    wire = CONTRACT["resources"][endpoint.name]
    assert endpoint.path == wire["path"]
    assert endpoint.data_selector == wire["selector"]
    assert endpoint.paginated == wire["paginated"]
    assert endpoint.monthly == wire["period"]
    assert endpoint.single == wire.get("single", False)
    assert endpoint.stage == wire["stage"]
    assert endpoint.page_limit == wire.get("page_limit")
    assert endpoint.rate_limit == wire.get("rate_limit")


@every_endpoint
def test_slices_match_the_contract(endpoint: Endpoint) -> None:
    """A kind that is not asked for, or the wrong parent, makes a list that is never whole."""
    wire = CONTRACT["resources"][endpoint.name]
    way, choice, parent = endpoint.slice, wire.get("choice", {}), wire.get("parent")
    if isinstance(way, Values):
        assert (way.param, list(way.values)) == (choice["field"], choice["values"])
    elif choice.get("required"):
        assert dict(endpoint.params)[choice["field"]] in choice["values"]
    else:
        assert choice.get("field") not in dict(endpoint.params)
    if isinstance(way, Parent):
        assert {"resource": way.resource, "field": way.param} == parent
        assert f"{{{way.param}}}" in endpoint.path
        assert way.param in {column.field for column in endpoint.columns}
        assert BY_NAME[way.resource].group == endpoint.group
    else:
        assert parent is None
    assert (endpoint.window and [endpoint.window.start, endpoint.window.end]) == wire.get("window")


@every_endpoint
def test_rows_of_a_series_are_told_apart(endpoint: Endpoint) -> None:
    """A dimension that is not asked for is added up, and its rows cannot be taken apart later."""
    asked = [value for name, value in endpoint.params if name.startswith("groupBy.")]
    assert sorted(asked) == CONTRACT["resources"][endpoint.name].get("group_by", [])
    if endpoint.window:
        assert endpoint.window.day in endpoint.primary_key
        assert endpoint.cursor_column == endpoint.window.day
        [day] = [c for c in endpoint.columns if c.field == endpoint.window.day]
        assert day.type == "timestamp"


@every_endpoint
def test_key_matches_the_contract(endpoint: Endpoint) -> None:
    """A key that is too narrow merges different records into one; a wrong one duplicates them."""
    wanted = CONTRACT["resources"][endpoint.name]["key"]
    assert list(endpoint.primary_key) == [w.removeprefix(f"{endpoint.unfold}.") for w in wanted]
    assert endpoint.key_columns == tuple(
        column.name
        for wire in endpoint.primary_key
        for column in endpoint.columns
        if column.field == wire
    )
    assert len(endpoint.key_columns) == len(endpoint.primary_key)


@every_endpoint
def test_feature_gates_match_the_contract(endpoint: Endpoint) -> None:
    """A missing gate fails the run of a smaller plan; one too many hides a refused token."""
    needs_feature = CONTRACT["resources"][endpoint.name]["needs_feature"]
    assert (endpoint.feature is not None) == (needs_feature or endpoint.name in GATED_WITHOUT_NAME)
    assert endpoint.feature != ""


@every_endpoint
def test_columns_match_the_contract(endpoint: Endpoint) -> None:
    """A missing column loses its type on an empty table; a wrong type fails or rounds values."""
    expected = {wire: column_type(field) for wire, field in wire_fields(endpoint).items()}
    expected |= UNDOCUMENTED.get(endpoint.name, {}) | WHOLE.get(endpoint.name, {})
    if endpoint.parent:
        expected[endpoint.parent.param] = "text"
    for wire in LEFT_OUT.get(endpoint.name, ()):
        del expected[wire]
    assert {column.field: column.type for column in endpoint.columns} == expected
    assert set(expected.values()) <= set(get_args(ColumnType))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_official_examples_have_no_field_without_a_column(example: Path) -> None:
    """A field that real answers carry and the table lacks would be left to guessing its type."""
    endpoint = BY_NAME[example.stem]
    body = example.read_text(encoding="utf-8")
    found = list(unfolded(endpoint, records(endpoint, body)))
    assert found or json.loads(body)["data"]["pagination"]["totalEntries"] == 0
    fields = {wire for record in found for wire in record}
    if not endpoint.ids_only:
        assert fields - WITHDRAWN.get(endpoint.name, set()) <= {c.field for c in endpoint.columns}


@every_endpoint
def test_secrets_match_the_contract(endpoint: Endpoint) -> None:
    """An unmarked secret is stored in clear text for everybody who can read the tables."""
    secret = {wire for wire, field in wire_fields(endpoint).items() if field.get("secret")}
    whole = secret - MASKED_BY_KEY - JUDGED_BY_SHAPE
    assert {c.field for c in endpoint.columns if c.redact == "secret"} == whole
    by_shape = {c.field for c in endpoint.columns if c.redact == "shape"}
    assert secret & JUDGED_BY_SHAPE <= by_shape
    assert all(c.type == "json" for c in endpoint.columns if c.field in MASKED_BY_KEY)


@every_endpoint
def test_lists_that_repeat_another_one_keep_the_ids_only(endpoint: Endpoint) -> None:
    """A second copy of the sources, with their write keys, is a second place to forget masking."""
    types = {name: wire["type"] for name, wire in CONTRACT["resources"].items()}
    documented = CONTRACT["types"].get(types[endpoint.name], {}).values()
    copies = Counter(types.values())[types[endpoint.name]] > 1
    assert endpoint.ids_only == (
        endpoint.parent is not None and copies and any(holds(f, "secret") for f in documented)
    )
    if endpoint.ids_only:
        assert {column.field for column in endpoint.columns} == set(endpoint.primary_key)


@every_endpoint
def test_credentials_inside_nested_values_are_marked(endpoint: Endpoint) -> None:
    """A secret below the top level, such as the key of a hash, is stored in clear text."""
    documented = wire_fields(endpoint)
    holding = {wire for wire, field in documented.items() if holds(field, "secret")}
    whole = {column.field for column in endpoint.columns if column.secret}
    judged = {column.field for column in endpoint.columns if column.redact == "shape_and_key"}
    assert judged == holding - whole - JUDGED_BY_SHAPE


@every_endpoint
def test_personal_data_matches_the_contract(endpoint: Endpoint) -> None:
    """Personal data that is not marked, even deep in a copy, escapes retention and masking."""
    documented = wire_fields(endpoint)
    personal = {wire for wire, field in documented.items() if holds(field, "personal_data")}
    personal |= {"resourceName"} & set(documented)  # an invited person's address stands there
    assert {column.field for column in endpoint.columns if column.personal} == personal


@every_endpoint
def test_column_names_are_those_of_dlt(endpoint: Endpoint) -> None:
    """A name that differs from dlt's own leaves the declared column empty beside a second one."""
    naming = NamingConvention()
    for column in endpoint.columns:
        assert column.name == naming.normalize_identifier(column.field)


@pytest.mark.parametrize(
    "wire", ["writeKeys", "isAUser", "aBC", "htmlURLId", "v2Keys", "id", "a1B"]
)
def test_unusual_field_names_become_those_of_dlt(wire: str) -> None:
    """A later field with a run of capitals or a digit would get a name that dlt does not make."""
    assert Column(wire, "text", "x").name == NamingConvention().normalize_identifier(wire)


@every_endpoint
def test_column_names_are_unique(endpoint: Endpoint) -> None:
    """Two fields that become one column, or take a name of the load's own, overwrite each other."""
    names = [column.name for column in endpoint.columns]
    assert len(set(names)) == len(names)
    assert not RESERVED & set(names)


@every_endpoint
def test_descriptions_are_readable(endpoint: Endpoint) -> None:
    """An empty or broken description shows up as such in the catalogue and in column comments."""
    for text in (endpoint.description, *(column.description for column in endpoint.columns)):
        assert text
        assert text == " ".join(text.split())
        assert text.endswith(".")
    assert re.fullmatch(
        r"https://docs\.segmentapis\.com/tag/[A-Z][A-Za-z]*(-[A-Z][A-Za-z]*)*", endpoint.docs
    )


@every_endpoint
def test_load_modes_exclude_each_other(endpoint: Endpoint) -> None:
    """A partial load that is taken for a full one marks everything it left out as deleted."""
    assert not (endpoint.monthly and endpoint.cursor)
    assert endpoint.full_list == (endpoint.group != "usage" and endpoint.name != "audit_events")


def test_cursor_is_a_time_of_the_record() -> None:
    """A cursor that is no timestamp column would compare times as text, or find none at all."""
    cursors = {endpoint.name: endpoint.cursor for endpoint in ENDPOINTS if endpoint.cursor}
    assert cursors == {"audit_events": "timestamp"}
    for name, cursor in cursors.items():
        assert [c.type for c in BY_NAME[name].columns if c.field == cursor] == ["timestamp"]


@every_endpoint
def test_counters_are_the_integers_of_usage(endpoint: Endpoint) -> None:
    """A counter that is not listed escapes the check that it never falls within a month."""
    in_text = {
        wire
        for wire, field in wire_fields(endpoint).items()
        if field.get("format") == "integer in a string"
    }
    assert {column.field for column in endpoint.counters} == in_text
    assert bool(endpoint.counters) == endpoint.monthly


def test_only_monthly_endpoints_have_counters() -> None:
    """An ordinary number of a full list must not be checked as if it grew day by day."""
    row = Endpoint(
        name="x",
        group="inventory",
        path="/x",
        data_selector="data.x",
        primary_key=("id",),
        description="A row.",
        columns=(Column("id", "text", "Identifier."), Column("size", "bigint", "Size.")),
        docs="",
    )
    assert row.counters == ()


@pytest.mark.parametrize(
    ("endpoint", "reference"), list(references()), ids=lambda value: getattr(value, "path", None)
)
def test_references_exist_on_both_sides(endpoint: Endpoint, reference: Reference) -> None:
    """A mistyped path or table makes a check that compares nothing and always passes."""
    assert reference.column in {c.name for c in BY_NAME[reference.table].columns}
    known = wire_fields(endpoint)
    if endpoint.parent:
        known = {**known, endpoint.parent.param: {"type": "string"}}
    for step in [reference.path] if reference.path in known else reference.path.split("."):
        field = known[step.removesuffix("[]")]
        assert step.endswith("[]") == field["type"].startswith("list<")
        known = CONTRACT["types"].get(item_type(field["type"]), {})
    assert field["type"] == "string"


def implied_references(endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    """Yield path and table of each foreign key that the contract's names give away."""
    types = {wire["type"]: name for name, wire in CONTRACT["resources"].items()}
    if endpoint.parent:
        yield endpoint.parent.param, endpoint.parent.resource
    for path, field in all_fields(wire_fields(endpoint)):
        table = Column(path.split(".")[-1].removesuffix("Id") + "s", "text", "").name
        if path.endswith("Id") and table in BY_NAME:
            yield path, table
        if path == "metadata":
            yield "metadata.id", types[field["type"]]


def all_fields(
    known: Mapping[str, dict[str, Any]], before: str = ""
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every field of a record at any depth, with its path."""
    for wire, field in known.items():
        yield before + wire, field
        step = "[]." if field["type"].startswith("list<") else "."
        nested = CONTRACT["types"].get(item_type(field["type"]), {})
        yield from all_fields(nested, before + wire + step)


@every_endpoint
def test_foreign_keys_are_declared(endpoint: Endpoint) -> None:
    """A foreign key that is left out is never checked, and nobody would notice."""
    declared = {(reference.path, reference.table) for reference in endpoint.references}
    assert set(implied_references(endpoint)) <= declared
    tail = "/" + endpoint.path.rsplit("/", 1)[-1]
    listed = {e.name for e in ENDPOINTS if endpoint.parent and e.path == tail}
    assert listed <= {table for _, table in declared}  # members of a group are users


@pytest.mark.parametrize("row", [SOURCES, SOURCES.columns[0], SOURCES.references[0]])
def test_rows_are_frozen(row: Endpoint | Column | Reference) -> None:
    """A row that one run may change would change what the next run in the process loads."""
    with pytest.raises(FrozenInstanceError):
        setattr(row, fields(row)[0].name, "changed")
    assert isinstance(hash(row), int)


def test_lookup_by_name_is_read_only() -> None:
    """A caller that adds to the lookup would make a resource that no other part knows of."""
    with pytest.raises(TypeError):
        BY_NAME["x"] = ENDPOINTS[0]  # type: ignore[index]
