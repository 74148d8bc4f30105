"""What can go wrong at the API, as answers that a sandbox gives in place of the real ones."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import duckdb
import orjson
from dagster import DagsterInstance, ExecuteInProcessResult
from dlt.common.versioned_state import decompress_state

from analytics_assets.sandbox import RESOURCES, Options, Reply, RequestInfo, Sandbox
from analytics_assets.sandbox.app import Api as _Api
from analytics_assets.segment.endpoints import BY_NAME, in_group
from analytics_assets.segment.model import ColumnType, Endpoint
from analytics_assets_tests.conftest import SMALL, project_for
from analytics_assets_tests.harness import Project

KINDS = ("sources", "labels", "usage_mtu_daily", "audit_events")
"""One resource of each kind: paginated, without pages, by month, by time."""
LISTS = ("sources", "labels")
PAGE_SIZE = 7
RETRIES = 2
API = {"page_size": PAGE_SIZE, "retries": RETRIES}
OTHER_VALUES: Mapping[ColumnType, Callable[[Any], Any]] = {
    "text": lambda _: "changed",
    "bool": lambda value: not value,
    "timestamp": lambda _: "2020-01-02T03:04:05.000Z",
}

Body = dict[str, Any]
Fault = Callable[[Body, RequestInfo], Reply | Body]


@dataclass(frozen=True)
class Template:
    """A database that holds a whole small workspace, and the moment of that."""

    database: Path
    now: datetime

    @contextmanager
    def project(self, folder: Path, **options: Any) -> Iterator[Project]:
        """Yield a project with a copy of the database and a sandbox that serves the same."""
        with Sandbox(Options(scale=SMALL, **options), now=self.now) as sandbox:
            add_undeclared(sandbox)
            project = project_for(sandbox, folder)
            shutil.copy(self.database, project.database)
            yield project


def make_template(folder: Path) -> Template:
    """Load a whole small workspace in which each kind has a field that is not declared."""
    now = datetime.now(timezone.utc)
    with Sandbox(Options(scale=SMALL), now=now) as sandbox:
        add_undeclared(sandbox)
        project = project_for(sandbox, folder)
        assert project.materialize().success
        project.assert_equal()
    return Template(project.database, now)


def add_undeclared(sandbox: Sandbox) -> None:
    """Give one record of each kind a field that ``endpoints.py`` does not know."""
    workspace = sandbox.workspace
    for name in LISTS:
        workspace.put(name, {**workspace.records(name)[0], "newField": 5})
    record = workspace.usage("usage_mtu_daily", sandbox.clock().date().isoformat())[0]
    workspace.restate("usage_mtu_daily", record["timestamp"], {"newField": 5})
    workspace.put("audit_events", {**workspace.records("audit_events")[-1], "newField": 5})


def without_details(group: str) -> list[str]:
    """Return the assets of a group that cost a request or few: what its job loads every hour."""
    return [e.name for e in in_group(group) if not e.detail]


def hanging_on(name: str) -> list[str]:
    """Return the lists that hang on another one, and so fall with it."""
    return [e.name for e in BY_NAME.values() if e.parent and e.parent.resource == name]


def change_everything(project: Project, group: str) -> None:
    """Change every list of a group: a table that was loaded differs from one that was not."""
    workspace, now = project.sandbox.workspace, project.sandbox.clock()
    for endpoint in in_group(group):
        name = endpoint.name
        if name == "audit_events":
            workspace.add_event(type="Source Created")
        elif endpoint.monthly:
            record = workspace.usage(name, now.date().isoformat())[-1]
            fields = {c.field: int(record[c.field]) + 1 for c in endpoint.counters}
            key = [record[wire] for wire in endpoint.primary_key]
            workspace.restate(name, key, fields)
        elif endpoint.window:
            record = workspace.records(name)[-1]
            point = record["series"][-1]
            key = [record["source"]["id"], record["eventType"], record.get("eventName", "")]
            workspace.restate(name, [*key, point["time"]], {"count": point["count"] + 1})
        else:
            record = workspace.records(name)[0]
            workspace.put(name, {**record, **changed_field(endpoint, record)})


CHANGED: Mapping[str, Body] = {
    "tracking_plan_rules": {"jsonSchema": {"type": "object"}},
    "destination_subscriptions": {"trigger": 'type = "group"'},
    "destination_filters": {"title": "Renamed"},
    "source_schema_settings": {"track": {"allowUnplannedEvents": False}},
    "audiences": {"name": "Renamed"},
    "computed_traits": {"name": "Renamed"},
    "group_users": {"name": "Renamed"},
}
"""New values of fields, for each list that hangs on another one and is more than links."""
ADDED: Mapping[str, Body] = {
    "tracking_plan_rules": {"version": 99},
    "destination_subscriptions": {"id": "added"},
    "destination_filters": {"id": "added"},
    "audiences": {"id": "added"},
    "computed_traits": {"id": "added"},
}
"""Another key, for each of these of which there can be more."""


LINKED = {
    "tracking_plan_sources": "sources",
    "warehouse_connected_sources": "sources",
    "group_invites": "invites",
}
"""Lists of links, and what they link parents to."""


def change_children(sandbox: Sandbox, *, remove: bool) -> dict[str, set[tuple[Any, ...]]]:
    """Change a record of each list that hangs on another one, add one, and take one away.

    Links are added and taken away, as nothing of one can change; single objects change only, and
    the last record of a list stays: an empty one has to be allowed.

    Returns:
        The keys of what was taken away, by list.
    """
    workspace, gone = sandbox.workspace, {}
    for endpoint in (e for e in BY_NAME.values() if e.parent):
        name, records = endpoint.name, workspace.records(endpoint.name)
        for change in (CHANGED.get(name), ADDED.get(name)):
            if change:
                workspace.put(name, {**records[0], **change})
        if name in LINKED:
            add_link(sandbox, endpoint, records)
        if remove and not endpoint.single and len(records) > 1:
            key = tuple(records[-1].get(wire, "") for wire in endpoint.primary_key)
            workspace.remove(name, key)
            gone[name] = {key}
    return gone


def add_link(sandbox: Sandbox, endpoint: Endpoint, records: Sequence[Body]) -> None:
    """Link the first parent to something else, unless it is linked to all there is."""
    parent, key = endpoint.primary_key
    linked = [record[key] for record in records if record[parent] == records[0][parent]]
    others = sandbox.workspace.records(LINKED[endpoint.name])
    for record in [other for other in others if other[key] not in linked][:1]:
        sandbox.workspace.put(endpoint.name, record, parent=records[0][parent])


def changed_field(endpoint: Endpoint, record: Body) -> Body:
    """Return another value for a field that neither identifies a record nor points to another.

    Of a record that is its key and nothing else another key, which makes a record more, of the
    same parent if it has one.
    """
    fixed = {*endpoint.primary_key, getattr(endpoint.slice, "param", "")}
    free = (c for c in endpoint.columns if c.field not in fixed and not c.field.endswith("Id"))
    key = (c for c in endpoint.columns if c.field != getattr(endpoint.slice, "param", ""))
    column = next((c for c in (*free, *key) if c.type in OTHER_VALUES), endpoint.columns[0])
    return {column.field: OTHER_VALUES[column.type](record.get(column.field))}


def error_reply(status: int) -> Reply:
    """Return an error as the API writes it."""
    body = orjson.dumps({"errors": [{"type": "RequestError", "message": "no such luck"}]})
    return Reply(status, body)


def inject(project: Project, name: str, fault: Fault, *, page: int = 1) -> None:
    """Let ``fault`` answer for a resource, from its second page on where it has pages.

    With ``page=0``, and for audit events, of which a run reads a few, from the first page on.
    """
    sandbox = project.sandbox
    endpoint = BY_NAME[name]

    def intercept(info: RequestInfo) -> Reply | None:
        if info.path != endpoint.path:
            return None
        if (
            endpoint.paginated
            and not endpoint.cursor
            and page
            and "pagination.cursor" not in info.params
        ):
            return None
        body = orjson.loads(real_body(sandbox, info))
        reply = fault(body, info)
        return reply if isinstance(reply, Reply) else Reply(body=orjson.dumps(reply))

    sandbox.intercept = intercept


def real_body(sandbox: Sandbox, info: RequestInfo) -> bytes:
    """Return what the sandbox would have answered; the first page if the cursor is made up."""
    if info.params.get("pagination.cursor", "").startswith("made-up"):
        params = {k: v for k, v in info.params.items() if k != "pagination.cursor"}
        info = replace(info, params=params)
    return _Api(sandbox.state)._body("GET", info)


def rows_of(name: str, body: Body) -> list[Any]:
    """Return the list of records within an answer, to be changed."""
    rows: list[Any] = body["data"][RESOURCES[name].list_key]
    return rows


def everything(project: Project, table: str) -> list[tuple[Any, ...]]:
    """Return a table with all columns, also dlt's, in a fixed order."""
    return project.query(f"SELECT * FROM analytics.{table} ORDER BY ALL")


def state_of(project: Project, name: str) -> Any:
    """Return the stored dlt state of one resource, as the next run would restore it."""
    group = BY_NAME[name].group
    rows = project.query(
        "SELECT s.state FROM analytics._dlt_pipeline_state s JOIN analytics._dlt_loads l"
        " ON l.load_id = s._dlt_load_id WHERE l.status = 0 AND s.pipeline_name = ?"
        " ORDER BY l.load_id DESC LIMIT 1",
        f"analytics_assets_{group}",
    )
    if not rows:
        return None
    state: Mapping[str, Any] = decompress_state(rows[0][0])
    return state.get("sources", {}).get(group, {}).get("resources", {}).get(name)


def run_logged(project: Project, *names: str, **options: Any) -> tuple[ExecuteInProcessResult, str]:
    """Materialize in this process; return the result and the text of the event log."""
    with DagsterInstance.ephemeral() as instance:
        result = project.materialize(*names, instance=instance, **options)
        records = instance.all_logs(result.run_id)
        return result, "\n".join(record.user_message for record in records)


def execute(project: Project, sql: str) -> None:
    """Change the database by hand."""
    with duckdb.connect(str(project.database)) as connection:
        connection.execute(sql)
