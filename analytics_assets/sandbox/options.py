"""How the sandbox behaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Hint = Literal["header", "body", "reset"]
Order = Literal["asc", "desc"]
Bounds = Literal["inclusive", "exclusive"]


@dataclass(frozen=True)
class Options:
    """How the sandbox behaves; the defaults are a healthy service without a rate limit.

    Attributes:
        seed: decides every record of the workspace.
        scale: multiplies what the workspace owns.
        counts: number of records of single lists.
        latency: seconds every answer is held back.
        page_limit: the largest page size that is accepted.
        rate_limit: requests per minute, ``None`` for no limit.
        burst: requests that may come at once; a minute's worth when not given.
        retry_after: where a refusal says how long to wait: the ``Retry-After`` header (with the
            milliseconds in the body, too), the body alone, or the reset header alone.
        rate_limits: whether the lower rate limits of single lists hold, each counted by itself and
            on top of ``rate_limit``.
        fault_rate: share of requests answered by a random fault.
        token: the only token accepted; invented when not given.
        audit_order: whether audit events start with the oldest or the newest.
        audit_bounds: whether events exactly at the start or end of a window are in it.
        audit_fractions: whether audit times carry milliseconds.
        features_off: names of lists this workspace has no right to.
        features_off_status: the status these answer with.
    """

    seed: int = 7
    scale: float = 1.0
    counts: Mapping[str, int] | None = None
    latency: float = 0.0
    page_limit: int = 1000
    rate_limit: float | None = None
    burst: int | None = None
    retry_after: Hint = "header"
    rate_limits: bool = False
    fault_rate: float = 0.0
    token: str | None = None
    audit_order: Order = "asc"
    audit_bounds: Bounds = "inclusive"
    audit_fractions: bool = False
    features_off: frozenset[str] = frozenset()
    features_off_status: int = 403
