"""Work that goes on while what it has brought so far is dealt with elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from analytics_assets.segment.spans import loading, span

Result = TypeVar("Result")


def ahead(results: Iterator[Result], end: Callable[[], None]) -> Generator[Result]:
    """Yield what ``results`` yields; the next one is worked on meanwhile, in a thread of its own.

    Args:
        results: nothing of it is ever asked for twice at a time, nor after it has raised.
        end: called if no more is wanted, so that what is under way ends soon; that is awaited.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="load", initializer=loading) as pool:
        try:
            coming = pool.submit(next, results, None)
            while (result := _waited_for(coming)) is not None:
                coming = pool.submit(next, results, None)
                yield result
        except BaseException:  # an interrupt, or the generator is closed
            end()
            raise


def _waited_for(coming: Future[Result]) -> Result:
    with span("wait"):
        return coming.result()
