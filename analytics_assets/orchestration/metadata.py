"""What Dagster shows of an asset: its columns and facts beforehand, its figures after a run."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from dagster import (
    BetaWarning,
    CodeReferencesMetadataValue,
    LocalFileCodeReference,
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableMetadataValue,
    TableRecord,
    TableSchema,
)

from analytics_assets.orchestration.resources import Warehouse
from analytics_assets.segment import endpoints
from analytics_assets.segment.model import Column, Endpoint

if TYPE_CHECKING:
    import pyarrow as pa

    from analytics_assets.warehouse.load import Outcome

OWNER: Final = "team:data-platform"
"""Who answers for the assets: a name of a team, as Dagster shows it."""
MASK: Final = "\N{BULLET}\N{BULLET}\N{BULLET}"
LONGEST_CELL: Final = 60
_ROW_NAME = re.compile(r'\s+name="(\w+)",')


def table_schema(endpoint: Endpoint, columns: Iterable[Column]) -> TableSchema:
    """Return the columns of a table as Dagster shows them."""
    keys = endpoint.column_keys
    return TableSchema(
        columns=[
            TableColumn(
                name=column.name,
                type=column.type,
                description=column.description or None,
                constraints=TableColumnConstraints(
                    nullable=column.name not in keys,
                    unique=len(keys) == 1 and column.name in keys,
                    other=["primary key"] if column.name in keys else [],
                ),
                tags=_column_tags(column),
            )
            for column in columns
        ]
    )


def _column_tags(column: Column) -> dict[str, str]:
    marks = {"personal_data": column.personal, "redacted": column.redacted}
    return {name: "" for name, marked in marks.items() if marked}


def table_name(endpoint: Endpoint, warehouse: Warehouse) -> str:
    """Return ``<dataset>.<table>``."""
    return f"{warehouse.dataset_name()}.{endpoint.name}"


def definition_metadata(endpoint: Endpoint, warehouse: Warehouse) -> dict[str, Any]:
    """Return what is known of an asset before anything has run."""
    return {
        "dagster/column_schema": table_schema(endpoint, endpoint.table_columns),
        "dagster/table_name": table_name(endpoint, warehouse),
        "dagster/storage_kind": warehouse.destination_name(),
        "api_path": endpoint.path,
        "api_docs": MetadataValue.url(endpoint.docs),
        "key": ", ".join(endpoint.column_keys),
        **code_reference(endpoint),
    }


def code_reference(endpoint: Endpoint) -> Mapping[str, Any]:
    """Return a link to the row of ``endpoints.py`` that declares an asset; none without sources."""
    line = _row_lines().get(endpoint.name)
    if line is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BetaWarning)  # users of the project cannot do anything
        return {"dagster/code_references": _reference(endpoint, line)}


def _reference(endpoint: Endpoint, line: int) -> CodeReferencesMetadataValue:
    reference = LocalFileCodeReference(
        file_path=str(endpoints.__file__),
        line_number=line,
        label=f"{endpoint.name} in endpoints.py",
    )
    return CodeReferencesMetadataValue(code_references=[reference])


@lru_cache(maxsize=1)
def _row_lines() -> Mapping[str, int]:
    """Return the line in ``endpoints.py`` of each row's name."""
    try:
        lines = Path(str(endpoints.__file__)).read_text("utf-8").splitlines()
    except OSError:
        return {}
    found = ((number, _ROW_NAME.fullmatch(line)) for number, line in enumerate(lines, 1))
    return {name[1]: number for number, name in found if name}


def owners() -> list[str]:
    """Return who answers for the assets."""
    return [OWNER]


def tags(endpoint: Endpoint) -> dict[str, str]:
    """Return the tags of an asset."""
    personal = any(column.personal for column in endpoint.columns)
    return {"personal_data": ""} if personal else {}


def kinds(warehouse: Warehouse) -> set[str]:
    """Return the kinds of an asset: what loads it and where to."""
    return {"dlt", warehouse.destination_name()}


def run_metadata(outcome: Outcome, warehouse: Warehouse) -> dict[str, Any]:
    """Return the figures of a load that Dagster plots over time, and the columns as they are."""
    endpoint, reading = outcome.endpoint, outcome.reading
    metadata: dict[str, Any] = {
        "dagster/table_name": table_name(endpoint, warehouse),
        "dagster/column_schema": table_schema(endpoint, outcome.columns),
        "rows_loaded": reading.kept_rows,
        "pages": reading.pages,
        "requests": reading.requests,
        "seconds": round(reading.seconds, 3),
        "seconds_waited": round(reading.waited, 3),
    }
    if outcome.counts:
        metadata["dagster/row_count"] = outcome.counts.rows
        if endpoint.full_list:
            metadata["deleted_rows"] = outcome.counts.deleted
            metadata["newly_deleted_rows"] = outcome.newly_deleted
    if (rows := preview(endpoint, reading.preview)) is not None:
        metadata["preview"] = rows
    if reading.warnings:
        metadata["warnings"] = MetadataValue.md("\n".join(f"- {w}" for w in reading.warnings))
    return metadata


def preview(endpoint: Endpoint, rows: pa.Table | None) -> TableMetadataValue | None:
    """Return a few rows as a table for the asset's page, ``None`` if there are none.

    Personal data and whatever is secret, or may hold secrets, is masked; so are texts that
    ``endpoints.py`` does not declare, as nobody has said yet what they hold.
    """
    if rows is None or not rows.num_rows:
        return None
    declared = {column.name: column for column in endpoint.table_columns}
    records = [
        TableRecord({name: _cell(declared.get(name), value) for name, value in row.items()})
        for row in rows.to_pylist()
    ]
    kinds_shown = [
        TableColumn(name, declared[name].type if name in declared else "undeclared")
        for name in rows.column_names
    ]
    return MetadataValue.table(records, TableSchema(columns=kinds_shown))


def _cell(column: Column | None, value: Any) -> str | int | float | bool | None:
    """Return a value as a cell: masked, shortened, or as it is."""
    if value is None:
        return None
    if column and (column.personal or column.redacted):
        return MASK
    if isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if column is None:
        return MASK
    text = str(value)
    return (
        text if len(text) <= LONGEST_CELL else f"{text[: LONGEST_CELL - 1]}\N{HORIZONTAL ELLIPSIS}"
    )
