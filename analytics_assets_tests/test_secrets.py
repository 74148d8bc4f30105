"""Secrets: no value lands anywhere, whatever the spelling, the place or the failure."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from analytics_assets.sandbox import Reply, RequestInfo
from analytics_assets.segment.redaction import Redactor
from analytics_assets_tests.conftest import on_postgres
from analytics_assets_tests.faults import Body, inject, rows_of, run_logged
from analytics_assets_tests.harness import Project, failure_of, fingerprint


@pytest.mark.unit
@pytest.mark.parametrize(
    ("value", "secret"),
    [
        ({"headers": [{"key": "Authorization", "value": "s3cr3t-s3cr3t"}]}, "s3cr3t-s3cr3t"),
        ({"headers": [{"name": "X-Api-Key", "value": "s3cr3t-s3cr3t"}]}, "s3cr3t-s3cr3t"),
        ({"url": "https://svc:s3cr/3t@h.example.com/v1"}, "s3cr/3t"),
        ({"url": "https://s3cr3t-s3cr3t@h.example.com/v1"}, "s3cr3t-s3cr3t"),
        ({"url": "https://h.example.com/v1?a=1&access_token=s3cr3t#x"}, "s3cr3t"),
        ({"header": "Bearer s3cr3t-s3cr3t"}, "s3cr3t-s3cr3t"),
        ({"json": '{"client":{"private_key":"s3cr3t"}}'}, "s3cr3t"),
        ({"file": "-----BEGIN RSA PRIVATE KEY-----\ns3cr3t"}, "s3cr3t"),
        ({"token": {"a": ["s3cr3t"]}}, "s3cr3t"),
        ({"pin": 123456}, "123456"),
        ({"token": 10**30}, "1000000"),
    ],
)
def test_text_that_is_a_credential_itself_is_masked(value: Any, secret: str) -> None:
    """Prevents that a secret survives in a header pair, a URL, or JSON kept as text."""
    assert secret not in str(Redactor().by_key(value))


@pytest.mark.unit
def test_what_is_no_secret_in_a_url_stays() -> None:
    """Prevents that addresses become unreadable."""
    for url in ("https://h.example.com:8080/x?email=a@b.c", "https://h/x?page=2", "a@b.c"):
        assert Redactor().by_key({"url": url}) == {"url": url}


def files_with(needles: Iterable[str], folders: Iterable[Path]) -> list[tuple[str, str]]:
    """Return every file below ``folders`` that holds one of ``needles``, and which."""
    found = []
    raw = [(needle, needle.encode()) for needle in needles]
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                found += [(str(path), text) for text, data in raw if data in content]
    return found


def needles_of(project: Project) -> set[str]:
    """Return the token and every secret that the sandbox serves."""
    needles = {project.sandbox.token, *project.sandbox.workspace.secrets()}
    assert len(needles) > 10
    return needles


def tables_with(project: Project, needles: Iterable[str]) -> list[str]:
    """Return the tables, dlt's too, of which a column holds one of ``needles``, and which."""
    found = []
    for schema, table in project.query("SELECT schema_name, table_name FROM duckdb_tables()"):
        rows = project.query(f'SELECT * FROM "{schema}"."{table}"')
        content = "\n".join(str(value) for row in rows for value in row)
        found += [f"{schema}.{table}: {needle}" for needle in needles if needle in content]
    return found


def test_no_secret_lands_anywhere(start: Callable[..., Project]) -> None:
    """Prevents leaks into the database, the logs, Dagster's storage and the temporary folder."""
    project = start()
    needles = needles_of(project)
    home = project.folder / "home"
    home.mkdir()
    (home / "dagster.yaml").touch()
    done = project.run("*", DAGSTER_HOME=str(home), RUNTIME__LOG_LEVEL="DEBUG")
    assert done.returncode == 0, done.stdout[-2000:]
    assert [text for text in needles if text in done.stdout] == []
    assert files_with(needles, [project.folder]) == []
    assert tables_with(project, needles) == []
    assert list((project.folder / "tmp").iterdir()) == []
    assert project.sandbox.count("tracking_plan_sources")  # which repeat the write keys
    assert project.sandbox.count("warehouse_connected_sources")
    keys = project.query("SELECT write_keys FROM analytics.sources ORDER BY id")
    raw = {r["id"]: r["writeKeys"] for r in project.sandbox.served("sources")}
    assert [orjson.loads(k) for (k,) in keys] == [
        [fingerprint(key) for key in raw[name]] for name in sorted(raw)
    ]


