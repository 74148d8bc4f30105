"""What stands in place of a secret: a fingerprint, or a plain mark where a guess would find it.

A fingerprint shows that a secret was rotated without showing the secret. The rule:

- With a key of the team's own (``ANALYTICS_FINGERPRINT_KEY``) every secret becomes ``hmac:`` and
  twelve hex digits: HMAC-SHA256 under that key. Without the key nobody can try guesses.
- Without one, a secret that could be guessed becomes :data:`MARK`, so that its rotation does not
  show, and any other becomes ``sha256:`` and twelve hex digits.

A secret could be guessed unless it is at least 20 characters long and its parts are worth 48 bits.
Parts are the runs of letters (a capital may begin one) and the runs of digits; of a run only the
first two characters count, 4.7 bits a letter and 3.3 a digit, and a run that comes again counts
nothing: a long run is a word or a number, which is worth no more. Digits in counting order count
nothing, nor do letters in the order of the alphabet or of a keyboard. So a PIN, a password from a
list, a phrase of five words and a keyboard row could be guessed; 32 random hexadecimal digits, a
UUID and 24 random letters and digits could not.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
from typing import Any, Final

from analytics_assets.segment.exact_json import to_json

MARK: Final = "redacted"
SHORTEST: Final = 20
BITS: Final = 48.0
_DIGITS: Final = 12
_COUNTED: Final = 2
_RANDOM_BITS: Final = 1.6
"""Bits a character: random hexadecimal has 2.8 on average, a dotted path 1.4."""
_LETTERS_ONLY_BITS: Final = 2.2
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_NUMBER = re.compile(r"[0-9]+")
_IN_ORDER: Final = (
    "01234567890123456789",
    "abcdefghijklmnopqrstuvwxyz",
    "qwertyuiopasdfghjklzxcvbnm",
    "qazwsxedcrfvtgbyhnujmikolp",
)
_ROWS: Final = "\n".join([*_IN_ORDER, *(row[::-1] for row in _IN_ORDER)])
_LONGEST_ROW: Final = max(map(len, _IN_ORDER))
_LOOKED_AT: Final = 200
_LETTER_BITS: Final = math.log2(26)
_DIGIT_BITS: Final = math.log2(10)


def fingerprint(value: Any, key: str = "") -> str:
    """Return what stands in place of ``value``; see the rule above.

    Text is hashed as it is, so that a person who holds the secret can compute the same
    fingerprint; any other JSON value is hashed as compact JSON with sorted keys.

    Raises:
        RecursionError: the value is nested too deeply.
    """
    text = isinstance(value, str)
    raw = value.encode("utf-8", "surrogatepass") if text else to_json(value, sort_keys=True)
    if key:
        return "hmac:" + hmac.new(key.encode(), raw, "sha256").hexdigest()[:_DIGITS]
    if could_be_guessed(value):
        return MARK
    return "sha256:" + hashlib.sha256(raw).hexdigest()[:_DIGITS]


def could_be_guessed(value: Any) -> bool:
    """Tell whether trying likely values would find ``value``; of nested JSON, all of its texts."""
    if isinstance(value, dict):
        return all(could_be_guessed(item) for item in value.values())
    if isinstance(value, list):
        return all(could_be_guessed(item) for item in value)
    return not isinstance(value, str) or len(value) < SHORTEST or _bits(value) < BITS


def looks_random(text: str, shortest: int = 16) -> bool:
    """Tell whether ``text`` is more like a generated secret than like words and numbers."""
    sample = text[:32]
    if len(text) < shortest or " " in sample or "://" in sample or _DATE.match(sample):
        return False
    digits = any(character.isdigit() for character in sample)
    return _bits(sample) >= len(sample) * (_RANDOM_BITS if digits else _LETTERS_ONLY_BITS)


def _bits(text: str) -> float:
    """Estimate what it takes to guess ``text``, from its first characters."""
    text = text[:_LOOKED_AT]
    return _LETTER_BITS * _counted(_WORD.findall(text)) + _DIGIT_BITS * _counted(
        _NUMBER.findall(text)
    )


def _counted(runs: list[str]) -> int:
    """Count the characters that are hard to guess."""
    joined = "".join(runs)
    if len(joined) <= _LONGEST_ROW and joined.lower() in _ROWS:
        return 0
    return len("".join([run[:_COUNTED] for run in set(runs)]))
