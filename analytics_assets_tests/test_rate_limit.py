"""The gate that all requests of a run pass: what it holds back, for how long, and what it says."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest
import requests

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.rate_limit import RateLimitGate, Turn
from analytics_assets.segment.responses import Answer

pytestmark = pytest.mark.unit
LOG = logging.getLogger(__name__)
A_WHILE = 0.2
"""Seconds in which a request that nothing holds back has long passed."""
LONGEST = 300
"""The longest wait for the end of a window that a run puts up with, in seconds."""
PATIENCE = 60
"""Seconds after which a test that hangs is given up."""


@pytest.fixture
def stop() -> threading.Event:
    """Return what ends all waiting once it is set."""
    return threading.Event()


@pytest.fixture
def gate(stop: threading.Event, caplog: pytest.LogCaptureFixture) -> RateLimitGate:
    """Return an open gate, whose log is kept."""
    caplog.set_level(logging.INFO)
    return RateLimitGate(LOG, stop, parallel=16, max_wait=LONGEST)


def end(gate: RateLimitGate, turn: Turn, left: int | None, reset_in: float | None = None) -> None:
    """End a request whose answer says how many are left, and when there are more."""
    response = requests.Response()
    response.status_code = 200
    if left is not None:
        response.headers["X-RateLimit-Remaining"] = str(left)
    if reset_in is not None:
        now = time.time() // 1
        response.headers["Date"] = formatdate(now, usegmt=True)
        response.headers["X-RateLimit-Reset"] = formatdate(now + reset_in, usegmt=True)
    turn.answer = Answer(response, b"")
    gate.leave(turn)


def enter_beside(gate: RateLimitGate) -> tuple[threading.Thread, threading.Event]:
    """Enter in a thread of its own; return it, and what is set once it has passed."""
    passed = threading.Event()

    def enter() -> None:
        gate.enter()
        passed.set()

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    return thread, passed


@pytest.mark.parametrize("waits", [[0.2], [0.3, 0.01], [0.01, 0.3], [0.1, 0.3, 0.2]])
def test_the_longest_wait_counts(gate: RateLimitGate, waits: list[float]) -> None:
    """Prevents a request that comes too early because a later answer asked for a shorter wait."""
    for seconds in waits:
        gate.close_for(seconds, "told")
    assert gate.enter().waited >= max(waits) - 0.02


def test_a_wait_that_several_threads_meet_is_told_once(
    gate: RateLimitGate, caplog: pytest.LogCaptureFixture
) -> None:
    """Prevents a line of log for each thread, and silence about a wait that becomes longer."""
    for _ in range(5):
        gate.close_for(60, "rate limit reached at /sources")
    gate.close_for(600, "rate limit reached at /labels")
    assert caplog.messages == [
        "Waiting 60.0 s before the next request: rate limit reached at /sources.",
        "Waiting 600.0 s before the next request: rate limit reached at /labels.",
    ]


def test_an_empty_window_is_waited_out(
    gate: RateLimitGate, caplog: pytest.LogCaptureFixture
) -> None:
    """Prevents a request that is bound to be refused: the last answer said that none is left."""
    end(gate, gate.enter(), 0, 1)
    assert gate.enter().waited >= 0.9
    assert "no request is left in this rate-limit window" in caplog.text


def test_a_window_that_ends_too_late_is_not_waited_for(gate: RateLimitGate) -> None:
    """Prevents that a run hangs for hours: the API refuses, and the refusal names the wait."""
    end(gate, gate.enter(), 0, LONGEST + 1)
    _, passed = enter_beside(gate)
    assert passed.wait(PATIENCE)


@pytest.mark.parametrize("left", [0, 1])
def test_the_last_request_of_a_window_is_sent_alone(gate: RateLimitGate, left: int) -> None:
    """Prevents threads that race for the last request; one may always ask, or none ever would."""
    end(gate, gate.enter(), left)
    turn = gate.enter()
    thread, passed = enter_beside(gate)
    assert not passed.wait(A_WHILE)
    end(gate, turn, left)
    assert passed.wait(PATIENCE)
    thread.join(PATIENCE)


def test_an_answer_that_says_nothing_lifts_the_limit(gate: RateLimitGate) -> None:
    """Prevents that a run stays slow for good because of one answer early on."""
    for left in (0, None):
        end(gate, gate.enter(), left)
    for _ in range(3):
        _, passed = enter_beside(gate)
        assert passed.wait(PATIENCE)


@pytest.mark.parametrize("left", [0, 1, 3])
def test_as_many_requests_are_under_way_as_are_left(gate: RateLimitGate, left: int) -> None:
    """Prevents that many threads overrun the limit, or that one stands where three may pass."""
    allowed = max(left, 1)
    together = threading.Barrier(allowed)
    under_way: set[int] = set()
    seen: list[int] = []

    def ask(number: int) -> None:
        turn = gate.enter()
        under_way.add(number)
        seen.append(len(under_way))
        together.wait(PATIENCE)
        under_way.remove(number)
        end(gate, turn, left)

    end(gate, gate.enter(), left)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8 * allowed)))
    assert max(seen) == allowed


def test_a_stop_ends_a_wait_and_lets_nobody_in(gate: RateLimitGate, stop: threading.Event) -> None:
    """Prevents that a stopped run waits for its rate limit to end, or sends one more request."""
    gate.close_for(3600, "told")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(gate.enter)
        stop.set()
        with pytest.raises(ResourceError, match="the run was stopped"):
            waiting.result(PATIENCE)
    with pytest.raises(ResourceError, match="the run was stopped"):
        gate.enter()
