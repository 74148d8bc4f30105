"""Settings that cannot work: one sentence, before the first request, and no table is touched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult

from analytics_assets.sandbox import Options, Sandbox
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets_tests.conftest import project_for
from analytics_assets_tests.harness import Project, failure_of, materialized
from analytics_assets_tests.requests_made import requests_by_name

LOADED = ("roles", "labels", "users", "usage_api_calls_daily")
DEBUG_WORDS = ("Traceback", "Stack Trace", 'File "')
NEXT_YEAR = f"{datetime.now(timezone.utc).year + 1}-01"


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Return a project with tables in it; whatever the tests try, these must stay as they are."""
    options = Options(scale=0.02)
    with Sandbox(options, now=datetime.now(timezone.utc)) as sandbox:
        project = project_for(sandbox, tmp_path_factory.mktemp("loaded"))
        assert failure_of(project.materialize(*LOADED)) == ""
        yield project


@pytest.fixture(scope="module")
def instance() -> Iterator[DagsterInstance]:
    """Return one instance for all tests: to make one takes longer than a run that is refused."""
    with DagsterInstance.ephemeral() as shared:
        yield shared


@dataclass
class LoadedProject(Project):
    """A project whose runs share an instance."""

    instance: DagsterInstance | None = None

    def attempt(self, *names: str, **options: Any) -> ExecuteInProcessResult:
        """Materialize assets in this process."""
        return self.materialize(*names, instance=self.instance, **options)


@pytest.fixture
def project(loaded: Project, instance: DagsterInstance) -> Iterator[LoadedProject]:
    """Return the loaded project; afterwards its tables must be the same as before."""
    before = contents(loaded)
    loaded.sandbox.clear()
    yield LoadedProject(loaded.sandbox, loaded.folder, dict(loaded.env), instance)
    assert contents(loaded) == before


def contents(project: Project) -> dict[str, list[tuple[Any, ...]]]:
    """Return every row of every table of the dataset, dlt's own included."""
    with duckdb.connect(str(project.database), read_only=True) as connection:
        found = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'analytics'"
        ).fetchall()
        return {
            table: connection.execute(f"SELECT * FROM analytics.{table}").fetchall()
            for (table,) in sorted(found)
        }


def the_failure(result: ExecuteInProcessResult) -> str:
    """Return the one message that all steps failed with; there must be nothing to debug in it."""
    assert not result.success
    assert materialized(result) == {}
    text = failure_of(result)
    assert text
    for event in result.all_events:
        if event.is_step_failure:
            shown = event.step_failure_data.error_display_string
            assert not any(word in shown for word in DEBUG_WORDS), shown
    return text


def assert_one_sentence(text: str, *parts: str) -> None:
    """Assert that a message is short, on one line, and says what it has to."""
    assert "\n" not in text
    assert text.endswith(".")
    assert ". " not in text.removesuffix(".")
    assert len(text) < 400
    for part in parts:
        assert part in text, text


