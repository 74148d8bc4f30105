"""The answer to a report, in a DuckDB that has what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb
import pyarrow as pa

from analytics_assets.reports.model import Report
from analytics_assets.segment.records import ARROW_TYPES
from analytics_assets.warehouse.copying import DUCKDB_TYPES


@dataclass(frozen=True)
class Parameters:
    """What reports are told, each a variable of DuckDB of that name: ``getvariable('now')``.

    Attributes:
        now: the present moment.
        plan_mtu: tracked users a month that the plan includes, ``None`` if nobody said.
        plan_api_calls: API calls a month that the plan includes, ``None`` if nobody said.
        inactive_days: days after which an administrator who did nothing is called inactive.
        silent_days: days without a call after which a source is called silent.
        spike_factor: how many times the usual of its weekday a day must have to be a spike.
    """

    now: datetime
    plan_mtu: int | None = None
    plan_api_calls: int | None = None
    inactive_days: int = 90
    silent_days: int = 7
    spike_factor: float = 3.0


def set_parameters(connection: duckdb.DuckDBPyConnection, parameters: Parameters) -> None:
    """Make the parameters variables of the connection."""
    for name, value in vars(parameters).items():
        connection.execute(f"SET VARIABLE {name} = ?", [value])


def answer(connection: duckdb.DuckDBPyConnection, report: Report) -> pa.Table:
    """Return the rows of a report, with the types of its header, in the order of its key."""
    columns = ", ".join(
        f'CAST("{column.name}" AS {DUCKDB_TYPES[column.type]}) AS "{column.name}"'
        for column in report.table_columns
    )
    key = ", ".join(f'"{name}"' for name in report.key_columns)
    schema = pa.schema(
        pa.field(c.name, ARROW_TYPES[c.type], nullable=c.name not in report.key_columns)
        for c in report.table_columns
    )
    sql = f"SELECT {columns} FROM (\n{report.sql}\n) ORDER BY {key}"
    return pa.table(connection.sql(sql)).cast(schema)


def figures(
    connection: duckdb.DuckDBPyConnection, report: Report, rows: pa.Table
) -> Mapping[str, Any]:
    """Return the figures of a report over its rows, by name."""
    if not (asked := report.header.figures):
        return {}
    shown = ", ".join(f'{sql} AS "{name}"' for name, sql in asked.items())
    [values] = _ask(connection, rows, f"SELECT {shown} FROM answer").to_pylist()
    return dict(values)


def offenders(
    connection: duckdb.DuckDBPyConnection, report: Report, rows: pa.Table
) -> Mapping[str, pa.Table]:
    """Return the rows that each check of a report finds wrong, by its name."""
    return {
        warn.name: _ask(connection, rows, f"SELECT * FROM answer WHERE {warn.where}")
        for warn in report.header.warns
    }


def _ask(connection: duckdb.DuckDBPyConnection, rows: pa.Table, sql: str) -> pa.Table:
    connection.register("answer", rows)
    found = pa.table(connection.sql(sql))
    connection.unregister("answer")
    return found
