"""Every destination that is promised, end to end on the real thing."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import fsspec
import pyarrow.dataset as ds
import pytest
from dagster import ExecuteInProcessResult
from deltalake import DeltaTable

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.conftest import on_postgres
from analytics_assets_tests.faults import change_children
from analytics_assets_tests.harness import (
    ALL_TABLES,
    Project,
    Row,
    assert_same,
    comparable,
    expected_rows,
    failure_of,
    materialized,
    table_of,
)


class FilesProject(Project):
    """A project whose destination is a folder or bucket of Parquet files or Delta tables."""

    def tables(self) -> set[str]:
        """Return the tables of the dataset, without dlt's own."""
        names = (Path(path).name for path in self.files.ls(self.dataset, detail=False))
        return {name for name in names if not name.startswith(("_dlt", "init"))}

    @property
    def files(self) -> fsspec.AbstractFileSystem:
        """Where the files are."""
        return fsspec.url_to_fs(self.env["DESTINATION__FILESYSTEM__BUCKET_URL"])[0]

    @property
    def dataset(self) -> str:
        """The folder of the dataset."""
        url = self.env["DESTINATION__FILESYSTEM__BUCKET_URL"]
        return f"{fsspec.url_to_fs(url)[1]}/analytics"

    def rows(self, table: str, *, live: bool = True) -> list[Row]:
        """Return the newest row of each key, as the README tells readers of plain files to."""
        endpoint, folder = table_of(table), f"{self.dataset}/{table}"
        if self.env.get("ANALYTICS_TABLE_FORMAT") == "delta":
            found = DeltaTable(folder).to_pyarrow_table().to_pylist()
        else:
            files = sorted(self.files.glob(f"{folder}/**/*.parquet"))
            found = ds.dataset(files, filesystem=self.files).to_table().to_pylist()
            found.sort(key=lambda row: str(row["_dlt_load_id"]))
            by_key = {tuple(row[name] for name in endpoint.key_columns): row for row in found}
            found = list(by_key.values())
        return comparable(endpoint, found, live=live)


Build = Callable[[str], Project]


@pytest.fixture
def build(start: Callable[..., Project], postgres: str) -> Build:
    """Return a function that points a project at a destination by name."""

    def build_project(kind: str) -> Project:
        project = start()
        if kind == "postgres":
            return on_postgres(project, postgres)
        settings = {
            "ANALYTICS_DESTINATION": "filesystem",
            "DESTINATION__FILESYSTEM__BUCKET_URL": (
                f"memory://{uuid.uuid4().hex}" if kind == "bucket" else str(project.folder / "lake")
            ),
        }
        if kind == "delta":
            settings["ANALYTICS_TABLE_FORMAT"] = "delta"
        return FilesProject(project.sandbox, project.folder, {**project.env, **settings})

    return build_project


KINDS = ("postgres", "files", "delta", pytest.param("bucket", marks=pytest.mark.heavy))
"""A bucket is a file system that is not this machine's own, here one in this process's memory."""


def assert_all_checks_pass(result: ExecuteInProcessResult) -> None:
    """Assert that every check of a run has looked at its table and found nothing."""
    checks = result.get_asset_check_evaluations()
    assert {check.asset_key.to_user_string() for check in checks} == ALL_TABLES
    assert [f"{c.asset_key}: {c.description}" for c in checks if not c.passed] == []


def marked_keys(project: Project, table: str) -> set[tuple[Any, ...]]:
    """Return the keys of the rows that are marked as deleted."""
    rows = [row for row in project.rows(table, live=False) if row["deleted_at"]]
    return {tuple(row[column] for column in BY_NAME[table].key_columns) for row in rows}


@pytest.mark.parametrize(
    "kind",
    ["postgres", "files", *(pytest.param(k, marks=pytest.mark.heavy) for k in ("delta", "bucket"))],
)
def test_load_again_and_change(build: Build, kind: str) -> None:
    """Prevents a destination on which rows are lost, doubled, stale or wrongly typed."""
    project = build(kind)
    first = project.materialize()
    assert failure_of(first) == ""
    assert project.tables() == ALL_TABLES
    project.assert_equal()
    assert_all_checks_pass(first)
    figures = materialized(first)
    assert {name: f["dagster/row_count"] for name, f in figures.items()} == {
        name: len(project.rows(name)) for name in ALL_TABLES
    }

    changed = {**project.sandbox.served("sources")[0], "name": "Renamed", "tier": "gold"}
    project.sandbox.workspace.put("sources", changed)
    project.sandbox.workspace.add_event(type="Source Modified")
    gone = change_children(project.sandbox, remove=kind != "delta")  # Delta keeps what is gone
    project.sandbox.clear()
    second = project.materialize()
    assert failure_of(second) == ""
    project.assert_equal(ALL_TABLES - {"sources"})
    for name, keys in gone.items() if kind == "postgres" else ():
        assert marked_keys(project, name) == keys
    [check] = [c for c in second.get_asset_check_evaluations() if not c.passed]
    assert "1 column that endpoints.py does not declare: tier" in str(check.description)
    sources = expected_rows(BY_NAME["sources"], project.sandbox.served("sources"))
    assert_same("sources", project.rows("sources"), [{"tier": None, **row} for row in sources])


