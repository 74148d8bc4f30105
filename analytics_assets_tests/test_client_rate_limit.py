"""Rate limits as the client obeys them: slow where it must be, never fatal, never early."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from itertools import pairwise

import pytest

from analytics_assets.sandbox import Options, Reply, RequestInfo
from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.rate_limit import RequestLimiter
from analytics_assets_tests.faults import run_logged
from analytics_assets_tests.harness import Project, failure_of
from analytics_assets_tests.servers import GUARD, Lines, client, get, reply, serving

# What the API asks for.


def early(requests: list[RequestInfo]) -> list[RequestInfo]:
    """Return what came within the second after a refusal, except what was on its way by then."""
    refused = [info.arrived_at for info in requests if info.status == 429]
    return [
        info for info in requests if any(at + 0.5 < info.arrived_at < at + 0.95 for at in refused)
    ]


def test_one_request_a_second_is_slow_not_fatal(start: Callable[..., Project]) -> None:
    """Prevents that thirteen months cannot be loaded because every wait costs a retry."""
    project = start(Options(scale=0.05, rate_limit=60, burst=1))
    result, log = run_logged(project, "usage_api_calls_daily", api={"backoff_factor": 2})
    assert failure_of(result) == ""
    assert early(project.sandbox.requests) == []
    assert "before the next request" in log
    project.assert_equal(["usage_api_calls_daily"])


def test_a_limit_that_only_refusals_show_is_slow_not_fatal(start: Callable[..., Project]) -> None:
    """Prevents that all threads start together when a wait ends, and all but one are refused."""
    project = start(Options(scale=0.05))
    served: list[float] = []

    def one_a_second(info: RequestInfo) -> Reply | None:
        if served and info.arrived_at < served[-1] + 1:
            return Reply(429, b"{}", {"Retry-After": "1"})
        served.append(info.arrived_at)
        return None

    project.sandbox.intercept = one_a_second
    result = project.materialize("usage_api_calls_daily", api={"backoff_factor": 2})
    assert failure_of(result) == ""
    assert 429 in {info.status for info in project.sandbox.requests}
    assert early(project.sandbox.requests) == []
    project.assert_equal(["usage_api_calls_daily"])


@pytest.mark.parametrize("hint", [{"Retry_After": "1"}, {}], ids=["Retry-After", "msBeforeNext"])
def test_a_refusal_with_a_hint_costs_no_retry(hint: dict[str, str]) -> None:
    """Prevents that waiting one's turn uses up the retries that faults need."""
    left = [429, 429, 200]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, left.pop(0), b'{"errors":[{"data":{"msBeforeNext":30}}]}', **hint)

    with serving(answer) as url, client(url, retries=0) as session:
        assert session.fetch(get(session, url)).waited > 0
    assert left == []


def test_a_refusal_without_a_hint_costs_a_retry() -> None:
    """Prevents that an API which refuses for ever is asked for ever."""
    seen: list[float] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(time.monotonic())
        reply(handler, 429)

    with (
        serving(answer) as url,
        client(url, retries=2) as session,
        pytest.raises(ResourceError, match="also after the retries") as raised,
    ):
        session.fetch(get(session, url))
    assert raised.value.status == 429
    assert len(seen) == 3


def test_waits_together_are_bounded() -> None:
    """Prevents that short waits without end add up to a run without end."""
    seen: list[float] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(time.monotonic())
        reply(handler, 429, Retry_After="1")

    with (
        serving(answer) as url,
        client(url, max_wait=2) as session,
        pytest.raises(ResourceError) as raised,
    ):
        session.fetch(get(session, url))
    assert str(raised.value) == (
        "the API asks to wait 1 s for its rate limit, after 2 s already, which is longer than"
        " max_wait (2 s); run later, or raise max_wait"
    )
    assert raised.value.status == 429
    assert raised.value.transient
    assert len(seen) == 3
    assert all(after - before > 0.95 for before, after in pairwise(seen))


