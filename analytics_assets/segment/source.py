"""Rows of ``endpoints.py`` become dlt ``rest_api`` resources, whose pages are typed and staged.

Each row becomes a raw resource, which walks the pages, and a transformer of the row's name that
hangs on it: records to typed Arrow tables, then to disk. Lists that hang on another one take their
slices from its raw resource, so that dlt walks the parent once for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from tempfile import gettempdir
from typing import Any, Final, cast
from urllib.parse import quote, unquote

import dlt
import pyarrow as pa
from dlt.common import jsonpath
from dlt.extract import DltResource, DltSource
from dlt.sources.helpers.rest_client.client import PageData
from dlt.sources.rest_api import rest_api_resources
from dlt.sources.rest_api.typing import ClientConfig, EndpointResource, RESTAPIConfig

from analytics_assets.segment.client import ApiSession
from analytics_assets.segment.daily_figures import day_outside
from analytics_assets.segment.errors import ResourceError, unexpected
from analytics_assets.segment.extraction import Extraction, Routes, slice_names, slice_params
from analytics_assets.segment.model import Endpoint, Parent
from analytics_assets.segment.pages import fit_for_an_address
from analytics_assets.segment.paginator import GuardedPaginator
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.records import BadValue
from analytics_assets.segment.settings import ApiSettings
from analytics_assets.segment.spans import span
from analytics_assets.segment.unfolding import unfolded

RAW: Final = "_raw"
SLICES: Final = "_slices"

Raw = Mapping[str, DltResource]


def api_source(
    group: str,
    readings: Sequence[Reading],
    session: ApiSession,
    routes: Routes,
    settings: ApiSettings,
) -> DltSource:
    """Build the source that reads the resources of a group; iterated, it fills their staging.

    Args:
        group: name of the group.
        readings: what to read, and the parents that are read for their sake.
        session: what requests are sent with.
        routes: tells which reading a request belongs to.
        settings: how to reach the API.
    """
    client: ClientConfig = {
        "base_url": settings.base_url,
        "auth": {"type": "bearer", "token": settings.token},
        "session": session,
    }
    raw: dict[str, DltResource] = {}
    for level in (
        [reading for reading in readings if not reading.endpoint.parent],
        [reading for reading in readings if reading.endpoint.parent],
    ):
        raw |= _raw_resources(client, level, raw, routes, settings)
    typed = [_typed(reading, raw, routes) for reading in readings if reading.staging]
    source = dlt.source(lambda: [*raw.values(), *typed], name=group)
    return source()


def _raw_resources(
    client: ClientConfig, level: Sequence[Reading], raw: Raw, routes: Routes, settings: ApiSettings
) -> dict[str, DltResource]:
    """Return the resources that walk the pages, and those that give them their slices."""
    configs: list[EndpointResource | DltResource] = []
    for reading in level:
        if reading.endpoint.slice:
            configs.append(_slices(reading, raw, settings))
        configs.append(_config(reading, routes, settings))
    resources = rest_api_resources(cast(RESTAPIConfig, {"client": client, "resources": configs}))
    found = {resource.name: resource for resource in resources}
    for reading in level:
        found[reading.endpoint.name + RAW].parallelize()
    return found


def _config(reading: Reading, routes: Routes, settings: ApiSettings) -> EndpointResource:
    """Return the ``rest_api`` form of a row of ``endpoints.py``."""
    endpoint = reading.endpoint
    config: dict[str, Any] = {
        "name": endpoint.name + RAW,
        "selected": False,
        "endpoint": {
            "path": endpoint.path,
            "params": _params(reading.extraction, settings),
            "headers": {"Accept": endpoint.accept},
            "data_selector": jsonpath.compile_path(endpoint.data_selector),
            "paginator": GuardedPaginator(reading.extraction, routes),
        },
    }
    if parent := endpoint.parent:
        config["endpoint"]["path"] = endpoint.path.replace(
            f"{{{parent.param}}}", _of_slice(endpoint, parent.param)
        )
        config["include_from_parent"] = [parent.param]
    return cast(EndpointResource, config)


def _params(extraction: Extraction, settings: ApiSettings) -> dict[str, Any]:
    endpoint = extraction.endpoint
    params: dict[str, Any] = dict(endpoint.params)
    if endpoint.paginated:
        params["pagination.count"] = min(
            settings.page_size, endpoint.page_limit or settings.page_size
        )
    if not endpoint.parent:
        params |= {name: _of_slice(endpoint, name) for name in slice_names(endpoint)}
    if extraction.start:
        params["startTime"] = extraction.start
    return params


def _of_slice(endpoint: Endpoint, param: str) -> str:
    return f"{{resources.{endpoint.name}{SLICES}.{param}}}"


def _slices(reading: Reading, raw: Raw, settings: ApiSettings) -> DltResource:
    """Return the resource that feeds a list its slices, one at a time."""
    extraction, way = reading.extraction, reading.endpoint.slice
    name = reading.endpoint.name + SLICES
    if isinstance(way, Parent):
        limited = reading.endpoint.rate_limit is not None
        at_once = max(1, settings.parallel_requests // (4 if limited else 1))
        slices = _parent_slices(extraction, way, at_once)
        parent = raw[way.resource + RAW]
        return dlt.transformer(slices, data_from=parent, name=name)
    chains = [[slice_params(reading.endpoint, chain)] for chain in extraction.chains]
    return dlt.resource(chains, name=name, selected=False)


def _parent_slices(
    extraction: Extraction, way: Parent, at_once: int
) -> Callable[[Any], Iterator[Any]]:
    """Return what makes slices of pages of parents.

    Only so many chains are under way at once, as those that wait for a limit of their own must not
    take up all the workers: "nothing yet" is ``None`` to dlt.
    """

    def slices(page: Sequence[Mapping[str, Any]]) -> Iterator[Any]:
        for record in page:
            identifier = record.get(way.field)
            if not isinstance(identifier, str) or not fit_for_an_address(identifier.strip(".")):
                text = f"a record of its parent {way.resource} has no {way.field!r} fit for a path"
                extraction.fail(ResourceError(text, status=200))
            while extraction.under_way >= at_once and not extraction.failure:
                yield None
            if extraction.failure:
                return
            if extraction.expect(str(identifier)):
                yield [{way.param: quote(str(identifier), safe="")}]  # it goes into a path

    return slices


def _typed(reading: Reading, raw: Raw, routes: Routes) -> DltResource:
    """Return the resource that types and stages what the raw one brings."""
    endpoint = reading.endpoint
    resource = cast(
        DltResource,
        dlt.transformer(
            _typing(reading, routes), data_from=raw[endpoint.name + RAW], name=endpoint.name
        ),
    )
    return resource.add_map(_staging(reading))


def _typing(reading: Reading, routes: Routes) -> Callable[[Any], pa.Table | None]:
    """Return the step that makes a typed table of a page; its metadata names the chain."""
    endpoint, extraction, parent = reading.endpoint, reading.extraction, reading.endpoint.parent
    included = f"_{endpoint.name}{SLICES}_{parent.param}" if parent else ""
    rows: dict[str, int] = {}

    def typed(page: PageData[dict[str, Any]]) -> pa.Table | None:
        if extraction.failure or not page:
            return None
        _, chain = routes.find(page.response.request.url or "")
        if parent:
            for record in page:
                asked = unquote(record.pop(included))
                record.setdefault(parent.param, asked)  # some records name their parent themselves
        try:
            with span("type"):
                records = unfolded(reading.endpoint, page, rows.get(chain, 0))
                table = reading.typer.table(records, rows.get(chain, 0))
        except BadValue as error:
            extraction.fail(ResourceError(str(error), status=200), chain)
            return None
        except Exception as error:  # noqa: BLE001 - a surprise in one resource must not end the rest
            extraction.fail(unexpected(error), chain)
            return None
        if endpoint.by_day and (day := day_outside(endpoint, table, chain)):
            asked = "month" if endpoint.monthly else "days"
            text = f"a row of {day} came, so the API does not heed the {asked} it is asked for"
            extraction.fail(ResourceError(text, status=200), chain)
            return None
        rows[chain] = rows.get(chain, 0) + len(records)
        return table.replace_schema_metadata({"chain": chain})

    return typed


def _staging(reading: Reading) -> Callable[[pa.Table], None]:
    """Return the step that keeps a typed page on disk."""

    def stage(table: pa.Table) -> None:
        if reading.staging is None or reading.failure:
            return
        chain = table.schema.metadata[b"chain"].decode()
        try:
            with span("stage"):
                reading.staging.add(chain, table)
        except (pa.ArrowException, OSError) as error:
            what = f"its rows could not be kept in the folder {gettempdir()!r} ({error})"
            advice = "make room there, or set TMPDIR to a folder that has it"
            reading.extraction.fail(ResourceError(f"{what}; {advice}", transient=True))

    return stage
