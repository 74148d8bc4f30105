"""The tables as a dbt source, whose tables are Dagster's assets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS, GROUPS
from analytics_assets.segment.model import Column, Endpoint


def sources_yml(
    key_prefix: Sequence[str] = (),
    dataset: str = "analytics",
    selection: Sequence[str] = (),
    name: str = "segment",
) -> str:
    """Return a ``sources.yml``; ``meta.dagster.asset_key`` of each table is the key of its asset.

    Args:
        key_prefix: what stands in front of the asset keys.
        dataset: schema of the tables.
        selection: names of assets and groups; everything if empty.
        name: what models call the source.

    Raises:
        LookupError: an asset or group is unknown.
    """
    lines = [
        "version: 2",
        "sources:",
        f"  - name: {_text(name)}",
        f"    schema: {_text(dataset)}",
        "    tables:",
    ]
    for endpoint in selected(selection):
        lines += _table(endpoint, [*key_prefix, endpoint.name])
    return "\n".join(lines) + "\n"


def selected(names: Sequence[str]) -> list[Endpoint]:
    """Return the endpoints of these names and groups, in the order of ``endpoints.py``.

    Raises:
        LookupError: a name is neither an asset nor a group.
    """
    unknown = sorted(set(names) - set(BY_NAME) - set(GROUPS))
    if unknown:
        raise LookupError(f"no asset or group is called {', '.join(unknown)}")
    return [e for e in ENDPOINTS if not names or {e.name, e.group} & set(names)]


def _table(endpoint: Endpoint, key: Sequence[str]) -> Iterator[str]:
    yield f"      - name: {_text(endpoint.name)}"
    yield f"        description: {_text(endpoint.description)}"
    yield f"        meta: {{dagster: {{asset_key: {json.dumps(list(key))}}}}}"
    yield "        columns:"
    for column in endpoint.table_columns:
        yield f"          - name: {_text(column.name)}"
        yield f"            description: {_text(column.description)}"
        yield from _column(endpoint, column)


def _column(endpoint: Endpoint, column: Column) -> Iterator[str]:
    if column.personal or column.redacted:
        marks = {"personal_data": column.personal, "redacted": column.redacted}
        yield f"            meta: {json.dumps({name: True for name, on in marks.items() if on})}"
    if column.name in endpoint.key_columns:
        yield "            data_tests: [not_null]"


def _text(text: str) -> str:
    """Quote a text; a JSON string is a YAML string."""
    return json.dumps(text, ensure_ascii=False)
