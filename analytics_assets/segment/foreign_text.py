"""Make a text of somebody else fit for a log: without secrets, people and terminal codes."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, quote_plus

from analytics_assets.segment.errors import causes
from analytics_assets.segment.redaction.fingerprints import could_be_guessed
from analytics_assets.segment.redaction.text import merged, replace_credentials, replace_spans

MASK: Final = "***"
LIMIT: Final = 300
PIECE: Final = 8
"""As many characters of a secret in a row are not shown."""
_SHORTEST_SECRET: Final = 4
_READ: Final = 100_000
_TERMINAL_CODE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?|[ -~])?"
    r"|\x9b[0-?]*[ -/]*[@-~]?"
)
_INVISIBLE = re.compile("[\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile("[\x00-\x20\x7f-\xa0\u2028\u2029]+")
_E_MAIL = re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+(?:\.[\w-]+)+")
_MASKS = re.compile(r"\*{4,}")
_ROW = re.compile(
    r"(?<=Failing row contains \()[^\r\n]*|(?<=\[parameters: )[^\r\n]*|(?<=\)=\()[^\r\n]*"
    r"|(?<=Duplicate key \")[^\"\r\n]*|(?<=convert string \")[^\"\r\n]*"
    r"|(?<=convert string ')[^'\r\n]*"
)
"""What databases quote of a row that they refuse."""
_VALUE = re.compile(r'((?:line \d+, column \S+|for type [\w ]+|value):? )"[^\r\n]*"')
"""What PostgreSQL quotes of a value that it cannot read."""
_KNOWN: Final[set[str]] = set()
_AFTER_CUT: Final = " \t\r\n\"'`.,;)]}>\N{HORIZONTAL ELLIPSIS}"


def learn(secrets: Iterable[str]) -> None:
    """Mask secrets of this process's configuration in all texts from now on."""
    _KNOWN.update(secrets)


def foreign_text(text: str, secrets: Iterable[str] = (), limit: int = LIMIT) -> str:
    """Return ``text`` on one line of at most ``limit`` characters, fit for a log or an error.

    Masked are the secrets, whole, URL-encoded or escaped, and eight or more characters of one in a
    row where the text was cut (anywhere, unless they are words); credentials by their shape, such
    as user information in addresses and passwords in connection texts; e-mail addresses, and the
    values of rows that a database refuses. Masking comes before cutting.

    Args:
        text: an answer of the API, a message of a driver.
        secrets: secrets that are known, such as the token, besides those of :func:`learn`; those
            under four characters are too short to be told from other text, and are found by shape
            only.
        limit: the most characters to return.
    """
    forms = _forms({*([secrets] if isinstance(secrets, str) else secrets), *_KNOWN})
    text = _ROW.sub(MASK, _masked(text[:_READ], forms))
    text = _VALUE.sub(rf"\1{MASK}", text)
    text = _TERMINAL_CODE.sub("", text)
    text = _HALF_CHARACTER.sub("\ufffd", _INVISIBLE.sub("", text))
    text = _masked(_BLANKS.sub(" ", text).strip(), forms)
    text = replace_credentials(text, lambda _: MASK)
    return _MASKS.sub(MASK, _E_MAIL.sub(MASK, text))[:limit]


def root_message(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """Return the innermost message, which is the destination's own, as a foreign text."""
    *_, innermost = causes(error)
    return foreign_text(str(innermost), secrets)


def _forms(secrets: Iterable[str]) -> list[str]:
    """Return secrets as they can stand in a text, the longest first."""
    forms = set()
    for secret in secrets:
        for form in (secret, " ".join(secret.split()), secret.strip()):
            forms |= {form, *_escaped(form)}
    return sorted((f for f in forms if len(f) >= _SHORTEST_SECRET), key=len, reverse=True)


def _escaped(secret: str) -> Iterator[str]:
    known = secret.encode("utf-8", "replace").decode()
    for encoded in (quote(known), quote(known, safe=""), quote_plus(known)):
        yield encoded
        yield re.sub("%[0-9A-F]{2}", lambda found: found.group().lower(), encoded)
    yield json.dumps(secret)[1:-1]
    yield json.dumps(secret, ensure_ascii=False)[1:-1]
    yield repr(secret)[1:-1]
    yield html.escape(secret)


def _masked(text: str, forms: list[str]) -> str:
    for form in forms:
        text = text.replace(form, MASK)
    pieces = {piece for form in forms if not could_be_guessed(form) for piece in _pieces(form)}
    if pieces:
        text = _without(text, pieces)
    return _without_cut_end(text, forms)


def _pieces(form: str) -> Iterator[str]:
    return (form[start : start + PIECE] for start in range(len(form) - PIECE + 1))


def _without(text: str, pieces: set[str]) -> str:
    spans = (
        (start, start + PIECE)
        for start in range(len(text) - PIECE + 1)
        if text[start : start + PIECE] in pieces
    )
    return replace_spans(text, merged(spans), lambda _: MASK)


def _without_cut_end(text: str, forms: list[str]) -> str:
    """Mask the beginning of a secret that the end of the text cuts off."""
    body = text.rstrip(_AFTER_CUT)
    for form in forms:
        for end in {len(body), len(text)}:
            for length in range(min(len(form), end), PIECE - 1, -1):
                if text.endswith(form[:length], 0, end):
                    return text[: end - length] + MASK + text[end:]
    return text
