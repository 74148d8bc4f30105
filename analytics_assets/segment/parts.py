"""Columns for parts of others, such as the kind and the identifier in ``user/abc``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from analytics_assets.segment.model import Endpoint

_REST: Final[Mapping[str, str]] = {"kind": "(?s)/.*$", "id": "^[^/]*/"}
"""What is taken away."""


def with_parts(endpoint: Endpoint, rows: pa.Table) -> pa.Table:
    """Return rows with the parts that the endpoint wants; a value without a slash is both."""
    for part in endpoint.parts:
        values = pc.replace_substring_regex(rows[part.of], _REST[part.side], "", max_replacements=1)
        rows = rows.append_column(part.column.name, values)
    return rows
