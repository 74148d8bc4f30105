"""PostgreSQL as it is on bad days: locked, frozen, restarted, gone. Each wait ends and says why."""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import psycopg2
import pytest
from dagster import DagsterInstance, ExecuteInProcessResult

from analytics_assets.sandbox import Reply
from analytics_assets_tests.conftest import on_postgres
from analytics_assets_tests.harness import (
    PATIENCE,
    Project,
    failure_of,
    materialized,
    wait_for,
)
from analytics_assets_tests.postgres import PostgresProject, Server, own_server

NO_RETRY = "dagster/retry_on_asset_or_op_failure"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Return a server of this module's own; tests leave it running."""
    with own_server() as started:
        yield started


@pytest.fixture
def project(start: Callable[..., Project], server: Server) -> PostgresProject:
    """Return a project whose tables labels, roles and spaces are loaded."""
    loaded = on_postgres(start(), server.url)
    assert failure_of(loaded.materialize("labels", "roles", "spaces")) == ""
    return loaded


@contextmanager
def locked(project: PostgresProject, table: str) -> Iterator[None]:
    """Hold a table as an open transaction of somebody else does."""
    with closing(psycopg2.connect(project.url)) as other, other.cursor() as cursor:
        cursor.execute(f'LOCK TABLE "{project.dataset}"."{table}" IN ACCESS EXCLUSIVE MODE')
        yield


def when_asked(project: Project, path: str, act: Callable[[], Any]) -> None:
    """Do something once, when the API is first asked for a path."""
    due = threading.Lock()

    def intercept(info: Any) -> Reply | None:
        if info.path == path and due.acquire(blocking=False):
            act()
        return None

    project.sandbox.intercept = intercept


def in_turn(*acts: Callable[[], object]) -> Callable[[], None]:
    """Return a function that does one thing after the other."""

    def act() -> None:
        for each in acts:
            each()

    return act


def slow_table(project: PostgresProject, table: str, statement: str) -> None:
    """Run a statement in the server whenever rows are inserted into a table."""
    project.query(
        f"CREATE FUNCTION {project.dataset}.slowly() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {statement}; RETURN NULL; END $$;"
        f" CREATE TRIGGER slowly AFTER INSERT ON {project.dataset}.{table}"
        f" EXECUTE FUNCTION {project.dataset}.slowly()"
    )


def change(project: PostgresProject) -> None:
    """Change a label and a role, so that a load shows."""
    workspace = project.sandbox.workspace
    workspace.put("labels", {**workspace.records("labels")[0], "description": "changed"})
    workspace.put("roles", {**workspace.records("roles")[0], "description": "changed"})


def may_be_retried(result: ExecuteInProcessResult, instance: DagsterInstance) -> bool:
    """Tell whether a failed run keeps its retries."""
    run = instance.get_run_by_id(result.run_id)
    assert run is not None
    return NO_RETRY not in run.tags


# waits


def test_a_lock_on_a_table_costs_its_group_only(project: PostgresProject) -> None:
    """Prevents silence without end because somebody has left a transaction open."""
    change(project)
    before = project.rows("labels")
    with locked(project, "labels"):
        result = project.materialize("labels", "spaces", warehouse={"table_lock_timeout": 0.5})
    assert set(materialized(result)) == {"spaces"}
    assert "labels (GET /labels): " in failure_of(result)
    said = "another session holds a lock on a table it needs, for more than 0.5 s"
    assert said in failure_of(result)
    assert project.rows("labels") == before
    assert failure_of(project.materialize("labels")) == ""
    project.assert_equal(["labels"])


def test_a_lock_taken_meanwhile_costs_its_table_only(project: PostgresProject) -> None:
    """Prevents that a whole group is lost, or tried five times over, for one locked table."""
    change(project)
    project.env["ANALYTICS_TABLE_LOCK_TIMEOUT"] = "0.5"
    before = project.rows("labels")
    holding = locked(project, "labels")
    when_asked(project, "/labels", holding.__enter__)
    try:
        result = project.materialize("labels", "roles")
    finally:
        holding.__exit__(None, None, None)
    assert set(materialized(result)) == {"roles"}
    said = "another session holds a lock on a table it needs, for more than 0.5 s"
    assert f"labels (GET /labels): the destination did not take its rows: {said}" in failure_of(
        result
    )
    assert project.rows("labels") == before
    project.assert_equal(["roles"])


def test_a_statement_takes_no_longer_than_told(project: PostgresProject) -> None:
    """Prevents a load that hangs in the server for ever."""
    slow_table(project, "labels", "PERFORM pg_sleep(600)")
    change(project)
    result = project.materialize("labels", "roles", warehouse={"statement_timeout": 2.0})
    assert set(materialized(result)) == {"roles"}
    assert "a statement took longer than the 2 s it may take" in failure_of(result)


