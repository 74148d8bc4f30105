"""The network as companies have it: proxies, certificates of their own, and what goes wrong there.

The proxy is a real one, and so is the TLS server; names under ``.test`` exist nowhere but there.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
import trustme

from analytics_assets.sandbox import Reply
from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets_tests.faults import run_logged
from analytics_assets_tests.harness import Project, environment, failure_of
from analytics_assets_tests.servers import client, get, reply, serving
from analytics_assets_tests.test_client_bounds import HEADS, Dribble

NAME = "segment.test"
CA_VARIABLES = frozenset({"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"})


@dataclass
class Proxy:
    """A proxy that knows where names lead, and remembers what it was asked for."""

    url: str = ""
    ways: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    refuse: int | None = None


@contextmanager
def proxying() -> Iterator[Proxy]:
    """Run a proxy that forwards plain requests and opens tunnels."""
    proxy = Proxy()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_CONNECT(self) -> None:
            proxy.asked.append(f"CONNECT {self.path}")
            if proxy.refuse:
                self.send_error(proxy.refuse)
                return
            self.send_response(200)
            self.end_headers()
            with socket.create_connection(("127.0.0.1", proxy.ways[self.path])) as there:
                back = threading.Thread(target=_pour, args=(there, self.connection), daemon=True)
                back.start()
                _pour(self.connection, there)
                back.join()
            self.close_connection = True

        def do_GET(self) -> None:
            proxy.asked.append(f"GET {self.path}")
            url = urlsplit(self.path)
            _forward(self, proxy.ways[url.netloc], self.path.partition(url.netloc)[2])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with _running(server):
        proxy.url = f"http://127.0.0.1:{server.server_port}"
        yield proxy


def _pour(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def _forward(handler: BaseHTTPRequestHandler, port: int, path: str) -> None:
    connection = HTTPConnection("127.0.0.1", port)
    connection.request("GET", path, headers=dict(handler.headers))
    answer = connection.getresponse()
    reply(handler, answer.status, answer.read())
    connection.close()


@contextmanager
def _running(server: ThreadingHTTPServer) -> Iterator[None]:
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


@dataclass
class Secure:
    """A TLS server before another one; its certificates are of an authority of its own."""

    port: int
    ca_file: str
    greeted: list[str] = field(default_factory=list)


@contextmanager
def secured(url: str, folder: Path) -> Iterator[Secure]:
    """Serve what ``url`` serves, over TLS, as ``segment.test`` and ``localhost``."""
    authority = trustme.CA()
    ca_file = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME, "localhost").configure_cert(context)
    port = urlsplit(url).port or 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            _forward(self, port, self.path)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    secure = Secure(server.server_port, str(ca_file))
    context.sni_callback = lambda _, name, __: secure.greeted.append(str(name))
    with _running(server):
        yield secure


# Proxies.


@pytest.mark.parametrize("variable", sorted(CA_VARIABLES))
def test_a_load_goes_through_the_proxy_of_a_company(
    loaded: Project, tmp_path: Path, variable: str
) -> None:
    """Prevents that nothing loads behind a proxy that opens TLS with a certificate of its own."""
    with secured(loaded.sandbox.url, tmp_path) as secure, proxying() as proxy:
        proxy.ways[f"{NAME}:443"] = secure.port
        loaded.env = {name: loaded.env[name] for name in loaded.env.keys() - CA_VARIABLES} | {
            "ANALYTICS_API_BASE_URL": f"https://{NAME}",
            "HTTPS_PROXY": proxy.url,
            variable: secure.ca_file,
        }
        result = loaded.materialize("labels", "roles")
    assert result.success, failure_of(result)
    assert set(proxy.asked) == {f"CONNECT {NAME}:443"}
    loaded.assert_equal(["labels", "roles"])


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_plain_requests_go_through_a_proxy_too(variable: str) -> None:
    """Prevents that a proxy is used for some addresses and not for others."""
    with serving(reply) as url, proxying() as proxy:
        proxy.ways[NAME] = urlsplit(url).port or 0
        with environment({variable: proxy.url}), client(f"http://{NAME}") as session:
            assert session.fetch(get(session, f"http://{NAME}/labels")).body == {}
    assert proxy.asked == [f"GET http://{NAME}/labels"]


def test_no_proxy_is_obeyed() -> None:
    """Prevents that a request takes a way that the machine's settings forbid."""
    with (
        proxying() as proxy,
        environment({"HTTPS_PROXY": proxy.url, "NO_PROXY": f"example.com,{NAME}"}),
        client(f"https://{NAME}", retries=1) as session,
        pytest.raises(ResourceError) as raised,
    ):
        session.fetch(get(session, f"https://{NAME}/labels"))
    assert str(raised.value) == (
        "the connection to segment.test failed: its name is not known, also after 1 retries;"
        " check ANALYTICS_API_BASE_URL and the network; if this machine needs a proxy to reach the"
        " internet, set HTTPS_PROXY"
    )
    assert proxy.asked == []


