"""Read and write JSON that loses nothing."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any, Final

import orjson

_LONG_NUMBER: Final = b"0" * 19
_DIGITS_AS_ZERO: Final = bytes.maketrans(b"123456789.", b"0" * 10)
_LONGEST_INT: Final = 4000
"""Digits that Python makes an ``int`` of without being told that it may."""


def parse_json(content: bytes | bytearray) -> Any:
    """Parse JSON exactly, the odd too; orjson rounds long numbers and refuses half characters.

    A number that no ``int`` or ``float`` equals becomes a :class:`~decimal.Decimal`. Half a
    character, and a byte that is no UTF-8, become lone surrogates. A byte order mark
    is passed over.

    Raises:
        ValueError: it is not JSON; the text tells the place, not the content.
        RecursionError: it is nested too deeply.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        return _parse_slowly(content)
    long = _LONG_NUMBER in content.translate(_DIGITS_AS_ZERO)
    return _parse_slowly(content) if long else value


def _parse_slowly(content: bytes | bytearray) -> Any:
    return json.loads(
        content.decode("utf-8-sig", "surrogateescape"),
        parse_float=_fraction,
        parse_int=lambda text: int(text) if len(text) <= _LONGEST_INT else Decimal(text),
        parse_constant=_refuse,
    )


def _fraction(text: str) -> float | Decimal:
    exact, near = Decimal(text), float(text)
    return near if Decimal(repr(near)) == exact else exact


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no value of JSON")


def to_json(value: Any, *, sort_keys: bool = False) -> bytes:
    """Write compact JSON; exact for whatever :func:`parse_json` returns.

    Raises:
        RecursionError: it is nested too deeply.
    """
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS if sort_keys else None)
    except TypeError:
        return _written(value, sort_keys).encode()


def _written(value: Any, sort_keys: bool) -> str:
    if isinstance(value, dict):
        items = sorted(value.items()) if sort_keys else value.items()
        return f"{{{','.join([f'{_scalar(k)}:{_written(v, sort_keys)}' for k, v in items])}}}"
    if isinstance(value, list):
        return f"[{','.join([_written(item, sort_keys) for item in value])}]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return str(value)
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # half characters: their escapes are JSON
        return json.dumps(value)
