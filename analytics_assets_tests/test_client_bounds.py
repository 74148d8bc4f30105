"""Answers that would never end, or never fit: each is given up with one sentence."""

from __future__ import annotations

import gzip
import threading
import time
import tracemalloc
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import orjson
import pytest

from analytics_assets.sandbox import Options, Reply, Sandbox
from analytics_assets.segment.audit_trail import new_events
from analytics_assets.segment.errors import AnalyticsError, ResourceError
from analytics_assets.segment.settings import ApiSettings
from analytics_assets_tests.conftest import SMALL, project_for
from analytics_assets_tests.faults import everything
from analytics_assets_tests.harness import Project, failure_of
from analytics_assets_tests.servers import GUARD, Lines, client, get, reply, serving
from analytics_assets_tests.test_bounds import MEGABYTE, peak_memory

HEADS = {
    "body": b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n",
    "chunked body": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n",
    "head": b"HTTP/1.1 200 OK\r\nX-Long: ",
}


class Dribble:
    """Answers with a beginning, and then with a byte now and then, until the client hangs up."""

    def __init__(self, head: bytes) -> None:
        self._head = head
        self.hung_up = threading.Event()

    def __call__(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer."""
        with suppress(OSError):
            handler.wfile.write(self._head)
            give_up = time.monotonic() + GUARD
            while time.monotonic() < give_up:
                handler.wfile.write(b" ")
                time.sleep(0.05)
            return
        self.hung_up.set()


@pytest.mark.parametrize("place", HEADS)
def test_an_answer_that_dribbles_is_given_up(place: str) -> None:
    """Prevents that a byte now and then keeps a run going for ever."""
    dribble = Dribble(HEADS[place])
    with (
        serving(dribble) as url,
        client(url, timeout=0.5, answer_timeout=1, retries=0) as session,
        pytest.raises(ResourceError) as raised,
    ):
        session.fetch(get(session, url))
    assert "timed out: the answer did not end within 1 s; check" in str(raised.value)
    assert raised.value.transient
    assert dribble.hung_up.wait(GUARD)


def test_an_answer_that_dribbles_costs_its_asset_alone(loaded: Project) -> None:
    """Prevents that a time-out of a second is a second for each byte."""
    before = everything(loaded, "labels")
    dribble, [workspace] = Dribble(HEADS["body"]), loaded.sandbox.served("workspace")

    def answer(handler: BaseHTTPRequestHandler) -> None:
        if handler.path == "/":
            reply(handler, body=orjson.dumps({"data": {"workspace": workspace}}))
        else:
            dribble(handler)

    with serving(answer) as url:
        loaded.env["ANALYTICS_API_BASE_URL"] = url
        result = loaded.materialize("labels", api={"timeout": 0.2, "retries": 1})
    message = failure_of(result)
    assert "labels (GET /labels): the connection to 127.0.0.1" in message
    assert "timed out: the answer did not end within 1 s, also after 1 retries" in message
    assert everything(loaded, "labels") == before


def test_the_sensor_gives_up_an_answer_that_dribbles() -> None:
    """Prevents that a look at the audit trail blocks the daemon's thread."""
    with serving(Dribble(HEADS["head"])) as url:
        settings = ApiSettings(url, "a-token", answer_timeout=0.5, backoff_factor=0)
        with pytest.raises(AnalyticsError, match="the answer did not end within"):
            new_events(settings, None, Lines())


def test_a_connection_is_used_again_with_time_to_spare() -> None:
    """Prevents that the second answer on a connection has only what the first one left."""
    ports: set[int] = set()

    def answer(handler: BaseHTTPRequestHandler) -> None:
        ports.add(handler.client_address[1])
        time.sleep(1)
        reply(handler)

    with serving(answer) as url, client(url, answer_timeout=3, retries=0) as session:
        for _ in range(4):
            assert session.fetch(get(session, url)).body == {}
    assert len(ports) == 1


def bomb(megabytes: int) -> bytes:
    """Pack blanks so that they unpack to so many MB: in members, as gzip allows."""
    return gzip.compress(b" " * MEGABYTE) * megabytes


@pytest.mark.parametrize(
    "packed", [bomb(1000), gzip.compress(bytes(200 * MEGABYTE))], ids=["members", "one stream"]
)
def test_unpacking_ends_at_the_limit(packed: bytes) -> None:
    """Prevents that a small answer unpacks to more than memory holds."""
    with (
        serving(lambda handler: reply(handler, 200, packed, Content_Encoding="gzip")) as url,
        client(url, max_answer_bytes=16 * MEGABYTE) as session,
    ):
        tracemalloc.start()
        with pytest.raises(ResourceError) as raised:
            session.fetch(get(session, url))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert str(raised.value) == (
        "the answer is larger than 16 MB, unpacked; ask for smaller pages (page_size), or raise"
        " max_answer_mb"
    )
    assert peak < 60 * MEGABYTE


def test_a_run_survives_an_answer_of_gigabytes(tmp_path: Path) -> None:
    """Prevents that 2 MB on the wire take the machine down, and the other assets with it."""
    packed = bomb(3000)
    with Sandbox(Options(scale=SMALL)) as sandbox:
        project = project_for(sandbox, tmp_path)
        sandbox.intercept = lambda info: (
            Reply(body=packed, headers={"Content-Encoding": "gzip"})
            if info.path == "/labels"
            else None
        )
        words = project.words("key:labels or key:roles")
        code, peak, log = peak_memory(words, project.env, tmp_path)
        assert code != 0
        assert "labels (GET /labels): the answer is larger than 256 MB, unpacked" in log
        assert sandbox.count("/labels") == 1
        project.assert_equal(["roles"])
    assert peak < 900 * MEGABYTE, f"{peak / MEGABYTE:.0f} MB"
