"""Lists in plain Parquet files: whatever ends a run, the files of one complete load are there."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from analytics_assets.sandbox import Options
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.harness import (
    Project,
    Row,
    assert_same,
    comparable,
    expected_rows,
    failure_of,
    materialized,
)
from analytics_assets_tests.test_crash import HOOK

LISTS = ("users", "roles", "labels")
NAMES = ("users", "roles", "labels", "audit_events")
"""Assets of which most are loaded in one package."""
OPTIONS = Options(counts={"users": 12, "labels": 9, "audit_events": 20})


@pytest.fixture
def files(start: Callable[..., Project]) -> Project:
    """Return a project that has loaded into plain files and whose workspace has changed since."""
    project = start(OPTIONS)
    project.env["PYTHONPATH"] = os.pathsep.join([str(HOOK), project.env["PYTHONPATH"]])
    project.env["ANALYTICS_DESTINATION"] = "filesystem"
    project.env["DESTINATION__FILESYSTEM__BUCKET_URL"] = str(project.folder / "lake")
    assert failure_of(project.materialize(*NAMES)) == ""
    workspace = project.sandbox.workspace
    for name in ("users", "labels"):
        workspace.put(name, {**workspace.records(name)[0], "name": "changed", "description": "x"})
    workspace.remove("users", workspace.records("users")[1]["id"])
    workspace.add_event(type="Source Created")
    return project


def paths(project: Project, table: str) -> list[Path]:
    """Return the files of a table."""
    return sorted((project.folder / "lake" / "analytics" / table).rglob("*.parquet"))


def rows(project: Project, table: str) -> list[Row]:
    """Return all rows of the files of a table."""
    found = [row for path in paths(project, table) for row in pq.read_table(path).to_pylist()]
    return comparable(BY_NAME[table], found)


def assert_exact(project: Project) -> None:
    """Assert that each list holds what is served, once; and the history each event."""
    for name in LISTS:
        expected = expected_rows(BY_NAME[name], project.sandbox.served(name))
        assert_same(name, rows(project, name), expected)
    events = {row["id"] for row in rows(project, "audit_events")}
    assert events == {event["id"] for event in project.sandbox.served("audit_events")}


@pytest.mark.parametrize(
    ("phase", "number"),
    [
        ("remove", 1),
        *(
            pytest.param(*at, marks=pytest.mark.heavy)
            for at in (("put", 2), ("half", 2), ("half", 4), ("load", 1), ("remove", 2))
        ),
    ],
)
def test_a_list_is_never_gone(files: Project, phase: str, number: int) -> None:
    """Prevents that a run killed while it replaces a list leaves no file, or a mix for good.

    The guard on lists that shrink compares with what is there: it must not lose its measure.
    """
    before = {name: paths(files, name) for name in LISTS}
    done = files.run(",".join(NAMES), KILL_AT=f"{phase}:{number}")
    assert done.returncode == -signal.SIGKILL, done.stdout[-3000:]
    for name in LISTS:
        left = set(paths(files, name))
        assert left >= set(before[name]) or (left and phase == "remove"), name

    workspace = files.sandbox.workspace
    removed = workspace.records("users")[1:]
    for record in removed:
        workspace.remove("users", record["id"])
    result = files.materialize(*NAMES, warehouse={"guarded_rows": 10})
    # the first files to be removed need not be those of the users, whose old ones then count
    whole = {11, 12} if phase == "remove" else {12}
    assert "the list has 1 rows where 12 were " in failure_of(result)
    assert set(materialized(result)) == set(NAMES) - {"users"}
    assert len(rows(files, "users")) in whole
    for record in removed:
        workspace.put("users", record)
    assert failure_of(files.materialize(*NAMES)) == ""
    assert_exact(files)


def test_a_write_that_fails_leaves_the_old_files_alone(files: Project) -> None:
    """Prevents that files of a package that failed stay beside those that were there."""
    before = {name: paths(files, name) for name in LISTS}
    done = files.run(",".join(NAMES), KILL_AT="fail:3")
    assert done.returncode != 0
    assert "users (GET /users): the destination did not take its rows: " in done.stdout
    assert {name: paths(files, name) for name in LISTS} == before
    assert failure_of(files.materialize(*NAMES)) == ""
    assert_exact(files)


@pytest.mark.parametrize(
    "gone",
    [("users", "audit_events"), ("_dlt_loads",), ("_dlt_version",), ("_dlt_pipeline_state",)],
)
def test_a_dropped_folder_is_there_again(files: Project, gone: tuple[str, ...]) -> None:
    """Prevents that a state goes on claiming a history whose files somebody has removed."""
    for name in gone:
        for path in sorted((files.folder / "lake" / "analytics" / name).rglob("*"), reverse=True):
            path.unlink()
        (files.folder / "lake" / "analytics" / name).rmdir()
    assert failure_of(files.materialize(*NAMES)) == ""
    assert_exact(files)


def test_what_no_load_has_made_is_left_alone(files: Project) -> None:
    """Prevents that notes, copies and what file managers leave are read as rows, or removed."""
    left = [paths(files, name)[0].parent / ".DS_Store" for name in ("users", "audit_events")]
    left.append(paths(files, "labels")[0].parent / "zz.parquet")
    left.append(files.folder / "lake" / "analytics" / "access_review" / "notes.txt")
    left[-1].parent.mkdir()
    for path in left:
        path.write_text("by hand")
    [roles] = paths(files, "roles")
    backup = roles.with_name("backup.parquet")
    backup.write_bytes(roles.read_bytes())
    for _ in range(2):
        assert failure_of(files.materialize(*NAMES, "access_review")) == ""
        assert len(paths(files, "access_review")) == 1
    assert all(path.read_text() == "by hand" for path in left)
    for path in (*left, backup):
        path.unlink()
    assert_exact(files)


def test_a_folder_without_a_file_of_a_load_is_no_table(files: Project) -> None:
    """Prevents that a history stays away for good as a note lies where its files were."""
    for name in ("users", "audit_events"):
        for path in paths(files, name):
            path.unlink()
            path.with_name("README.txt").write_text("by hand")
    assert failure_of(files.materialize(*NAMES)) == ""
    assert_exact(files)


def truncate(path: Path) -> None:
    """Leave the beginning of a file."""
    path.write_bytes(path.read_bytes()[:100])


def spoil_the_footer(path: Path) -> None:
    """Overwrite the beginning of the footer, whose length stands at the end of a file."""
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    path.write_bytes(content[:start] + b"\xff" * 20 + content[start + 20 :])


def spoil_the_rows(path: Path) -> None:
    """Overwrite the beginning of the pages; the footer stays whole."""
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * 500 + content[504:])


@pytest.mark.parametrize("spoil", [truncate, spoil_the_footer, spoil_the_rows])
def test_a_broken_file_concerns_its_own_list(files: Project, spoil: Callable[[Path], None]) -> None:
    """Prevents that one file nobody can read ends a run of all, in a library's words."""
    [broken] = paths(files, "users")
    spoil(broken)
    result = files.materialize(*NAMES, "access_review", "routing")
    sentence = (
        f"the file {broken.name} in the folder of the table users cannot be read as Parquet; remove"
        " it, and the next run loads all of it again"
    )
    assert f"users (GET /users): {sentence}" in failure_of(result)
    assert f"access_review (report): {sentence}" in failure_of(result)
    assert set(materialized(result)) == {*NAMES, "routing"} - {"users"}
    broken.unlink()
    assert failure_of(files.materialize(*NAMES, "access_review")) == ""
    assert_exact(files)


