"""The way to the API: this machine's proxies and certificates, and why a connection failed."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import requests
from requests.exceptions import (
    ChunkedEncodingError,
    ContentDecodingError,
    InvalidSchema,
    InvalidURL,
    ProxyError,
    RequestException,
    SSLError,
    Timeout,
)
from urllib3.exceptions import HTTPError

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.hang_up import AnswerTooSlow
from analytics_assets.segment.responses import BadBody
from analytics_assets.segment.settings import ApiSettings, is_loopback

_CHECK_ADDRESS: Final = "check ANALYTICS_API_BASE_URL and the network"
_CHECK_NAME: Final = (
    f"{_CHECK_ADDRESS}; if this machine needs a proxy to reach the internet, set HTTPS_PROXY"
)
_CHECK_PROXY: Final = "check HTTPS_PROXY, HTTP_PROXY and NO_PROXY"
_CHECK_CERTIFICATES: Final = (
    "check ANALYTICS_API_BASE_URL; if the network has a certificate authority of its own, set"
    " REQUESTS_CA_BUNDLE or SSL_CERT_FILE to the file of its certificates"
)
_CHECK_CERTIFICATE_FILE: Final = "check REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE and SSL_CERT_FILE"
_CERTIFICATE_FILE: Final = frozenset({"X509", "PEM"})
"""Parts of OpenSSL that read files of certificates."""
_TRANSIENT: Final = (
    BadBody,
    requests.exceptions.ConnectionError,
    Timeout,
    ChunkedEncodingError,
    ContentDecodingError,
)
_OF_PLACE: Final = ("proxies", "stream", "verify", "cert")
"""Options that the environment adds to, in the order of requests' own function."""
AnyError = TypeVar("AnyError", bound=BaseException)


class NetworkSession(requests.Session):
    """A session that takes proxies and certificates from the environment, but no credentials.

    ``HTTPS_PROXY``, ``HTTP_PROXY``, ``ALL_PROXY`` and ``NO_PROXY``; ``REQUESTS_CA_BUNDLE``,
    ``CURL_CA_BUNDLE`` and ``SSL_CERT_FILE``, in this order. This machine itself, where a sandbox
    is, is never asked through a proxy.
    """

    def __init__(self) -> None:
        super().__init__()
        self.auth = _as_it_is  # or else .netrc would take the place of the configured token
        self.verify = os.environ.get("SSL_CERT_FILE") or True
        self._routes: dict[str, Mapping[str, Any]] = {}

    def route(self, url: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options to send with: those given, and those of the environment.

        requests would go through all variables of the environment for each page.
        """
        parts = urlsplit(url)
        proxies, *others = (given.get(name) for name in _OF_PLACE)
        place = repr((parts.scheme, parts.netloc, proxies, *others))
        if place not in self._routes:
            options = {**self.merge_environment_settings(url, dict(proxies or {}), *others)}
            if is_loopback(parts.hostname or ""):
                options["proxies"] = {}
            self._routes[place] = options
        return {**given, **self._routes[place]}


def may_pass(error: OSError | HTTPError) -> bool:
    """Tell whether the same request may well succeed later."""
    return _diagnose(error).transient


def describe_error(error: OSError | HTTPError, settings: ApiSettings) -> ResourceError:
    """Say why a request has no usable answer, and what the user can do about it."""
    again = f", also after {settings.retries} retries" if settings.retries else ""
    if isinstance(error, BadBody):
        return ResourceError(f"the answer is not JSON ({error}){again}", status=200, transient=True)
    fault = _diagnose(error)
    what = foreign_text(fault.what, [settings.token])  # a proxy may say what it likes
    host = urlsplit(settings.base_url).netloc
    return ResourceError(
        f"the connection to {host} {what}{again if fault.transient else ''}; {fault.advice}",
        transient=fault.transient,
    )


@dataclass(frozen=True)
class _Fault:
    what: str
    advice: str
    transient: bool = True


_BY_CAUSE: Final[Mapping[type[BaseException], _Fault]] = {
    socket.gaierror: _Fault("failed: its name is not known", _CHECK_NAME),
    ConnectionRefusedError: _Fault("failed: it was refused", _CHECK_ADDRESS),
    TimeoutError: _Fault("timed out", _CHECK_ADDRESS),
}


def _diagnose(error: OSError | HTTPError) -> _Fault:
    causes = list(_causes(error))
    if fault := _about_certificates(error, causes) or _about_proxies(error, causes):
        return fault
    if slow := _first(causes, AnswerTooSlow):
        return _Fault(f"timed out: {slow}", _CHECK_ADDRESS)
    for kind, fault in _BY_CAUSE.items():
        if _first(causes, kind):
            return fault
    return _Fault("failed", _CHECK_ADDRESS, transient=isinstance(error, _TRANSIENT))


def _about_proxies(error: OSError | HTTPError, causes: list[BaseException]) -> _Fault | None:
    if isinstance(error, ProxyError):
        return _Fault(f"failed at the proxy: {causes[-1]}", _CHECK_PROXY)
    if isinstance(error, InvalidSchema):  # a SOCKS proxy, and no package that speaks to it
        return _Fault(f"failed: {error}", _CHECK_PROXY, transient=False)
    if isinstance(error, (InvalidURL, HTTPError)):  # the API's own address was checked before
        return _Fault("failed: the proxy's address is not valid", _CHECK_PROXY, transient=False)
    return None


def _about_certificates(error: OSError | HTTPError, causes: list[BaseException]) -> _Fault | None:
    if not isinstance(error, (RequestException, HTTPError)):  # a file that is not there
        return _Fault(f"failed: {error}", _CHECK_CERTIFICATE_FILE, transient=False)
    if not isinstance(error, SSLError):
        return None
    found = _first(causes, ssl.SSLError)
    if isinstance(found, ssl.SSLCertVerificationError):
        what = f"failed: its certificate is not trusted ({found.verify_message})"
        return _Fault(what, _CHECK_CERTIFICATES, transient=False)
    if found is None or found.library in _CERTIFICATE_FILE:
        what = f"failed: the trusted certificates cannot be read ({causes[-1]})"
        return _Fault(what, _CHECK_CERTIFICATE_FILE, transient=False)
    return None


def _first(causes: list[BaseException], kind: type[AnyError]) -> AnyError | None:
    return next((cause for cause in causes if isinstance(cause, kind)), None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what lies behind it, wherever requests and urllib3 have put it."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        wrapped = next((each for each in error.args if isinstance(each, BaseException)), None)
        error = error.__cause__ or wrapped or error.__context__


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
