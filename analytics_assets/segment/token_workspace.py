"""Whose the token is: the workspace that the API serves, asked for once a run, before all else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from analytics_assets.segment.client import ApiSession, Envelope
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.errors import OtherWorkspace, ResourceError
from analytics_assets.segment.extraction import UNAVAILABLE
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.pages import unpack
from analytics_assets.segment.reading import Reading

WORKSPACE: Final = BY_NAME["workspace"]
NAMING: Final = ("sources", "warehouses", "transformations")
"""Lists whose records name their workspace, in ``workspaceId``."""
UNTOLD: Final = frozenset({*UNAVAILABLE, 200, 422})
"""Status of answers to ``GET /`` that do not tell it, now or later; 200 is an odd shape."""


@dataclass(frozen=True)
class Workspace:
    """A workspace; name and slug are empty where the API did not tell them."""

    id: str
    name: str = ""
    slug: str = ""

    def __str__(self) -> str:
        slug = f"{self.slug}, " if self.slug else ""
        return foreign_text(f"{self.name!r} ({slug}id {self.id})" if self.name else self.id)


class TokenWorkspace:
    """The workspace that the token of a run belongs to.

    Attributes:
        answer: what came of ``GET /``, for the asset of it too; ``None`` before it is asked for.
    """

    def __init__(self) -> None:
        self.answer: Envelope | ResourceError | None = None
        self._workspace: Workspace | None = None

    @property
    def token_works(self) -> bool:
        """Whether the API served the workspace, which every token may see (WorkspacesApi.md)."""
        return isinstance(self.answer, Envelope)

    def ask(self, session: ApiSession) -> Workspace | None:
        """Ask for the workspace, once; return ``None`` if it is not served.

        Raises:
            ResourceError: the API had a fault; it may well serve it later.
        """
        if self.answer is None:
            try:
                answer = session.fetch(session.prepared(WORKSPACE.path))
                self.answer, self._workspace = answer, _workspace(answer.body)
            except ResourceError as error:
                if error.status not in UNTOLD:
                    raise _explained(error) from None
                self.answer = self.answer or error
        return self._workspace

    def look_for(self, session: ApiSession, readings: Sequence[Reading]) -> Workspace | None:
        """Find the workspace in records, where it is not served itself.

        Args:
            session: what to ask with for the first record of lists that were not read.
            readings: what was read, to its end.
        """
        if self._workspace is None:
            read = {reading.endpoint.name: reading for reading in readings}
            for name in NAMING:
                found = _of_rows(read[name]) if name in read else _first(session, BY_NAME[name])
                if found:
                    self._workspace = Workspace(found)
                    break
        return self._workspace


def _workspace(body: Any) -> Workspace | None:
    [record], _ = unpack(WORKSPACE, body)
    identifier = _text(record.get("id"))
    if not identifier:
        return None
    return Workspace(identifier, _text(record.get("name")), _text(record.get("slug")))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _explained(error: ResourceError) -> ResourceError:
    return ResourceError(
        f"The workspace of the token could not be read (GET {WORKSPACE.path}), so nothing was"
        f" loaded: {error}",
        status=error.status,
        transient=error.transient,
    )


def refuse_rows_of_others(workspace: Workspace, readings: Sequence[Reading]) -> None:
    """Refuse lists that all name another workspace than the API says that it serves.

    Those that name others as well are warned of: it may be one odd value.

    Args:
        workspace: as ``GET /`` told it.
        readings: what was read, to its end.

    Raises:
        OtherWorkspace: something between may answer for several workspaces.
    """
    for reading in readings:
        named = set() if reading.failure else reading.extraction.workspaces
        others = foreign_text(", ".join(sorted(named - {workspace.id})))
        if named and workspace.id not in named:
            raise OtherWorkspace(
                f"The rows of {reading.endpoint.name} (GET {reading.endpoint.path}) name the"
                f" workspace {others}, where the API says that it serves {workspace}, so nothing"
                " was loaded; see whether what answers at ANALYTICS_API_BASE_URL mixes workspaces."
            )
        if others:
            reading.extraction.warnings.append(f"some rows name another workspace: {others}")


def _of_rows(reading: Reading) -> str:
    """Return the workspace that the rows of a list name, nothing if there are none.

    Raises:
        ResourceError: they name several.
    """
    if reading.failure:
        return ""
    found = reading.extraction.workspaces
    if len(found) > 1:
        raise ResourceError(
            f"The rows of {reading.endpoint.name} name several workspaces,"
            f" {', '.join(sorted(found))}, and the token's own cannot be read"
            f" (GET {WORKSPACE.path}), so nothing was loaded; give it a role that may read it",
            status=200,
        )
    return next(iter(found), "")


def _first(session: ApiSession, endpoint: Endpoint) -> str:
    """Return the workspace that the first record of a list names, nothing if there is none."""
    try:
        answer = session.fetch(session.prepared(endpoint.path, {"pagination.count": "1"}))
        records, _ = unpack(endpoint, answer.body)
    except ResourceError as error:
        if error.transient:
            raise _explained(error) from None
        return ""
    return next((_text(record.get("workspaceId")) for record in records), "")