def test_a_killed_run_leaves_no_secret_behind(start: Callable[..., Project]) -> None:
    """Prevents that what a killed run had staged holds secrets in the clear."""
    project = start()
    needles = needles_of(project)
    project.sandbox.intercept = lambda info: (
        Reply(delay=60) if info.path == "/transformations" else None
    )
    run = subprocess.Popen(
        project.words("group:inventory"),
        cwd=project.folder,
        env=project.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: list((project.folder / "tmp").rglob("sources.arrows")))
        wait_for(lambda: list((project.folder / "tmp").rglob("tracking_plan_sources.arrows")))
        wait_for(lambda: project.sandbox.count("/destinations"))
        time.sleep(0.5)
    finally:
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    assert list((project.folder / "tmp").rglob("*.arrows"))
    assert files_with(needles, [project.folder]) == []


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until something is the case."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def wrong_secret(name: str, wire: str, value: Any) -> Callable[[Body, Any], Body]:
    """Put ``value`` into a field of the first record."""

    def fault(body: Body, _: Any) -> Body:
        rows_of(name, body)[0][wire] = value
        return body

    return fault


LEAK = "s3cr3t-value-nobody-may-see"


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("sources", lambda *_: Reply(200, b'{"data":{"sources":[{"writeKeys":["' + LEAK.encode())),
        ("reverse_etl_models", wrong_secret("reverse_etl_models", "query", {"sql": LEAK})),
        ("sources", wrong_secret("sources", "name", {"password": LEAK})),
        ("sources", wrong_secret("sources", "enabled", f"https://u:{LEAK}@h/")),
        ("sources", wrong_secret("sources", "newField", {"token": LEAK})),
        ("sources", wrong_secret("sources", "apiKey", LEAK)),
        ("sources", wrong_secret("sources", "writeKeys", {"deep": {"er": [LEAK]}})),
        ("sources", lambda *_: Reply(500, LEAK.encode())),
    ],
)
def test_failures_do_not_show_secrets(loaded: Project, name: str, fault: Any) -> None:
    """Prevents that an error message, its traceback or the stored event shows the value."""
    inject(loaded, name, fault, page=0)
    result, log = run_logged(loaded, name)
    text = log + failure_of(result) + "".join(map(repr, result.all_events))
    assert LEAK not in text
    assert files_with([LEAK], [loaded.folder]) == []


def test_an_api_that_repeats_the_token_does_not_make_it_known(loaded: Project) -> None:
    """Prevents that the token is logged because an error message of the API quotes it."""
    body = orjson.dumps({"errors": [{"message": f"bad token {loaded.sandbox.token}"}]})
    loaded.sandbox.intercept = lambda _: Reply(422, body)
    result, log = run_logged(loaded, "labels")
    assert "bad token ***" in failure_of(result)
    assert loaded.sandbox.token not in log + "".join(map(repr, result.all_events))


def test_masking_can_be_turned_off(start: Callable[..., Project]) -> None:
    """Prevents that the setting has no effect, or that values are altered without it."""
    project = start(ANALYTICS_REDACT_SECRETS="false")
    assert project.materialize("sources").success
    stored = {row["id"]: row for row in project.rows("sources")}
    for record in project.sandbox.served("sources"):
        assert stored[record["id"]]["write_keys"] == record["writeKeys"]
        assert stored[record["id"]]["settings"] == record.get("settings")


