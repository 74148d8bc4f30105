"""A connection to PostgreSQL of our own, each of whose waits has an end."""

from __future__ import annotations

import selectors
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg2
from dlt.pipeline.pipeline import Pipeline
from psycopg2.extensions import POLL_OK, POLL_READ

from analytics_assets.segment.errors import DestinationSilent
from analytics_assets.warehouse.connections import CONNECTIONS
from analytics_assets.warehouse.faults import connection_error, is_away, question_error
from analytics_assets.warehouse.postgres import address, server_name
from analytics_assets.warehouse.settings import WarehouseSettings


@dataclass(frozen=True)
class Server:
    """A PostgreSQL server, and how long to wait for it."""

    name: str
    address: str
    settings: WarehouseSettings

    @classmethod
    def of(cls, settings: WarehouseSettings, pipeline: Pipeline) -> Server:
        """Take the server from dlt's configuration."""
        credentials: Any = pipeline.destination_client().config.credentials
        return cls(server_name(credentials), address(credentials, settings), settings)

    def silence(self) -> DestinationSilent:
        """Return the error of a server that does not answer."""
        return DestinationSilent(
            f"The PostgreSQL server at {self.name} has not answered for"
            f" {self.settings.server_timeout:g} s (server_timeout)."
        )


class Session:
    """Asks one question at a time, from any thread.

    A synchronous connection would wait for a frozen server without end, deaf to signals.

    Args:
        server: which to connect to.

    Raises:
        SettingError: the address, user, password or database is wrong.
        DestinationUnreachable: the server is away, starting or silent.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._mutex = threading.Lock()
        try:
            self._connect()
        except psycopg2.Error as error:
            raise connection_error(error, server.settings) from None
        CONNECTIONS.heard(server.name)

    def ask(self, sql: str, *parameters: Any) -> Sequence[tuple[Any, ...]]:
        """Return the rows of a query.

        Raises:
            DestinationUnreachable: the server or this session is gone, or does not answer.
            DestinationBusy: another session holds a lock on the table.
            UndefinedTable: there is no such table.
        """
        with self._mutex:
            CONNECTIONS.refuse(self._server.name)
            try:
                return self._execute(sql, parameters)
            except psycopg2.errors.UndefinedTable:
                raise
            except psycopg2.Error as error:
                CONNECTIONS.refuse(self._server.name)
                judge = connection_error if is_away(error) else question_error
                raise judge(error, self._server.settings) from None

    def close(self) -> None:
        """End the session, and with it its locks."""
        with suppress(psycopg2.Error):
            self._connection.close()

    def _connect(self) -> None:
        self._connection = psycopg2.connect(self._server.address, async_=1)
        CONNECTIONS.add(self._server.name, self._connection, try_again=True)
        self._wait()
        # a lock on a table must not pass for a server that does not answer
        milliseconds = self._server.settings.server_timeout * 500
        self._execute("SELECT set_config('lock_timeout', %s, false)", (f"{milliseconds:.0f}",))

    def _execute(self, sql: str, parameters: tuple[Any, ...]) -> Sequence[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            self._wait()
            return list(cursor.fetchall())

    def _wait(self) -> None:
        end = time.monotonic() + self._server.settings.server_timeout
        while (state := self._connection.poll()) != POLL_OK:
            event = selectors.EVENT_READ if state == POLL_READ else selectors.EVENT_WRITE
            left = end - time.monotonic()
            with selectors.DefaultSelector() as selector:
                selector.register(self._connection.fileno(), event)
                if left <= 0 or not selector.select(left):
                    raise self._silence()

    def _silence(self) -> DestinationSilent:
        """Give the server up: whoever else waits for it is told."""
        self.close()
        reason = self._server.silence()
        CONNECTIONS.silent(self._server.name, reason)
        return reason
