"""What the pages of the assets show, before anything has run and after a load."""

from __future__ import annotations

import base64
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pytest
from dagster import AssetKey, AssetSpec, DagsterInstance, MetadataValue, TableMetadataValue

from analytics_assets.orchestration.metadata import LOAD_ID, MASK, preview
from analytics_assets.sandbox import Options, Reply, Sandbox
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.model import Endpoint
from analytics_assets_tests.conftest import SMALL, project_for
from analytics_assets_tests.harness import ALL_TABLES, Project, failure_of, materialized, own_specs

LARGEST_CHART = 40_000
USAGE = [endpoint.name for endpoint in ENDPOINTS if endpoint.monthly]
Shown = Mapping[str, Mapping[str, MetadataValue[Any]]]


@pytest.fixture(scope="module")
def specs() -> Mapping[str, AssetSpec]:
    """Return the spec of every asset, with nothing run."""
    from analytics_assets.definitions import defs

    found = defs.resolve_asset_graph()
    return {
        key.to_user_string(): found.get(key).to_asset_spec() for key in found.get_all_asset_keys()
    }


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Return a project that is pointed at a small sandbox."""
    with Sandbox(Options(scale=SMALL)) as sandbox:
        yield project_for(sandbox, tmp_path_factory.mktemp("metadata"))


@pytest.fixture(scope="module")
def shown(project: Project) -> Shown:
    """Return the metadata of each materialization of one load."""
    result = project.materialize()
    assert failure_of(result) == ""
    return {
        event.asset_key.to_user_string(): event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key
    }


@pytest.mark.unit
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda endpoint: endpoint.name)
def test_every_asset_explains_itself_before_it_runs(
    specs: Mapping[str, AssetSpec], endpoint: Endpoint
) -> None:
    """Prevents a page that stays empty until the first run."""
    spec = specs[endpoint.name]
    assert spec.group_name == endpoint.group
    assert spec.description == endpoint.description
    assert spec.owners == []
    assert {"dlt", "duckdb"} <= spec.kinds
    metadata = spec.metadata
    assert metadata["dagster/table_name"] == f"analytics.{endpoint.name}"
    assert metadata["api_docs"] == MetadataValue.url(endpoint.docs)
    columns = metadata["dagster/column_schema"].columns
    assert [column.name for column in columns] == [c.name for c in endpoint.table_columns]
    personal = {column.name for column in columns if "personal_data" in column.tags}
    assert personal == {column.name for column in endpoint.table_columns if column.personal}
    assert ("personal_data" in spec.tags) == bool(personal)


@pytest.mark.unit
@pytest.mark.parametrize(
    ("listed", "owners"),
    [
        (None, []),
        (" , ", []),
        ("team:data", ["team:data"]),
        (" ops@example.com, team:data ,", ["ops@example.com", "team:data"]),
    ],
)
def test_the_owners_are_those_of_the_deployment(
    monkeypatch: pytest.MonkeyPatch, listed: str | None, owners: list[str]
) -> None:
    """Prevents assets whose page names a team that their deployment does not have."""
    monkeypatch.delenv("ANALYTICS_OWNERS", raising=False)
    if listed is not None:
        monkeypatch.setenv("ANALYTICS_OWNERS", listed)
    assert {tuple(spec.owners) for spec in own_specs()} == {tuple(owners)}


@pytest.mark.unit
@pytest.mark.parametrize("listed", ["data", "team:", "team:data, somebody"])
def test_owners_that_dagster_refuses_are_named(
    monkeypatch: pytest.MonkeyPatch, listed: str
) -> None:
    """Prevents definitions that do not load, for a reason that names no variable."""
    monkeypatch.setenv("ANALYTICS_OWNERS", listed)
    with pytest.raises(SettingError, match=r"ANALYTICS_OWNERS.+ commas between\.$"):
        own_specs()


def test_figures_that_dagster_plots(shown: Shown) -> None:
    """Prevents figures as text, which Dagster does not plot over time."""
    assert shown.keys() == ALL_TABLES
    for name, metadata in shown.items():
        names = {
            "dagster/row_count",
            "rows_loaded",
            "pages",
            "seconds",
            "seconds_waited",
            "retries",
        }
        if BY_NAME[name].full_list:
            names |= {"deleted_rows", "newly_deleted_rows"}
        for figure in names:
            assert isinstance(metadata[figure].value, (int, float)), f"{name}: {figure}"


def test_a_run_says_what_it_has_cost_and_says_it_once(start: Callable[..., Project]) -> None:
    """Prevents an event log that holds everything twice, and costs that nobody can follow."""
    own = start()
    replies = iter([Reply(503)])
    own.sandbox.intercept = lambda info: next(replies, None) if info.path == "/labels" else None
    result = own.materialize("labels", "roles")
    assert failure_of(result) == ""
    outputs = [event.step_output_data for event in result.all_events if event.is_successful_output]
    assert len(outputs) == 2
    assert all(not output.metadata for output in outputs)
    [observed] = result.get_asset_observation_events()
    assert observed.asset_key == AssetKey("segment_workspace")
    data: Any = observed.event_specific_data
    metadata = dict(data.asset_observation.metadata)
    spans = {record.data["span"]: record.data for record in metadata.pop("spans").records}
    assert {"plan", "read", "type", "extract", "normalize", "load", "check"} <= spans.keys()
    assert spans["load"]["seconds"] == 0 < spans["load"]["seconds_loading"] < 60
    assert 0 < spans["wait"]["seconds"] < 60
    assert spans["type"]["seconds"] == 0 < spans["type"]["thread_seconds_reading"] < 60
    figures = {name: value.value for name, value in metadata.items()}
    assert figures == {
        "assets_loaded": 2,
        "assets_failed": 0,
        "rows_loaded": len(own.sandbox.served("labels")) + len(own.sandbox.served("roles")),
        "requests": 2,
        "retries": 1,
        "seconds_waited": 0,
    }


def test_previews_show_rows(shown: Shown) -> None:
    """Prevents an empty preview, or one that is as large as the table."""
    for name, metadata in shown.items():
        rows = metadata["preview"]
        assert isinstance(rows, TableMetadataValue), name
        assert 0 < len(rows.records) <= 5
        for record in rows.records:
            assert all(len(str(value)) <= 60 for value in record.data.values())


def test_answers_come_before_the_pipeline(shown: Shown) -> None:
    """Prevents a page that begins with what only those want to know who run it."""
    for name, metadata in shown.items():
        found = [each for each in metadata if not each.startswith("daily_")]
        answers, pipeline = found[: found.index("rows_loaded")], found[found.index("rows_loaded") :]
        assert {"dagster/row_count", "preview"} <= set(answers), name
        assert {"pages", "requests", "seconds", "dagster/column_schema"} <= set(pipeline), name
        assert not {"preview", "warnings", "newest_day", "deleted_rows"} & set(pipeline), name
    usage = list(shown["usage_api_calls_daily"])
    assert usage[:2] == ["newest_day", "dagster/row_count"]


@pytest.mark.parametrize("name", ["audit_events", "events_volume", "usage_mtu_daily"])
def test_a_preview_shows_the_newest_rows(project: Project, shown: Shown, name: str) -> None:
    """Prevents a page that shows what was so a year ago."""
    column = BY_NAME[name].cursor_column or ""
    newest = sorted((row[column] for row in project.rows(name)), reverse=True)[:5]
    assert [row[column] for row in cells(shown, name)] == [time.isoformat() for time in newest]


def test_dlts_own_column_is_described(shown: Shown) -> None:
    """Prevents a column of every table of which nobody knows what it is for."""
    for metadata in shown.values():
        columns = metadata["dagster/column_schema"].value.columns
        [described] = [c.description for c in columns if c.name == "_dlt_load_id"]
        assert described == LOAD_ID


def cells(shown: Shown, name: str) -> list[dict[str, Any]]:
    """Return the rows of a preview."""
    rows = shown[name]["preview"]
    assert isinstance(rows, TableMetadataValue)
    return [dict(record.data) for record in rows.records]


def test_previews_mask_personal_data_and_secrets(project: Project, shown: Shown) -> None:
    """Prevents that people or secrets show up in the event log, which everybody may read."""
    text = json.dumps([cells(shown, name) for name in shown], ensure_ascii=False)
    emails = [user["email"] for user in project.sandbox.served("users")]
    for hidden in [*emails, *project.sandbox.workspace.secrets()]:
        assert hidden not in text
    for row in cells(shown, "users"):
        assert row["name"] == row["email"] == MASK
        assert row["id"] != MASK
    assert {row["settings"] for row in cells(shown, "sources")} <= {MASK, None}
    assert {row["write_keys"] for row in cells(shown, "sources")} <= {MASK, None}


@pytest.mark.unit
def test_a_preview_masks_what_is_raw_or_unknown() -> None:
    """Prevents leaks when redaction is off, and by fields that the API added yesterday."""
    rows = pa.table(
        {
            "id": ["a" * 100],
            "name": ["Ada"],
            "permissions": [None],
            "phone": ["+44 20 7946 0000"],
            "logins": [3],
        }
    )
    shown = preview(BY_NAME["users"], rows)
    assert shown
    assert shown.records[0].data == {
        "id": "a" * 59 + "\N{HORIZONTAL ELLIPSIS}",
        "name": MASK,
        "permissions": None,
        "phone": MASK,
        "logins": 3,
    }
    assert [column.type for column in shown.schema.columns][-1] == "undeclared"
    raw = preview(BY_NAME["sources"], pa.table({"id": ["s"], "write_keys": ['["raw"]']}))
    assert raw
    assert raw.records[0].data["write_keys"] == MASK


@pytest.mark.unit
def test_no_rows_no_preview() -> None:
    """Prevents that a load of an empty list fails for want of something to show."""
    assert preview(BY_NAME["users"], None) is None
    assert preview(BY_NAME["users"], pa.table({"id": pa.array([], pa.string())})) is None


def picture(markdown: str) -> bytes:
    """Take the SVG out of Markdown."""
    head, found, rest = markdown.partition("data:image/svg+xml;base64,")
    assert found
    assert head.startswith("![")
    assert rest.endswith(")")
    return base64.b64decode(rest[:-1], validate=True)


def test_without_the_extra_there_are_figures_and_no_picture(
    start: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents that who leaves pygal out has failures, or a warning with every load."""
    monkeypatch.setitem(sys.modules, "pygal", None)  # Python's own way to bar an import
    with DagsterInstance.ephemeral() as instance:
        result = start().materialize("usage_api_calls_daily", "month_forecast", instance=instance)
        logs = instance.all_logs(result.run_id)
    assert failure_of(result) == ""
    figures = materialized(result)
    assert figures["month_forecast"]["month_to_date"] > 0
    assert not [name for name, values in figures.items() if "chart" in values]
    assert not [entry for entry in logs if "chart" in entry.user_message]
