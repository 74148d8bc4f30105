"""The definitions: they load anywhere, at once, and show everything before anything has run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from dagster import AssetKey, AssetSpec, TableSchema, UrlMetadataValue, in_process_executor

import analytics_assets
from analytics_assets.definitions import defs
from analytics_assets.segment.endpoints import ENDPOINTS
from analytics_assets.segment.model import Endpoint
from analytics_assets_tests.harness import ALL_ASSETS, own_specs

ROOT = Path(__file__).resolve().parent.parent
IMPORT_FACTOR = 1.3
BASELINE = "import dagster, dagster_dlt, dlt"
PROJECT = "import analytics_assets; analytics_assets.defs"
NO_NETWORK = """
import socket

def refuse(*_, **__):
    raise AssertionError("the network was used")

for name in ("connect", "connect_ex", "sendto"):
    setattr(socket.socket, name, refuse)
socket.create_connection = socket.getaddrinfo = refuse
"""
every_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda e: e.name)


def bare_environment(home: Path) -> dict[str, str]:
    """Return an environment that holds nothing but what it takes to start a program."""
    kept = {name: os.environ[name] for name in ("PATH",) if name in os.environ}
    return {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT)}


def succeed(words: list[str], home: Path, folder: Path = ROOT) -> str:
    """Run a command in the bare environment and return its output; it must succeed."""
    done = subprocess.run(
        words,
        cwd=folder,
        env=bare_environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def spec(endpoint: Endpoint) -> AssetSpec:
    """Return the spec of an asset."""
    graph = defs.resolve_asset_graph()
    node = graph.get(AssetKey(endpoint.name))
    return node.to_asset_spec()


# they load


def test_they_load_with_an_empty_environment_and_no_network(tmp_path: Path) -> None:
    """Prevents definitions that need a token, a setting, a home or the API just to be shown."""
    code = f"{NO_NETWORK}\nimport analytics_assets\nprint(len(analytics_assets.defs.assets))"
    assert succeed([sys.executable, "-c", code], tmp_path, tmp_path).split()[-1] == "2"
    assert list(tmp_path.glob("*.duckdb")) == []


def test_dagster_validates_the_workspace_file(tmp_path: Path) -> None:
    """Prevents a `workspace.yaml` that no longer points at the code."""
    words = [sys.executable, "-m", "dagster", "definitions", "validate", "-w", "workspace.yaml"]
    assert "All code locations passed validation" in succeed(words, tmp_path)


def test_dg_checks_the_definitions(tmp_path: Path) -> None:
    """Prevents that the current command line of Dagster fails where the older one works."""
    dg = Path(sys.executable).with_name("dg")
    output = succeed([str(dg), "check", "defs"], tmp_path)
    assert "All definitions loaded successfully" in output


@pytest.mark.parametrize("module", ["analytics_assets", "analytics_assets.definitions"])
def test_both_module_names_list_the_same_assets(tmp_path: Path, module: str) -> None:
    """Prevents that `-m analytics_assets`, the command of the README, finds no definitions."""
    words = [sys.executable, "-m", "dagster", "asset", "list", "-m", module]
    listed = {line.strip() for line in succeed(words, tmp_path).splitlines()}
    assert listed >= ALL_ASSETS


@pytest.mark.unit
def test_the_package_is_the_definitions() -> None:
    """Prevents two sets of definitions, or a name that only one of the two modules has."""
    assert analytics_assets.defs is defs
    assert "defs" in dir(analytics_assets)
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        _ = analytics_assets.nothing_of_the_kind


def test_the_import_costs_little_more_than_its_libraries(tmp_path: Path) -> None:
    """Prevents a code location that is slow to load because of what it does at import.

    Measures processor time; the pairs alternate, and of each the best counts, so that other work
    on the machine does not. It stops as soon as the promise is seen to hold.
    """
    best: dict[str, float] = {}
    for _ in range(5):
        for code in (BASELINE, PROJECT):
            best[code] = min(best.get(code, 1e9), processor_seconds(code, tmp_path))
        if best[PROJECT] <= IMPORT_FACTOR * best[BASELINE]:
            return
    pytest.fail(f"{best[PROJECT]:.2f} s, where its libraries take {best[BASELINE]:.2f} s")


def processor_seconds(code: str, home: Path) -> float:
    """Return the processor time that a child process takes to run ``code``."""
    before = os.times()
    succeed([sys.executable, "-c", code], home, home)
    after = os.times()
    return (after.children_user - before.children_user) + (
        after.children_system - before.children_system
    )


# they show


@pytest.mark.unit
def test_there_is_one_asset_per_endpoint_and_report_and_nothing_else() -> None:
    """Prevents assets that are lost, doubled or prefixed on the way from endpoints and reports."""
    keys = {key.to_user_string() for key in defs.resolve_asset_graph().get_all_asset_keys()}
    assert keys == {*ALL_ASSETS, "segment_workspace"}


@pytest.mark.unit
@every_endpoint
def test_every_table_hangs_on_the_workspace(endpoint: Endpoint) -> None:
    """Prevents islands in the lineage: a list hangs on the workspace, a child on its parent."""
    keys = defs.resolve_asset_graph().get(AssetKey(endpoint.name)).parent_keys
    parent = endpoint.parent.resource if endpoint.parent else "segment_workspace"
    assert keys == {AssetKey(parent)}


@pytest.mark.unit
@every_endpoint
def test_an_asset_shows_its_facts_before_anything_has_run(endpoint: Endpoint) -> None:
    """Prevents an empty page in the catalogue until the first run."""
    shown = spec(endpoint)
    assert shown.group_name == endpoint.group
    assert shown.description == endpoint.description
    assert {"dlt", "duckdb"} <= shown.kinds
    metadata = shown.metadata
    assert metadata["dagster/table_name"] == f"analytics.{endpoint.name}"
    assert metadata["api_path"] == endpoint.path
    assert metadata["key"] == ", ".join(endpoint.key_columns)
    docs = metadata["api_docs"]
    assert (docs.url if isinstance(docs, UrlMetadataValue) else docs) == endpoint.docs
    schema = metadata["dagster/column_schema"]
    schema = getattr(schema, "schema", schema)
    assert isinstance(schema, TableSchema)
    columns = {column.name: column for column in schema.columns}
    assert list(columns) == [column.name for column in endpoint.table_columns]
    for column in endpoint.table_columns:
        assert columns[column.name].type == column.type
        assert columns[column.name].description == column.description != ""
        is_key = column.name in endpoint.key_columns
        assert columns[column.name].constraints.nullable is not is_key


@pytest.mark.unit
def test_the_table_name_follows_the_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a table name in the UI that is not where the rows are."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ANALYTICS_DATASET", "segment_copy")
    assert {spec.metadata["dagster/table_name"] for spec in own_specs()} == {
        f"segment_copy.{name}" for name in ALL_ASSETS
    }


@pytest.mark.unit
def test_assets_run_in_one_process() -> None:
    """Prevents lock failures: DuckDB lets only one process write."""
    assert defs.executor is in_process_executor


@pytest.mark.unit
@every_endpoint
def test_no_asset_is_partitioned(endpoint: Endpoint) -> None:
    """Prevents that `--select '*'` asks for a partition."""
    assert defs.resolve_asset_graph().get(AssetKey(endpoint.name)).partitions_def is None


@pytest.mark.unit
def test_no_resource_config_holds_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a token in resource config, which Dagster shows and stores."""
    monkeypatch.setenv("ANALYTICS_API_TOKEN", "hunter2")
    from analytics_assets.orchestration.resources import AnalyticsApi

    assert "hunter2" not in str(AnalyticsApi().model_dump())
    assert "hunter2" not in repr(AnalyticsApi().settings())
