"""Credentials inside addresses: user information, parameters, and webhooks whose path is secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from analytics_assets.segment.redaction.fingerprints import looks_random
from analytics_assets.segment.redaction.keys import Meaning, meaning
from analytics_assets.segment.redaction.tokens import Span
from analytics_assets.segment.redaction.words import is_placeholder, is_plain

_URL_END = re.compile(r"[\s\"'<>`\\^]")
_AUTHORITY_END = re.compile(r"[/?#]")
_PORT = re.compile(r"\d{1,5}(?=[/?#]|$)")
_PARAMETER = re.compile(r"[?&;#]([^=&;#?\s]{1,64})=([^&;#\s]+)")
_MAYBE_PARAMETERS: Final = frozenset(
    {
        "code",
        "k",
        "s",
        "sk",
        "hash",
        "h",
        "id_hint",
        "x-sig",
        "jsessionid",
        "phpsessid",
        "sessionid",
        "sid",
    }
)
_SEGMENT = re.compile(r"[^/?#&=;]+")
_DIGIT = re.compile(r"[0-9]")
_AFTER_CREDENTIAL = frozenset(
    {"key", "keys", "apikey", "token", "tokens", "secret", "inputs", "bot"}
)
_WEBHOOKS = re.compile(
    r"hooks\.slack\.com/(?:services|workflows|triggers)/"
    r"|discord(?:app)?\.com/api/(?:v\d+/)?webhooks/"
    r"|office\.com/webhook\w*/"
    r"|hooks\.zapier\.com/hooks/\w+/"
    r"|hook\.(?:[\w-]+\.)?(?:make|integromat)\.com/"
    r"|maker\.ifttt\.com/trigger/[^/]{1,100}/(?:json/)?with/key/"
    r"|api\.telegram\.org/(?:file/)?bot"
    r"|events\.(?:eu\.)?pagerduty\.com/(?:integration|x-ere)/"
    r"|webhook\.site/"
    r"|pabbly\.com/workflow/sendwebhookdata/"
    r"|/open-apis/bot/v2/hook/"
    r"|n8n\.cloud/webhook(?:-test)?/",
    re.IGNORECASE,
)
_FUNCTION_HOSTS = re.compile(
    r"cloudfunctions\.net|\.run\.app|azurewebsites\.net|\.on\.aws|execute-api\.|workers\.dev"
    r"|pipedream\.net|logic\.azure\.com|netlify\.app|vercel\.app",
    re.IGNORECASE,
)
_BARE_USERINFO = re.compile(
    r"(?<![\w.+%/-])(?!(?:mailto|sips?|xmpp|acct|e?mail|from|to|cc|bcc|contact|owner|user):)"
    r"[\w.+%-]{1,64}:[^\s@\"'<>:/]{1,128}"
    r"(?=@(?:[a-z]{0,5}\(|//|[\w-]{1,63}(?:\.[\w-]{1,63}){0,8}(?::\d{2,5}|/\w)))"
)
_ORACLE_USERINFO = re.compile(
    r"(?<![\w/.@-])[\w$#]{1,30}/[^\s@/\"'<>:]{1,64}(?=@(?://|[\w.-]{1,100}:\d{2,5}/))"
)
_ONLY_USERINFO = re.compile(
    r"(?!(?:mailto|sips?|xmpp|acct|e?mail|from|to|cc|bcc):)[\w.+%-]{1,64}:(?!//)(\S{1,128})@[\w.-]{1,253}(?:[:/]\S*)?"
)
_LONGEST_WORD: Final = 16
_DRIVER_HOST = re.compile(r"@(?:tcp|udp|unix)\(")
_LINE_START: Final = 200


def address_spans(text: str, *, webhook: bool = False) -> Iterator[Span]:
    """Find the secret parts of addresses in ``text``.

    Args:
        text: any text.
        webhook: whether its key says that it is the address of a webhook.
    """
    if "@" in text:
        yield from _bare_userinfo(text)
    if text.startswith("//"):
        yield from _in_address(text, 2, len(text), webhook=webhook)
    place = text.find("://")
    while place >= 0:
        found = _URL_END.search(text, place)
        end = found.start() if found else len(text)
        yield from _in_address(text, place + 3, end, webhook=webhook)
        place = text.find("://", end)


def _bare_userinfo(text: str) -> Iterator[Span]:
    only = _ONLY_USERINFO.fullmatch(text)
    if only and "@sha256:" not in text and ("/" in only[1] or not is_plain(only[1])):
        yield 0, only.end(1)
    for pattern in (_BARE_USERINFO, _ORACLE_USERINFO):
        yield from (found.span() for found in pattern.finditer(text))
    for found in _DRIVER_HOST.finditer(text):
        before = text[max(0, found.start() - _LINE_START) : found.start()]
        userinfo = re.split(r"[\s\"'/]", before)[-1]
        if ":" in userinfo:
            yield found.start() - len(userinfo), found.start()


def _in_address(text: str, start: int, end: int, *, webhook: bool) -> Iterator[Span]:
    """Judge one address, from behind its ``://``; another address may stand inside it."""
    while start < end:
        inner = text.find("://", start, end)
        stop = end if inner < 0 else inner
        part = text[start:stop]
        length = userinfo_length(part)
        if length:
            yield start, start + length
        skip = length + 1 if length else 0
        for span in _parameters(part):
            yield start + span[0], start + span[1]
        for span in _secret_path(part[skip:], webhook=webhook):
            yield start + skip + span[0], start + skip + span[1]
        start = stop + 3


