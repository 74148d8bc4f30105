"""Signals end a run's waiting at once, whoever handles them."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_ENDING: Final = frozenset({signal.SIGINT, signal.SIGTERM})


@contextmanager
def on_interrupt(end: Callable[[], None]) -> Iterator[None]:
    """Call ``end`` in a thread of its own when SIGINT or SIGTERM arrives within the block.

    The interpreter waits for all threads before a process ends: for as long as a time-out of a
    request may last, unless the requests are given up. Whoever handles the signal does so as if
    this was not here. A handler of our own would be lost: Dagster puts its handlers in place anew
    for each step of an operation, and between two steps nothing of ours is on the stack.

    Outside the main thread, where no signal arrives, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    receiver, sender = socket.socketpair()
    with receiver, sender:
        sender.setblocking(False)
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        watcher = threading.Thread(target=_watch, args=(receiver, end), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            sender.shutdown(socket.SHUT_RDWR)
            watcher.join()


def _watch(receiver: socket.socket, end: Callable[[], None]) -> None:
    while numbers := receiver.recv(64):
        if _ENDING.intersection(numbers):
            end()
