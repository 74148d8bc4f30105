"""What an error of the destination means: why, and whether the same may well succeed later.

PostgreSQL tells by the SQLSTATE of a statement; of a connection that was not made there is only the
text, and other drivers have their own kinds. What nobody knows is taken for a setting before the
first request, and for final after it.
"""

from __future__ import annotations

import re
from typing import Final

from dlt.common.exceptions import SignalReceivedException

from analytics_assets.segment.errors import (
    AnalyticsError,
    DestinationBusy,
    DestinationUnreachable,
    ResourceError,
    SettingError,
    causes,
)
from analytics_assets.segment.foreign_text import foreign_text, root_message
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.stopping import TOLD

LOCK_NOT_AVAILABLE: Final = "55P03"
STATEMENT_TIMEOUT: Final = "57014"
_AWAY_STATES: Final = ("08", "57P", "53300")
"""Lost connections, servers that start or stop, and too many clients."""
_TRANSIENT_STATES: Final = (LOCK_NOT_AVAILABLE, STATEMENT_TIMEOUT, "40", "53")
"""Besides: locks, time-outs, serialization failures and deadlocks, full disks and memory."""
_AWAY: Final = re.compile(
    "connection refused|connection reset|timeout expired|timed out|no route to host"
    "|network is unreachable|server closed the connection|connection (?:is |already )?closed"
    "|connection has been closed|could not (?:receive|send) data|broken pipe|eof detected"
    "|ssl syscall|terminating connection|temporary failure in name resolution"
    "|is (?:starting up|shutting down)|recovery mode|not (?:yet )?accepting connections"
    "|too many (?:clients|connections)|remaining connection slots",
    re.IGNORECASE,
)
_AWAY_KINDS: Final = (
    ConnectionError,
    TimeoutError,
    DestinationUnreachable,
    SignalReceivedException,  # dlt was told to stop
)


def is_away(error: BaseException) -> bool:
    """Tell whether the destination cannot be asked just now, whatever the question."""
    chain = list(causes(error))
    if states := [state for each in chain if (state := _state(each))]:
        return any(state.startswith(_AWAY_STATES) for state in states)
    return any(isinstance(each, _AWAY_KINDS) or _AWAY.search(str(each)) for each in chain)


def waited_in_vain(error: BaseException) -> bool:
    """Tell whether another session's lock, or a statement of its own length, was waited for."""
    states = {_state(each) for each in causes(error)}
    return not states.isdisjoint((LOCK_NOT_AVAILABLE, STATEMENT_TIMEOUT))


def connection_error(error: BaseException, settings: WarehouseSettings) -> AnalyticsError:
    """Return the error of a connection that could not be made."""
    if isinstance(error, AnalyticsError):
        return error
    reason = foreign_text(str(error)) or type(error).__name__
    text = f"The destination {settings.destination!r} cannot be reached ({reason})"
    if is_away(error):
        return DestinationUnreachable(f"{text}; the same may well succeed later.")
    return SettingError(f"{text}; check its credentials in dlt's configuration.")


def question_error(error: BaseException, settings: WarehouseSettings) -> AnalyticsError:
    """Return the error of a question to the destination before anything was read."""
    text = f"The destination {settings.destination!r} did not answer: {reason(error, settings)}."
    return DestinationBusy(text) if waited_in_vain(error) else AnalyticsError(text)


def load_error(error: BaseException, settings: WarehouseSettings) -> ResourceError:
    """Return the error of a table whose rows the destination did not take."""
    told = reason(error, settings)
    return ResourceError(
        f"the destination did not take its rows: {told}; the table stays as it was",
        transient=is_away(error) or any(_transient(each) for each in causes(error)),
    )


def reason(error: BaseException, settings: WarehouseSettings) -> str:
    """Say in the destination's own words, or ours, what has gone wrong."""
    chain = list(causes(error))
    if known := next((each for each in chain if isinstance(each, AnalyticsError)), None):
        return str(known).rstrip(".")
    states = {_state(each) for each in chain}
    if LOCK_NOT_AVAILABLE in states:
        seconds = f"{settings.table_lock_timeout:g} s"
        return f"another session holds a lock on a table it needs, for more than {seconds}"
    if STATEMENT_TIMEOUT in states:
        return f"a statement took longer than the {settings.statement_timeout:g} s it may take"
    if any(isinstance(each, SignalReceivedException) for each in chain):
        return TOLD.rstrip(".")
    told = root_message(error)
    if told.startswith("Out of Memory"):
        return "DuckDB ran out of memory; raise duckdb_memory_mb (ANALYTICS_DUCKDB_MEMORY_MB)"
    return told


def _transient(error: BaseException) -> bool:
    return (_state(error) or "").startswith(_TRANSIENT_STATES)


def _state(error: BaseException) -> str | None:
    """Return the SQLSTATE, as psycopg2 and ADBC give it."""
    return getattr(error, "pgcode", None) or getattr(error, "sqlstate", None)
