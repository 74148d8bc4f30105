"""Keep secrets out of everything that is stored: a value becomes a short fingerprint.

A fingerprint (``sha256:`` and twelve hex digits) shows that a secret was rotated without showing
the secret. Which fields are secret is declared in ``endpoints.py``; inside free-form settings a
value counts as secret when its key reads like a credential.
"""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache
from typing import Any

import orjson

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_CREDENTIAL_WORDS = frozenset(
    "auth authentication authorization bearer certificate cert ciphertext cookie credential"
    " credentials creds dsn encrypted encryption hmac jwt key keys oauth otp pass passcode"
    " passphrase passwd password passwords pem pin private pwd salt sas secret secrets session"
    " signature signing token tokens".split()
)
_CREDENTIAL_RUNS = re.compile(
    r"(api|access|account|license|private|secret|shared|write|dev)_?keys?|secret|token|passw|passphrase"
    r"|credential|connection_?string",
    re.IGNORECASE,
)
_USERINFO = re.compile(r"(?<=://)[^/@\s]+:[^/@\s]+(?=@)")


def fingerprint(value: Any) -> str:
    """Return ``sha256:`` and the first twelve hex digits of the hash of ``value``.

    Text is hashed as it is, so that a person who holds the secret can compute the same
    fingerprint; any other JSON value is hashed as compact JSON with sorted keys.
    """
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
    else:
        raw = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    return "sha256:" + hashlib.sha256(raw).hexdigest()[:12]


@lru_cache(maxsize=4096)
def looks_like_credential(key: str) -> bool:
    """Tell whether a key of free-form settings names a credential, whatever its spelling."""
    words = (word.lower() for word in _WORD.findall(key))
    return any(word in _CREDENTIAL_WORDS for word in words) or bool(_CREDENTIAL_RUNS.search(key))


def mask_secret(value: Any) -> Any:
    """Replace a secret value by its fingerprint; a list item by item.

    Null, empty text and booleans stay: they say that nothing is set, or that a switch is on.
    """
    if value is None or isinstance(value, bool) or value == "":
        return value
    if isinstance(value, list):
        return [mask_secret(item) for item in value]
    return fingerprint(value)


def mask_credentials(value: Any) -> Any:
    """Mask every value under a credential-like key, at any depth of free-form JSON.

    User information inside URLs (``scheme://user:password@host``) is masked wherever it stands.
    """
    if isinstance(value, dict):
        return {
            key: mask_secret(item) if looks_like_credential(key) else mask_credentials(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [mask_credentials(item) for item in value]
    if isinstance(value, str) and "://" in value:
        return _USERINFO.sub(lambda found: fingerprint(found.group()), value)
    return value
