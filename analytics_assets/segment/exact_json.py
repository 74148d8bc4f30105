"""Write JSON that loses nothing."""

from __future__ import annotations

import json
from typing import Any

import orjson


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