def test_a_credential_in_any_json_column_is_replaced(start: Callable[..., Project]) -> None:
    """Prevents that a token somebody put into a label or a list of properties is stored."""
    project = start()
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    served = project.sandbox.served("sources")[0]
    labels = [{"key": "deploy", "value": f"with {token}"}, {"key": "team", "value": "growth"}]
    project.sandbox.workspace.put("sources", {**served, "labels": labels})
    assert project.materialize("sources").success
    [stored] = [row["labels"] for row in project.rows("sources") if row["id"] == served["id"]]
    assert stored[1] == labels[1]
    assert stored[0]["key"] == "deploy"
    assert files_with([token], [project.folder]) == []


def test_whoever_starts_a_run_cannot_turn_masking_off(start: Callable[..., Project]) -> None:
    """Prevents that the launchpad is enough to have all write keys stored in the clear."""
    project = start()
    launched = project.run(
        "sources",
        "--config-json",
        '{"resources": {"api": {"config": {"redact_secrets": false}}}}',
    )
    keys = [key for record in project.sandbox.served("sources") for key in record["writeKeys"]]
    assert keys
    assert launched.returncode != 0 or files_with(keys, [project.folder]) == []
    assert project.run("sources").returncode == 0
    assert files_with(keys, [project.folder]) == []


def test_a_word_that_is_neither_true_nor_false_does_not_turn_masking_off(
    start: Callable[..., Project],
) -> None:
    """Prevents that secrets are stored, or kept back, by a misspelt setting."""
    project = start(ANALYTICS_REDACT_SECRETS="of")
    message = failure_of(project.materialize("labels"))
    assert "ANALYTICS_REDACT_SECRETS is 'of'" in message


PASSWORD = "p@ss/w%rd-geheim"
"""In an address of the strict kind it has to be encoded; people write it as it is."""
PARTS = ("w%rd-geheim", "w%25rd-geheim", "w%rd%2Dgeheim")
WRONG_PLACES: dict[str, dict[str, str]] = {
    "an address with a driver": {
        "DESTINATION__POSTGRES__CREDENTIALS": f"postgresql+psycopg2://u:{quote(PASSWORD, safe='')}"
        "@127.0.0.1:1/db"
    },
    "an address that is not encoded": {
        "DESTINATION__POSTGRES__CREDENTIALS": f"postgresql://u:{PASSWORD}@127.0.0.1:1/db"
    },
    "an address of nowhere": {
        "DESTINATION__POSTGRES__CREDENTIALS": f"postgresql://u:{PASSWORD}@nosuch.invalid/db"
    },
    "a connection text": {
        "DESTINATION__POSTGRES__CREDENTIALS": f"host=127.0.0.1 port=1 user=u password={PASSWORD}"
    },
    "a variable": {
        "DESTINATION__POSTGRES__CREDENTIALS__HOST": "127.0.0.1",
        "DESTINATION__POSTGRES__CREDENTIALS__PORT": "1",
        "DESTINATION__POSTGRES__CREDENTIALS__USERNAME": "u",
        "DESTINATION__POSTGRES__CREDENTIALS__DATABASE": "db",
        "DESTINATION__POSTGRES__CREDENTIALS__PASSWORD": PASSWORD,
    },
    "a key of a bucket": {
        "ANALYTICS_DESTINATION": "filesystem",
        "DESTINATION__FILESYSTEM__BUCKET_URL": f"s3://u:{PASSWORD}@bucket",
        "DESTINATION__FILESYSTEM__CREDENTIALS__AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "DESTINATION__FILESYSTEM__CREDENTIALS__AWS_SECRET_ACCESS_KEY": PASSWORD,
    },
}


@pytest.mark.parametrize("place", WRONG_PLACES)
def test_the_password_of_a_destination_is_not_told(project: Project, place: str) -> None:
    """Prevents that a failed connection writes the password into Dagster's event log."""
    project.env.update(ANALYTICS_DESTINATION="postgres", RUNTIME__LOG_LEVEL="DEBUG")
    project.env.update(WRONG_PLACES[place])
    result, log = run_logged(project, "labels")
    assert not result.success
    assert "\n" not in failure_of(result)
    assert "Traceback" not in log
    text = log + "".join(map(repr, result.all_events))
    assert [part for part in PARTS if part in text] == []


