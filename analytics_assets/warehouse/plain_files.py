"""Lists and reports in plain Parquet files: the new files are there before the old ones go.

dlt would remove the old ones first, so that a run which is killed in between leaves nothing, and
with them whatever else lies in the folder. Here it is told to append, and the files of earlier
loads go once the load is complete.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import PurePath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from dlt.common.schema.typing import PIPELINE_STATE_TABLE_NAME
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.model import Endpoint
from analytics_assets.warehouse.file_tables import (
    files_in,
    is_broken,
    load_id,
    parquet_files,
)
from analytics_assets.warehouse.own_tables import RECORD_CHANGES
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.standing import LOADS


@contextmanager
def replacing(
    pipeline: Pipeline, warehouse: WarehouseSettings, names: Collection[str]
) -> Iterator[None]:
    """Of the tables loaded in the block keep the new files; the old ones if it fails.

    Args:
        pipeline: loads in the block.
        warehouse: the destination; only plain files have anything to replace here.
        names: the tables of which a load brings all rows.

    Raises:
        ResourceError: the old ones cannot be removed; the next run tries again.
    """
    if warehouse.merges:
        yield
        return
    with pipeline.destination_client() as client:
        before, changes = (_table_files(client, t) for t in (names, [RECORD_CHANGES.name]))
        try:
            yield
        except BaseException:
            left = _table_files(client, [*names, RECORD_CHANGES.name])
            _remove(client, left - before - changes)
            raise
        try:
            _remove(client, before)
        except OSError as error:
            raise ResourceError(
                "the new rows are loaded, but the files of the load before cannot be removed:"
                f" {foreign_text(str(error))}"
            ) from None


def tidy(pipeline: Pipeline, warehouse: WarehouseSettings, endpoints: Sequence[Endpoint]) -> None:
    """Remove the files that a killed run has left; the caller has the destination open.

    Of a list the files of the newest complete load stay. Of a history those go that are newer than
    any complete load: their rows come again, and on this machine they may be half written. Where
    nothing tells of a complete load, only files go that cannot be read.
    A layout that names files without their load id is left alone.
    """
    if warehouse.merges:
        return
    files: Any = pipeline.destination_client()
    with files as client:
        loads = cache(partial(_loads, client))
        for endpoint in endpoints:
            by_load: dict[str, list[str]] = {}
            for path in _table_files(client, [endpoint.name]):
                by_load.setdefault(load_id(path), []).append(path)
            by_load.pop("", None)
            if not client.is_local_filesystem and (len(by_load) <= 1 or not endpoint.full_list):
                continue  # a bucket takes a file whole or not at all
            done = loads(LOADS, endpoint.group)
            if not endpoint.full_list:  # its state is stored first, and makes it complete
                done = done | loads(PIPELINE_STATE_TABLE_NAME, pipeline.pipeline_name)
            for left in _left(client, endpoint, by_load, done):
                _remove(client, by_load[left])
        _tidy_changes(client)


def _tidy_changes(client: Any) -> None:
    """Remove what is newer than any complete load, of whichever group: it is found again."""
    if told := [path for path in _table_files(client, [RECORD_CHANGES.name]) if load_id(path)]:
        done = [float(one) for path in files_in(client, LOADS) if (one := load_id(path))]
        newest = max(done, default=math.inf)
        _remove(client, [path for path in told if float(load_id(path)) > newest])


def _left(
    client: Any, endpoint: Endpoint, by_load: Mapping[str, Sequence[str]], done: Set[str]
) -> Collection[str]:
    """Return the load ids, of those in a table, whose files a killed run has left."""
    if endpoint.full_list and (complete := by_load.keys() & done):
        return [one for one in by_load if one != max(complete, key=float)]
    if not endpoint.full_list and done:
        return [one for one in by_load if float(one) > max(map(float, done))]
    return [one for one, paths in by_load.items() if any(_is_broken(client, p) for p in paths)]


def _is_broken(client: Any, path: str) -> bool:
    try:
        with client.fs_client.open(path, "rb") as file:
            pq.read_metadata(file)
    except (pa.ArrowException, OSError) as error:
        if not is_broken(error):
            raise
        return True
    return False


def _loads(client: Any, table: str, owner: str) -> set[str]:
    """Return the ids of the loads of which a table of dlt's tells; its file names begin so."""
    paths = (PurePath(path).name for path in files_in(client, table))
    return {load_id(name) for name in paths if name.startswith(f"{owner}__")}


def _table_files(client: Any, names: Collection[str]) -> set[str]:
    return {path for name in names for path in parquet_files(client, name)}


def _remove(client: Any, paths: Collection[str]) -> None:
    for path in paths:
        with suppress(FileNotFoundError):
            try:
                client.fs_client.rm_file(path)
            except NotImplementedError:  # fsspec's word of a place that has no call for one file
                client.fs_client.rm(path)
