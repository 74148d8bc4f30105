"""Whatever dlt finds in the environment or in its files, rows land where they were asked for."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dlt.common.configuration.specs import BaseConfiguration
from dlt.common.destination.client import DestinationClientStagingConfiguration
from dlt.pipeline.configuration import PipelineConfiguration

from analytics_assets.segment.endpoints import GROUPS
from analytics_assets.warehouse.pinned import (
    DESTINATION,
    FREE_OF_PIPELINE,
    REFUSED_OF_DESTINATION,
    WATCHED,
    pipeline_config,
)
from analytics_assets_tests.conftest import on_postgres
from analytics_assets_tests.harness import Project, environment, failure_of, materialized

NAMES = ("labels", "usage_mtu_daily")
"""A whole list and a history, of two groups."""

PINNED = {
    "DEV_MODE": "true",
    "FULL_REFRESH": "True",
    "PIPELINES__ANALYTICS_ASSETS_IDENTITY__DEV_MODE": "true",
    "DATASET_NAME": "elsewhere",
    "DATASET_NAME_LAYOUT": "x_%s",
    "USE_SINGLE_DATASET": "false",
    "REFRESH": "drop_sources",
    "RESTORE_FROM_DESTINATION": "false",
    "STAGING_TYPE": "filesystem",
    "STAGING_NAME": "elsewhere",
    "DESTINATION_TYPE": "filesystem",
    "DESTINATION_NAME": "elsewhere",
    "PIPELINES_DIR": "elsewhere",
    "PIPELINE_NAME": "elsewhere",
    "STAGING_DATASET_NAME_LAYOUT": "elsewhere",
    "ENABLE_DATASET_NAME_NORMALIZATION": "false",
    "DESTINATION__STAGING_DATASET_NAME_LAYOUT": "x_%s",
    "DATABASE": "elsewhere.duckdb",
    "DESTINATION__DUCKDB__CREDENTIALS": "elsewhere.duckdb",
    "DESTINATION__DUCKDB__CREDENTIALS__DATABASE": "elsewhere.duckdb",
    "MAX_TABLE_NESTING": "3",
    "SOURCES__MAX_TABLE_NESTING": "3",
    "WRITE_DISPOSITION": "replace",
    "REPLACE_STRATEGY": "staging-optimized",
    "DESTINATION__DUCKDB__REPLACE_STRATEGY": "staging-optimized",
    "SCHEMA_CONTRACT": "freeze",
    "LOADER_FILE_FORMAT": "jsonl",
    "LOAD__RAISE_ON_FAILED_JOBS": "false",
    "DATA_WRITER__FILE_MAX_ITEMS": "3",
    "DATA_WRITER__BUFFER_MAX_ITEMS": "3",
}
"""What would move, drop or change tables, and does not."""

REFUSED = {
    "SCHEMA__NAMING": ("direct", "naming"),
    "SOURCES__IDENTITY__SCHEMA__NAMING": ("sql_ci_v1", "naming"),
    "SCHEMA__JSON_NORMALIZER": ('{"module": "relational"}', "json_normalizer"),
    "SCHEMA__ALLOW_IDENTIFIER_CHANGE_ON_TABLE_WITH_DATA": (
        "true",
        "allow_identifier_change_on_table_with_data",
    ),
    "SCHEMA__USE_BREAK_PATH_ON_NORMALIZE": ("true", "use_break_path_on_normalize"),
    "SCHEMA__SCHEMA_VOLUME_PATH": ("elsewhere", "schema_volume_path"),
    "IMPORT_SCHEMA_PATH": ("elsewhere", "import_schema_path"),
    "SCHEMA__IMPORT_SCHEMA_PATH": ("elsewhere", "import_schema_path"),
    "NORMALIZE__NORMALIZE_VOLUME_PATH": ("elsewhere", "normalize_volume_path"),
    "LOAD__LOAD_VOLUME_PATH": ("elsewhere", "load_volume_path"),
    "NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_LOAD_ID": ("false", "add_dlt_load_id"),
    "NORMALIZE__PARQUET_NORMALIZER__ADD_DLT_ID": ("true", "add_dlt_id"),
    "EXTRACT__DATA_WRITER__COERCE_TIMESTAMPS": ("s", "coerce_timestamps"),
    "NORMALIZE__DATA_WRITER__COERCE_TIMESTAMPS": ("s", "coerce_timestamps"),
    "DATA_WRITER__TIMESTAMP_TIMEZONE": ("Europe/Berlin", "timestamp_timezone"),
    "NORMALIZE__DATA_WRITER__DELIMITER": (";", "delimiter"),
    "CREDENTIALS__READ_ONLY": ("true", "read_only"),
    "ANALYTICS_ASSETS_IDENTITY__LOAD__LOAD_VOLUME_PATH": ("elsewhere", "load_volume_path"),
}
"""What would do so and cannot be pinned: its value, and the setting as the sentence names it."""


def assert_in_place(project: Project) -> None:
    """Assert that all rows are in the dataset that was asked for, and nothing anywhere else."""
    project.assert_equal(NAMES)
    assert project.tables() == set(NAMES)
    found = project.query(
        "SELECT schema_name FROM information_schema.schemata"
        " WHERE catalog_name = current_database()"
    )
    dataset = project.env.get("ANALYTICS_DATASET", "analytics")
    schemas = {name for (name,) in found if "anal" in name or "elsewhere" in name or "x_" in name}
    own = {dataset, f"{dataset}_staging"}
    of_other_tests = {name for name in schemas if re.fullmatch(r"analytics_\w{8}(_staging)?", name)}
    assert schemas - (of_other_tests - own) == own
    assert not [*project.folder.rglob("*elsewhere*"), *Path().glob("*elsewhere*")]


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_everything_at_once_moves_nothing(
    start: Callable[..., Project], postgres: str, kind: str
) -> None:
    """Prevents tables in a schema that nobody reads, or tables dropped, with success."""
    project = start()
    if kind == "postgres":
        project = on_postgres(project, postgres)
    assert failure_of(project.materialize(*NAMES)) == ""
    project.env.update(
        {name: value for name, value in PINNED.items() if name != "DATABASE" or kind == "duckdb"}
    )
    for _ in range(2):
        result = project.materialize(*NAMES)
        assert failure_of(result) == ""
        assert_in_place(project)
    assert set(materialized(result)) == set(NAMES)


@pytest.mark.parametrize("name", ["DEV_MODE", "DATASET_NAME_LAYOUT", "REFRESH", "STAGING_TYPE"])
def test_one_variable_moves_nothing(project: Project, name: str) -> None:
    """Prevents that one setting is pinned only because another is set beside it."""
    project.env[name] = PINNED[name]
    for _ in range(2):
        assert failure_of(project.materialize(*NAMES)) == ""
        assert_in_place(project)


def test_the_files_of_dlt_move_nothing(project: Project) -> None:
    """Prevents that a config.toml of other pipelines in the same folder moves these tables."""
    (project.folder / ".dlt").mkdir()
    lines = [
        'dev_mode = true\ndataset_name_layout = "x_%s"\nrefresh = "drop_sources"',
        '[destination]\nstaging_dataset_name_layout = "elsewhere"',
        "[pipelines.analytics_assets_identity]\nuse_single_dataset = false",
    ]
    (project.folder / ".dlt" / "config.toml").write_text("\n".join(lines))
    done = project.run(",".join(NAMES))
    assert done.returncode == 0, done.stdout[-3000:]
    assert_in_place(project)
    (project.folder / ".dlt" / "config.toml").write_text('[schema]\nnaming = "direct"')
    done = project.run(",".join(NAMES))
    assert done.returncode != 0
    assert "dlt's setting 'naming' is 'direct'" in done.stdout
    assert "in dlt's config.toml or secrets.toml" in done.stdout
    assert_in_place(project)


def test_what_cannot_be_pinned_is_refused(project: Project) -> None:
    """Prevents tables of other names, columns or values by a setting that is meant for others."""
    assert failure_of(project.materialize(*NAMES)) == ""
    clean, seen = dict(project.env), len(project.sandbox.requests)
    for name, (value, setting) in REFUSED.items():
        project.env = {**clean, name: value}
        text = failure_of(project.materialize(*NAMES))
        assert f"dlt's setting {setting!r} is" in text, (name, text)
        assert name in text
        assert "\n" not in text.strip()
    project.env = clean
    assert len(project.sandbox.requests) == seen
    assert_in_place(project)


@pytest.mark.parametrize("layout", ["{table_name}.{load_id}.{ext}", "x/{table_name}/{file_id}"])
def test_another_layout_of_files_is_refused(project: Project, layout: str) -> None:
    """Prevents that a list that is written anew leaves its old files, so that rows come twice."""
    lake = project.folder / "lake"
    project.env["ANALYTICS_DESTINATION"] = "filesystem"
    project.env["DESTINATION__FILESYSTEM__BUCKET_URL"] = str(lake)
    project.env["DESTINATION__FILESYSTEM__LAYOUT"] = layout
    assert "dlt's setting 'layout' is" in failure_of(project.materialize("labels"))
    assert not list(lake.rglob("*.parquet"))


def test_a_destination_of_another_type_is_refused(project: Project) -> None:
    """Prevents that a name that everybody knows is another database by a setting of dlt."""
    project.env["ANALYTICS_DESTINATION"] = "postgres"
    project.env["DESTINATION__POSTGRES__DESTINATION_TYPE"] = "filesystem"
    project.env["DESTINATION__POSTGRES__BUCKET_URL"] = str(project.folder / "lake")
    text = failure_of(project.materialize("labels"))
    assert "'destination.postgres.destination_type' is 'filesystem'" in text
    assert "DESTINATION__POSTGRES__DESTINATION_TYPE" in text
    assert not (project.folder / "lake").exists()


def fields(spec: type[BaseConfiguration]) -> set[str]:
    """Return the fields of a part of dlt's configuration that are looked for."""
    return set(spec.get_resolvable_fields())