@pytest.mark.parametrize("kind", KINDS)
def test_state_comes_back_from_the_destination(build: Build, kind: str) -> None:
    """Prevents a full reload of the histories on a new machine: the state is in the destination."""
    project = build(kind)
    names = ("usage_mtu_daily", "audit_events")
    assert failure_of(project.materialize(*names)) == ""
    project.sandbox.clear()
    assert failure_of(project.materialize(*names)) == ""
    assert project.sandbox.count("/usage/mtu/daily") == 2
    [audit] = [r for r in project.sandbox.requests if r.path == "/audit-events"]
    assert "startTime" in audit.params
    project.assert_equal(names)


def test_a_list_that_empties_is_marked_on_postgres(build: Build) -> None:
    """Prevents that the last row of a list can never be deleted on a server."""
    project = build("postgres")
    assert failure_of(project.materialize("spaces")) == ""
    records = project.sandbox.served("spaces")
    for record in records:
        project.sandbox.workspace.remove("spaces", record["id"])
    result = project.materialize("spaces", config={"expect_fewer_rows": True})
    assert materialized(result)["spaces"]["newly_deleted_rows"] == len(records)
    assert project.rows("spaces") == []


def test_deletions_are_marked_on_postgres(build: Build) -> None:
    """Prevents rows that stay live on a server although the API has dropped them."""
    project = build("postgres")
    assert failure_of(project.materialize("labels")) == ""
    gone = project.sandbox.served("labels")[0]
    project.sandbox.workspace.remove("labels", (gone["key"], gone["value"]))
    figures = materialized(project.materialize("labels"))["labels"]
    assert (figures["deleted_rows"], figures["newly_deleted_rows"]) == (1, 1)
    project.assert_equal(["labels"])
    project.sandbox.workspace.put("labels", gone)
    assert materialized(project.materialize("labels"))["labels"]["deleted_rows"] == 0
    project.assert_equal(["labels"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_list_can_be_empty(build: Build, kind: str) -> None:
    """Prevents a destination that refuses a list without rows, at first or later on."""
    project = build(kind)
    records = project.sandbox.served("spaces")
    for record in records:
        project.sandbox.workspace.remove("spaces", record["id"])
    for _ in range(2):
        assert failure_of(project.materialize("spaces", "labels")) == ""
        assert project.rows("spaces") == []
    for record in records:
        project.sandbox.workspace.put("spaces", record)
    assert failure_of(project.materialize("spaces", "labels")) == ""
    project.assert_equal(["spaces", "labels"])


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"DESTINATION__POSTGRES__CREDENTIALS": ""}, "lacks the setting"),
        (
            {"DESTINATION__POSTGRES__CREDENTIALS": "postgresql://a:b@127.0.0.1:1/x"},
            "cannot be reached",
        ),
        ({"ANALYTICS_TABLE_FORMAT": "delta"}, "ANALYTICS_TABLE_FORMAT"),
        ({"ANALYTICS_DESTINATION": "snowflake"}, "analytics-assets[snowflake]"),
    ],
)
def test_a_destination_that_cannot_work_says_so(
    build: Build, settings: dict[str, str], named: str
) -> None:
    """Prevents tracebacks for a missing driver, missing credentials or a server that is down."""
    project = build("postgres")
    project.env.update(settings)
    project.env = {name: value for name, value in project.env.items() if value}
    text = failure_of(project.materialize("labels"))
    assert text.count("\n") == 0, text
    assert named in text
    assert project.sandbox.requests == []


@pytest.mark.parametrize(
    "name", ["snowflake", "bigquery", "databricks", "motherduck", "clickhouse"]
)
def test_definitions_load_for_destinations_by_configuration(project: Project, name: str) -> None:
    """Prevents a destination whose mere selection breaks the code location."""
    done = project.command(
        *[
            project.words()[0],
            "-c",
            "from analytics_assets import defs; defs.resolve_asset_graph()",
        ],
        ANALYTICS_DESTINATION=name,
    )
    assert done.returncode == 0, done.stdout


