"""The invented company behind the sandbox: its size, its identifiers and its secrets.

Everything in ``lists`` is made from it by pure functions: the same seed and the same index give
the same record. A record is made in two halves, so that a hundred thousand of them stay cheap. The
*head* holds what is its own (identifiers, names, keys) and is made on demand; the *tail* holds
everything else, is taken from a limited number of variants and therefore serialised only once.
"""

from __future__ import annotations

import base64
import hashlib
import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

Record = dict[str, Any]

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
HEX = "0123456789abcdef"

MASK = "\u2022"
"""The bullet with which the service hides a secret."""

_CREDENTIAL_KEYS = frozenset(
    {
        "accesstoken",
        "apikey",
        "authorization",
        "ciphertext",
        "clientsecret",
        "encrypted",
        "password",
        "privatekey",
        "secretid",
        "token",
        "webhooksecret",
    }
)
_SECRET_MIN_LENGTH = 16
_USERINFO = re.compile(r"://[^/:@\s]+:([^/:@\s]+)@")
_KEPT_IDS = 20_000
_FIRST_DAY = datetime(2023, 1, 9)


@dataclass(frozen=True)
class Ids:
    """What the identifiers of a list look like.

    Attributes:
        alphabet: the characters they are made of.
        length: how many of them.
        prefix: what stands in front of these.
        salt: what they are drawn by, the name of the list when empty.
    """

    alphabet: str
    length: int
    prefix: str = ""
    salt: str = ""


OTHER_IDS: Mapping[str, Ids] = {"tokens": Ids(BASE62, 8), "others": Ids(BASE58, 22)}
"""Identifiers of things that no list holds."""


class IdCodec:
    """Turns an index into an identifier that looks random, and such an identifier back."""

    def __init__(self, ids: Ids, salt: str) -> None:
        """Prepare identifiers of this look, drawn by the salt."""
        self._known: dict[int, str] = {}
        self._ids = ids
        self._size: int = len(ids.alphabet) ** ids.length
        rng = rng_for(salt)
        self._offset: int = rng.randrange(self._size)
        self._factor: int = rng.randrange(self._size // 3, self._size)
        while math.gcd(self._factor, self._size) != 1:
            self._factor += 1
        self._inverse: int = pow(self._factor, -1, self._size)

    def encode(self, index: int) -> str:
        """Give the identifier of the record with this index."""
        known = self._known.get(index)
        if known is None:
            known = self._make(index)
            if index < _KEPT_IDS:
                self._known[index] = known
        return known

    def _make(self, index: int) -> str:
        number = (index * self._factor + self._offset) % self._size
        alphabet, length = self._ids.alphabet, self._ids.length
        if alphabet == HEX:
            return f"{self._ids.prefix}{number:0{length}x}"
        letters = [self._ids.prefix]
        for _ in range(length):
            number, digit = divmod(number, len(alphabet))
            letters.append(alphabet[digit])
        return "".join(letters)

    def decode(self, text: str) -> int:
        """Give the index an identifier was made from, whatever stands in front of it.

        Any text gives some number.
        """
        number = 0
        alphabet = self._ids.alphabet
        letters = text[-self._ids.length :]
        for letter in letters if alphabet == HEX else letters[::-1]:
            number = number * len(alphabet) + max(alphabet.find(letter), 0)
        return ((number - self._offset) * self._inverse) % self._size


def rng_for(salt: str) -> random.Random:
    """Give a random generator that depends on nothing but the salt."""
    return random.Random(salt)  # noqa: S311 - invented data, not cryptography


def chance(rng: random.Random, share: float) -> bool:
    """Give true in a share of the cases."""
    return rng.random() < share


def stamp(number: int, later: int = 0) -> str:
    """Give the time of something, or that of its first or second change.

    Worked out without a random generator, which costs more than all the rest of a rule.
    """
    minutes = number * 104_729 % 500_000 + later * (1 + number * 7_919 % 250_000)
    moment = _FIRST_DAY + timedelta(minutes=minutes, milliseconds=number * 911 % 60_000)
    return f"{moment.isoformat(timespec='milliseconds')}Z"


def is_secret(key: str, value: object) -> bool:
    """Tell whether a setting is a credential in the clear, by its name and its value."""
    plain = "".join(letter for letter in key.lower() if letter.isalnum())
    return (
        plain in _CREDENTIAL_KEYS
        and isinstance(value, str)
        and len(value) >= _SECRET_MIN_LENGTH
        and MASK not in value
    )


def secrets_in(value: object) -> set[str]:
    """Collect the credentials within free-form settings, at any depth."""
    found: set[str] = set()
    if isinstance(value, dict):
        for key, item in value.items():
            if is_secret(key, item):
                found.add(item.removeprefix("Bearer "))
            found |= secrets_in(item)
    elif isinstance(value, list):
        for item in value:
            found |= secrets_in(item)
    elif isinstance(value, str):
        found.update(_USERINFO.findall(value))
    return found


class Company:
    """One invented company, of which the functions in ``lists`` make the records.

    Attributes:
        seed: decides every record.
        counts: the number of records of each list; of a list that hangs on another one, the
            number for each record of that one, where it was asked for.
        workspace_id: the identifier of its workspace.
    """

    def __init__(self, seed: int, counts: Mapping[str, int], ids: Mapping[str, Ids]) -> None:
        """Prepare the company for a seed, sizes of lists and looks of identifiers."""
        self.seed = seed
        self.counts = counts
        self.codecs: Mapping[str, IdCodec] = {
            name: IdCodec(look, f"{seed}:{look.salt or name}")
            for name, look in {**OTHER_IDS, **ids}.items()
        }
        self.workspace_id = IdCodec(Ids(BASE58, 22), f"{seed}:workspace").encode(1)

    def id_at(self, name: str, index: int) -> str:
        """Give the identifier of the record with this index."""
        return self.codecs[name].encode(index)

    def id_of(self, name: str, index: int) -> str:
        """Give the identifier of a record; an index beyond the list is wrapped round."""
        return self.id_at(name, self.wrapped(name, index))

    def wrapped(self, name: str, index: int) -> int:
        """Give an index of a list; one beyond the list is wrapped round."""
        return index % max(self.counts.get(name, 1), 1)

    def rng(self, name: str, index: int) -> random.Random:
        """Give the random generator of one record."""
        return rng_for(f"{self.seed}:{name}:{index}")

    def secret(self, *parts: object) -> str:
        """Give a credential of 40 characters, the same for the same parts."""
        text = ":".join(str(part) for part in (self.seed, *parts))
        digest = hashlib.blake2b(text.encode(), digest_size=30).digest()
        return base64.b64encode(digest, altchars=b"xQ").decode()