def assert_plain(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Assert that a command failed, and told a person why."""
    assert done.returncode != 0, done.stdout[-3000:]
    for part in parts:
        assert part in done.stdout, done.stdout[-3000:]
    for word in DEBUG_WORDS:
        assert word not in done.stdout, done.stdout[-6000:]


# the token


def test_a_missing_token_fails_on_the_command_line(project: LoadedProject) -> None:
    """Prevents a newcomer's first failure from being a page of traceback, or the sandbox's rows."""
    del project.env["ANALYTICS_API_TOKEN"]
    done = project.run("*")
    assert_plain(done, "No API token", "ANALYTICS_API_TOKEN", "analytics-sandbox")
    assert project.sandbox.requests == []


@pytest.mark.parametrize("token", [None, "", "  ", "a b", "ä", "a\nb"], ids=repr)
def test_a_token_that_cannot_be_one_is_not_sent(project: LoadedProject, token: str | None) -> None:
    """Prevents requests, and hard-to-read errors, for a token that was never copied right."""
    del project.env["ANALYTICS_API_TOKEN"]
    if token is not None:
        project.env["ANALYTICS_API_TOKEN"] = token
    text = the_failure(project.attempt("roles", "sources"))
    assert_one_sentence(text, "ANALYTICS_API_TOKEN")
    assert project.sandbox.requests == []
    assert not token or not token.strip() or repr(token) not in text


def test_a_wrong_token_costs_one_request_per_chain(project: LoadedProject) -> None:
    """Prevents that a rejected token is tried again and again, by page, by child or by retry."""
    project.env["ANALYTICS_API_TOKEN"] = "not-the-token"
    text = the_failure(project.attempt())
    assert "ANALYTICS_API_TOKEN" in text
    assert "does not accept the token" in text
    assert "401" in text
    assert "not-the-token" not in text
    requests = [(info.path, *sorted(info.params.items())) for info in project.sandbox.requests]
    assert len(requests) == len(set(requests))
    asked = requests_by_name(project.sandbox.requests)
    assert asked.keys() == {endpoint.name for endpoint in ENDPOINTS if not endpoint.parent}
    assert all(asked[name] == 1 for name in asked if BY_NAME[name].slice is None)


def test_a_wrong_token_is_plain_on_the_command_line(project: LoadedProject) -> None:
    """Prevents a traceback for the most frequent mistake, and the token in the output."""
    done = project.run("roles,labels", ANALYTICS_API_TOKEN="not-the-token")
    assert_plain(done, "does not accept the token", "ANALYTICS_API_TOKEN")
    assert "not-the-token" not in done.stdout
    assert project.sandbox.count() == 3


def test_a_token_in_dlts_secrets_is_used(project: LoadedProject) -> None:
    """Prevents that the original configuration's `api_token` secret stops working."""
    project.env["API_TOKEN"] = project.env.pop("ANALYTICS_API_TOKEN")
    project.env["ANALYTICS_DUCKDB_PATH"] = str(project.folder / "other.duckdb")
    assert failure_of(project.attempt("roles")) == ""


# the address


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("ftp://127.0.0.1/", ("not an http(s) address", "https://api.segmentapis.com")),
        ("api.segmentapis.com", ("not an http(s) address", "https://eu1.api.segmentapis.com")),
        ("https://", ("not an http(s) address",)),
        ("http://[::1", ("not an http(s) address",)),
        ("https://host:port", ("not an http(s) address",)),
        ("https://me:hunter2@127.0.0.1", ("more than scheme, host and path", "remove")),
        ("ftp://me:hunter2@127.0.0.1", ("not an http(s) address",)),
        ("https://127.0.0.1/?token=hunter2", ("more than scheme, host and path", "remove")),
        ("http://api.segmentapis.com", ("plain http", "use https")),
        ("http://192.168.1.7:8080", ("plain http", "use https")),
        ("http://127.0.0.1.example.com", ("plain http", "use https")),
        ("https://api.segment apis.com", ("blanks", "scheme and host only")),
        ("https://127.0.0.1/a/../b", ("'..'", "scheme and host only")),
        ("https://127.0.0.1/a\tb", ("blanks", "scheme and host only")),
    ],
)
def test_a_base_url_that_cannot_work_is_refused(
    project: LoadedProject, url: str, parts: tuple[str, ...]
) -> None:
    """Prevents a token that is sent to the wrong place or in clear text."""
    project.env["ANALYTICS_API_BASE_URL"] = url
    text = the_failure(project.attempt("roles"))
    assert_one_sentence(text, "ANALYTICS_API_BASE_URL", *parts)
    assert "hunter2" not in text
    assert project.sandbox.requests == []


def test_an_unreachable_host_names_the_setting(project: LoadedProject) -> None:
    """Prevents a failure that shows a pool of connections but not what to correct."""
    project.env["ANALYTICS_API_BASE_URL"] = "http://127.0.0.1:9"
    text = the_failure(project.attempt("roles"))
    assert "GET /)" in text
    assert "the connection to 127.0.0.1:9 failed" in text
    assert "check ANALYTICS_API_BASE_URL and the network" in text
    assert project.sandbox.requests == []


# numbers and months


@pytest.mark.parametrize(
    ("setting", "number"),
    [("page_size", 0), ("page_size", 1001), ("page_size", -1), ("retries", 11), ("timeout", 0.0)],
)
def test_a_number_out_of_range_is_refused(
    project: LoadedProject, setting: str, number: float
) -> None:
    """Prevents a run that the API refuses page by page, or that never ends."""
    text = the_failure(project.attempt("roles", api={setting: number}))
    assert_one_sentence(text, f"{setting} is {number}", "from", "to")
    assert project.sandbox.requests == []


@pytest.mark.parametrize(
    ("month", "advice"),
    [
        ("2026", "YYYY-MM"),
        ("2026-13", "YYYY-MM"),
        ("January 2026", "YYYY-MM"),
        ("2026-1", "YYYY-MM"),
        ("2026-01-01", "YYYY-MM"),
        (NEXT_YEAR, "future"),
    ],
)
def test_a_usage_start_that_is_no_past_month_is_refused(
    project: LoadedProject, month: str, advice: str
) -> None:
    """Prevents a silent default, or an empty table, where a month was mistyped."""
    project.env["ANALYTICS_USAGE_START"] = month
    text = the_failure(project.attempt("usage_api_calls_daily"))
    assert_one_sentence(text, "ANALYTICS_USAGE_START", month, advice)
    assert project.sandbox.requests == []


