"""What a run is told: how to reach the API, and what may differ from run to run.

Plain values, so that definitions can name them without importing what a run needs.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


class Log(Protocol):
    """The two calls of a logger that the loader uses; Dagster's ``context.log`` has them."""

    def info(self, msg: str, /) -> None:
        """Log what is going on."""

    def warning(self, msg: str, /) -> None:
        """Log what a person should look at, although the run goes on."""


@runtime_checkable
class TellsProgress(Protocol):
    """What a log has in addition that has a place of its own for progress."""

    def progress(self, summary: str, details: str, /) -> None:
        """Tell how far a run is, in a few words and in full."""


@dataclass(frozen=True)
class ApiSettings:
    """How to reach the API.

    Attributes:
        base_url: scheme and host, without a path after it.
        token: bearer token; not part of the representation.
        page_size: records asked for per page, 1 to 1000.
        timeout: seconds to connect and to wait for bytes.
        answer_timeout: seconds from a request to the end of its answer.
        max_answer_bytes: size of an answer, unpacked, that is not exceeded.
        retries: how often a request is sent again after a transient fault.
        backoff_factor: the n-th retry waits ``backoff_factor * 2 ** (n - 1)`` seconds.
        max_wait: longest that the API may hold a request back by naming a wait, in seconds, all its
            refusals together; beyond it the resource fails.
        parallel_requests: requests under way at the same time.
        redact: replace secrets by fingerprints.
        fingerprint_key: the team's own key of fingerprints, empty without one; not part of the
            representation.
        overlap_minutes: how far before the newest loaded audit event a run starts again.
        overlap_days: how far before the newest loaded day of volume a run starts again.
    """

    base_url: str
    token: str = field(repr=False)
    page_size: int = 1000
    timeout: float = 60.0
    answer_timeout: float = 300.0
    max_answer_bytes: int = 256 * 2**20
    retries: int = 3
    backoff_factor: float = 2.0
    max_wait: float = 300.0
    parallel_requests: int = 16
    redact: bool = True
    overlap_minutes: float = 15.0
    overlap_days: int = 2
    fingerprint_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class LoadOptions:
    """What may differ from run to run.

    Attributes:
        usage_start: ``YYYY-MM`` of the first month of usage, ``None`` for twelve months back.
        start_month: first month of usage and volume to reload, ``YYYY-MM``.
        end_month: last month of usage and volume to reload, ``YYYY-MM``.
        audit_start: day from which audit events are loaded again, ``YYYY-MM-DD``.
        expect_fewer_rows: accept lists that are empty or less than half of what they were.
    """

    usage_start: str | None = None
    start_month: str | None = None
    end_month: str | None = None
    audit_start: str | None = None
    expect_fewer_rows: bool = False


def is_loopback(host: str) -> bool:
    """Tell whether a name or address is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
