"""Read the API: rows of ``endpoints.py`` become a dlt ``rest_api`` source, its pages readings.

Pure dlt, no Dagster. Nothing is loaded here: :func:`read` fills :class:`Reading` objects, and one
resource that fails costs only itself.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any, Final, cast
from urllib.parse import parse_qsl, urlsplit

import dlt
import pyarrow as pa
import requests
from dlt.common import jsonpath
from dlt.extract import DltResource, DltSource
from dlt.sources.helpers.rest_client.exceptions import IgnoreResponseException
from dlt.sources.helpers.rest_client.paginators import (
    BasePaginator,
    JSONResponseCursorPaginator,
    SinglePagePaginator,
)
from dlt.sources.rest_api import rest_api_source
from dlt.sources.rest_api.typing import EndpointResource, RESTAPIConfig

from analytics_assets.segment.client import ApiSession
from analytics_assets.segment.errors import AnalyticsError, ResourceError, TokenRejected
from analytics_assets.segment.model import Endpoint
from analytics_assets.segment.reading import Progress, Reading
from analytics_assets.segment.settings import ApiSettings, Log
from analytics_assets.segment.spans import span

MONTHS_SUFFIX = "_months"
POLL_SECONDS: Final = 0.002
"""How long dlt looks away while nothing arrives: its own 10 ms add up to half a second a run."""
FORBIDDEN: Final = 403
REFUSALS = frozenset({401, FORBIDDEN})
UNAVAILABLE = frozenset({401, 403, 404})


class ReadingSession(ApiSession):
    """The session that ``rest_api`` sends with: every page passes a :class:`Reading`.

    A reading that fails ends without an exception (dlt's "ignore" response action), so that the
    other resources of the source are read on.
    """

    def __init__(self, settings: ApiSettings, log: Log, readings: Sequence[Reading]) -> None:
        super().__init__(settings, log)
        self.settings = settings
        self.log = log
        self.readings = readings
        prefix = urlsplit(settings.base_url).path.rstrip("/")
        self._by_path = {prefix + reading.endpoint.path: reading for reading in readings}
        self._progress = Progress(readings, log)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        """Answer with a page whose list holds one typed table in place of the records.

        Raises:
            IgnoreResponseException: the reading has failed; the reason is noted on it.
        """
        url = urlsplit(request.url or "")
        reading = self._by_path[url.path]
        period = dict(parse_qsl(url.query)).get("period", "")
        try:
            reading.begin_request(period)
            with span("read"):
                envelope = self.fetch(request, **options)
            with span("type"):
                table, cursor = reading.accept(envelope, period)
        except AnalyticsError as error:
            reading.fail(_in_month(error, period))
            raise IgnoreResponseException from None
        except Exception as error:  # noqa: BLE001 - a surprise in one resource must not end the rest
            reading.fail(ResourceError(f"unexpected {type(error).__name__} while reading: {error}"))
            raise IgnoreResponseException from None
        self._progress.tick()
        return _page(reading.endpoint, table, cursor)


def read(session: ReadingSession) -> None:
    """Read all endpoints of ``session`` at the same time; afterwards each is whole or has failed.

    Needs an active dlt pipeline, whose restored state says where incremental endpoints start.

    Raises:
        TokenRejected: the API refused every one of them.
    """
    readings = session.readings
    endpoints = [reading.endpoint for reading in readings]
    source = api_source(session.settings, endpoints, session, readings)
    with aborted_by_signals(session):
        for _ in source:
            pass  # the last step of each pipe keeps the tables
    with span("stage"):
        for reading in readings:
            reading.finish()
    _raise_if_refused(session.settings, readings, session.log)


@contextmanager
def aborted_by_signals(session: ApiSession) -> Iterator[None]:
    """On SIGTERM or SIGINT wake the threads that wait, then let the handler in place do its part.

    Otherwise dlt waits for them before the run can end: for as long as a time-out may last.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: Any) -> None:
        session.abort()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler == signal.SIG_DFL:
            raise KeyboardInterrupt

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def api_source(
    settings: ApiSettings,
    endpoints: Sequence[Endpoint],
    session: requests.Session,
    readings: Sequence[Reading] = (),
) -> DltSource:
    """Build the ``rest_api`` source of ``endpoints``; ``readings`` keep what it reads."""
    by_name = {reading.endpoint.name: reading for reading in readings}
    resources: list[EndpointResource | DltResource] = []
    for endpoint in endpoints:
        reading = by_name.get(endpoint.name)
        if endpoint.monthly:
            resources.append(_months_resource(endpoint, reading.chain_names if reading else []))
        resources.append(_resource_config(endpoint, settings))
    config = cast(
        RESTAPIConfig,
        {
            "client": {
                "base_url": settings.base_url,
                "auth": {"type": "bearer", "token": settings.token},
                "headers": {"Accept": "application/json"},
                "session": session,
            },
            "resources": resources,
        },
    )
    source = rest_api_source(config, name=endpoints[0].group)
    dlt.config["extract.workers"] = settings.parallel_requests
    dlt.config["extract.futures_poll_interval"] = POLL_SECONDS
    for endpoint in endpoints:
        if not endpoint.monthly:
            source.resources[endpoint.name].parallelize()
    for name, reading in by_name.items():
        source.resources[name].add_step(_keeper(reading))
    return source


