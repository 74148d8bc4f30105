"""Read the next group of a run while the one before it is loaded.

Pure dlt, no Dagster. Groups are loaded one after the other, and while one is, the API has nothing
to do: what the next group takes to read costs little then. It is planned first, by the thread that
runs the steps; only the reading is done aside. Nothing of this can fail a load: what cannot be read
ahead is read when its turn has come, and what fails is told then.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from analytics_assets.segment.settings import Log
from analytics_assets.segment.source import aborted_by_signals
from analytics_assets.segment.spans import span
from analytics_assets.warehouse.load import GroupLoad, LoadRequest


class ReadAhead:
    """The loads of one run, of which at most one is read ahead."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._ahead: _Ahead | None = None

    @contextmanager
    def loading(
        self, request: LoadRequest, following: LoadRequest | None, log: Log
    ) -> Iterator[GroupLoad]:
        """Give the load of ``request``, read and ready to load, and begin to read ``following``.

        Raises:
            AnalyticsError: what :meth:`GroupLoad.plan` and :meth:`GroupLoad.read` raise.
        """
        with self._read(request, log) as load:
            if following:
                self._ahead = self._begin(following, log)
            yield load

    def close(self) -> None:
        """Stop what is under way."""
        if self._ahead:
            self._ahead.cancel()
        self._pool.shutdown()

    def _read(self, request: LoadRequest, log: Log) -> GroupLoad:
        ahead, self._ahead = self._ahead, None
        if ahead and ahead.load.request != request:
            ahead.cancel()  # before another lock is waited for
            ahead = None
        with ExitStack() as on_error:
            load = on_error.enter_context(ahead.load if ahead else GroupLoad(request, log))
            if ahead:
                with span("read"):
                    ahead.wait(log)
            else:
                with span("plan"):
                    load.plan()
                with span("read"):
                    load.read()
            on_error.pop_all()
        return load

    def _begin(self, request: LoadRequest, log: Log) -> _Ahead | None:
        relay = _Relay(log)
        with ExitStack() as on_error:
            load = on_error.enter_context(GroupLoad(request, relay))
            try:
                with span("plan"):
                    load.plan(ahead=True)
            except Exception as error:  # noqa: BLE001 - its own turn will tell
                log.debug(f"The group {request.group} is not read ahead: {error}")
                return None
            on_error.pop_all()
        return _Ahead(load, relay, self._pool.submit(load.read))


@dataclass(frozen=True)
class _Ahead:
    load: GroupLoad
    relay: _Relay
    done: Future[None]

    def wait(self, log: Log) -> None:
        """Wait for the end of the reading, and raise what ended it."""
        self.relay.log = log
        with aborted_by_signals(self.load.session):
            try:
                self.done.result()
            except BaseException:
                self._stop()
                raise

    def cancel(self) -> None:
        self._stop()
        self.load.close()

    def _stop(self) -> None:
        self.load.session.abort()
        wait([self.done])


class _Relay:
    """Passes on to the log of the step that is under way."""

    def __init__(self, log: Log) -> None:
        self.log = log

    def debug(self, msg: str, /) -> None:
        self.log.debug(msg)

    def info(self, msg: str, /) -> None:
        self.log.info(msg)

    def warning(self, msg: str, /) -> None:
        self.log.warning(msg)
