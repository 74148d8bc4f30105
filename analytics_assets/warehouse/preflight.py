"""What refuses settings that cannot work, in one sentence, before anything is written."""

from __future__ import annotations

import importlib.util
import re
from typing import Final

from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.errors import SettingError
from analytics_assets.warehouse.destination import dlt_destination, local_folder
from analytics_assets.warehouse.duckdb_file import can_hold, may_be_duckdb
from analytics_assets.warehouse.faults import connection_error
from analytics_assets.warehouse.settings import WarehouseSettings

_DATASET: Final = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
"""Names that dlt leaves as they are: it would shorten ``a__b`` and lengthen ``a_``."""

DRIVERS: Final = {
    "bigquery": ("google.cloud.bigquery", "bigquery"),
    "clickhouse": ("clickhouse_driver", "clickhouse"),
    "databricks": ("databricks.sql", "databricks"),
    "delta": ("deltalake", "delta"),
    "postgres": ("psycopg2", "postgres"),
    "snowflake": ("snowflake.connector", "snowflake"),
}
"""The module that a destination (or table format) needs, and the extra that brings it."""


def check_settings(settings: WarehouseSettings) -> None:
    """Refuse settings that cannot work.

    Raises:
        SettingError: the text names the setting and what to do.
    """
    _check_dataset(settings)
    _check_table_format(settings)
    _check_forgetting(settings)
    if settings.is_duckdb:
        _check_duckdb_path(settings)
    else:
        dlt_destination(settings)  # dlt knows which ones there are
        _check_driver(settings)


def check_reachable(settings: WarehouseSettings, pipeline: Pipeline) -> None:
    """Refuse a destination that lacks credentials or does not answer.

    Raises:
        SettingError: one sentence that names the destination and what to set.
        DestinationUnreachable: it is away.
    """
    if settings.is_duckdb:
        return  # a file: opening it tells
    destination = settings.destination
    try:
        _check_home(settings, pipeline)
        client = pipeline.destination_client()
        if destination != "postgres":  # there the lock tells
            with client:
                pass
    except SettingError:
        raise
    except ConfigFieldMissingException as error:
        raise SettingError(
            f"The destination {destination!r} lacks the setting"
            f" {', '.join(sorted(error.fields))!r}; set"
            f" DESTINATION__{destination.upper()}__CREDENTIALS, or dlt's secrets.toml."
        ) from None
    except Exception as error:  # noqa: BLE001 - every driver has its own kind of error
        raise connection_error(error, settings) from None


def _check_home(settings: WarehouseSettings, pipeline: Pipeline) -> None:
    """Refuse a folder that dlt would make under the name of ``~``, and a file in its place."""
    folder = local_folder(settings, pipeline)
    if folder and "~" in folder.parts:
        raise SettingError(
            f"DESTINATION__FILESYSTEM__BUCKET_URL leads to {str(folder)!r}, since only a shell"
            " knows what ~ is; write the path in full."
        )
    place = folder / settings.dataset if folder else None
    if place and place.is_file():
        raise SettingError(
            f"{str(place)!r} is a file, where the folder of the dataset {settings.dataset!r}"
            " belongs; rename it, or load into another dataset, with ANALYTICS_DATASET."
        )


def _check_dataset(settings: WarehouseSettings) -> None:
    if not _DATASET.fullmatch(settings.dataset):
        raise SettingError(
            f"ANALYTICS_DATASET is {settings.dataset!r}; use lower-case letters, digits and single"
            " underscores between them, beginning with a letter."
        )


def _check_table_format(settings: WarehouseSettings) -> None:
    if settings.table_format not in (None, "delta") or (
        settings.table_format and settings.destination != "filesystem"
    ):
        raise SettingError(
            f"ANALYTICS_TABLE_FORMAT is {settings.table_format!r}; leave it out, or set it to delta"
            " together with ANALYTICS_DESTINATION=filesystem."
        )


def _check_forgetting(settings: WarehouseSettings) -> None:
    if settings.forget_days and not settings.marks_deletions:
        raise SettingError(
            f"ANALYTICS_FORGET_DAYS is {settings.forget_days}, but rows on the destination"
            f" {settings.destination!r} cannot be changed; leave it out and delete there by hand,"
            " or use a database."
        )


def _check_duckdb_path(settings: WarehouseSettings) -> None:
    path = settings.duckdb_path
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise SettingError(
            f"ANALYTICS_DUCKDB_PATH {str(path)!r} is not a file in an existing folder; create"
            " the folder, or name a file in another one."
        )
    if not can_hold(path.name, settings.dataset):
        raise SettingError(
            f"ANALYTICS_DUCKDB_PATH {path.name!r} has the same name as a schema, such as the"
            f" dataset {settings.dataset!r}, which DuckDB cannot tell apart; rename one of the two."
        )
    if not may_be_duckdb(path):
        raise SettingError(
            f"ANALYTICS_DUCKDB_PATH {str(path)!r} cannot be opened as a DuckDB database,"
            " because it is a file of another kind; name another file."
        )


def _check_driver(settings: WarehouseSettings) -> None:
    """Name the extra to install when the driver of the destination is missing."""
    name = settings.table_format or settings.destination
    module, extra = DRIVERS.get(name, ("dlt", ""))
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise SettingError(
            f"The destination {name!r} needs a driver that is not installed; install"
            f" analytics-assets[{extra}]."
        )
