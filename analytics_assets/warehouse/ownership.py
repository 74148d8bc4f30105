"""Whose a dataset is: it belongs to one workspace, remembered with dlt's state in the destination.

Without that the lists of another workspace would replace those that are there, and mark their rows
as deleted, with every check green.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, cast

import dlt
import duckdb
from dlt.common.destination.client import WithStateSync
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.exceptions import DltException
from dlt.destinations.exceptions import DatabaseTerminalException
from dlt.pipeline.pipeline import Pipeline
from dlt.pipeline.state_sync import load_pipeline_state_from_destination

from analytics_assets.segment.endpoints import GROUPS
from analytics_assets.segment.errors import OtherWorkspace, UnreadableFiles
from analytics_assets.segment.model import DELETED_AT
from analytics_assets.segment.token_workspace import NAMING, WORKSPACE, Workspace
from analytics_assets.warehouse.destination import pipeline_name
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.sql import open_sql

KEY: Final = "workspace"
"""Where a group's dlt source state holds it."""


@dataclass(frozen=True)
class Owner:
    """Whose a dataset is, as far as the destination tells.

    Attributes:
        workspaces: the workspace; none of a new dataset, and more than one of a mixed one.
        remembered: whether the state of the group names it.
        inherited: whether a version loaded it that did not remember whose it is.
    """

    workspaces: tuple[Workspace, ...]
    remembered: bool = False
    inherited: bool = False


def owner_of(group: str, pipeline: Pipeline, warehouse: WarehouseSettings) -> Owner:
    """Return whose the dataset is: by the group's state, by that of the others, or by the rows.

    Args:
        group: name of the group.
        pipeline: its pipeline, in step with the destination, which the caller has open.
        warehouse: where the dataset is.
    """
    if own := _named_in(pipeline.state, group):
        return Owner((own,), remembered=True)
    states = _stored_states(pipeline)
    if named := tuple(filter(None, (_named_in(state, g) for g, state in states.items()))):
        return Owner(named)
    rows = tuple(_named_in_rows(pipeline, warehouse))
    return Owner(rows, inherited=bool(states or rows))


def check_owner(dataset: str, owner: Owner, workspace: Workspace | None) -> None:
    """Refuse a workspace whose the dataset is not, and one that nobody can tell.

    Raises:
        OtherWorkspace: one sentence that names both, and what to do.
    """
    for other in owner.workspaces:
        if workspace is None:
            raise OtherWorkspace(
                f"The dataset {dataset!r} holds the workspace {other}, and nothing that the token"
                " may read names its own, so nothing was loaded; give it a role that may read the"
                " workspace."
            )
        if other.id != workspace.id:
            raise OtherWorkspace(
                f"The dataset {dataset!r} holds the workspace {other}, and the token belongs to"
                f" {workspace}, so nothing was loaded; set ANALYTICS_DATASET to a dataset of its"
                " own, or ANALYTICS_API_TOKEN to a token of the first."
            )


def check_still_free(group: str, pipeline: Pipeline, dataset: str, workspace: Workspace) -> None:
    """Look again before the first load of a group: another run may have made the dataset its own.

    Args:
        group: name of the group.
        pipeline: its pipeline; the caller has the database open.
        dataset: its name.
        workspace: whose rows are about to be loaded.

    Raises:
        OtherWorkspace: it has.
    """
    states = _stored_states(pipeline)
    named = (_named_in(state, other) for other, state in states.items() if other != group)
    check_owner(dataset, Owner(tuple(filter(None, named))), workspace)


def remember(workspace: Workspace) -> None:
    """Note the workspace in the state of the source that is being extracted."""
    state = dlt.current.source_state()
    before = state.get(KEY, {})
    if workspace.name or before.get("id") != workspace.id:
        state[KEY] = asdict(workspace)


def _named_in(state: Any, group: str) -> Workspace | None:
    try:
        found = cast(Mapping[str, Any], state).get("sources", {}).get(group, {}).get(KEY)
    except AttributeError:  # edited by hand: as good as none
        return None
    if not isinstance(found, dict) or not found.get("id"):
        return None
    return Workspace(*(str(found.get(part) or "") for part in ("id", "name", "slug")))


def _stored_states(pipeline: Pipeline) -> dict[str, Mapping[str, Any]]:
    """Return the state of each group that was ever loaded into the dataset."""
    states: dict[str, Mapping[str, Any]] = {}
    with pipeline.destination_client() as client:
        for group in GROUPS:
            try:
                state = load_pipeline_state_from_destination(
                    pipeline_name(group), cast(WithStateSync, client)
                )
            except DestinationUndefinedEntity:
                break
            except (ValueError, TypeError, zlib.error, DltException):
                continue  # edited by hand: as good as none, and told of when it is restored
            if state:
                states[group] = cast(Mapping[str, Any], state)
    return states


def _named_in_rows(pipeline: Pipeline, warehouse: WarehouseSettings) -> Iterator[Workspace]:
    """Yield the workspaces that live rows name, for datasets that do not remember theirs."""
    columns = {WORKSPACE.name: "id", **dict.fromkeys(NAMING, "workspace_id")}
    found: set[str] = set()
    with open_sql(pipeline.destination_client(), warehouse.table_format) as sql:
        for table, column in columns.items():
            try:
                rows = sql.rows(
                    f"SELECT DISTINCT {sql.column(column)} FROM {sql.table(table)}"
                    f" WHERE {sql.column(DELETED_AT)} IS NULL"
                )
            except (
                DestinationUndefinedEntity,
                DatabaseTerminalException,
                UnreadableFiles,
                duckdb.Error,
            ):
                continue  # it was not loaded, or changed by hand
            found |= {str(identifier) for (identifier,) in rows if identifier}
    yield from map(Workspace, sorted(found))
