"""Personal data of what is gone is blanked when the team's time is over, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import duckdb
import pytest

from analytics_assets.sandbox import Options
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.conftest import SMALL, on_postgres
from analytics_assets_tests.harness import Project, failure_of, materialized, snake
from analytics_assets_tests.postgres import PostgresProject

DAYS = 30
NAMES = ("users", "invites", "groups", "group_users", "audit_events")


@pytest.fixture(params=["duckdb", "postgres"])
def identity(
    request: pytest.FixtureRequest, start: Callable[..., Project], postgres: str
) -> Project:
    """Return a project that has loaded people, and forgets after thirty days."""
    project = start(Options(scale=SMALL, counts={"invites": 8, "users": 12}))
    if request.param == "postgres":
        project = on_postgres(project, postgres)
    project.env["ANALYTICS_FORGET_DAYS"] = str(DAYS)
    return project


def dataset(project: Project) -> str:
    """Return the schema of the tables."""
    return project.dataset if isinstance(project, PostgresProject) else "analytics"


def execute(project: Project, sql: str) -> None:
    """Change a table by hand."""
    if isinstance(project, PostgresProject):
        project.query(sql)
    else:
        with duckdb.connect(str(project.database)) as connection:
            connection.execute(sql)


def age(project: Project, table: str, key: str, days: float) -> None:
    """Pretend that a row was marked as deleted so many days ago."""
    moment = datetime.now(timezone.utc) - timedelta(days=days)
    column = BY_NAME[table].key_columns[-1]
    execute(
        project,
        f"UPDATE {dataset(project)}.{table} SET deleted_at = '{moment.isoformat()}'"
        f" WHERE {column} = '{key}'",
    )


def stored(project: Project, table: str) -> dict[str, Any]:
    """Return the rows of a table by the last part of its key, deleted ones included."""
    column = BY_NAME[table].key_columns[-1]
    return {row[column]: row for row in project.rows(table, live=False)}


def test_personal_data_is_blanked_when_its_time_is_over(identity: Project) -> None:
    """Prevents people who are kept for ever, and living ones who lose their name.

    A row marked a day less ago than the setting says keeps everything, a blanked one its key.
    """
    workspace = identity.sandbox.workspace
    before = datetime.now(timezone.utc) - timedelta(days=DAYS)
    assert failure_of(identity.materialize(*NAMES)) == ""
    users = stored(identity, "users")
    old, young = list(users)[:2]
    invites = list(stored(identity, "invites"))[:2]
    for key in (old, young):
        workspace.remove("users", (key,))
    for key in invites:
        workspace.remove("invites", (key,))
    assert failure_of(identity.materialize(*NAMES)) == ""
    for table, keys in (("users", (old, young)), ("invites", invites)):
        age(identity, table, keys[0], DAYS + 1)
        age(identity, table, keys[1], DAYS - 1)

    figures = materialized(identity.materialize("users", "invites"))
    assert figures["users"]["forgotten_rows"] == figures["invites"]["forgotten_rows"] == 1
    after = stored(identity, "users")
    assert after[old]["name"] is None
    assert after[old]["email"] is None
    assert after[old]["deleted_at"] is not None
    assert {k: (r["name"], r["email"]) for k, r in after.items() if k != old} == {
        k: (r["name"], r["email"]) for k, r in users.items() if k != old
    }
    assert invites[0] not in stored(identity, "invites")  # its key is the address itself
    assert invites[1] in stored(identity, "invites")
    events = stored(identity, "audit_events").values()
    past = [row for row in events if row["timestamp"] < before]
    assert past
    assert len(past) < len(events)
    served = {event["id"]: event for event in identity.sandbox.served("audit_events")}
    for row in events:
        event = {} if row in past else served[row["id"]]
        names = ("actor", "actorEmail", "resourceName")
        assert [row[snake(name)] for name in names] == [event.get(name) for name in names]
        assert row["type"]

    again = materialized(identity.materialize("users", "invites"))
    assert "forgotten_rows" not in again["users"]


def test_fields_that_nobody_has_described_are_blanked_too(identity: Project) -> None:
    """Prevents that a new field of the API, such as a phone number, outlives the person's name."""
    workspace = identity.sandbox.workspace
    record = identity.sandbox.served("users")[0]
    workspace.put("users", {**record, "phone": "+49 30 123456"})
    assert failure_of(identity.materialize("users")) == ""
    assert stored(identity, "users")[record["id"]]["phone"] == "+49 30 123456"
    workspace.remove("users", (record["id"],))
    assert failure_of(identity.materialize("users")) == ""
    age(identity, "users", record["id"], DAYS + 1)
    assert failure_of(identity.materialize("users")) == ""
    assert stored(identity, "users")[record["id"]]["phone"] is None


def test_a_person_who_returns_is_complete_again(identity: Project) -> None:
    """Prevents that a blanked row stays blank although the API serves the person again."""
    workspace = identity.sandbox.workspace
    record = identity.sandbox.served("users")[0]
    assert failure_of(identity.materialize("users")) == ""
    workspace.remove("users", (record["id"],))
    assert failure_of(identity.materialize("users")) == ""
    age(identity, "users", record["id"], DAYS + 1)
    assert failure_of(identity.materialize("users")) == ""
    workspace.put("users", record)
    assert failure_of(identity.materialize("users")) == ""
    row = stored(identity, "users")[record["id"]]
    assert (row["name"], row["email"], row["deleted_at"]) == (record["name"], record["email"], None)


@pytest.mark.parametrize("days", ["0", "-1", "soon", "1.5", "99999999999999999999"])
def test_a_time_that_is_none_is_refused(project: Project, days: str) -> None:
    """Prevents that a slip of the pen forgets everybody at once, or nobody ever."""
    project.env["ANALYTICS_FORGET_DAYS"] = days
    message = failure_of(project.materialize("labels"))
    assert f"ANALYTICS_FORGET_DAYS is '{days}'" in message
    assert not project.sandbox.requests


def test_files_cannot_forget_and_say_so(project: Project) -> None:
    """Prevents that a team counts on a setting that plain files cannot keep."""
    project.env |= {
        "ANALYTICS_FORGET_DAYS": str(DAYS),
        "ANALYTICS_DESTINATION": "filesystem",
        "DESTINATION__FILESYSTEM__BUCKET_URL": str(project.folder / "lake"),
    }
    message = failure_of(project.materialize("labels"))
    assert "ANALYTICS_FORGET_DAYS" in message
    assert "filesystem" in message
    assert not project.sandbox.requests
