"""What the key of a setting says about its value."""

from __future__ import annotations

import re
from enum import IntEnum
from functools import lru_cache
from typing import Final

from analytics_assets.segment.redaction.words import word_set

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_LONGEST: Final = 200

_CREDENTIAL_WORDS = word_set(
    "authorization bearer ciphertext cred creds credential credentials dsn jwt otp passcode"
    " passphrase passwd password passwords pem psk pwd sas secret secrets token tokens totp"
)
_SHORT_WORDS = frozenset({"pass", "pat", "pin", "pw", "sig"})
_AFTER_SHORT = frozenset({"code", "hash", "value"})
_MAYBE_WORDS = word_set(
    "auth authentication cert certificate certificates certs cookie cookies encrypted"
    " encryption hmac key keys oauth salt session sessions signature signing userpass"
)
_RUNS = re.compile(
    r"(access|account|aes|api|app|application|auth|client|consumer|dev|developer|encryption|hash"
    r"|hmac|host|ingest|integration|license|master|private|rsa|secret|security|server|service|session|shared"
    r"|signing|ssh|storage|subscription|webhook|write)[_. -]?keys?(?![a-z])"
    r"|secret(?!ar|smanager)|token(?!i[sz])|passw(?!ordless)|passphrase|pwd|(?<!by)(?<!com)pass(?![a-z])"
    r"|credential|bearer|connection[_. -]?string",
    re.IGNORECASE,
)
_AT_THE_END = word_set(  # a word about the credential: its kind, its place, its age
    "alg algorithm alias arn at attribute audience backend bits bucket by claim class client"
    " column count created curve date days default delay description digest domain domains"
    " duration email enabled encoding endpoint endpoints error expiration expired expires"
    " expiry field fields file filename flow folder format grace group header headers help"
    " hint hours id ids in index interval issuer kind label labels latency length level"
    " lifetime limit limits link location login manager map mapping max method methods min"
    " minutes mode model name names ns number optional order owner page param parameter path"
    " period placeholder placement policy position prefix price property provider quota rate"
    " ref reference regex region required requirement requirements retries role rotated"
    " rotation rule rules schema scheme scope scopes seconds separator size source space state"
    " status storage store strategy suffix tab target template time timeout timestamp title ttl"
    " type types updated uri uris url urls usage used user username validation validity variable"
    " vault version visibility window"
)
_AT_THE_FRONT = word_set(  # a switch or a figure
    "allow allowed count disable enable enabled has hide is max maximum min minimum num number"
    " require required requires show skip supports total use uses using with without"
)
_OTHER_KEYS = word_set(  # keys that open nothing
    "aggregation attribute business cache clustering cluster column composite dedup dedupe"
    " deduplication dist distribution document event external email field foreign group grouping"
    " hot id idempotency identifier index item join json label lookup map match merge message name"
    " metric natural object ordering partition path primary property range"
    " record row routing sample shard short sort surrogate table tag trait translation"
    " unique upsert"
)
_OPEN_KEYS = frozenset({"public", "publishable", "site"})


class Meaning(IntEnum):
    """What may stand under a key.

    Members:
        ANYTHING: nothing is said.
        ABOUT: something about a credential, such as ``tokenUrl``.
        MAYBE: a credential or something ordinary, such as ``key`` and ``auth``.
        CREDENTIAL: a credential, such as ``apiKey``.
    """

    ANYTHING = 0
    ABOUT = 1
    MAYBE = 2
    CREDENTIAL = 3


@lru_cache(maxsize=4096)
def meaning(key: str) -> Meaning:
    """Judge a key, whatever its spelling: ``apiKey``, ``api-key``, ``API_KEY``."""
    key = key[-_LONGEST:]
    words = [word.lower() for word in _WORD.findall(key) if not word.isdigit()]
    if not words:
        return Meaning.ANYTHING
    found = _of_words(words, key)
    if found is Meaning.ANYTHING:
        return found
    if words[-1] == "key" and _OPEN_KEYS.intersection(words[-2:-1]):
        return Meaning.ANYTHING
    return Meaning.ABOUT if _only_about(words) else found


def _only_about(words: list[str]) -> bool:
    last = words[-1]
    if last in ("key", "keys") and not _CREDENTIAL_WORDS.intersection(words):
        return any(word in _OTHER_KEYS for word in words[-2:-1])
    about = last in _AT_THE_END or last.removesuffix("s") in _AT_THE_END
    secret_id = last == "id" and "secret" in words
    return (about and not secret_id) or words[0] in _AT_THE_FRONT


def _of_words(words: list[str], key: str) -> Meaning:
    if any(word in _CREDENTIAL_WORDS for word in words) or _RUNS.search(key):
        return Meaning.CREDENTIAL
    tail = words[-2:] if words[-1] in _AFTER_SHORT else words[-1:]
    if tail[0] in _SHORT_WORDS:
        return Meaning.CREDENTIAL
    if any(word in _MAYBE_WORDS for word in words):
        return Meaning.MAYBE
    return Meaning.ANYTHING


def looks_like_credential(key: str) -> bool:
    """Tell whether a credential is, or may well be, what stands under a key."""
    return meaning(key) >= Meaning.MAYBE