def test_a_frozen_server_is_given_up_before_a_load(
    project: PostgresProject, server: Server
) -> None:
    """Prevents that a run waits for ever, since a frozen server keeps its connections open."""
    change(project)
    before = project.rows("labels")
    when_asked(project, "/labels", server.freeze)
    try:
        with DagsterInstance.ephemeral() as instance:
            result = project.materialize(
                "labels", instance=instance, warehouse={"server_timeout": 2.0}
            )
            assert may_be_retried(result, instance)
    finally:
        server.thaw()
    assert "labels (GET /labels): " in failure_of(result)
    assert "has not answered for 2 s (server_timeout)" in failure_of(result)
    assert project.rows("labels") == before
    assert failure_of(project.materialize("labels")) == ""
    project.assert_equal(["labels"])


def test_a_frozen_server_is_given_up_within_a_load(
    project: PostgresProject, server: Server
) -> None:
    """Prevents that a statement under way waits for ever for a frozen server."""
    slow_table(project, "labels", "PERFORM pg_sleep(600)")
    change(project)
    project.env["ANALYTICS_SERVER_TIMEOUT"] = "2"
    freezer = threading.Thread(target=in_turn(until_sleeping(project), server.freeze))
    freezer.start()
    try:
        result = project.materialize("labels", "roles")
    finally:
        freezer.join()
        server.thaw()
        end_sessions(project)
    assert materialized(result) == {}
    assert "has not answered for 2 s (server_timeout)" in failure_of(result)


def until_sleeping(project: PostgresProject) -> Callable[[], None]:
    """Return a function that waits until a statement waits in the trigger of a slow table."""
    return lambda: wait_for(lambda: sleeping(project))


def sleeping(project: PostgresProject) -> bool:
    """Tell whether a statement waits in the trigger of a slow table."""
    [(count,)] = project.query("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")
    return bool(count)


def end_sessions(project: PostgresProject) -> None:
    """End what is still under way on the server."""
    project.query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )


def waits_for_a_lock(project: PostgresProject) -> bool:
    """Tell whether somebody waits for a lock on a table."""
    [(count,)] = project.query("SELECT count(*) FROM pg_locks WHERE NOT granted")
    return bool(count)


@pytest.mark.parametrize("wait", ["a lock", "a frozen server"])
def test_sigterm_ends_a_wait_for_the_server(
    project: PostgresProject, server: Server, wait: str
) -> None:
    """Prevents a run that cannot be stopped because its driver waits in C."""
    project.env.update(ANALYTICS_TABLE_LOCK_TIMEOUT="900", ANALYTICS_SERVER_TIMEOUT="900")
    due = threading.Event()
    if wait == "a lock":
        with locked(project, "labels"):
            waits = partial(wait_for, lambda: waits_for_a_lock(project))
            threading.Thread(target=in_turn(waits, due.set)).start()
            begun = time.monotonic()
            code, output = project.terminate(due, "", "labels")
    else:
        when_asked(project, "/labels", in_turn(server.freeze, due.set))
        try:
            begun = time.monotonic()
            code, output = project.terminate(due, "", "labels")
        finally:
            server.thaw()
    assert code != 0, output[-3000:]
    assert time.monotonic() - begun < PATIENCE
    assert "RUN_SUCCESS" not in output
    project.sandbox.intercept = None
    assert failure_of(project.materialize("labels", warehouse={"lock_timeout": 5})) == ""


# the lock


def test_an_idle_session_is_kept_alive(project: PostgresProject) -> None:
    """Prevents that a server ends the session with the lock while the API is read."""
    project.query("ALTER SYSTEM SET idle_session_timeout = '3s'")
    project.query("SELECT pg_reload_conf()")
    try:
        when_asked(project, "/labels", lambda: time.sleep(6))
        change(project)
        result = project.materialize("labels", "roles")
    finally:
        project.query("ALTER SYSTEM RESET idle_session_timeout")
        project.query("SELECT pg_reload_conf()")
    assert failure_of(result) == ""
    project.assert_equal(["labels", "roles"])


def test_a_restart_while_the_api_is_read_costs_nothing(
    project: PostgresProject, server: Server
) -> None:
    """Prevents a traceback after a load, and a load without the lock."""
    change(project)
    when_asked(project, "/labels", server.restart)
    assert failure_of(project.materialize("labels", "roles")) == ""
    project.assert_equal(["labels", "roles"])


def advisory_key(project: PostgresProject) -> int:
    """Return the key of the lock of the identity group."""
    return zlib.crc32(f"analytics_assets.{project.dataset}.identity".encode())


