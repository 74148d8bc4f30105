"""The table of endpoints against the API's contract; nothing here needs a network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any, get_args

import pytest
from dlt.common.normalizers.naming.snake_case import NamingConvention

from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS, GROUPS, in_group
from analytics_assets.segment.model import Column, ColumnType, Endpoint, Reference

HERE = Path(__file__).parent
CONTRACT = json.loads((HERE / "data" / "wire_contract.json").read_text(encoding="utf-8"))
EXAMPLES = sorted((HERE / "data" / "examples").glob("*.json"))

ASSETS = {
    "inventory": "warehouses sources destinations reverse_etl_models transformations spaces",
    "catalog": "catalog_destinations catalog_sources catalog_warehouses",
    "identity": "users roles labels audit_events",
    "usage": "usage_api_calls_daily usage_mtu_daily usage_api_calls_sources_daily"
    " usage_mtu_sources_daily",
}
# In answers of real workspaces, but not in the SDK.
UNDOCUMENTED = {
    "transformations": {"workspaceId": "text", "destinationId": "text", "propertyDrops": "json"}
}
# Offered as alpha only: the contract names no feature for it, yet not every workspace has it.
GATED_WITHOUT_NAME = {"reverse_etl_models"}
# Free-form objects whose values are masked key by key.
MASKED_BY_KEY = {"settings"}
# Definitions, which are stored as they are but for credentials in them.
JUDGED_BY_SHAPE = {"query"}
# Names that the load itself adds to a table.
RESERVED = {"deleted_at", "_dlt_id", "_dlt_load_id"}
# The half that is usable by itself, without an orchestrator.
DLT_HALF = (
    "segment.endpoints",
    "segment.source",
    "segment.audit_trail",
    "warehouse.load",
    "warehouse.tables",
)

every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)


def wire_fields(endpoint: Endpoint) -> dict[str, dict[str, Any]]:
    """Return the documented top-level fields of an endpoint's records."""
    record_type = CONTRACT["resources"][endpoint.name]["type"]
    documented: dict[str, dict[str, Any]] = CONTRACT["types"][record_type]
    return documented