@pytest.mark.unit
def test_every_field_of_a_pipeline_is_pinned() -> None:
    """Prevents that a field that dlt adds is left to the environment."""
    hostile: dict[str, str] = {
        name.upper(): PINNED.get(name.upper(), "true") for name in fields(PipelineConfiguration)
    }
    for group in GROUPS:
        name = f"analytics_assets_{group}"
        with environment({}):
            wanted: dict[str, Any] = dict(pipeline_config(name))
        with environment({key: hostile[key] for key in hostile if key not in ("RUNTIME",)}):
            found = dict(pipeline_config(name))
        for part in FREE_OF_PIPELINE:
            wanted.pop(part, None)
            found.pop(part, None)
        assert found == wanted


HARMLESS = {
    "SchemaStorageConfiguration": {
        "export_schema_path",
        "external_schema_format",
        "external_schema_format_remove_defaults",
    },
    "LoadStorageConfiguration": {"delete_completed_jobs"},
    "ParquetFormatConfiguration": {
        *("arrow_concat_promote_options", "supports_dictionary_encoding"),
        *(
            "flavor",
            "use_content_defined_chunking",
            "version",
            "compression",
            "data_page_size",
            "row_group_size",
        ),
        *("use_compliant_nested_type", "write_page_index"),
    },
    "CsvFormatConfiguration": {"lineterminator"},
}
"""Fields that change how files are written on the way, and no row."""


@pytest.mark.unit
def test_every_field_that_dlt_looks_for_is_judged() -> None:
    """Prevents that a new version of dlt brings a setting that nobody has thought about."""
    for watched in WATCHED:
        known = {*watched.fields, *HARMLESS.get(watched.spec.__name__, ())}
        assert fields(watched.spec) == known, watched.spec.__name__
    free = {
        *("credentials", "destination_name", "destination_type", "environment", "bucket_url"),
        *("dataset_name", "default_schema_name", "info_tables_query_threshold"),
        "warn_unsafe_layout_separators",
    }
    known = {*free, *DESTINATION, *REFUSED_OF_DESTINATION} - {
        *("csv_format", "current_datetime", "extra_placeholders")
    }
    assert fields(DestinationClientStagingConfiguration) == known