def test_a_bad_usage_start_stops_the_whole_run(project: LoadedProject) -> None:
    """Prevents a run that loads three groups before it says that a setting is wrong."""
    project.env["ANALYTICS_USAGE_START"] = "soon"
    text = the_failure(project.attempt())
    assert_one_sentence(text, "ANALYTICS_USAGE_START")
    assert project.sandbox.requests == []


# the destination


@pytest.mark.parametrize("name", ["nosuch", "no such thing!", "no.such.Thing", "duckdb2"])
def test_an_unknown_destination_is_refused(project: LoadedProject, name: str) -> None:
    """Prevents a stack of import errors for a mistyped destination."""
    project.env["ANALYTICS_DESTINATION"] = name
    text = the_failure(project.attempt("roles"))
    assert_one_sentence(text, "ANALYTICS_DESTINATION", name, "duckdb")
    assert project.sandbox.requests == []


def test_an_unknown_destination_is_plain_on_the_command_line(project: LoadedProject) -> None:
    """Prevents definitions that do not even load, because a setting ends up in a tag."""
    done = project.run("roles", ANALYTICS_DESTINATION="no such thing!")
    assert_plain(done, "ANALYTICS_DESTINATION", "no dlt destination")
    assert project.sandbox.requests == []


@pytest.mark.parametrize(
    "name",
    ["Analytics", "my-data", "1st", "two words", 'a"b', "a;drop", "dätä", "a__b", "a_", "_a"],
)
def test_a_dataset_name_that_dlt_would_change_is_refused(project: LoadedProject, name: str) -> None:
    """Prevents tables in another schema than the one that Dagster shows."""
    project.env["ANALYTICS_DATASET"] = name
    text = the_failure(project.attempt("roles"))
    assert_one_sentence(text, "ANALYTICS_DATASET", "lower-case")
    assert project.sandbox.requests == []


@pytest.mark.parametrize(
    "name",
    [
        "analytics.duckdb",
        "Analytics.db",
        "analytics",
        "analytics.2024.duckdb",
        ".analytics.duckdb",
        "analytics_staging.duckdb",
        "information_schema.duckdb",
    ],
)
def test_a_duckdb_file_named_like_the_dataset_is_refused(project: LoadedProject, name: str) -> None:
    """Prevents DuckDB's "ambiguous reference" after everything has been read."""
    path = project.folder / name
    project.env["ANALYTICS_DUCKDB_PATH"] = str(path)
    text = the_failure(project.attempt("roles"))
    assert_one_sentence(text, "ANALYTICS_DUCKDB_PATH", "'analytics'", "rename")
    assert project.sandbox.requests == []
    assert not path.exists()


def test_a_duckdb_file_in_a_missing_folder_is_refused(
    project: LoadedProject, tmp_path: Path
) -> None:
    """Prevents an error of the operating system at the end of a long extraction."""
    path = tmp_path / "missing" / "warehouse.duckdb"
    for bad in (path, tmp_path):
        project.env["ANALYTICS_DUCKDB_PATH"] = str(bad)
        text = the_failure(project.attempt("roles"))
        assert_one_sentence(text, "ANALYTICS_DUCKDB_PATH", str(bad), "existing folder")
    assert project.sandbox.requests == []
    assert not path.parent.exists()


@pytest.mark.parametrize("name", ["my%20lake.duckdb", "a b.2024.duckdb", "main.duckdb"])
def test_an_odd_name_of_a_file_is_just_a_name(project: LoadedProject, name: str) -> None:
    """Prevents that rows end up in another file than the one that was named."""
    path = project.folder / name
    project.env["ANALYTICS_DUCKDB_PATH"] = str(path)
    result = project.attempt("roles")
    assert failure_of(result) == ""
    assert path.exists()


def test_a_home_folder_is_found(project: LoadedProject, tmp_path: Path) -> None:
    """Prevents a folder that is called ~ where the command is run."""
    project.env["HOME"] = str(tmp_path)
    project.env["ANALYTICS_DUCKDB_PATH"] = "~/warehouse.duckdb"
    result = project.attempt("roles")
    assert failure_of(result) == ""
    assert (tmp_path / "warehouse.duckdb").exists()


