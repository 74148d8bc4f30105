"""What the project sets of dlt's own configuration; all else is left to the deployment."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import dlt

POLL_SECONDS: Final = 0.002
"""How long dlt looks away while nothing arrives: its own 10 ms add up to half a second a run."""


def configure_dlt(parallel_requests: int) -> None:
    """Set what extraction and load rely on, for this process.

    Args:
        parallel_requests: requests under way at the same time.
    """
    # a chain that waits for a rate limit of its own holds a worker: there are enough for all others
    workers = parallel_requests * 2
    # not in dlt.config: once that holds anything, dlt looks there for each of thousands of settings
    # and asks each time whether it is a secret
    own = dlt.secrets
    own["extract.workers"] = workers
    own["extract.max_parallel_items"] = workers
    own["extract.futures_poll_interval"] = POLL_SECONDS
    own["runtime.intercept_signals"] = False  # whoever started the run handles them
    own["normalize.parquet_normalizer.add_dlt_load_id"] = True  # mark_deleted needs it


@contextmanager
def only_errors_logged() -> Iterator[None]:
    """Let dlt log errors only for the length of a ``with`` block.

    It warns in each extraction, once a table, that JSON columns travel as text. That is what is
    meant, and no hint or Arrow type says so: Arrow's nested types become a type of their own.
    """
    logger = logging.getLogger("dlt")
    level = logger.level
    logger.setLevel(max(level, logging.ERROR))
    try:
        yield
    finally:
        logger.setLevel(level)
