"""Values that are no secrets: words, figures, and what stands for a secret that is elsewhere."""

from __future__ import annotations

import re
from typing import Final

_LONGEST: Final = 300


def word_set(words: str) -> frozenset[str]:
    """Return words that are separated by blanks as a set."""
    return frozenset(words.split())


_BETWEEN: Final = r"(?:[\s.,;/()\[\]|'\"_$-]|:(?=[\s/]))"
_PART: Final = r"(?:[^\W\d_]+|\d{1,5})"
_PLAIN = re.compile(rf"{_BETWEEN}*{_PART}(?:{_BETWEEN}+{_PART})*(?:{_BETWEEN}|[:!?%])*")
_ALGORITHM = re.compile(
    r"(?:hmac|pkcs|rsa|ecdsa|ecdh|aead|oauth|saml|tls|ssl|aes|sha|md|hs|rs|es|ps|ed|x|v|p|base|utf"
    r"|des|http|bcrypt|argon|scrypt|pbkdf|cbc|gcm|oaep|pss|with|a|kw|k|s)?[-_ /.]?\d{0,5}"
    r"(?:[-_ /.]?(?:hmac|pkcs|rsa|ecdsa|ecdh|oauth|aes|sha|gcm|cbc|ctr|ecb|bits?|bytes|padding|v|kw"
    r"|oaep|with|id|s|min|h|d|ms|m)[-_ /.]?\d{0,5}){0,4}",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(
    r"\{\{[^{}\"']{1,100}\}\}"
    r"|\$?\{\{?[\w\s.:-]{1,100}\}\}?"
    r"|\$[A-Za-z_][\w.]{0,100}|\$\d{1,3}"
    r"|%\(?[A-Za-z_]\w{0,60}\)?[s%]|%[sdr]"
    r"|<[A-Za-z][A-Za-z _.-]{0,60}>|\[[A-Za-z][A-Za-z _-]{0,60}\]"
    r"|:[A-Za-z_]{1,60}|\?"
    r"|[*•●xX.·_#-]{3,}[\w]{0,4}|[\w]{0,4}[*•●]{3,}[\w]{0,4}"
    r"|(?:arn:aws[\w-]*:|projects/|(?:env|vault|ssm|op|awssm|gcp-?sm|akv|secretref|keyvault)[:/])\S*"
    r"|(?:os|process|env|var|vars|secrets|self|this|settings|config|context|ctx|params|data|local)"
    r"(?:\.[A-Za-z_]\w{0,60}|\[['\"]\w{1,60}['\"]\]){1,6}"
    r"|your[-_ ][\w -]{1,60}|(?:insert|enter|put)[-_ ][\w -]{1,60}|change[-_ ]?me[-_]here"
    r"|sha256:[0-9a-f]{12}|hmac:[0-9a-f]{12}|redacted|\(redacted\)|<redacted>|masked|hidden"
    r"|null|none|nil|undefined|true|false|n/a|disabled|enabled|required|optional",
    re.IGNORECASE,
)


def is_plain(text: str) -> bool:
    """Tell whether ``text`` is made of words and short numbers only, or names an algorithm."""
    text = text[:_LONGEST]
    return bool(_PLAIN.fullmatch(text) or _ALGORITHM.fullmatch(text))


def is_placeholder(text: str) -> bool:
    """Tell whether ``text`` stands for a secret without being one: ``{{token}}``, bullets, none."""
    text = text.strip()
    return not text or (len(text) <= _LONGEST and bool(_PLACEHOLDER.fullmatch(text)))
