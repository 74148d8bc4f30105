"""The two things the project is measured against, as plain dlt scripts without Dagster.

Run as ``python -m analytics_assets_tests.benchmarks.scripts original|tuned|arrow DATABASE NAMES``.
Prints the seconds that ``pipeline.run`` took.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, cast

import dlt
import orjson
import pyarrow as pa
import requests
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator
from dlt.sources.rest_api import rest_api_source

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.model import Column, Endpoint

MONTHS = 12
WORKERS = 16


def periods() -> list[dict[str, str]]:
    """Return the months that the project loads at first: twelve back up to the current one."""
    now = datetime.now(timezone.utc)
    last = now.year * 12 + now.month - 1
    return [{"period": f"{m // 12}-{m % 12 + 1:02}-01"} for m in range(last - MONTHS, last + 1)]


def original(names: Sequence[str]) -> Any:
    """The configuration this project grew from, with dlt's defaults.

    Only what keeps it from running is mended: the key of labels, the period and key of usage, the
    path of audit_events.
    """
    defaults = {"primary_key": "id", "write_disposition": "merge"}
    resources: list[Any] = [dlt.resource([periods()], name="months", selected=False)]
    for name in names:
        endpoint = BY_NAME[name]
        params = {"period": "{resources.months.period}"} if endpoint.monthly else {}
        key = list(endpoint.primary_key)
        resources.append(
            {
                "name": name,
                "primary_key": key if key != ["id"] else "id",
                "endpoint": {
                    "path": endpoint.path,
                    "params": params,
                    "data_selector": endpoint.data_selector,
                    **({} if endpoint.paginated else {"paginator": "single_page"}),
                },
            }
        )
    return rest_api_source(
        cast(Any, {"client": _client(), "resource_defaults": defaults, "resources": resources}),
        name="original",
    )


def tuned(names: Sequence[str]) -> Any:
    """Every option that dlt has for this: types, JSON columns, large pages, parallel reading."""
    resources: list[Any] = [dlt.resource([periods()], name="months", selected=False)]
    for name in names:
        endpoint = BY_NAME[name]
        params: dict[str, Any] = {"pagination.count": 1000} if endpoint.paginated else {}
        if endpoint.monthly:
            params["period"] = "{resources.months.period}"
        resources.append(
            {
                "name": name,
                "primary_key": list(endpoint.key_columns),
                "write_disposition": "merge",
                "parallelized": endpoint.monthly,
                "columns": {
                    c.name: {"name": c.name, "data_type": c.type} for c in endpoint.columns
                },
                "endpoint": {
                    "path": endpoint.path,
                    "params": params,
                    "data_selector": endpoint.data_selector,
                    **({} if endpoint.paginated else {"paginator": "single_page"}),
                },
            }
        )
    source = rest_api_source(
        cast(Any, {"client": _client(), "resources": resources}), name="tuned", max_table_nesting=0
    )
    for name in names:
        if not BY_NAME[name].monthly:
            source.resources[name].parallelize()
    return source


def arrow(names: Sequence[str]) -> Any:
    """The tuned script with a step of its own that makes Arrow tables of the pages."""
    source = tuned(names)
    for name in names:
        source.resources[name].add_step(_to_arrow(BY_NAME[name]))
    return source


def _client() -> dict[str, Any]:
    return {
        "base_url": os.environ["ANALYTICS_API_BASE_URL"],
        "auth": {"type": "bearer", "token": os.environ["ANALYTICS_API_TOKEN"]},
        "paginator": JSONResponseCursorPaginator(
            cursor_path="data.pagination.next", cursor_param="pagination.cursor"
        ),
        "session": requests.Session(),
    }


def _to_arrow(endpoint: Endpoint) -> Callable[[list[dict[str, Any]]], pa.Table]:
    def convert(rows: list[dict[str, Any]]) -> pa.Table:
        arrays = [_array(column, [row.get(column.field) for row in rows]) for column in columns]
        return pa.Table.from_arrays(arrays, names=[column.name for column in columns])

    columns = endpoint.columns
    return convert


def _array(column: Column, values: list[Any]) -> pa.Array:
    if column.type == "json":
        return pa.array([v if v is None else orjson.dumps(v).decode() for v in values], pa.string())
    if column.type == "bigint":
        return pa.array([v if v is None else int(v) for v in values], pa.int64())
    if column.type == "timestamp":
        seconds = any(isinstance(value, int) for value in values)
        array = pa.array(values, pa.timestamp("s", "UTC") if seconds else pa.string())
        return array.cast(pa.timestamp("us", "UTC"))
    return pa.array(values, {"text": pa.string(), "bool": pa.bool_()}[column.type])


def main(kind: str, database: str, names: Sequence[str]) -> None:
    """Load ``names`` into a DuckDB file the way of ``kind``."""
    is_original = kind == "original"
    if not is_original:
        os.environ["EXTRACT__WORKERS"] = str(WORKERS)
        os.environ["RUNTIME__LOG_LEVEL"] = "ERROR"
    source = {"original": original, "tuned": tuned, "arrow": arrow}[kind](names)
    pipeline = dlt.pipeline(
        f"benchmark_{kind}",
        destination=dlt.destinations.duckdb(database),
        dataset_name="analytics",
        pipelines_dir=tempfile.mkdtemp(),
    )
    start = time.perf_counter()
    options: Any = {} if is_original else {"loader_file_format": "parquet"}
    pipeline.run(source, **options)
    print(time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3].split(","))
