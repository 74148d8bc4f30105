"""A PostgreSQL advisory lock that is watched for as long as it is held.

It ends with its session, and servers end sessions: after an idle time, or when they restart. So the
session is kept busy, and a lock that was lost meanwhile is taken again before anything is loaded.
The same watch finds out that a server is frozen, which ends all waiting for it.

Behind a pooler in transaction mode neither this lock nor any time-out holds.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

import psycopg2

from analytics_assets.segment.errors import (
    AnalyticsError,
    DestinationBusy,
    DestinationUnreachable,
)
from analytics_assets.segment.settings import Log
from analytics_assets.warehouse.session import Server, Session
from analytics_assets.warehouse.waiting import Waiting

BEAT_SECONDS: Final = 1.0


class AdvisoryLock:
    """A lock on the server, by a number.

    Args:
        server: where it is.
        key: the number.
        group: what it guards; ``None`` if it is held for a short time only.
    """

    def __init__(self, server: Server, key: int, group: str | None) -> None:
        self._server = server
        self._key = key
        self._group = group
        self._released = threading.Event()
        self._session = Session(server)

    def take(self, waiting: Waiting, why: str) -> None:
        """Wait for the lock, and watch it from then on.

        Raises:
            DestinationBusy: somebody else held it for too long.
            DestinationUnreachable: the server is gone or does not answer.
        """
        while not self._try(self._session):
            waiting.once_more(why)
        self._loaded = self._last_load(self._session)
        self._watch()

    def check(self, log: Log) -> None:
        """Make sure that the lock is held, and was all the time, as far as that matters.

        Raises:
            DestinationBusy: somebody else has it, or has loaded meanwhile.
            DestinationUnreachable: the server is gone or does not answer.
        """
        with suppress(DestinationUnreachable):
            self._session.ask("SELECT 1")
            return
        log.warning("The session that holds the lock of this run was lost; taking it again.")
        self._session.close()
        self._session = self._again(Waiting(self._server.settings.server_timeout, log))
        if self._last_load(self._session) != self._loaded:
            raise DestinationBusy("Another run has loaded the same while the lock was lost.")
        self._watch()

    def close(self) -> None:
        """Let go of the lock; never fails, since what was loaded is loaded."""
        self._released.set()
        with suppress(AnalyticsError):
            self._session.ask("SELECT pg_advisory_unlock(%s)", self._key)
        self._session.close()

    def _again(self, waiting: Waiting) -> Session:
        """Connect to a server that may be on its way back, and take the lock."""
        while True:
            try:
                session = Session(self._server)
                if self._try(session):
                    return session
                session.close()
                why = "another run has taken the lock that was lost"
            except DestinationUnreachable as error:
                why = str(error).rstrip(".")
            waiting.once_more(why)

    def _try(self, session: Session) -> bool:
        [(taken,)] = session.ask("SELECT pg_try_advisory_lock(%s)", self._key)
        return bool(taken)

    def _last_load(self, session: Session) -> object:
        if self._group is None:
            return None
        loads = f'"{self._server.settings.dataset}"._dlt_loads'
        try:
            return session.ask(
                f"SELECT max(load_id) FROM {loads} WHERE schema_name = %s", self._group
            )
        except psycopg2.errors.UndefinedTable:
            return None  # nothing has been loaded yet

    def _watch(self) -> None:
        threading.Thread(target=self._beat, args=(self._session,), daemon=True).start()

    def _beat(self, session: Session) -> None:
        while not self._released.wait(BEAT_SECONDS):
            try:
                session.ask("SELECT 1")
            except AnalyticsError:
                return  # it is noticed before the next load