def test_the_sandbox_is_never_asked_through_a_proxy(loaded: Project) -> None:
    """Prevents that the sandbox is out of reach wherever HTTPS_PROXY is set."""
    with proxying() as proxy:
        names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy")
        loaded.env |= dict.fromkeys(names, proxy.url)
        assert loaded.materialize("labels").success
    assert proxy.asked == []


def test_a_proxy_that_refuses_is_named() -> None:
    """Prevents that a proxy's refusal reads as a fault of the API, or shows its password."""
    with proxying() as proxy:
        proxy.refuse = 407
        address = proxy.url.replace("://", "://user:pass-word@")
        with (
            environment({"HTTPS_PROXY": address}),
            client(f"https://{NAME}", retries=0) as session,
            pytest.raises(ResourceError) as raised,
        ):
            session.fetch(get(session, f"https://{NAME}/labels"))
    assert str(raised.value) == (
        "the connection to segment.test failed at the proxy: Tunnel connection failed: 407 Proxy"
        " Authentication Required; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
    )


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("http://127.0.0.1:9", "failed at the proxy: "),
        ("http://user:pass-word@127.0.0.1:9", "failed at the proxy: "),
        ("http://", "failed: the proxy's address is not valid"),
        ("nonsense://user:pass-word@127.0.0.1", "failed: the proxy's address is not valid"),
        ("http://user:pass-word@[bad", "failed: the proxy's address is not valid"),
        ("socks5://user:pass-word@127.0.0.1", "failed: Missing dependencies for SOCKS"),
    ],
)
def test_a_proxy_that_is_not_there_is_one_sentence(address: str, says: str) -> None:
    """Prevents a traceback, and a search at the wrong end."""
    with (
        environment({"HTTPS_PROXY": address}),
        client(f"https://{NAME}", retries=1) as session,
        pytest.raises(ResourceError) as raised,
    ):
        session.fetch(get(session, f"https://{NAME}/labels"))
    message = str(raised.value)
    assert f"the connection to {NAME} {says}" in message
    assert message.endswith("; check HTTPS_PROXY, HTTP_PROXY and NO_PROXY")
    assert "pass-word" not in message


def test_an_answer_through_a_proxy_is_bounded_too(tmp_path: Path) -> None:
    """Prevents that the bounds hold only where there is no proxy."""
    with serving(Dribble(HEADS["body"])) as url, proxying() as proxy:
        proxy.ways[NAME] = urlsplit(url).port or 0
        with tunnel_to(url, tmp_path) as secure:
            proxy.ways[f"{NAME}:443"] = secure.port
            with (
                environment({"HTTPS_PROXY": proxy.url, "SSL_CERT_FILE": secure.ca_file}),
                client(f"https://{NAME}", answer_timeout=1, retries=0) as session,
                pytest.raises(ResourceError, match="the answer did not end within 1 s"),
            ):
                session.fetch(get(session, f"https://{NAME}/labels"))


@contextmanager
def tunnel_to(url: str, folder: Path) -> Iterator[Secure]:
    """Serve over TLS whatever bytes a plain server sends, as they come."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(NAME).configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            plain, _ = listener.accept()
            there = socket.create_connection(("127.0.0.1", urlsplit(url).port or 0))
            with context.wrap_socket(plain, server_side=True) as here, there:
                there.sendall(here.recv(65536))
                _pour(there, here)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield Secure(listener.getsockname()[1], str(folder / "ca.pem"))
    finally:
        listener.close()


# Certificates.


def test_a_certificate_that_is_not_trusted_is_named(loaded: Project, tmp_path: Path) -> None:
    """Prevents that a company's own authority reads as a broken network, and is tried again."""
    with secured(loaded.sandbox.url, tmp_path) as secure:
        loaded.env["ANALYTICS_API_BASE_URL"] = f"https://localhost:{secure.port}"
        message = failure_of(loaded.materialize("labels"))
        assert len(secure.greeted) == 1
    assert (
        f"the connection to localhost:{secure.port} failed: its certificate is not trusted ("
        in (message)
    )
    assert "set REQUESTS_CA_BUNDLE or SSL_CERT_FILE to the file of its certificates" in message
    assert "retries" not in message
    assert loaded.sandbox.count() == 0


