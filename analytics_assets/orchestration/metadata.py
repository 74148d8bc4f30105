"""What Dagster shows of an asset: its columns and facts beforehand, its figures after a run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from dagster import (
    AssetSpec,
    DagsterInvalidDefinitionError,
    MetadataValue,
    TableColumn,
    TableColumnConstraints,
    TableMetadataValue,
    TableRecord,
    TableSchema,
)

from analytics_assets.orchestration.deployment import DETAILS
from analytics_assets.orchestration.resources import Warehouse
from analytics_assets.segment.errors import SettingError
from analytics_assets.segment.model import Column, Endpoint, Table
from analytics_assets.segment.spans import SPANS, Recorder

if TYPE_CHECKING:
    import pyarrow as pa

    from analytics_assets.warehouse.outcome import Outcome

LOAD_ID: Final = "The load that last brought the row; joins to _dlt_loads.load_id."
LAST: Final = (
    "rows_loaded",
    "pages",
    "requests",
    "seconds",
    "seconds_waited",
    "retries",
    "dagster/table_name",
    "dagster/column_schema",
    "empty_columns",
    "notes",
)
"""Metadata of a load in the order of its page, after what it says of the workspace."""
FIRST: Final = (
    "chart",
    "available",
    "warnings",
    "newest_day",
    "dagster/row_count",
    "newly_deleted_rows",
    "deleted_rows",
    "forgotten_rows",
    "preview",
)
"""What comes before; the chart is followed by figures under names of their own."""
MASK: Final = "\N{BULLET}\N{BULLET}\N{BULLET}"
LONGEST_CELL: Final = 60


def table_schema(table: Table, columns: Iterable[Column]) -> TableSchema:
    """Return the columns of a table as Dagster shows them."""
    keys = table.key_columns
    return TableSchema(
        columns=[
            TableColumn(
                name=column.name,
                type=column.type,
                description=column.description or _dlts_own(column.name),
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


def _dlts_own(name: str) -> str | None:
    return LOAD_ID if name == "_dlt_load_id" else None


def ordered(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata in the order in which people want it: answers first, the pipeline last."""

    def place(name: str) -> int:
        if name in LAST:
            return len(FIRST) + 1 + LAST.index(name)
        if name in FIRST:
            return FIRST.index(name) + (name != "chart")
        return 1

    return dict(sorted(metadata.items(), key=lambda item: place(item[0])))


def _column_tags(column: Column) -> dict[str, str]:
    marks = {"personal_data": column.personal, "redacted": column.redacted}
    return {name: "" for name, marked in marks.items() if marked}


def table_name(table: Table, warehouse: Warehouse) -> str:
    """Return ``<dataset>.<table>``."""
    return f"{warehouse.dataset_name()}.{table.name}"


def definition_metadata(endpoint: Endpoint, warehouse: Warehouse) -> dict[str, Any]:
    """Return what is known of an asset before anything has run."""
    return {
        "dagster/column_schema": table_schema(endpoint, endpoint.table_columns),
        "dagster/table_name": table_name(endpoint, warehouse),
        "dagster/storage_kind": warehouse.destination_name(),
        "api_path": endpoint.path,
        "api_docs": MetadataValue.url(endpoint.docs),
        "key": ", ".join(endpoint.key_columns),
    }


def owners(given: Sequence[str] | None = None) -> list[str]:
    """Return who answers for the assets: who is given, else whom ``ANALYTICS_OWNERS`` lists.

    Raises:
        SettingError: Dagster does not take one of them; the text names the variable.
    """
    listed = os.environ.get("ANALYTICS_OWNERS", "").split(",")
    found = [owner.strip() for owner in given or listed if owner.strip()]
    try:
        AssetSpec("asked", owners=found)
    except DagsterInvalidDefinitionError:
        raise SettingError(
            f"The owners (ANALYTICS_OWNERS) are {', '.join(found)!r}; use e-mail addresses and"
            " teams such as 'team:data', with commas between."
        ) from None
    return found


