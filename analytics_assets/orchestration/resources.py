"""The two resources that all assets share: how to reach the API, and where to load to.

Both read the environment when a run starts, and check everything before the first request. The
name of the destination and the dataset are read when the definitions are loaded as well, since the
assets show them; there they are not checked. The token is named by its variable only: Dagster shows
and stores resource config.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import dlt
from dagster import ConfigurableResource
from pydantic import Field, model_validator

from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.settings import ApiSettings, is_loopback
from analytics_assets.warehouse.preflight import check_settings
from analytics_assets.warehouse.settings import WarehouseSettings

DEFAULT_BASE_URL: Final = "https://api.segmentapis.com"
MAX_PAGE_SIZE: Final = 1000
"""Largest ``pagination.count`` (models/pagination_input.py of the SDK, since 2024-03)."""


SHORTEST_FINGERPRINT_KEY: Final = 16
MAX_FORGET_DAYS: Final = 36_500
_TIME_OUTS: Final = (0.1, 86400.0)
_WAREHOUSE_NUMBERS: Final = {
    "table_lock_timeout": _TIME_OUTS,
    "statement_timeout": _TIME_OUTS,
    "server_timeout": _TIME_OUTS,
    "duckdb_memory_mb": (64.0, 1e6),
}


_NOT_IN_ADDRESSES = re.compile(r"[\x00-\x20\x7f-\xa0]|(?:^|/)\.{1,2}(?:/|$)")


class _Strict(ConfigurableResource):  # type: ignore[type-arg]
    """A resource that knows all of its fields."""

    @model_validator(mode="before")
    @classmethod
    def _known(cls, values: Any) -> Any:
        """Refuse a field that there is none of: Dagster drops it without a word.

        Raises:
            SettingError: it names the fields.
        """
        if unknown := sorted(set(values) - set(cls.model_fields)):
            raise SettingError(
                f"{cls.__name__} has no field {', '.join(map(repr, unknown))}; it has"
                f" {', '.join(cls.model_fields)}."
            )
        return values


class AnalyticsApi(_Strict):
    """The Segment Public API, shared by all assets."""

    token_variable: str = Field(
        default="ANALYTICS_API_TOKEN",
        description="Environment variable that holds the bearer token; if it is not set,"
        " dlt's secret `api_token` is used.",
    )
    base_url: str | None = Field(
        default=None,
        description="Base URL; default ANALYTICS_API_BASE_URL, else the US region"
        " (https://api.segmentapis.com). EU: https://eu1.api.segmentapis.com.",
    )
    page_size: int = Field(
        default=MAX_PAGE_SIZE,
        description="Records asked for per page, 1 to 1000. If the API refuses more than 200,"
        " 200 is used.",
    )
    timeout: float = Field(
        default=60.0, description="Seconds to wait for a connection, and for bytes of an answer."
    )
    answer_timeout: float | None = Field(
        default=None,
        description="Seconds from a request to the end of its answer; default five times timeout.",
    )
    max_answer_mb: float = Field(
        default=256.0,
        description="Largest answer, unpacked, in MB (of 2^20 bytes); beyond it, fail.",
    )
    retries: int = Field(
        default=3,
        description="Retries after 408, 429, 5xx (except 501 and 505) and lost connections; a 429"
        " that says how long to wait costs none.",
    )
    backoff_factor: float = Field(
        default=2.0, description="The n-th retry waits backoff_factor * 2^(n-1) seconds."
    )
    max_wait: float = Field(
        default=300.0,
        description="Longest wait of a request for rate limits, in seconds; beyond it, fail.",
    )
    parallel_requests: int = Field(default=16, description="Requests under way at the same time.")
    audit_overlap_minutes: float = Field(
        default=15.0, description="Minutes of audit events that each run reads again."
    )
    volume_overlap_days: int = Field(
        default=2, description="Days of events_volume before the newest that each run reads again."
    )

    def settings(
        self, *, token: Callable[[], str] | None = None, redact: bool | None = None
    ) -> ApiSettings:
        """Return the checked settings.

        Args:
            token: gives the token; ``None``: the variable does.
            redact: whether secrets are replaced; ``None``: the environment says.

        Raises:
            SettingError: the text names the setting and what to do.
        """
        url = (
            self.base_url or os.environ.get("ANALYTICS_API_BASE_URL") or DEFAULT_BASE_URL
        ).strip()
        _check_url(url)
        self._check_numbers()
        return ApiSettings(
            base_url=url.rstrip("/"),
            token=self._token(token),
            page_size=self.page_size,
            timeout=self.timeout,
            answer_timeout=self.answer_timeout or 5 * self.timeout,
            max_answer_bytes=int(self.max_answer_mb * 2**20),
            retries=self.retries,
            backoff_factor=self.backoff_factor,
            max_wait=self.max_wait,
            parallel_requests=self.parallel_requests,
            redact=_redacts() if redact is None else redact,
            overlap_minutes=self.audit_overlap_minutes,
            overlap_days=self.volume_overlap_days,
            fingerprint_key=_fingerprint_key(),
        )

    def _token(self, given: Callable[[], str] | None) -> str:
        if given:
            return _checked(_from(given), "What the callable for the token returns")
        token = os.environ.get(self.token_variable) or dlt.secrets.get("api_token")
        token = str(token or "").strip()
        if not token:
            raise SettingError(
                f"No API token: set {self.token_variable} to a Public API token of the workspace"
                " (or dlt's secret api_token), or try it all without an account by putting"
                " analytics-sandbox in front of the command."
            )
        return _checked(token, f"The token in {self.token_variable}")

    def _check_numbers(self) -> None:
        limits = {
            "page_size": (1, MAX_PAGE_SIZE),
            "timeout": (0.001, 3600),
            "answer_timeout": (0.001, 86400),
            "max_answer_mb": (1, 65536),
            "retries": (0, 10),
            "backoff_factor": (0, 60),
            "max_wait": (0, 86400),
            "parallel_requests": (1, 64),
            "audit_overlap_minutes": (1, 90 * 24 * 60),
            "volume_overlap_days": (0, 90),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise SettingError(f"{name} is {value}; set it to a value from {low} to {high}.")


def _checked(token: str, what: str) -> str:
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise SettingError(
            f"{what} holds characters that no token has; copy it again, without quotes or line"
            " breaks."
        )
    if not token:
        raise SettingError(f"{what} is empty; it must be a Public API token of the workspace.")
    return token


def _from(given: Callable[[], str]) -> str:
    """Ask a secret manager, by the callable of the code location."""
    try:
        return str(given() or "").strip()
    except Exception as error:  # noqa: BLE001 - whatever a secret manager's client raises
        raise SettingError(
            f"The callable for the token failed: {type(error).__name__}: {foreign_text(str(error))}"
        ) from None


def _redacts() -> bool:
    """Tell whether secrets are replaced; never a field, as whoever may start a run could unset it.

    Raises:
        SettingError: ANALYTICS_REDACT_SECRETS is neither true nor false.
    """
    text = os.environ.get("ANALYTICS_REDACT_SECRETS", "").strip().lower() or "true"
    if text not in ("true", "false"):
        raise SettingError(f"ANALYTICS_REDACT_SECRETS is {text!r}; set it to true or false.")
    return text == "true"


def _forget_days() -> int | None:
    """Return after how many days personal data is blanked, ``None`` for never.

    Raises:
        SettingError: ANALYTICS_FORGET_DAYS is no whole number of days.
    """
    text = os.environ.get("ANALYTICS_FORGET_DAYS", "").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= MAX_FORGET_DAYS):
        raise SettingError(
            f"ANALYTICS_FORGET_DAYS is {text!r}; set it to a whole number of days from 1 to"
            f" {MAX_FORGET_DAYS}, or leave it out to keep personal data."
        )
    return int(text)


def _fingerprint_key() -> str:
    """Read the team's own key of fingerprints; it is never a field, as Dagster stores those."""
    key = os.environ.get("ANALYTICS_FINGERPRINT_KEY", "").strip()
    if 0 < len(key) < SHORTEST_FINGERPRINT_KEY:
        raise SettingError(
            f"ANALYTICS_FINGERPRINT_KEY has {len(key)} characters, few enough to be guessed; set it"
            f" to at least {SHORTEST_FINGERPRINT_KEY} random ones, or leave it out."
        )
    return key


