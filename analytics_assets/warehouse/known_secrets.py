"""The secrets of the destination's configuration, to be masked in all that is said about it."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, unquote_plus

import dlt

from analytics_assets.segment.foreign_text import foreign_text, learn, root_message
from analytics_assets.segment.redaction.keys import looks_like_credential

_ADDRESS = re.compile(r"[\w+.-]+://(?P<user>[^:@]*):(?P<password>.*)@", re.DOTALL)
_KEYWORD = re.compile(r"""(?i)\bpassword\s*=\s*(?:'((?:\\.|[^'\\])*)'|(\S+))""")
_DELIMITER = re.compile("[@/?#:]")
_CREDENTIALS = "credentials"


class _Masked(logging.Filter):
    """Makes each line of dlt's log fit to be read: it quotes rows, and drivers that quote those."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1]:
            text = f"{text}: {root_message(record.exc_info[1])}"
        record.msg, record.args = foreign_text(text), ()
        record.exc_info = record.exc_text = record.stack_info = None
        return True


_MASKED: Final = _Masked()


def learn_secrets() -> None:
    """Let no text of somebody else show what dlt's configuration holds for destinations."""
    logging.getLogger("dlt").addFilter(_MASKED)  # once, however often it is called
    for name, value in os.environ.items():
        *sections, key = name.lower().split("__")
        if "destination" in sections or _CREDENTIALS in (key, *sections):
            learn(_secrets(key, value))
    for provider in ("destination", _CREDENTIALS):
        learn(_secrets(_CREDENTIALS, dlt.secrets.get(provider)))


def _secrets(key: str, value: Any) -> Iterator[str]:
    """Yield the secrets in a setting: a text, an address, JSON or a table of settings."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _secrets(str(name), item)
    elif isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            yield from _secrets(key, json.loads(value))
        except ValueError:
            yield value
    elif isinstance(value, str):
        yield from _in_text(value)
        if key != _CREDENTIALS and looks_like_credential(key):
            yield value


def _in_text(text: str) -> Iterator[str]:
    """Yield the passwords of addresses and of connection texts of the libpq kind."""
    if address := _ADDRESS.match(text):
        yield from _spellings(address["password"])
    for quoted, plain in _KEYWORD.findall(text):
        yield from _spellings(re.sub(r"\\(.)", r"\1", quoted) or plain)
    for name, value in parse_qsl(text.partition("?")[2]):
        if looks_like_credential(name):
            yield value


def _spellings(password: str) -> Iterator[str]:
    """Yield a password as it is, decoded, and what is left of it where it is taken apart."""
    yield from (password, unquote(password), unquote_plus(password))
    yield from _DELIMITER.split(password)