@pytest.mark.parametrize("variable", sorted(CA_VARIABLES))
@pytest.mark.parametrize("content", [None, "", "not a certificate"])
def test_a_bad_file_of_certificates_is_named(
    tmp_path: Path, variable: str, content: str | None
) -> None:
    """Prevents a traceback when the file that a variable names is missing or something else."""
    bundle = tmp_path / "bundle.pem"
    if content is not None:
        bundle.write_text(content)
    with serving(reply) as url, secured(url, tmp_path) as secure:
        base_url = f"https://localhost:{secure.port}"
        with (
            environment({variable: str(bundle)}),
            client(base_url) as session,
            pytest.raises(ResourceError) as raised,
        ):
            session.fetch(get(session, base_url))
    message = str(raised.value)
    assert f"the connection to localhost:{secure.port} failed: " in message
    assert "REQUESTS_CA_BUNDLE" in message
    assert variable in message or content == ""
    assert not raised.value.transient


# Credentials.


def test_netrc_is_left_alone(loaded: Project, tmp_path: Path) -> None:
    """Prevents that a password of .netrc is sent to the API in place of the token."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password something\n")
    loaded.env |= {"NETRC": str(netrc), "HOME": str(tmp_path)}
    assert loaded.materialize("labels").success
    seen: list[str | None] = []

    def answer(handler: BaseHTTPRequestHandler) -> None:
        seen.append(handler.headers["Authorization"])
        reply(handler)

    with serving(answer) as url, environment(loaded.env), client(url) as session:
        request = get(session, url)
        session.fetch(request)
    assert seen == [None]


# What others say.


def test_a_token_in_an_error_is_masked_before_it_is_cut(loaded: Project) -> None:
    """Prevents that all but the last character of the token stands in the event log."""
    token = loaded.sandbox.token
    body = {"errors": [{"message": "x" * (300 - len(token) + 1) + token + " is no good"}]}
    loaded.sandbox.intercept = lambda info: (
        Reply(422, orjson.dumps(body)) if info.path == "/labels" else None
    )
    result, log = run_logged(loaded, "labels")
    message = failure_of(result)
    assert "xxx***" in message
    pieces = {token[start : start + 8] for start in range(len("sandbox-"), len(token) - 7)}
    assert not any(piece in message + log for piece in pieces)


def test_terminal_codes_and_line_breaks_of_others_do_not_reach_the_log(loaded: Project) -> None:
    """Prevents that a message of the API forges lines of the log, or colours the terminal."""
    body = {"errors": [{"message": "one\r\n2026-01-01 - two\x1b[31m three\x00\u202e"}]}
    loaded.sandbox.intercept = lambda info: (
        Reply(422, orjson.dumps(body)) if info.path == "/labels" else None
    )
    message = failure_of(loaded.materialize("labels"))
    assert 'HTTP 422 ("one 2026-01-01 - two three")' in message


@pytest.mark.unit
@pytest.mark.parametrize("form", ["to/ken+1", "to%2Fken%2B1"])
def test_a_secret_is_masked_in_all_its_forms(form: str) -> None:
    """Prevents that a token shows because it was encoded for an address."""
    assert foreign_text(f"GET /?t={form}&x=1", ["to/ken+1"]) == "GET /?t=***&x=1"


@pytest.mark.parametrize("location", ["http://[bad", "https://user:pass-word@elsewhere.test/x"])
def test_a_redirect_to_anywhere_is_one_sentence(location: str) -> None:
    """Prevents that the target of a redirect ends in a traceback, or shows a password."""
    with (
        serving(lambda handler: reply(handler, 302, Location=location)) as url,
        client(url) as session,
        pytest.raises(ResourceError, match="HTTP 302: a redirect to else") as raised,
    ):
        session.fetch(get(session, url))
    assert "pass-word" not in str(raised.value)
