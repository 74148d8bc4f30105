"""What Dagster shows of an asset: its columns and facts beforehand, its figures after a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from dagster import (
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableSchema,
)

from analytics_assets.endpoints import Column, Endpoint
from analytics_assets.load import Outcome
from analytics_assets.resources import Warehouse


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
    marks = {"personal_data": column.personal, "redacted": column.secret or column.credentials}
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
    }


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
    if reading.warnings:
        metadata["warnings"] = MetadataValue.md("\n".join(f"- {w}" for w in reading.warnings))
    return metadata