class Warehouse(_Strict):
    """The destination and dataset that all assets are loaded into."""

    destination: str | None = Field(
        default=None,
        description="Name of a dlt destination; default ANALYTICS_DESTINATION, else duckdb."
        " Its credentials come from dlt's own configuration.",
    )
    dataset: str | None = Field(
        default=None, description="Schema of the tables; default ANALYTICS_DATASET, else analytics."
    )
    duckdb_path: str | None = Field(
        default=None,
        description="DuckDB file; default ANALYTICS_DUCKDB_PATH, else analytics_assets.duckdb.",
    )
    table_format: str | None = Field(
        default=None,
        description="`delta` for Delta tables on the filesystem destination; default"
        " ANALYTICS_TABLE_FORMAT, else plain Parquet files.",
    )
    lock_timeout: float = Field(
        default=3600.0, description="Seconds to wait for another run that loads the same."
    )
    reader_timeout: float = Field(
        default=120.0, description="Seconds to wait for a reader that holds the DuckDB file open."
    )
    table_lock_timeout: float | None = Field(
        default=None,
        description="PostgreSQL's lock_timeout in seconds: how long to wait for another session's"
        " lock on a table; default ANALYTICS_TABLE_LOCK_TIMEOUT, else 120.",
    )
    statement_timeout: float | None = Field(
        default=None,
        description="PostgreSQL's statement_timeout in seconds: how long a statement may take;"
        " default ANALYTICS_STATEMENT_TIMEOUT, else 3600.",
    )
    server_timeout: float | None = Field(
        default=None,
        description="Seconds without a sign of life after which a PostgreSQL server is given up;"
        " default ANALYTICS_SERVER_TIMEOUT, else 60.",
    )
    duckdb_memory_mb: float | None = Field(
        default=None,
        description="Memory that DuckDB may use, in MB; default ANALYTICS_DUCKDB_MEMORY_MB, else"
        " 160 and more where rows are wide.",
    )
    guarded_rows: int = Field(
        default=20,
        description="A list of so many rows that loses more than half of them is not loaded;"
        " shorter ones, which empty in the ordinary course, are, with a warning.",
    )

    def settings(self, *, destination: Any = None) -> WarehouseSettings:
        """Return the checked settings.

        Args:
            destination: dlt destination object of the kind that ``destination`` names, if there
                is one; else dlt makes one of its own configuration.

        Raises:
            SettingError: the text names the setting and what to do.
        """
        settings = WarehouseSettings(
            destination=self.destination_name(),
            dataset=self.dataset_name(),
            destination_object=destination,
            duckdb_path=self.file(),
            table_format=self.table_format or os.environ.get("ANALYTICS_TABLE_FORMAT") or None,
            lock_timeout=self.lock_timeout,
            reader_timeout=self.reader_timeout,
            guarded_rows=self.guarded_rows,
            forget_days=_forget_days(),
            **self._numbers(),
        )
        check_settings(settings)
        return settings

    def file(self) -> Path:
        """Return the DuckDB file."""
        named = self.duckdb_path or os.environ.get("ANALYTICS_DUCKDB_PATH")
        return Path(named or "analytics_assets.duckdb").expanduser()

    def _numbers(self) -> dict[str, float]:
        """Return the numbers that are set, by field or by variable."""
        found = {
            name: _number(name, getattr(self, name), limits)
            for name, limits in _WAREHOUSE_NUMBERS.items()
        }
        return {name: number for name, number in found.items() if number is not None}

    def destination_name(self) -> str:
        """Return the name of the dlt destination."""
        return self.destination or os.environ.get("ANALYTICS_DESTINATION") or "duckdb"

    def dataset_name(self) -> str:
        """Return the dataset, which is the schema of the tables."""
        return self.dataset or os.environ.get("ANALYTICS_DATASET") or "analytics"