@pytest.mark.parametrize("headers", [{"Retry_After": "0"}, {}], ids=["Retry-After", "msBeforeNext"])
def test_a_hint_of_zero_waits_for_the_back_off(headers: dict[str, str]) -> None:
    """Prevents that an API under load is asked again at once, as often as retries allow."""
    seen: list[float] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(time.monotonic())
        reply(handler, 429, b'{"errors":[{"data":{"msBeforeNext":0}}]}', **headers)

    with (
        serving(answer) as url,
        client(url, retries=2, backoff_factor=0.3) as session,
        pytest.raises(ResourceError, match="also after the retries"),
    ):
        session.fetch(get(session, url))
    assert len(seen) == 3
    first, second = (after - before for before, after in pairwise(seen))
    assert first > 0.28
    assert second > 0.58


class Crowd:
    """Counts the requests that are under way in a server at the same time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = 0
        self.most = 0

    def __enter__(self) -> None:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.now -= 1


def fetch_all(url: str, threads: int, requests: int, **settings: float) -> list[str]:
    """Send requests through one session from many threads; return its log."""
    log = Lines()
    with client(url, log, **settings) as session, ThreadPoolExecutor(threads) as pool:
        waiting = [pool.submit(session.fetch, get(session, url)) for _ in range(requests)]
        for each in waiting:
            assert each.result(GUARD).body == {}
    return log.lines


def test_requests_under_way_are_bounded() -> None:
    """Prevents that several readers with threads of their own exceed ``parallel_requests``."""
    crowd = Crowd()
    together = threading.Barrier(3, timeout=GUARD)  # breaks unless three are under way at once

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with crowd:
            together.wait()
        reply(handler)

    with serving(answer) as url:
        fetch_all(url, threads=8, requests=24, parallel_requests=3)
    assert crowd.most == 3


def test_one_request_tries_first_when_a_wait_ends() -> None:
    """Prevents a stampede at the moment that the API names; then it opens step by step."""
    crowd = Crowd()
    all_there = threading.Barrier(8, timeout=GUARD)
    company = threading.Event()
    refused: list[float] = []
    served: list[int] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        with crowd:
            with crowd.lock:
                number = len(refused)
                if number < 8:
                    refused.append(time.monotonic())
                else:
                    served.append(crowd.now)
                    first = len(served) == 1
            if number < 8:
                all_there.wait()
                reply(handler, 429, Retry_After="1")
                return
            if first:
                assert not company.wait(0.5)
            else:
                company.set()
        reply(handler)

    with serving(answer) as url:
        log = fetch_all(url, threads=8, requests=8, parallel_requests=8)
    assert len(served) == 8
    assert served[0] == 1
    assert max(served[:3]) <= 2
    assert len([line for line in log if line.startswith("Waiting 1.0 s")]) == 1


# What the documentation says of one list.


class Clock(threading.Event):
    """A clock that moves on when somebody waits."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        """Let the time pass at once."""
        self.now += timeout or 0.0
        return self.is_set()


def most_in_a_minute(times: list[float]) -> int:
    """Return the largest number of moments within any sixty seconds."""
    return max(sum(start <= moment < start + 60 for moment in times) for start in times)


@pytest.mark.unit
@pytest.mark.parametrize("limit", [1, 7, 200])
def test_a_list_stays_below_its_own_limit(limit: int) -> None:
    """Prevents that a burst at the end of one minute and one in the next exceed the limit."""
    clock, log, chance = Clock(), Lines(), random.Random(limit)  # noqa: S311 - nothing secret
    limiter = RequestLimiter(limit, clock)
    arrived: list[float] = []
    for _ in range(limit * 5):
        limiter.enter(clock, log)
        clock.now += chance.choice([0.0, 0.0, 0.2])
        arrived.append(clock.now)  # somewhere between the request and its answer
        clock.now += chance.random() * 0.05
        limiter.leave()
    assert most_in_a_minute(arrived) == limit
    assert arrived[-1] - arrived[0] < 60 * 5  # and no slower than need be


@pytest.mark.unit
def test_a_burst_up_to_the_limit_does_not_wait() -> None:
    """Prevents that requests are spread although the limit is far away."""
    clock, log = Clock(), Lines()
    limiter = RequestLimiter(200, clock)
    assert [limiter.enter(clock, log) for _ in range(200)] == [0.0] * 200
    assert log.lines == []


@pytest.mark.unit
def test_a_long_wait_is_announced_once() -> None:
    """Prevents a silent minute, and a line for each of many waiting threads."""
    clock, log = Clock(), Lines()
    limiter = RequestLimiter(10, clock)
    for _ in range(20):
        limiter.enter(clock, log)
        clock.now += 0.1
        limiter.leave()
    assert log.lines == [
        "Waiting 59.1 s before the next request: at most 10 of its kind are sent in a minute."
    ]


def test_a_stop_ends_the_wait_for_a_limit() -> None:
    """Prevents that a run which is to end waits out the minute."""
    log = Lines()
    limiter = RequestLimiter(1)
    with serving(reply) as url, client(url, log) as session, ThreadPoolExecutor(1) as pool:
        session.fetch(get(session, url), limiter)
        waiting = pool.submit(session.fetch, get(session, url), limiter)
        while not log.lines:
            assert not waiting.done()
            time.sleep(0.01)
        session.abort()
        with pytest.raises(ResourceError, match="the run was stopped"):
            waiting.result(GUARD)


def test_who_waits_for_a_limit_holds_up_nobody() -> None:
    """Prevents that a list with a limit of its own takes the places of all the others."""
    log = Lines()
    limiter = RequestLimiter(1)
    with (
        serving(reply) as url,
        client(url, log, parallel_requests=1) as session,
        ThreadPoolExecutor(1) as pool,
    ):
        session.fetch(get(session, url), limiter)
        waiting = pool.submit(session.fetch, get(session, url), limiter)
        while not log.lines:
            time.sleep(0.01)
        assert session.fetch(get(session, url)).body == {}
        assert not waiting.done()
        session.abort()


def test_a_retry_counts() -> None:
    """Prevents that faults make a list exceed its limit."""
    clock = Clock()
    limiter = RequestLimiter(2, clock)
    statuses = [500, 500, 200]

    def answer(handler: BaseHTTPRequestHandler) -> None:
        reply(handler, statuses.pop(0))

    with serving(answer) as url, client(url) as session:
        session.stop = clock
        assert session.fetch(get(session, url), limiter).waited > 59.0
    assert clock.now == 1060.0


# Which answers are worth a retry.


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504, 507, 520, 524, 599])
def test_a_transient_status_is_tried_again(status: int) -> None:
    """Prevents that one odd status of a gateway ends a run."""
    left = [status, 200]
    with (
        serving(lambda handler: reply(handler, left.pop(0))) as url,
        client(url, retries=1) as session,
    ):
        assert session.fetch(get(session, url)).body == {}


@pytest.mark.parametrize("status", [400, 404, 409, 418, 501, 505])
def test_any_other_status_is_not(status: int) -> None:
    """Prevents that what can never succeed is asked for again and again."""
    seen: list[str] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.path)
        reply(handler, status)

    with (
        serving(answer) as url,
        client(url) as session,
        pytest.raises(ResourceError, match=f"HTTP {status}") as raised,
    ):
        session.fetch(get(session, url))
    assert len(seen) == 1
    assert not raised.value.transient


def test_an_odd_gateway_status_does_not_end_a_run(loaded: Project) -> None:
    """Prevents that one 520 among many answers fails an asset."""
    odd = [520, 408]
    loaded.sandbox.intercept = lambda info: (
        Reply(odd.pop()) if info.path == "/labels" and odd else None
    )
    assert loaded.materialize("labels").success
    assert odd == []
