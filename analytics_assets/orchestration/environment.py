"""The ``ANALYTICS_`` variables: which there are, and which one a misspelt one was meant to be."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import product
from typing import Final

from analytics_assets.orchestration.deployment import JOBS

PREFIX: Final = "ANALYTICS_"
KNOWN: Final = frozenset(
    {
        *(f"{PREFIX}CRON_{group.upper()}" for group in JOBS),
        "ANALYTICS_API_BASE_URL",
        "ANALYTICS_API_TOKEN",
        "ANALYTICS_DATASET",
        "ANALYTICS_DESTINATION",
        "ANALYTICS_DUCKDB_MEMORY_MB",
        "ANALYTICS_DUCKDB_PATH",
        "ANALYTICS_EXCLUDE",
        "ANALYTICS_FINGERPRINT_KEY",
        "ANALYTICS_FORGET_DAYS",
        "ANALYTICS_INACTIVE_DAYS",
        "ANALYTICS_OWNERS",
        "ANALYTICS_PLAN_API_CALLS",
        "ANALYTICS_PLAN_MTU",
        "ANALYTICS_REDACT_SECRETS",
        "ANALYTICS_SENSOR_SECONDS",
        "ANALYTICS_SERVER_TIMEOUT",
        "ANALYTICS_SILENT_DAYS",
        "ANALYTICS_SPIKE_FACTOR",
        "ANALYTICS_STATEMENT_TIMEOUT",
        "ANALYTICS_TABLE_FORMAT",
        "ANALYTICS_TABLE_LOCK_TIMEOUT",
        "ANALYTICS_USAGE_START",
    }
)
SLIPS: Final = 2
"""Letters that differ at most: wrong, missing or too many."""


def misspelt_variables() -> Iterator[str]:
    """Yield a sentence for each variable that is set, unknown, and like a known one."""
    for name in sorted(os.environ):
        if not name.startswith(PREFIX[:-SLIPS]) or name in KNOWN:
            continue
        meant = min(KNOWN, key=lambda known: (slips(name, known), known))
        if slips(name, meant) <= SLIPS:
            yield f"{name} is set, which nothing reads; did you mean {meant}?"


def slips(left: str, right: str) -> int:
    """Return how many letters have to be changed, added or removed to make one text the other."""
    counts = {(i, 0): i for i in range(len(left) + 1)}
    counts |= {(0, j): j for j in range(len(right) + 1)}
    for i, j in product(range(1, len(left) + 1), range(1, len(right) + 1)):
        wrong = counts[i - 1, j - 1] + (left[i - 1] != right[j - 1])
        counts[i, j] = min(wrong, counts[i - 1, j] + 1, counts[i, j - 1] + 1)
    return counts[len(left), len(right)]
