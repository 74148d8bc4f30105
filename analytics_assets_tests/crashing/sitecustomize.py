"""Kills the process in the middle of dlt's work; Python imports it when it stands on PYTHONPATH.

``KILL_AT=PHASE:N`` sends SIGKILL, or what ``KILL_BY`` names, to the process on the N-th call
counted in that phase. The number of calls of each phase is written to ``CALLS_FILE`` when the
process ends.
Files of tables have phases of their own: ``put`` and ``remove`` before one is written or removed,
``half`` when half of it is written, and ``fail``, from which on writing fails instead.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

KILL_AT = os.environ.get("KILL_AT", "")
KILL_BY = signal.Signals[os.environ.get("KILL_BY", "SIGKILL")]
CALLS_FILE = os.environ.get("CALLS_FILE", "")

_calls: Counter[str] = Counter()
_lock = threading.Lock()
_loading = threading.Event()
_failing = threading.Event()


def _count(phase: str) -> None:
    with _lock:
        _calls[phase] += 1
        if f"{phase}:{_calls[phase]}" == KILL_AT:
            os.kill(os.getpid(), KILL_BY)


def _counted(owner: Any, name: str, phase: str, when: Callable[[], bool] = lambda: True) -> None:
    """Count the calls of a method, before each does its work."""
    original = getattr(owner, name)

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        if when():
            _count(phase)
        return original(*args, **kwargs)

    setattr(owner, name, wrapper)


def _due(phase: str) -> bool:
    with _lock:
        _calls[phase] += 1
        return f"{phase}:{_calls[phase]}" == KILL_AT


def _patch_files() -> None:
    from fsspec.implementations.local import LocalFileSystem

    put_file = LocalFileSystem.put_file

    def put(self: Any, path: Any, place: Any, *args: Any, **kwargs: Any) -> None:
        if _due("fail") or _failing.is_set():
            _failing.set()  # dlt tries again
            raise OSError("no space left on device")
        put_file(self, path, place, *args, **kwargs)
        if _due("half"):
            os.truncate(place, os.path.getsize(place) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    LocalFileSystem.put_file = put
    _counted(LocalFileSystem, "put_file", "put")
    _counted(LocalFileSystem, "rm_file", "remove")


def _patch_dlt() -> None:
    from dlt.common.storages.load_package import PackageStorage
    from dlt.common.storages.load_storage import LoadStorage
    from dlt.destinations.impl.duckdb.sql_client import DuckDbSqlClient
    from dlt.extract.extractors import Extractor
    from dlt.load.load import Load
    from dlt.normalize.normalize import Normalize

    _counted(Extractor, "write_items", "extract")
    _counted(Extractor, "_write_item", "extract")
    for name in ("spool_schema_files", "map_single", "clean_x_normalizer"):
        _counted(Normalize, name, "normalize")
    _counted(LoadStorage, "commit_new_load_package", "normalize")
    _counted(PackageStorage, "delete_package", "normalize", lambda: not _loading.is_set())
    _counted(DuckDbSqlClient, "execute_query", "load", _loading.is_set)
    for name in ("complete_package", "create_followup_jobs"):
        _counted(Load, name, "load")
    run = Load.run

    @functools.wraps(run)
    def marked(*args: Any, **kwargs: Any) -> Any:
        _loading.set()
        try:
            return run(*args, **kwargs)
        finally:
            _loading.clear()

    Load.run = marked  # type: ignore[method-assign]


def _write_calls() -> None:
    with open(CALLS_FILE, "w", encoding="utf-8") as file:
        json.dump(_calls, file)


if KILL_AT or CALLS_FILE:
    _patch_dlt()
    _patch_files()
if CALLS_FILE:
    atexit.register(_write_calls)
