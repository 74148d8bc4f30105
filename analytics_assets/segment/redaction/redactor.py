"""Replace the secrets in JSON values, by what their keys say and by their shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from analytics_assets.segment.exact_json import parse_json, to_json
from analytics_assets.segment.redaction.fingerprints import fingerprint, looks_random
from analytics_assets.segment.redaction.keys import Meaning, meaning
from analytics_assets.segment.redaction.text import replace_credentials
from analytics_assets.segment.redaction.words import is_placeholder, is_plain, word_set

_NAMES: Final = word_set(
    "key name header headerName field id param parameter paramName property variable env option"
    " setting label attribute k n"
)
_VALUES: Final = word_set("value values default current val content data text v")
_SECRET_KINDS: Final = word_set(
    "secret password credential credentials encrypted sensitive token apikey api_key api-key"
    " secret_text secrettext securestring"
)
_SECRET_MARKS: Final = word_set(
    "secret sensitive encrypted issecret is_secret isencrypted masked secure"
)
_CIPHER: Final = word_set("algorithm alg cipher hash digest")
_PAIR: Final = 2
_UUID_LENGTH: Final = 36


@dataclass(frozen=True)
class Redactor:
    """Replaces secrets by fingerprints.

    Attributes:
        key: the team's own key of fingerprints, which must not be stored; empty without one.

    Every method takes any JSON value and returns one of the same kind with the secrets replaced.

    Raises:
        RecursionError: the value is nested too deeply.
    """

    key: str = field(default="", repr=False)

    def fingerprint(self, value: Any) -> str:
        """Return what stands in place of a secret."""
        return fingerprint(value, self.key)

    def whole(self, value: Any) -> Any:
        """Replace a value that is a secret; a list item by item.

        Null, empty text and booleans stay: they say that nothing is set, or that a switch is on.
        """
        if value is None or isinstance(value, bool) or value == "":
            return value
        if isinstance(value, list):
            return [self.whole(item) for item in value]
        return self.fingerprint(value)

    def by_shape(self, value: Any) -> Any:
        """Replace what is a credential by its shape, in the texts of a value at any depth."""
        if isinstance(value, str):
            return replace_credentials(value, self.fingerprint)
        if isinstance(value, list):
            return [self.by_shape(item) for item in value]
        if isinstance(value, dict):
            return {key: self.by_shape(item) for key, item in value.items()}
        return value

    def by_key(self, value: Any, key: str = "") -> Any:
        """Replace what is a credential by its key or its shape, in settings at any depth."""
        judged = meaning(key)
        if judged is Meaning.CREDENTIAL:
            return self._credential(value)
        if isinstance(value, dict):
            return self._object(value, key)
        if isinstance(value, list):
            return self._list(value, key)
        if not isinstance(value, str):
            return value
        return self._text(value, key, judged)

    def _credential(self, value: Any) -> Any:
        """Replace a credential, but not what stands for one: bullets, ``{{token}}``."""
        if isinstance(value, list):
            return [self._credential(item) for item in value]
        return value if isinstance(value, str) and is_placeholder(value) else self.whole(value)

    def _object(self, value: dict[str, Any], key: str) -> dict[str, Any]:
        """Of a pair such as ``{"key": "Authorization", "value": ...}`` the name counts as key."""
        named = _pair_name(value)
        cipher = not _CIPHER.isdisjoint(value)
        masked = {}
        for name, item in value.items():
            if named and name == named[0]:
                masked[name] = self.by_shape(item)
            elif named and _is_value(name):
                masked[name] = self.by_key(item, named[1])
            elif cipher and name in ("key", "salt", "iv"):
                masked[name] = self._credential(item)
            else:
                masked[name] = self.by_key(item, _inherited(name, key, item))
        return masked

    def _list(self, value: list[Any], key: str) -> list[Any]:
        """A list of a name and a value is a pair as well."""
        if len(value) == _PAIR and all(isinstance(item, str) for item in value):
            name, item = value
            header = "-" in name or not is_plain(item)
            if meaning(name) >= Meaning.MAYBE and is_plain(name) and header:
                return [name, self.by_key(item, name)]
        masked = []
        before = ""
        for item in value:
            masked.append(
                self.by_key(item, before.lstrip("-") if _names_next(before, item) else key)
            )
            before = item
        return masked

    def _text(self, text: str, key: str, judged: Meaning) -> str:
        if text.lstrip()[:1] in ("{", "["):
            inner = self._json_text(text)
            if inner is not None:
                return inner
        if is_placeholder(text):
            return text
        if judged is Meaning.MAYBE and _may_be_secret(text):
            return self.fingerprint(text)
        if judged is Meaning.ABOUT and _is_no_name(text):
            return self.fingerprint(text)
        return replace_credentials(text, self.fingerprint, webhook="hook" in key.lower())

    def _json_text(self, text: str) -> str | None:
        """Judge JSON that is kept as text; it stays as it is if there is nothing to replace."""
        try:
            inner = parse_json(text.encode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            return None
        masked = self.by_key(inner)
        return text if masked == inner else to_json(masked).decode()


def _inherited(name: str, outer: str, item: Any) -> str:
    """The key that counts: ``{"auth": {"value": ...}}`` and ``{"api": {"key": ...}}``."""
    if not isinstance(item, str):
        return name
    if name == "key" and meaning(f"{outer}_key") is Meaning.CREDENTIAL:
        return f"{outer}_key"
    return outer if _is_value(name) and meaning(outer) is Meaning.MAYBE else name


def _names_next(before: Any, item: Any) -> bool:
    """Tell whether an item of a list names the next one: ``["--token", ...]``, header names."""
    if not isinstance(before, str) or not isinstance(item, str):
        return False
    header = "-" in before and is_plain(before) and not is_plain(item)
    return before.startswith("-") or (header and meaning(before) is Meaning.CREDENTIAL)


def _is_value(name: str) -> bool:
    return name in _VALUES or name.endswith("Value")


def _pair_name(value: dict[str, Any]) -> tuple[str, str] | None:
    """Return which field of an object names what its value is, and the name; the worst counts."""
    if not any(map(_is_value, value)):
        return None
    if _says_secret(value):
        return "", "secret"
    found = [
        (name, item) for name, item in value.items() if name in _NAMES and isinstance(item, str)
    ]
    return max(found, key=lambda pair: meaning(pair[1]), default=None)


def _says_secret(value: dict[str, Any]) -> bool:
    kind = value.get("type", value.get("kind"))
    if isinstance(kind, str) and kind.lower() in _SECRET_KINDS:
        return True
    return any(item is True and name.lower() in _SECRET_MARKS for name, item in value.items())


def _is_no_name(text: str) -> bool:
    """Judge a value that should name or describe a credential, or say where it is."""
    file = "." in text and "/" in text
    return looks_random(text) and len(text) != _UUID_LENGTH and not file


def _may_be_secret(text: str) -> bool:
    """Judge a value under a key such as ``key`` or ``auth``, which often is something ordinary."""
    return not (is_plain(text) or "://" in text or text.isdigit())