def test_a_folder_that_cannot_be_written_to_is_named(project: LoadedProject) -> None:
    """Prevents a traceback at the end of a long extraction, or before it."""
    project.env["ANALYTICS_DUCKDB_PATH"] = "/proc/w.duckdb"
    text = the_failure(project.attempt("roles"))
    assert "roles (GET /roles): " in text
    assert "/proc/" in text
    assert "let this user write" in text
    assert project.sandbox.requests == []


def test_a_lock_file_of_somebody_else_costs_its_group_only(project: LoadedProject) -> None:
    """Prevents that one file which cannot be used takes all groups down."""
    path = project.folder / "locked.duckdb"
    lock = path.with_name(f".{path.name}.analytics.identity.lock")
    lock.mkdir()
    project.env["ANALYTICS_DUCKDB_PATH"] = str(path)
    result = project.attempt("roles", "spaces")
    assert set(materialized(result)) == {"spaces"}
    assert f"The lock file {str(lock)!r} cannot be used" in failure_of(result)


@pytest.mark.parametrize("place", [20, 4096 * 3, 4096 * 9])
def test_a_damaged_database_is_named(project: LoadedProject, tmp_path: Path, place: int) -> None:
    """Prevents a traceback of DuckDB's own, and that anything is written to the file."""
    path = tmp_path / "damaged.duckdb"
    content = bytearray(project.database.read_bytes())
    content[place : place + 4000] = bytes(4000)
    path.write_bytes(content)
    project.env["ANALYTICS_DUCKDB_PATH"] = str(path)
    text = the_failure(project.attempt("roles"))
    assert "ANALYTICS_DUCKDB_PATH" in text or "did not answer" in text
    assert project.sandbox.requests == []
    assert path.read_bytes() == content


@pytest.mark.parametrize("content", [b"id,name\n1,a\n" * 1000, b"SQLite format 3\x00" * 500])
def test_a_file_that_is_no_duckdb_database_is_refused(
    project: LoadedProject, tmp_path: Path, content: bytes
) -> None:
    """Prevents that rows end up in somebody's file, or an error that does not say which it is."""
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    project.env["ANALYTICS_DUCKDB_PATH"] = str(path)
    text = the_failure(project.attempt("roles"))
    says = "cannot be opened as a DuckDB database"
    assert_one_sentence(text, "ANALYTICS_DUCKDB_PATH", str(path), says, "name another file")
    assert project.sandbox.requests == []
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TABLE_LOCK_TIMEOUT", "soon"),
        ("STATEMENT_TIMEOUT", "0"),
        ("SERVER_TIMEOUT", "-1"),
        ("DUCKDB_MEMORY_MB", "nan"),
    ],
)
def test_a_bound_that_is_no_bound_is_refused(project: LoadedProject, name: str, value: str) -> None:
    """Prevents a run without bounds, or a traceback, because a number was mistyped."""
    project.env[f"ANALYTICS_{name}"] = value
    text = the_failure(project.attempt("roles"))
    assert_one_sentence(text, f"ANALYTICS_{name}", value, "from", "to")
    assert project.sandbox.requests == []


def test_a_full_temporary_folder_is_named(project: LoadedProject) -> None:
    """Prevents that a full disk reads like a fault of the API or of the database.

    No file may grow beyond 1 MB, which is what a full disk is to one who writes.
    """
    path = project.folder / "full.duckdb"
    words = project.words("roles,catalog_sources")
    record = project.sandbox.workspace.records("catalog_sources")[0]
    wide = {**record, "description": "word " * 1_000_000}
    project.sandbox.workspace.put("catalog_sources", wide)
    home = str(project.folder)  # Dagster writes a log of its own at home, as large already maybe
    try:
        limited = ["bash", "-c", 'ulimit -f 4000; exec "$@"', "_", *words]
        done = project.command(*limited, ANALYTICS_DUCKDB_PATH=str(path), HOME=home)
    finally:
        project.sandbox.workspace.put("catalog_sources", record)
    assert_plain(done, "its rows could not be kept in the folder", "TMPDIR")
    assert "Materialized value roles" in done.stdout


def test_one_bad_setting_is_told_once_and_stored_without_the_token(
    project: LoadedProject,
) -> None:
    """Prevents a token in the event log, where everybody who may see runs could read it."""
    token = project.env["ANALYTICS_API_TOKEN"]
    project.env["ANALYTICS_DESTINATION"] = "nosuch"
    result = project.attempt()
    assert "\n" not in the_failure(result)
    assert token not in json.dumps([str(event) for event in result.all_events])
    assert set(BY_NAME) >= set(LOADED)