def _resource_config(endpoint: Endpoint, settings: ApiSettings) -> EndpointResource:
    """Return the ``rest_api`` form of a row of ``endpoints.py``."""
    params: dict[str, Any] = {}
    if endpoint.paginated:
        params["pagination.count"] = settings.page_size
    if endpoint.monthly:
        params["period"] = f"{{resources.{endpoint.name}{MONTHS_SUFFIX}.period}}"
    config: dict[str, Any] = {
        "path": endpoint.path,
        "params": params,
        "data_selector": jsonpath.compile_path(endpoint.selector),
        "paginator": _paginator(endpoint),
    }
    if endpoint.cursor:
        config["incremental"] = {
            "cursor_path": endpoint.cursor_column,
            "start_param": "startTime",
            "lag": settings.overlap_minutes * 60,
            "convert": _start_time,
        }
    return cast(
        EndpointResource,
        {
            "name": endpoint.name,
            "primary_key": list(endpoint.column_keys),
            "parallelized": endpoint.monthly,  # months side by side; the others below
            "endpoint": config,
        },
    )


def _in_month(error: AnalyticsError, period: str) -> AnalyticsError:
    """Name the month of usage that could not be read."""
    if not period or not isinstance(error, ResourceError):
        return error
    text = f"month {period[:7]}: {error}"
    return ResourceError(text, status=error.status, passing=error.passing)


def _months_resource(endpoint: Endpoint, periods: Sequence[str]) -> DltResource:
    """The parent that feeds ``period`` to a usage resource; it is not materialized."""
    return dlt.resource(
        [[{"period": period} for period in periods]],
        name=endpoint.name + MONTHS_SUFFIX,
        selected=False,
    )


def _paginator(endpoint: Endpoint) -> BasePaginator:
    if not endpoint.paginated:
        return SinglePagePaginator()
    return JSONResponseCursorPaginator(
        cursor_path="data.pagination.next", cursor_param="pagination.cursor"
    )


def _start_time(moment: datetime | None) -> str | None:
    """Write the start of the window as the API does; without one the API gives all it has."""
    if moment is None:
        return None
    start = min(moment, datetime.now(timezone.utc)).astimezone(timezone.utc)
    return start.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _keeper(reading: Reading) -> Any:
    def keep(tables: Any) -> None:
        tables = tables if isinstance(tables, list) else [tables]
        if reading.failure or not tables:
            return
        try:
            with span("stage"):
                if reading.endpoint.monthly:
                    tables = [pa.concat_tables(tables, promote_options="default")]
                reading.keep(tables)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OSError) as error:
            reading.fail(ResourceError(f"its rows could not be kept: {error}"))

    return keep


def _page(endpoint: Endpoint, table: pa.Table, cursor: str | None) -> requests.Response:
    """Wrap a typed table as the answer that ``rest_api`` takes apart again."""
    wrapper, _, name = endpoint.selector.rpartition(".")
    body = {wrapper: {name: [table], "pagination": {"next": cursor}}}
    response = requests.Response()
    response.status_code = requests.codes.ok
    response.json = lambda **_: body  # type: ignore[method-assign]
    return response


def _raise_if_refused(settings: ApiSettings, readings: Sequence[Reading], log: Log) -> None:
    """Tell a token that is not accepted from one that merely lacks some permission."""
    statuses = [int(getattr(reading.failure, "status", None) or 0) for reading in readings]
    if not readings or not all(status in REFUSALS for status in statuses):
        return
    if all(reading.endpoint.feature for reading in readings) and (
        FORBIDDEN in statuses or _token_works(settings, log)
    ):
        return
    raise TokenRejected(
        f"The API at {urlsplit(settings.base_url).netloc} does not accept the token: it refused all"
        f" {len(readings)} resources asked for (HTTP {', '.join(map(str, sorted(set(statuses))))})."
        " Check ANALYTICS_API_TOKEN, and ANALYTICS_API_BASE_URL if the workspace is in the EU."
    )


def _token_works(settings: ApiSettings, log: Log) -> bool:
    """Ask for the workspace itself, which every token may see (WorkspacesApi.md)."""
    request = requests.Request(
        "GET", f"{settings.base_url}/", headers={"Authorization": f"Bearer {settings.token}"}
    )
    with ApiSession(settings, log) as session:
        try:
            session.fetch(session.prepare_request(request))
        except ResourceError:
            return False
    return True


def not_available(reading: Reading) -> bool:
    """Tell whether a reading failed because the workspace or token lacks a product feature."""
    status = getattr(reading.failure, "status", None)
    return bool(reading.endpoint.feature) and status in UNAVAILABLE
