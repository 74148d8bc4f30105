"""Keep secrets out of everything that is stored: a value becomes a short fingerprint.

A fingerprint (``sha256:`` and twelve hex digits) shows that a secret was rotated without showing
the secret. Which fields are secret is declared in ``endpoints.py``; inside free-form settings a
value counts as secret when its key reads like a credential.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import lru_cache
from typing import Any

import orjson

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_WORDS = (
    "auth authentication authorization bearer certificate cert ciphertext cookie credential "
    "credentials creds dsn encrypted encryption hmac jwt key keys oauth otp pass passcode "
    "passphrase passwd password passwords pem pin private pwd salt sas secret secrets session "
    "signature signing token tokens"
)
_CREDENTIAL_WORDS = frozenset(_WORDS.split())
_CREDENTIAL_RUNS = re.compile(
    r"(access|account|api|app|auth|client|consumer|dev|encryption|hash|host|license|master|private"
    r"|rsa|secret|server|service|session|shared|signing|ssh|storage|write)_?keys?(?![a-z])"
    r"|secret(?!ar)|token(?!i[sz])|passw|passphrase|pwd|(?<!by)(?<!com)pass(?![a-z])|credential"
    r"|bearer|connection_?string",
    re.IGNORECASE,
)
_NAME_FIELDS = ("key", "name", "header", "field")
_VALUE_FIELDS = frozenset({"value", "values", "defaultValue"})
_USERINFO = re.compile(r"(?<=://)(?:[^/\s:@?#]*:(?!\d+[/?#])\S*|[^/\s@?#]+)(?=@)")
_URL_PARAMETER = re.compile(r"(?<=[?&;#])([^=&;#\s]+)=([^&;#\s]+)")
_AUTH_SCHEME = re.compile(r"(?:basic|bearer)\s+\S{8,}", re.IGNORECASE)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")


def fingerprint(value: Any) -> str:
    """Return ``sha256:`` and the first twelve hex digits of the hash of ``value``.

    Text is hashed as it is, so that a person who holds the secret can compute the same
    fingerprint; any other JSON value is hashed as compact JSON with sorted keys.
    """
    if isinstance(value, str):
        raw = value.encode("utf-8", "surrogatepass")
    else:
        raw = to_json(value, sort_keys=True)
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

    Text is masked wherever it stands if it reads like a credential itself: an authorization
    header, a private key, user information or a credential-like parameter of a URL, JSON inside.
    """
    if isinstance(value, dict):
        return _mask_object(value)
    if isinstance(value, list):
        return [mask_credentials(item) for item in value]
    return _mask_text(value) if isinstance(value, str) else value


def _mask_object(value: dict[str, Any]) -> dict[str, Any]:
    """Mask an object; of a pair such as ``{"key": "Authorization", "value": ...}`` the value."""
    has_value = not value.keys().isdisjoint(_VALUE_FIELDS)
    pair = next((name for name in _NAME_FIELDS if has_value and name in value), None)
    named = value[pair] if pair else None
    secret_pair = isinstance(named, str) and looks_like_credential(named)
    masked = {}
    for key, item in value.items():
        if key == pair and isinstance(item, str):
            masked[key] = _mask_text(item)
        elif looks_like_credential(key) or (secret_pair and key in _VALUE_FIELDS):
            masked[key] = mask_secret(item)
        else:
            masked[key] = mask_credentials(item)
    return masked


def _mask_text(text: str) -> str:
    if _AUTH_SCHEME.fullmatch(text) or _PRIVATE_KEY.search(text):
        return fingerprint(text)
    if text[:1] in ("{", "["):
        return _mask_json_text(text)
    if "://" in text:
        text = _USERINFO.sub(lambda found: fingerprint(found.group()), text)
        text = _URL_PARAMETER.sub(_mask_parameter, text)
    return text


def _mask_json_text(text: str) -> str:
    """Mask JSON that is kept as text; it stays as it is unless there is something to mask."""
    try:
        inner = orjson.loads(text)
    except orjson.JSONDecodeError:
        return text
    masked = mask_credentials(inner)
    return text if masked == inner else to_json(masked).decode()


def _mask_parameter(found: re.Match[str]) -> str:
    name, value = found.groups()
    return f"{name}={fingerprint(value)}" if looks_like_credential(name) else found.group()


def to_json(value: Any, *, sort_keys: bool = False) -> bytes:
    """Write compact JSON; exact for whole numbers of any size, which orjson refuses beyond 64 bits.

    Raises:
        RecursionError: it is nested too deeply.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError:
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=sort_keys)
        return text.encode()