def _check_url(url: str) -> None:
    if _NOT_IN_ADDRESSES.search(url):
        raise SettingError(
            f"ANALYTICS_API_BASE_URL is {_without_userinfo(url)!r}, which holds blanks, control"
            " characters or '..'; write scheme and host only, such as"
            f" {DEFAULT_BASE_URL}."
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
        raise SettingError(
            f"ANALYTICS_API_BASE_URL is {_without_userinfo(url)!r}, which is not an http(s)"
            f" address; use {DEFAULT_BASE_URL} or https://eu1.api.segmentapis.com."
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise SettingError(
            "ANALYTICS_API_BASE_URL holds more than scheme, host and path; remove the rest (a"
            " token belongs into ANALYTICS_API_TOKEN)."
        )
    if parts.scheme == "http" and not is_loopback(host):
        raise SettingError(
            f"ANALYTICS_API_BASE_URL is {url!r}: over plain http the token would be readable on the"
            " way; use https."
        )


def _without_userinfo(url: str) -> str:
    return url.rpartition("@")[2]


def _number(name: str, value: float | None, limits: tuple[float, float]) -> float | None:
    """Return a number: as the field says, else the variable; ``None`` if neither is set."""
    variable = f"ANALYTICS_{name.upper()}"
    text = value if value is not None else os.environ.get(variable, "").strip()
    if text == "":
        return None
    low, high = limits
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise SettingError(
            f"{name} (or {variable}) is {text!r}; set it to a number from {low:g} to {high:g}."
        )
    return number