@pytest.mark.parametrize("spoil", [truncate, spoil_the_rows])
def test_a_broken_file_of_a_history_is_named_by_its_checks(
    files: Project, spoil: Callable[[Path], None]
) -> None:
    """Prevents that the new rows of a history come twice, or that nobody tells why none is read."""
    [broken] = paths(files, "audit_events")
    spoil(broken)
    result = files.materialize("audit_events")
    assert failure_of(result) == ""
    told = {str(c.description) for c in result.get_asset_check_evaluations() if not c.passed}
    sentence = (
        f"the file {broken.name} in the folder of the table audit_events cannot be read as Parquet;"
        " remove the folder, and the next run loads all of it again"
    )
    assert any(sentence in text for text in told), told
    shutil.rmtree(broken.parent)
    assert failure_of(files.materialize(*NAMES)) == ""
    assert_exact(files)


def test_a_broken_column_costs_the_record_of_its_own_list(files: Project) -> None:
    """Prevents that what changes in other lists is not recorded where one cannot be compared."""
    [broken] = paths(files, "users")
    columns = pq.read_metadata(broken).row_group(0).to_dict()["columns"]
    [start] = [
        column["data_page_offset"] for column in columns if column["path_in_schema"] == "name"
    ]
    content = broken.read_bytes()
    broken.write_bytes(content[:start] + b"\xff" * 20 + content[start + 20 :])
    assert failure_of(files.materialize(*NAMES)) == ""
    assert_exact(files)
    told = pq.read_table(paths(files, "record_changes")[0]).to_pylist()
    assert {row["asset"] for row in told} == {"labels"}


def test_a_broken_file_tells_nobody_whose_the_dataset_is(files: Project) -> None:
    """Prevents that a broken file ends a run in which the state and dlt's schema are lost too."""
    for name in ("_dlt_pipeline_state", "_dlt_version"):
        shutil.rmtree(files.folder / "lake" / "analytics" / name)
    [broken] = paths(files, "labels")
    truncate(broken)
    result = files.materialize("users", "labels")
    assert f"labels (GET /labels): the file {broken.name} in the folder" in failure_of(result)
    assert set(materialized(result)) == {"users"}