def test_a_day_passes(build: Build) -> None:
    """Prevents histories on plain files that miss or double what a new day brings."""
    project = build("files")
    names = ("usage_mtu_daily", "audit_events")
    project.sandbox.clock = project.sandbox.clock() - timedelta(hours=2)
    assert failure_of(project.materialize(*names)) == ""
    project.sandbox.clock = project.sandbox.clock() + timedelta(hours=2)
    assert failure_of(project.materialize(*names)) == ""
    project.assert_equal(names)


@pytest.mark.parametrize("written", ["my%20lake", "my lake", "file://{folder}/my%20lake"])
def test_an_odd_name_of_a_folder_is_just_a_name(build: Build, written: str) -> None:
    """Prevents that tables lie in one folder and locks in another."""
    project = build("files")
    name = "my lake" if "file:" in written else written
    where = written.format(folder=project.folder)
    url = where if "file:" in where else f"{project.folder}/{where}"
    project.env["DESTINATION__FILESYSTEM__BUCKET_URL"] = url
    assert failure_of(project.materialize("labels")) == ""
    assert list((project.folder / name / "analytics" / "labels").glob("*.parquet"))
    assert [path.name for path in project.folder.glob("my*lake")] == [name]


@pytest.mark.parametrize(
    ("url", "said"),
    [("~/lake", "write the path in full"), ("/proc/lake", "let this user write")],
)
def test_a_folder_that_cannot_be_used_says_so(build: Build, url: str, said: str) -> None:
    """Prevents a folder called ~, or a traceback for one that cannot be made."""
    project = build("files")
    project.env["DESTINATION__FILESYSTEM__BUCKET_URL"] = url
    text = failure_of(project.materialize("labels"))
    assert said in text
    assert project.sandbox.requests == []


def test_a_file_in_the_place_of_the_dataset_says_so(build: Build) -> None:
    """Prevents a traceback where the folder of the dataset cannot be made."""
    project = build("files")
    (project.folder / "lake").mkdir()
    (project.folder / "lake" / "analytics").write_text("by hand")
    text = failure_of(project.materialize("labels"))
    assert "analytics' is a file, where the folder of the dataset 'analytics' belongs" in text
    assert project.sandbox.requests == []


@pytest.mark.parametrize("kind", ["files", "delta"])
def test_a_folder_that_is_there_can_be_loaded_into(build: Build, kind: str) -> None:
    """Prevents that a folder made by hand, or one without dlt's own file, is refused for good."""
    project = build(kind)
    folder = project.folder / "lake" / "analytics"
    folder.mkdir(parents=True)
    (folder / ".DS_Store").write_text("by hand")
    assert failure_of(project.materialize("labels")) == ""
    (folder / "init").unlink()
    assert failure_of(project.materialize("labels", "roles")) == ""
    project.assert_equal(["labels", "roles"])


def test_a_broken_delta_table_concerns_itself(build: Build) -> None:
    """Prevents that one damaged table ends a run of all, in a library's words."""
    project = build("delta")
    names = ("users", "audit_events")
    assert failure_of(project.materialize(*names)) == ""
    folder = project.folder / "lake" / "analytics"
    for log in (folder / "users" / "_delta_log").glob("*.json"):
        log.write_text("by hand")
    [gone] = (folder / "audit_events").glob("*.parquet")
    gone.unlink()
    result = project.materialize(*names, "labels", "access_review")
    assert set(materialized(result)) == {"labels"}
    told = failure_of(result)
    for asset in ("users (GET /users)", "access_review (report)"):
        assert (
            f"{asset}: _delta_log in the folder of the Delta table users cannot be read (" in told
        )
    assert (
        f"audit_events (GET /audit-events): {gone.name} in the folder of the Delta table " in told
    )
    assert told.count("; put it back, or remove the folder, and the next run loads all of it") == 3
    for name in names:
        shutil.rmtree(folder / name)
    assert failure_of(project.materialize(*names)) == ""
    project.assert_equal(names)


@pytest.mark.heavy
def test_a_broken_file_of_a_delta_table_is_named(build: Build) -> None:
    """Prevents that a merge fails in a library's words, and a report for files it replaces."""
    project = build("delta")
    names = ("users", "audit_events", "routing")
    assert failure_of(project.materialize(*names)) == ""
    folder = project.folder / "lake" / "analytics"
    [broken] = (folder / "audit_events").glob("*.parquet")
    broken.write_bytes(broken.read_bytes()[:100])
    for path in (folder / "routing").glob("*.parquet"):
        path.unlink()
    result = project.materialize(*names)
    assert set(materialized(result)) == {"users", "routing"}
    told = failure_of(result)
    assert (
        f"audit_events (GET /audit-events): {broken.name} in the folder of the Delta table" in told
    )
    assert "; put it back, or remove the folder, and the next run loads all of it again" in told