def userinfo_length(part: str) -> int:
    """Return the length of ``user:password`` or of a token before the ``@``; 0 if there is none.

    A password may hold ``@``, ``/``, ``?`` and ``#`` although it should not.
    """
    if "@" not in part or part.startswith("["):
        return 0
    found = _AUTHORITY_END.search(part)
    authority = part[: found.start()] if found else part
    name, colon, _ = authority.partition(":")
    if not colon or "@" in name:
        return _lone_user(authority)
    if _PORT.match(part, len(name) + 1) and "@" not in authority and _is_host(part, name):
        return 0
    end = _last_at(part, authority)
    return 0 if is_placeholder(part[len(name) + 1 : end]) else end


def _lone_user(authority: str) -> int:
    end = authority.rfind("@")
    if end <= 0:
        return 0
    user = authority[:end].partition(":")[0]
    return 0 if ":" not in authority[:end] and (is_plain(user) or is_placeholder(user)) else end


def _is_host(part: str, name: str) -> bool:
    """Tell ``host:80/path@x`` from ``user:80/word@host``."""
    if "." in name or name in ("", "localhost"):
        return True
    behind = part[len(name) + 1 :].partition("/")[2].rpartition("@")[0]
    return not behind or any(mark in behind for mark in "/?#=")


def _last_at(part: str, authority: str) -> int:
    if "@" in authority:
        path = part.partition("?")[0].partition("#")[0]
        return max(path.rfind("@"), authority.rfind("@"))
    return part.rfind("@")


def _parameters(part: str) -> Iterator[Span]:
    for found in _PARAMETER.finditer(part):
        name, value = found.groups()
        if is_secret_parameter(name, value):
            yield found.span(2)


def is_secret_parameter(name: str, value: str) -> bool:
    """Judge a parameter of an address."""
    if is_placeholder(value):
        return False
    judged = meaning(name)
    if judged is Meaning.CREDENTIAL:
        return True
    if judged is Meaning.MAYBE:
        return not is_plain(value)
    doubtful = judged is Meaning.ABOUT or name.lower() in _MAYBE_PARAMETERS
    return doubtful and looks_random(value)


def _secret_path(part: str, *, webhook: bool) -> Iterator[Span]:
    """Find the segments of a path that open it to whoever knows them."""
    head = part.partition("?")[0]
    known = _WEBHOOKS.search(head)
    if known and len(head) > known.end():
        yield known.end(), len(head)
        return
    function = _FUNCTION_HOSTS.search(head) is not None
    secret = webhook or function
    before = ""
    for found in _SEGMENT.finditer(head):
        word = found.group()
        host = found.start() == 0
        after = before.lower() in _AFTER_CREDENTIAL
        if host and function:
            label = word.partition(".")[0]
            if _like_token(label) and looks_random(label):
                yield 0, len(label)
        elif not host and (secret or after) and _like_token(word):
            yield found.span()
        secret = secret or "hook" in word.lower()
        before = word


def _like_token(word: str) -> bool:
    if len(word) < 8 or is_placeholder(word):  # noqa: PLR2004 - shorter ones are versions and names
        return False
    if len(word) >= _LONGEST_WORD and word.isalnum():
        return True
    digits = len(_DIGIT.findall(word[:200]))
    return looks_random(word, 12) or (1 < digits < len(word) and not is_plain(word))
