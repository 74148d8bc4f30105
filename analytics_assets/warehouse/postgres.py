"""dlt's PostgreSQL destination with bounds: no statement, lock or server is waited for without end.

The time-outs are set after connecting, since poolers refuse or ignore what is set in the start-up
packet; dlt's own client resets them after an error, so they are set again.
"""

from __future__ import annotations

import contextvars
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, ClassVar, Final

import psycopg2
from dlt.common.destination import DestinationCapabilitiesContext
from dlt.common.destination.client import LoadJob
from dlt.common.destination.typing import PreparedTableSchema
from dlt.common.schema import Schema
from dlt.destinations import postgres
from dlt.destinations.exceptions import DatabaseTerminalException, DatabaseTransientException
from dlt.destinations.impl.postgres.configuration import (
    PostgresClientConfiguration,
    PostgresCredentials,
)
from dlt.destinations.impl.postgres.postgres import PostgresClient, PostgresParquetCopyJob
from dlt.destinations.impl.postgres.sql_client import Psycopg2SqlClient

from analytics_assets.warehouse.connections import CONNECTIONS
from analytics_assets.warehouse.faults import waited_in_vain
from analytics_assets.warehouse.settings import WarehouseSettings

_CAN_BE_IDLE: Final = 140000
"""First server version that ends sessions which are idle."""
_PROBES: Final = 4


def postgres_destination(settings: WarehouseSettings, **arguments: Any) -> postgres:
    """Return dlt's destination, with the time-outs of ``settings``."""

    class Client(_Client):
        warehouse = settings

    class Destination(_Postgres):
        bounded_client = Client

    return Destination(**arguments)


def server_name(credentials: PostgresCredentials) -> str:
    """Name the server, for people and for ``CONNECTIONS``."""
    return f"{credentials.host}:{credentials.port}"


def address(credentials: PostgresCredentials, settings: WarehouseSettings) -> str:
    """Return the address to connect to, with what finds out that a connection is dead."""
    return _bounded(credentials.copy(), settings).to_native_representation()


def _bounded(credentials: PostgresCredentials, settings: WarehouseSettings) -> PostgresCredentials:
    # an address of SQLAlchemy's kind names a driver, which libpq does not know
    credentials.drivername = "postgresql"  # type: ignore[misc]
    seconds = math.ceil(settings.server_timeout)
    credentials.connect_timeout = min(credentials.connect_timeout, max(2, seconds))
    probe = max(1, seconds // (_PROBES + 1))
    credentials.query = {
        "tcp_user_timeout": str(seconds * 1000),
        "keepalives": "1",
        "keepalives_idle": str(probe),
        "keepalives_interval": str(probe),
        "keepalives_count": str(_PROBES),
        **(credentials.query or {}),
    }
    return credentials


def _time_outs(settings: WarehouseSettings) -> list[str]:
    milliseconds = {
        "lock_timeout": settings.table_lock_timeout * 1000,
        "statement_timeout": settings.statement_timeout * 1000,
    }
    return [f"SET {name} = {math.ceil(value)}" for name, value in milliseconds.items()]


class _Postgres(postgres):
    """Without a constructor of its own: dlt tells by its arguments which ones have defaults."""

    bounded_client: ClassVar[type[PostgresClient]]

    @property
    def client_class(self) -> type[PostgresClient]:
        return self.bounded_client

    @property
    def destination_type(self) -> str:
        return "dlt.destinations.postgres"  # as in the state of any other pipeline


class _SqlClient(Psycopg2SqlClient):
    def __init__(self, dataset: str, staging: str, client: _Client) -> None:
        super().__init__(dataset, staging, client.config.credentials, client.capabilities)
        self._settings = client.warehouse
        self._server = server_name(self.credentials)

    def open_connection(self) -> Any:
        CONNECTIONS.refuse(self._server)
        connection = super().open_connection()
        CONNECTIONS.add(self._server, connection)
        self._set_time_outs()
        return connection

    @contextmanager
    def execute_query(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            with super().execute_query(query, *args, **kwargs) as cursor:
                yield cursor
        except DatabaseTransientException as error:
            with suppress(psycopg2.Error):
                self._set_time_outs()
            if waited_in_vain(error):  # dlt would try five times
                raise DatabaseTerminalException(error.dbapi_exception) from error
            raise

    def _set_time_outs(self) -> None:
        statements = _time_outs(self._settings)
        if self.native_connection.server_version >= _CAN_BE_IDLE:
            # while dlt copies rows over another connection, this one waits for it
            statements.append("SET idle_session_timeout = 0")
        with self.native_connection.cursor() as cursor:
            cursor.execute("; ".join(statements))


class _Client(PostgresClient):
    warehouse: ClassVar[WarehouseSettings]

    def __init__(
        self,
        schema: Schema,
        config: PostgresClientConfiguration,
        capabilities: DestinationCapabilitiesContext,
    ) -> None:
        config.credentials = _bounded(config.credentials, self.warehouse)
        super().__init__(schema, config, capabilities)
        plain = self.sql_client
        self.sql_client = _SqlClient(plain.dataset_name, plain.staging_dataset_name, self)

    def create_load_job(
        self, table: PreparedTableSchema, file_path: str, load_id: str, restore: bool = False
    ) -> LoadJob:
        job = super().create_load_job(table, file_path, load_id, restore)
        return _CopyJob(file_path, self) if isinstance(job, PostgresParquetCopyJob) else job


class _CopyJob(PostgresParquetCopyJob):
    """Copies a file by way of ADBC, in a thread that can be left alone with a silent server."""

    def __init__(self, file_path: str, client: _Client) -> None:
        super().__init__(file_path)
        self._settings = client.warehouse
        self._server = server_name(client.config.credentials)

    def run(self) -> None:
        done: Future[None] = Future()
        CONNECTIONS.add(self._server, done)
        work = partial(contextvars.copy_context().run, super().run)
        threading.Thread(target=_settle, args=(done, work), daemon=True).start()
        try:
            done.result()
        except Exception as error:
            if waited_in_vain(error):  # dlt would try five times
                raise DatabaseTerminalException(error) from error
            raise

    def _connect(self) -> Any:
        connection = super()._connect()
        with connection.cursor() as cursor:
            for statement in _time_outs(self._settings):
                cursor.execute(statement)
        return connection


def _settle(done: Future[None], work: Callable[[], None]) -> None:
    try:
        work()
    except BaseException as error:  # noqa: BLE001 - whatever it is, the job that waits raises it
        with suppress(InvalidStateError):
            done.set_exception(error)
        return
    with suppress(InvalidStateError):
        done.set_result(None)