def test_neither_password_nor_people_are_told_by_postgres(project: Project, postgres: str) -> None:
    """Prevents that a row which the server refuses, or its address, is written anywhere."""
    target = on_postgres(project, postgres)
    home = project.folder / "home"
    home.mkdir()
    (home / "dagster.yaml").touch()
    url = postgres.replace("unused", quote(PASSWORD, safe=""))
    target.env.update(
        DESTINATION__POSTGRES__CREDENTIALS=url, DAGSTER_HOME=str(home), RUNTIME__LOG_LEVEL="DEBUG"
    )
    done = target.run("users,labels")
    assert done.returncode == 0, done.stdout[-3000:]
    person = next(user for user in target.sandbox.served("users") if user["name"])
    target.query(f"ALTER TABLE {target.dataset}.users ADD CHECK (_dlt_load_id = '') NOT VALID")
    failed = target.run("users,labels")
    assert failed.returncode != 0
    assert "violates check constraint" in failed.stdout
    needles = [*PARTS, person["email"], person["name"]]
    assert [text for text in needles if text in done.stdout + failed.stdout] == []
    assert files_with(needles, [home]) == []


def test_what_is_kept_on_disk_is_for_its_owner_only(
    start: Callable[..., Project], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents that other users of a machine read the workspace out of a file."""
    project = start()
    # Python looks for the folder of temporary files once a process
    monkeypatch.setattr(tempfile, "tempdir", str(project.folder / "tmp"))
    seen: dict[str, int] = {}

    def spooled() -> list[Path]:
        return [*(project.folder / "tmp").rglob("*.arrows")]

    def look(info: RequestInfo) -> None:
        if info.params.get("pagination.cursor"):
            wait_for(spooled)
        for path in spooled():
            seen[path.name] = path.stat().st_mode & 0o777

    project.sandbox.intercept = look
    before = os.umask(0o022)
    try:
        assert project.materialize("sources", api={"page_size": 3}).success
    finally:
        os.umask(before)
    assert project.database.stat().st_mode & 0o777 == 0o600
    assert seen["sources.arrows"] == 0o600


QUERY = "select id from dblink('host=h user=u password=hunter2-hunter2', 'select 1') as t(id int)"


def test_the_sql_of_models_is_stored_without_secrets(start: Callable[..., Project]) -> None:
    """Prevents that nobody can ask which models read a table, or that SQL gives a password away."""
    project = start()
    served = project.sandbox.served("reverse_etl_models")
    project.sandbox.workspace.put("reverse_etl_models", {**served[0], "query": QUERY})
    assert project.materialize("reverse_etl_models").success
    stored = {row["id"]: row["query"] for row in project.rows("reverse_etl_models")}
    assert stored.pop(served[0]["id"]) == QUERY.replace("hunter2-hunter2", "redacted")
    assert stored == {row["id"]: row["query"] for row in served[1:]}


def test_a_key_of_ones_own_makes_fingerprints_that_nobody_can_try(
    start: Callable[..., Project],
) -> None:
    """Prevents that the key has no effect, reaches a table, or is stored with a run."""
    key = "0c1dd8f27b6c4f9d8c7e-own-key"
    project = start()
    project.env["ANALYTICS_FINGERPRINT_KEY"] = key
    result = project.materialize("sources")
    assert result.success
    raw = {row["id"]: row["writeKeys"] for row in project.sandbox.served("sources")}
    for row in project.rows("sources"):
        assert row["write_keys"] == [Redactor(key).whole(k) for k in raw[row["id"]]]
    assert "hmac:" in str(project.rows("sources"))
    assert key not in "".join(map(repr, result.all_events))
    files = [path for path in project.folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if key.encode() in path.read_bytes()]


def test_a_key_that_could_be_guessed_is_refused(start: Callable[..., Project]) -> None:
    """Prevents keyed fingerprints whose key is found by trying words."""
    project = start()
    project.env["ANALYTICS_FINGERPRINT_KEY"] = "hush"
    message = failure_of(project.materialize("labels"))
    assert "ANALYTICS_FINGERPRINT_KEY has 4 characters" in message
    assert "hush" not in message
    assert not project.sandbox.requests
