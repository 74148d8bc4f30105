"""Credentials that text assigns to a name: headers, connection texts, settings, commands, SQL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from analytics_assets.segment.redaction.fingerprints import looks_random
from analytics_assets.segment.redaction.keys import Meaning, meaning
from analytics_assets.segment.redaction.tokens import Span
from analytics_assets.segment.redaction.words import is_placeholder, is_plain

_ASSIGNMENT = re.compile(
    r"(?<![\w.-])-{0,2}([A-Za-z_][\w.-]*)"  # a name, with two dashes on a command line
    r"[\\\]]{0,4}[\"'`]?[\\\]]{0,2}[ \t]{0,3}(=>|:=|={1,3}|:(?!//))\s{0,3}"
)
_OPTION = re.compile(r"(?<![\w-])--([A-Za-z][\w-]*)[ \t]{1,3}(?![-=])")
_USER_OPTION = re.compile(r"(?<![\w-])(?:-u|--user)[ \t]{1,3}[\"']?([^\s:\"']{1,64}:[^\s\"']+)")
_NETRC = re.compile(r"\blogin\s{1,3}\S{1,64}\s{1,3}password\s{1,3}(\S+)")
_ELEMENT = re.compile(r"<([A-Za-z_][\w:.-]{0,63})(?:[ \t][^<>]{0,100})?>([^<>]+)</")
_TOLD = re.compile(
    r"\b(?:keys?|tokens?|secrets?|passwords?|credentials?)[ \t]{1,3}(?:(?:is|was)[ \t]{1,3})?"
    r"([^\s\"']{6,})",
    re.IGNORECASE,
)
_ATTRIBUTES = re.compile(
    r"(?:key|name)=[\"']([\w:.-]{1,64})[\"']\s{1,3}value=[\"']([^\"'<>]{1,4096})", re.IGNORECASE
)
_SQL = re.compile(
    r"(?<![\w'])(?:(?:identified\s{1,3}by(?:\s{1,3}values)?|password|secret|passphrase|credentials?"
    r"|token)\s{1,3}[EeNn]?"
    r"|(?:pgp_(?:sym|pub)_\w{1,20}|aes_\w{1,20}|encrypt\w{0,20}|decrypt\w{0,20}|hmac\w{0,12})"
    r"[ \t]{0,3}\([^']{0,200},\s{0,3})(?=')",
    re.IGNORECASE,
)
_SCHEME = re.compile(
    r"(?<![\w-])(?:bearer|basic|token|apikey|ssws|digest|negotiate)[ \t]{1,3}([\w.~+/=:-]{8,})",
    re.IGNORECASE,
)
_PGPASS = re.compile(r"^[\w.*-]{1,253}:\d{2,5}:[^:\s]{1,64}:[^:\s]{1,64}:(\S{3,})$", re.MULTILINE)
_VALUE = re.compile(r"[^\s;&\"'<>`\\]+")
_QUOTE = re.compile(r"\\{0,8}([\"'`])")
_LINE_END = re.compile(r"[\r\n\"'`]|\\[rn\"']")
_CODE = re.compile(
    r"[A-Za-z_$][\w$]*(?:\??\.[A-Za-z_$][\w$]*)+|[A-Za-z_$][\w$.]*\(.*|\(.*", re.DOTALL
)
_SMALL_NUMBER = re.compile(r"\d{1,3}[a-z%]{0,2}")
_ONE_TOKEN = re.compile(r"(?!token |apikey |the )[A-Za-z]{3,12} (?!token\b)[\w.~+/=:-]+")
_HEADERS: Final = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
_ALWAYS: Final = ("pass", "pwd", "secret", "pin", "psk")
_TEMPLATES: Final = ("${", "{{")


def assignment_spans(text: str) -> Iterator[Span]:
    """Find the values that ``text`` gives to names of credentials, and authorization headers."""
    if "=" in text or ":" in text:
        yield from _assignments(text)
        yield from (found.span(1) for found in _PGPASS.finditer(text))
    if " " in text or "\t" in text:
        yield from _spaced(text)
    if "<" in text:
        yield from _elements(text)


def _assignments(text: str) -> Iterator[Span]:
    place = 0
    while found := _ASSIGNMENT.search(text, place):
        name, sign = found.groups()
        place = found.end()
        judged = meaning(name)
        if judged is Meaning.ANYTHING:
            continue
        quote = _QUOTE.match(text, place)
        header = name.lower() in _HEADERS and sign == ":"
        if quote:
            span = _quoted(text, quote)
        else:
            span = _to_line_end(text, place) if header else _unquoted(text, place)
        if header and _ONE_TOKEN.fullmatch(text[slice(*span)]):
            place = span[1]
            yield span
            continue
        spaced = text[found.start(2) - 1 : found.start(2)].isspace() or text[place - 1].isspace()
        if _is_secret(name, judged, text[slice(*span)], bool(quote), sign, spaced=spaced):
            place = max(place, span[1])
            yield span


def _to_line_end(text: str, start: int) -> Span:
    found = _LINE_END.search(text, start)
    return start, found.start() if found else len(text)


def _quoted(text: str, quote: re.Match[str]) -> Span:
    """The inside of quotes, which may be escaped; to the end if they are never closed."""
    end = text.find(quote.group(), quote.end())
    return quote.end(), len(text) if end < 0 else end


def _unquoted(text: str, start: int) -> Span:
    found = _VALUE.match(text, start)
    if found is None:
        return start, start
    return start, start + len(found.group().rstrip(",.)]}"))


def _is_secret(
    name: str, judged: Meaning, value: str, quoted: bool, sign: str, *, spaced: bool
) -> bool:
    """Judge a value by its name and by how it is written."""
    if is_placeholder(value) or any(mark in value for mark in _TEMPLATES):
        return False
    if judged is not Meaning.CREDENTIAL:
        return looks_random(value) and not _CODE.fullmatch(value)
    if quoted:
        prose = sign == ":" and " " in value and is_plain(value)
        password = any(word in name.lower() for word in _ALWAYS)
        return not prose and (password or not is_plain(value))
    if _CODE.fullmatch(value) or value[0] in "{[" or _SMALL_NUMBER.fullmatch(value):
        return False
    if (sign == "=" and not spaced) or name[:2] in ("x-", "X-"):
        return True
    return not is_plain(value) or (value.isdigit() and len(value) > 3)  # noqa: PLR2004 - a PIN


def _spaced(text: str) -> Iterator[Span]:
    """What follows its name after a blank."""
    for found in _SCHEME.finditer(text):
        if not is_plain(found.group(1)):
            yield found.span() if found.span() == (0, len(text)) else found.span(1)
    yield from (s for s in map(_told, _TOLD.finditer(text)) if s)
    if "-" in text:
        yield from (found.span(1) for found in _USER_OPTION.finditer(text))
        yield from _options(text)
    if "login" in text:
        yield from (found.span(1) for found in _NETRC.finditer(text))
    if "'" in text:
        yield from _sql_literals(text)


def _told(found: re.Match[str]) -> Span | None:
    """``the token is ...``, in a sentence."""
    value = found.group(1).rstrip(".,;:)")
    if looks_random(value, 12) and not (_CODE.fullmatch(value) or is_placeholder(value)):
        return found.start(1), found.start(1) + len(value)
    return None


def _options(text: str) -> Iterator[Span]:
    for found in _OPTION.finditer(text):
        if meaning(found.group(1)) is Meaning.CREDENTIAL:
            quote = _QUOTE.match(text, found.end())
            span = _quoted(text, quote) if quote else _unquoted(text, found.end())
            if not is_placeholder(text[slice(*span)]):
                yield span


def _sql_literals(text: str) -> Iterator[Span]:
    place = 0
    while found := _SQL.search(text, place):
        end = text.find("'", found.end() + 1)
        place = len(text) if end < 0 else end + 1
        span = found.end() + 1, len(text) if end < 0 else end
        if not is_placeholder(text[slice(*span)]):
            yield span


def _elements(text: str) -> Iterator[Span]:
    for found in (*_ELEMENT.finditer(text), *_ATTRIBUTES.finditer(text)):
        if meaning(found.group(1)) is Meaning.CREDENTIAL and not is_placeholder(found.group(2)):
            yield found.span(2)
