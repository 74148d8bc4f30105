"""Work that goes on while what it has brought so far is dealt with elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from analytics_assets.segment.spans import loading, span

Result = TypeVar("Result")


def ahead(results: Iterator[Result], end: Callable[[], None]) -> Generator[Result]:
    """Yield what ``results`` yields; the next one is worked on meanwhile, in a thread of its own.

    Args:
        results: nothing of it is ever asked for twice at a time, nor after it has raised.
        end: called if no more is wanted while something is under way, so that it ends soon; that
            is awaited, however often the waiting is interrupted: it may hold locks.
    """
    pool = ThreadPoolExecutor(1, thread_name_prefix="load", initializer=loading)
    coming = pool.submit(next, results, None)
    try:
        while (result := _waited_for(coming)) is not None:
            coming = pool.submit(next, results, None)
            yield result
    finally:
        _await(coming, end)
        pool.shutdown()


def _await(coming: Future[Result], end: Callable[[], None]) -> None:
    interrupted: BaseException | None = None
    while not coming.done():
        try:
            end()
            wait([coming])
        except BaseException as error:  # noqa: BLE001 - raised when nothing is under way any more
            interrupted = error
    if interrupted:
        raise interrupted


def _waited_for(coming: Future[Result]) -> Result:
    with span("wait"):
        return coming.result()