def tags(table: Table) -> dict[str, str]:
    """Return the tags of an asset."""
    personal = any(column.personal for column in table.table_columns)
    marks = {"personal_data": personal, DETAILS: isinstance(table, Endpoint) and table.detail}
    return {name: "" for name, marked in marks.items() if marked}


def kinds(warehouse: Warehouse) -> set[str]:
    """Return the kinds of an asset: what loads it and where to."""
    return {"dlt", warehouse.destination_name()}


def run_metadata(outcome: Outcome, warehouse: Warehouse) -> dict[str, Any]:
    """Return the figures of a load that Dagster plots over time, and the columns as they are."""
    endpoint, staging = outcome.endpoint, outcome.staging
    metadata: dict[str, Any] = {
        "dagster/table_name": table_name(endpoint, warehouse),
        "dagster/column_schema": table_schema(endpoint, outcome.columns),
        "rows_loaded": staging.rows,
        **_extraction_metadata(outcome),
    }
    if outcome.counts:
        metadata["dagster/row_count"] = outcome.counts.rows
        if endpoint.full_list:
            metadata["deleted_rows"] = outcome.counts.deleted
            metadata["newly_deleted_rows"] = outcome.newly_deleted
    if isinstance(staging.newest, datetime):
        metadata["newest_day"] = staging.newest.date().isoformat()
    if outcome.forgotten:
        metadata["forgotten_rows"] = outcome.forgotten
    if notes := outcome.notes:
        metadata["notes"] = MetadataValue.json(notes.to_json())
    if (rows := preview(endpoint, staging.preview)) is not None:
        metadata["preview"] = rows
    if outcome.warnings:
        metadata["warnings"] = list(outcome.warnings)
    if not outcome.available:
        metadata["available"] = False
    return metadata


def _extraction_metadata(outcome: Outcome) -> dict[str, Any]:
    if outcome.reading is None:
        return {}
    extraction = outcome.reading.extraction
    return {
        "pages": extraction.pages,
        "requests": extraction.requests,
        "seconds": round(extraction.seconds, 3),
        "seconds_waited": round(extraction.waited, 3),
        "retries": extraction.retries,
    }


def run_figures(outcomes: Sequence[Outcome], recorder: Recorder) -> dict[str, Any]:
    """Return what a run has cost in all, as numbers that Dagster plots from run to run.

    And where its time went, as a table: what the spans are stands in ``spans.py``.
    """
    read = [o.reading.extraction for o in outcomes if o.reading is not None]
    return {
        "assets_loaded": sum(o.loaded for o in outcomes),
        "assets_failed": sum(o.failure is not None for o in outcomes),
        "rows_loaded": sum(o.staging.rows for o in outcomes if o.loaded),
        "requests": sum(extraction.requests for extraction in read),
        "retries": sum(extraction.retries for extraction in read),
        "seconds_waited": round(sum(extraction.waited for extraction in read), 3),
        "spans": MetadataValue.table([TableRecord(row) for row in _span_rows(recorder)]),
    }


def _span_rows(recorder: Recorder) -> Iterator[dict[str, str | float]]:
    """Yield the seconds of each span: of the run, the thread that loads, and those that read."""
    lanes = {
        "seconds": recorder.critical,
        "seconds_loading": recorder.loading,
        "thread_seconds_reading": recorder.aside,
    }
    for name in SPANS:
        found = {column: lane[name].seconds for column, lane in lanes.items() if name in lane}
        if found:
            yield {"span": name, **{lane: round(found.get(lane, 0.0), 3) for lane in lanes}}


def preview(table: Table, rows: pa.Table | None) -> TableMetadataValue | None:
    """Return a few rows as a table for the asset's page, ``None`` if there are none.

    Personal data and whatever is secret, or may hold secrets, is masked; so are texts that
    nothing declares, as nobody has said yet what they hold.
    """
    if rows is None or not rows.num_rows:
        return None
    declared = {column.name: column for column in table.table_columns}
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