def column_type(field: dict[str, Any]) -> str:
    """Return the column type that a field of the contract calls for."""
    scalar = {
        ("string", None): "text",
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


def test_assets_and_groups_are_the_published_ones() -> None:
    """A renamed, dropped or regrouped asset breaks tables, selections and jobs of its users."""
    published = {group: tuple(names.split()) for group, names in ASSETS.items()}
    assert {group: tuple(e.name for e in in_group(group)) for group in GROUPS} == published
    assert tuple(GROUPS) == tuple(published)
    assert [e.name for e in ENDPOINTS] == [name for names in published.values() for name in names]


def test_names_paths_and_selectors_are_unique() -> None:
    """Two rows of one name share a table; a copied path or selector loads the wrong list."""
    for attribute in ("name", "path", "selector"):
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
    assert endpoint.selector == wire["selector"]
    assert endpoint.paginated == wire["paginated"]
    assert endpoint.monthly == wire["period"]


@every_endpoint
def test_key_matches_the_contract(endpoint: Endpoint) -> None:
    """A key that is too narrow merges different records into one; a wrong one duplicates them."""
    assert list(endpoint.key) == CONTRACT["resources"][endpoint.name]["key"]
    assert endpoint.column_keys == tuple(
        column.name for wire in endpoint.key for column in endpoint.columns if column.wire == wire
    )
    assert len(endpoint.column_keys) == len(endpoint.key)


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
    expected |= UNDOCUMENTED.get(endpoint.name, {})
    assert {column.wire: column.type for column in endpoint.columns} == expected
    assert set(expected.values()) <= set(get_args(ColumnType))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_official_examples_have_no_field_without_a_column(example: Path) -> None:
    """A field that real answers carry and the table lacks would be left to guessing its type."""
    endpoint = BY_NAME[example.stem]
    records = json.loads(example.read_text(encoding="utf-8"))
    for part in endpoint.selector.split("."):
        records = records[part]
    assert records
    assert {wire for record in records for wire in record} <= {c.wire for c in endpoint.columns}


@every_endpoint
def test_secrets_match_the_contract(endpoint: Endpoint) -> None:
    """An unmarked secret is stored in clear text for everybody who can read the tables."""
    secret = {wire for wire, field in wire_fields(endpoint).items() if field.get("secret")}
    whole = secret - MASKED_BY_KEY - JUDGED_BY_SHAPE
    assert {c.wire for c in endpoint.columns if c.redact == "secret"} == whole
    by_shape = {c.wire for c in endpoint.columns if c.redact == "shape"}
    assert secret & JUDGED_BY_SHAPE <= by_shape
    assert all(c.type == "json" for c in endpoint.columns if c.wire in MASKED_BY_KEY)


@every_endpoint
def test_credentials_inside_nested_values_are_marked(endpoint: Endpoint) -> None:
    """A secret below the top level, such as the key of a hash, is stored in clear text."""
    documented = wire_fields(endpoint)
    holding = {wire for wire, field in documented.items() if holds(field, "secret")}
    whole = {column.wire for column in endpoint.columns if column.secret}
    judged = {column.wire for column in endpoint.columns if column.redact == "shape_and_key"}
    assert judged == holding - whole - JUDGED_BY_SHAPE


@every_endpoint
def test_personal_data_matches_the_contract(endpoint: Endpoint) -> None:
    """Personal data that is not marked, even deep in a copy, escapes retention and masking."""
    documented = wire_fields(endpoint)
    personal = {wire for wire, field in documented.items() if holds(field, "personal_data")}
    assert {column.wire for column in endpoint.columns if column.personal} == personal


@every_endpoint
def test_column_names_are_those_of_dlt(endpoint: Endpoint) -> None:
    """A name that differs from dlt's own leaves the declared column empty beside a second one."""
    naming = NamingConvention()
    for column in endpoint.columns:
        assert column.name == naming.normalize_identifier(column.wire)


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
        assert [c.type for c in BY_NAME[name].columns if c.wire == cursor] == ["timestamp"]


@every_endpoint
def test_counters_are_the_integers_of_usage(endpoint: Endpoint) -> None:
    """A counter that is not listed escapes the check that it never falls within a month."""
    in_text = {
        wire
        for wire, field in wire_fields(endpoint).items()
        if field.get("format") == "integer in a string"
    }
    assert {column.wire for column in endpoint.counters} == in_text
    assert bool(endpoint.counters) == endpoint.monthly


def test_only_monthly_endpoints_have_counters() -> None:
    """An ordinary number of a full list must not be checked as if it grew day by day."""
    row = Endpoint(
        name="x",
        group="inventory",
        path="/x",
        selector="data.x",
        key=("id",),
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
    for step in reference.path.split("."):
        field = known[step.removesuffix("[]")]
        assert step.endswith("[]") == field["type"].startswith("list<")
        known = CONTRACT["types"].get(item_type(field["type"]), {})
    assert field["type"] == "string"


def test_references_are_the_expected_ones() -> None:
    """A foreign key that is left out is never checked, and nobody would notice."""
    assert {(e.name, r.path, r.table, r.column) for e, r in references()} == {
        ("destinations", "sourceId", "sources", "id"),
        ("destinations", "metadata.id", "catalog_destinations", "id"),
        ("sources", "metadata.id", "catalog_sources", "id"),
        ("warehouses", "metadata.id", "catalog_warehouses", "id"),
        ("users", "permissions[].roleId", "roles", "id"),
        ("reverse_etl_models", "sourceId", "sources", "id"),
        ("transformations", "sourceId", "sources", "id"),
        ("usage_api_calls_sources_daily", "sourceId", "sources", "id"),
        ("usage_mtu_sources_daily", "sourceId", "sources", "id"),
    }


@pytest.mark.parametrize("row", [ENDPOINTS[0], ENDPOINTS[0].columns[0], ENDPOINTS[0].references[0]])
def test_rows_are_frozen(row: Endpoint | Column | Reference) -> None:
    """A row that one run may change would change what the next run in the process loads."""
    with pytest.raises(FrozenInstanceError):
        setattr(row, fields(row)[0].name, "changed")
    assert isinstance(hash(row), int)


def test_lookup_by_name_is_read_only() -> None:
    """A caller that adds to the lookup would make a resource that no other part knows of."""
    with pytest.raises(TypeError):
        BY_NAME["x"] = ENDPOINTS[0]  # type: ignore[index]


def modules_loaded_by(module: str) -> set[str]:
    """Import ``module`` in a fresh interpreter; return the top-level modules that it brought in."""
    code = (
        "import sys; before = set(sys.modules);"
        f" import {module};"
        " print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.split())


@pytest.mark.parametrize("module", DLT_HALF)
def test_dlt_half_never_imports_dagster(module: str) -> None:
    """An import of dagster here ends the use of the pure-dlt half without an orchestrator."""
    loaded = modules_loaded_by(f"analytics_assets.{module}")
    assert "analytics_assets" in loaded
    assert not [name for name in loaded if name.startswith("dagster")]


def test_endpoints_need_the_standard_library_only() -> None:
    """An import of dlt here makes every reader of the table, the sandbox too, slow to start."""
    loaded = modules_loaded_by("analytics_assets.segment.endpoints")
    assert loaded - sys.stdlib_module_names == {"analytics_assets"}