def test_a_lock_that_somebody_else_has_taken_is_respected(
    project: PostgresProject, server: Server
) -> None:
    """Prevents two runs from loading the same group after a restart."""
    change(project)
    before = project.rows("labels")
    others: list[Any] = []

    def take_over() -> None:
        server.restart()
        others.append(psycopg2.connect(project.url))
        others[0].cursor().execute("SELECT pg_advisory_lock(%s)", [advisory_key(project)])

    when_asked(project, "/labels", take_over)
    result = project.materialize("labels", warehouse={"server_timeout": 1.0})
    others[0].close()
    assert "another run has taken the lock that was lost" in failure_of(result)
    assert project.rows("labels") == before


def test_what_another_run_has_loaded_meanwhile_is_not_overwritten(
    project: PostgresProject, server: Server
) -> None:
    """Prevents that older rows replace newer ones after a lock was lost and taken again."""
    change(project)

    def load_meanwhile() -> None:
        server.restart()
        project.query(
            f"INSERT INTO {project.dataset}._dlt_loads (load_id, schema_name, status, inserted_at)"
            " VALUES ('9999999999.0', 'identity', 0, now())"
        )

    before = project.rows("labels")
    when_asked(project, "/labels", load_meanwhile)
    result = project.materialize("labels")
    assert "Another run has loaded the same while the lock was lost" in failure_of(result)
    assert project.rows("labels") == before


def test_losing_the_lock_at_the_end_does_not_overturn_a_success(project: PostgresProject) -> None:
    """Prevents that loaded rows count as failed because a lock could not be released."""
    slow_table(
        project,
        "_dlt_loads",
        "PERFORM pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'",
    )
    change(project)
    result = project.materialize("labels", "roles")
    assert failure_of(result) == ""
    assert set(materialized(result)) == {"labels", "roles"}
    project.assert_equal(["labels", "roles"])


# away, or set wrongly


def refused(_: PostgresProject, server: Server) -> Iterator[None]:
    """The server is down."""
    server.stop()
    yield
    server.start()


def shutting_down(project: PostgresProject, server: Server) -> Iterator[None]:
    """The server waits for its last client to go."""
    with closing(psycopg2.connect(project.url)):
        server.stop("smart", wait=False)
        yield
    wait_for(lambda: not is_up(project))
    server.start()


def is_up(project: PostgresProject) -> bool:
    """Tell whether the server can be connected to, or says that it is on its way."""
    try:
        psycopg2.connect(project.url).close()
    except psycopg2.OperationalError as error:
        return "refused" not in str(error)
    return True


@pytest.mark.parametrize(
    ("trouble", "said"),
    [(refused, "Connection refused"), (shutting_down, "the database system is shutting down")],
)
def test_a_server_that_is_away_may_come_back(
    project: PostgresProject, server: Server, trouble: Any, said: str
) -> None:
    """Prevents that twenty seconds without a database end the scheduled retries."""
    with contextmanager(trouble)(project, server), DagsterInstance.ephemeral() as instance:
        result = project.materialize("labels", instance=instance)
        assert may_be_retried(result, instance)
    text = failure_of(result)
    assert said in text
    assert "\n" not in text
    assert failure_of(project.materialize("labels")) == ""


def test_a_server_that_goes_away_within_a_load_may_come_back(
    project: PostgresProject, server: Server
) -> None:
    """Prevents that a restart in the middle of a load is final, or hidden by the lock's release."""
    slow_table(project, "labels", "PERFORM pg_sleep(600)")
    change(project)
    stopper = threading.Thread(target=in_turn(until_sleeping(project), server.stop))
    stopper.start()
    with DagsterInstance.ephemeral() as instance:
        result = project.materialize("labels", "roles", instance=instance)
        stopper.join()
        server.start()
        assert may_be_retried(result, instance)
    assert "labels (GET /labels): the destination did not take its rows: " in failure_of(result)
    assert materialized(result) == {}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://guarded:wrong-one@{host}/postgres", "password authentication failed"),
        ("postgresql://postgres:unused@{host}/nosuch", 'database "nosuch" does not exist'),
        ("postgresql://postgres:unused@nosuch.invalid/postgres", "could not translate host name"),
    ],
)
def test_a_wrong_setting_is_final(
    project: PostgresProject, server: Server, url: str, said: str
) -> None:
    """Prevents retries that cannot help."""
    if "guarded" in url:
        project.query("CREATE ROLE guarded LOGIN PASSWORD 'the-right-one'")
        server.require_passwords("guarded")
    host = server.url.rpartition("@")[2].partition("/")[0]
    project.env["DESTINATION__POSTGRES__CREDENTIALS"] = url.format(host=host)
    with DagsterInstance.ephemeral() as instance:
        result = project.materialize("labels", instance=instance)
        assert not may_be_retried(result, instance)
    assert said in failure_of(result)
    assert "check its credentials" in failure_of(result)
    assert "wrong-one" not in failure_of(result)
