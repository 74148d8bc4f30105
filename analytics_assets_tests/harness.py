"""Run the project as a user does, and compare what landed with what the API served."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import duckdb
from dagster import (
    AssetCheckKey,
    AssetKey,
    AssetsDefinition,
    AssetSelection,
    AssetSpec,
    DagsterInstance,
    Definitions,
    ExecuteInProcessResult,
    RunConfig,
    SensorDefinition,
    define_asset_job,
)

from analytics_assets.orchestration.assets import OP_NAME
from analytics_assets.reports.catalogue import reports
from analytics_assets.sandbox import Sandbox
from analytics_assets.segment.endpoints import BY_NAME, ENDPOINTS
from analytics_assets.segment.model import Endpoint, Table

ALL_TABLES = frozenset(endpoint.name for endpoint in ENDPOINTS)
"""The tables of the API's lists; reports are tables, too, and have tests of their own."""
ALL_ASSETS = ALL_TABLES | reports().keys()
Row = dict[str, Any]
PATIENCE = 90
"""Seconds after which what does not happen is taken to hang: a guard, never a measure."""


@dataclass
class Project:
    """The project pointed at a sandbox, with a database and a working folder of its own.

    ``run`` uses the command line in a process of its own, ``materialize`` this process; both read
    the same environment.
    """

    sandbox: Sandbox
    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        """The DuckDB file."""
        return Path(self.env["ANALYTICS_DUCKDB_PATH"])

    @property
    def dataset(self) -> str:
        """The schema of the tables."""
        return self.env.get("ANALYTICS_DATASET", "analytics")

    def command(
        self, *words: str, timeout: float = 300, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of the project's environment; stdout and stderr come joined."""
        return subprocess.run(
            [*words],
            cwd=self.folder,
            env={**self.env, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            check=False,
        )

    def run(
        self, select: str = "*", *options: str, timeout: float = 300, **env: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``dagster asset materialize`` in a process of its own."""
        return self.command(*self.words(select, *options), timeout=timeout, **env)

    def words(self, select: str = "*", *options: str) -> list[str]:
        """Return the words of ``dagster asset materialize``."""
        main = [sys.executable, "-m", "dagster", "asset", "materialize"]
        return [*main, "--select", select, "-m", "analytics_assets", *options]

    def terminate(
        self, due: threading.Event, said: str, select: str, *options: str
    ) -> tuple[int, str]:
        """Start ``dagster asset materialize``; send it SIGTERM after ``due``, once it ``said`` so.

        Return its exit code and its output.
        """
        output = self.folder / "log"
        with output.open("w") as log:
            run = subprocess.Popen(
                self.words(select, *options),
                cwd=self.folder,
                env=self.env,
                stdout=log,
                stderr=log,
            )
            try:
                assert due.wait(PATIENCE), output.read_text()[-3000:]
                wait_for(lambda: said in output.read_text())
                run.send_signal(signal.SIGTERM)
                code = run.wait(PATIENCE)
            finally:
                run.kill()
        return code, output.read_text()

    def materialize(
        self,
        *names: str,
        config: Mapping[str, Any] | None = None,
        api: Mapping[str, Any] | None = None,
        warehouse: Mapping[str, Any] | None = None,
        instance: DagsterInstance | None = None,
        raise_on_error: bool = False,
    ) -> ExecuteInProcessResult:
        """Materialize assets (every list if none is named) in this process, through a job.

        Args:
            names: asset names, or ``group:NAME``; ``*`` is everything, reports included;
                ``check:NAME/CHECK`` is a check alone.
            config: config of the op, such as ``{"start_month": "2026-01"}``.
            api: config of the API resource; retries do not wait unless it says so.
            warehouse: config of the warehouse resource.
            instance: a Dagster instance, an ephemeral one if ``None``.
            raise_on_error: raise the first step's error.
        """
        from analytics_assets.definitions import defs

        parts = [
            AssetSelection.groups(name.removeprefix("group:"))
            if name.startswith("group:")
            else AssetSelection.all()
            if name == "*"
            else AssetSelection.checks(_check_key(name))
            if name.startswith("check:")
            else AssetSelection.assets(name)
            for name in names
        ]
        selection: AssetSelection = AssetSelection.assets(*ALL_TABLES)
        if parts:
            selection = parts[0]
            for part in parts[1:]:
                selection = selection | part
        job = define_asset_job("under_test", selection=selection)
        own = Definitions(
            assets=defs.assets,
            asset_checks=defs.asset_checks,
            resources=defs.resources,
            executor=defs.executor,
            jobs=[job],
        )
        # instances of other tests that end out of order leave a dead one behind in this context
        resolved = Context().run(own.resolve_job_def, "under_test")
        run_config = RunConfig(
            ops={OP_NAME: {"config": dict(config or {})}},
            resources={
                "api": {"config": {"backoff_factor": 0, **(api or {})}},
                "warehouse": {"config": dict(warehouse or {})},
            },
        )
        with environment(self.env):
            return resolved.execute_in_process(
                run_config=run_config,
                instance=instance or DagsterInstance.ephemeral(),
                raise_on_error=raise_on_error,
            )

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask the DuckDB file."""
        with duckdb.connect(str(self.database), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            return connection.execute(sql, parameters).fetchall()

    def tables(self) -> set[str]:
        """Return the tables of the dataset, without dlt's own."""
        found = self.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'analytics'")
        return {name for (name,) in found if not name.startswith("_dlt")}

    def rows(self, table: str, *, live: bool = True) -> list[Row]:
        """Return the rows of a table, sorted, without dlt's own columns.

        With ``live`` neither the rows marked as deleted nor the mark itself.
        """
        with duckdb.connect(str(self.database), read_only=True) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            found = connection.execute(f"SELECT * FROM analytics.{table}")
            names = [column[0] for column in found.description]
            rows = [dict(zip(names, values, strict=True)) for values in found.fetchall()]
        return comparable(table_of(table), rows, live=live)

    def assert_equal(self, names: Iterable[str] = ALL_TABLES) -> None:
        """Assert that tables hold exactly what the sandbox serves now."""
        for name in names:
            endpoint = BY_NAME[name]
            if endpoint.monthly:
                expected = self.expected_usage(name)
            else:
                served = unfolded(endpoint, self.sandbox.served(name))
                expected = expected_rows(endpoint, served)
            assert_same(name, self.rows(name), expected)

    def expected_usage(self, name: str, months: Sequence[date] | None = None) -> list[Row]:
        """Return the usage rows the table should hold: the months of the default window."""
        if months is None:
            now = self.sandbox.clock()
            first = now.year * 12 + now.month - 1 - 12
            months = [date(m // 12, m % 12 + 1, 1) for m in range(first, first + 13)]
        rows: list[Row] = []
        for month in months:
            served = self.sandbox.workspace.usage(name, month.isoformat())
            rows += with_daily(BY_NAME[name], expected_rows(BY_NAME[name], served))
        return sort_rows(BY_NAME[name], rows)


def _check_key(name: str) -> AssetCheckKey:
    asset, check = name.removeprefix("check:").split("/")
    return AssetCheckKey(AssetKey(asset), check)


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until something is the case."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def own_definitions(**arguments: Any) -> Definitions:
    """Return the definitions of a workspace, anew from the environment as it is now."""
    from analytics_assets.orchestration.factory import build_segment_definitions

    return build_segment_definitions(**arguments)


def own_specs(**arguments: Any) -> Sequence[AssetSpec]:
    """Return what is known of the assets of a workspace before anything has run."""
    found = own_definitions(**arguments).assets or ()
    (assets,) = [each for each in found if isinstance(each, AssetsDefinition)]
    return list(assets.specs)


def own_sensor() -> SensorDefinition:
    """Return the sensor on the audit trail."""
    sensor, *_ = own_definitions().sensors or ()
    assert isinstance(sensor, SensorDefinition)
    return sensor


class environment:  # noqa: N801 - reads as a verb at the place of use
    """Replace ``os.environ`` for the length of a ``with`` block."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)

    def __enter__(self) -> None:
        self._before = dict(os.environ)
        os.environ.clear()
        os.environ.update(self._values)

    def __exit__(self, *_: object) -> None:
        os.environ.clear()
        os.environ.update(self._before)


def clean_environment(folder: Path) -> dict[str, str]:
    """Return an environment without any setting of the project, dlt or Dagster.

    Nor one that keeps Python from caching what it compiles: that would slow each start by seconds.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(
            ("ANALYTICS_", "DAGSTER", "DLT_", "DESTINATION", "RUNTIME__", "PYTHONDONTWRITE")
        )
    }
    root = str(Path(__file__).resolve().parent.parent)
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, [root, kept.get("PYTHONPATH")])),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "RUNTIME__DLTHUB_TELEMETRY": "false",
        "TMPDIR": str(folder / "tmp"),
    }


def failure_of(result: ExecuteInProcessResult) -> str:
    """Return the message of the run's failure, nothing if it succeeded."""
    texts = []
    for event in result.all_events:
        if event.is_step_failure:
            data = event.step_failure_data
            described = data.user_failure_data.description if data.user_failure_data else None
            texts.append(described or (data.error.message if data.error else ""))
    return "\n".join(texts)


def materialized(result: ExecuteInProcessResult) -> dict[str, Mapping[str, Any]]:
    """Return the metadata values of each materialization, by asset."""
    return {
        event.asset_key.to_user_string(): {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }


# What the tables should hold, worked out without the project's own code.


def snake(name: str) -> str:
    """Spell a wire name as a column."""
    spelt = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[^_])(?=[A-Z][a-z])", "_", name).lower()
    return spelt.replace(".", "_")


def fingerprint(value: str) -> str:
    """Return what stands in place of a secret."""
    return "sha256:" + hashlib.sha256(value.encode()).hexdigest()[:12]


def records(endpoint: Endpoint, body: str | bytes) -> list[Row]:
    """Take the records out of an answer; a single object is one, a bare string has one field."""
    found = json.loads(body)
    for part in endpoint.data_selector.split("."):
        found = found[part]
    if endpoint.strings:
        return [{endpoint.strings: value} for value in found]
    return [found] if endpoint.single else list(found)


def expected_rows(endpoint: Endpoint, records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Type records as the tables hold them; of records with the same key the last one counts."""
    by_key: dict[tuple[Any, ...], Row] = {}
    for record in records:
        row: Row = {column.name: column.missing for column in endpoint.columns}
        for wire, value in record.items():
            if endpoint.ids_only and snake(wire) not in row:
                continue
            row[snake(wire)] = _typed(endpoint, wire, value)
        if "actor" in row:
            kind, slash, identifier = (row["actor"] or "").partition("/")
            parts = (kind, identifier if slash else kind) if row["actor"] is not None else None
            row["actor_kind"], row["actor_id"] = parts or (None, None)
        by_key[tuple(row[name] for name in endpoint.key_columns)] = row
    return sort_rows(endpoint, by_key.values())


def unfolded(
    endpoint: Endpoint, records: Iterable[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """Yield a record for each item of a series, with those fields of its record that are columns.

    Other records are yielded as they are.
    """
    if endpoint.unfold is None:
        yield from records
        return
    for record in records:
        shared = {
            column.field: _at(record, column.field)
            for column in endpoint.columns
            if column.field.split(".")[0] in record
        }
        yield from ({**shared, **item} for item in record[endpoint.unfold])


def _at(record: Mapping[str, Any], path: str) -> Any:
    value: Any = record
    for step in path.split("."):
        value = (value or {}).get(step)
    return value


def _typed(endpoint: Endpoint, wire: str, value: Any) -> Any:
    column = next((c for c in endpoint.columns if c.field == wire), None)
    kind = column.type if column else ("json" if isinstance(value, (dict, list)) else "text")
    if value is None:
        return None
    if column and column.secret:
        keys = value if isinstance(value, list) else [value]
        masked = [fingerprint(key) if key else key for key in keys]
        return masked if isinstance(value, list) else masked[0]
    return _TYPES.get(kind, lambda same: same)(value)


def _moment(value: Any) -> datetime:
    if isinstance(value, (int, float)):
        return datetime.fromtimestamp(value, timezone.utc)
    return datetime.fromisoformat(value.replace("Z", "+00:00"))


_TYPES: dict[str, Callable[[Any], Any]] = {"bigint": int, "timestamp": _moment}


def with_daily(endpoint: Endpoint, rows: Sequence[Row]) -> list[Row]:
    """Add each counter's figure for the day, over the rows of one month."""
    previous: dict[Any, Row] = {}
    result = []
    for row in sorted(rows, key=lambda r: (r.get("source_id") or "", r["timestamp"])):
        before = previous.get(row.get("source_id"))
        daily = {
            f"daily_{c.name}": row[c.name] - (before[c.name] if before else 0)
            for c in endpoint.counters
        }
        result.append({**row, **daily})
        previous[row.get("source_id")] = row
    return result


def table_of(name: str) -> Table:
    """Return the list or report that fills a table."""
    return BY_NAME.get(name) or reports()[name]


def comparable(endpoint: Table, rows: Iterable[Row], *, live: bool = True) -> list[Row]:
    """Parse JSON columns and put rows in order, without dlt's own columns."""
    kinds = {column.name: column.type for column in endpoint.table_columns}
    result = []
    for row in rows:
        if live and row.get("deleted_at") is not None:
            continue
        clean: Row = {}
        for name, value in row.items():
            if name.startswith("_dlt") or (live and name == "deleted_at"):
                continue
            kind = kinds.get(name, "json" if str(value).startswith(("{", "[")) else "text")
            is_json = kind == "json" and isinstance(value, str)
            clean[name] = json.loads(value) if is_json else _utc(value)
        result.append(clean)
    return sort_rows(endpoint, result)


def _utc(value: Any) -> Any:
    if isinstance(value, datetime):
        return (
            value.astimezone(timezone.utc) if value.tzinfo else value.replace(tzinfo=timezone.utc)
        )
    return value


def sort_rows(endpoint: Table, rows: Iterable[Row]) -> list[Row]:
    """Sort rows by key."""
    return sorted(rows, key=lambda row: tuple(row[name] for name in endpoint.key_columns))


SHORTEST_FINGERPRINTED = 20
SECRET_PARTS = frozenset({"settings", "hash_properties_configuration"})
"""JSON columns in which values are masked by key; their own tests look into them."""


def assert_same(name: str, landed: Sequence[Row], expected: Sequence[Row]) -> None:
    """Assert equality row by row and value by value, with a message that names the first gap."""
    assert len(landed) == len(expected), f"{name}: {len(landed)} rows, expected {len(expected)}"
    for number, (left, right) in enumerate(zip(landed, expected, strict=True)):
        for column in left.keys() | right.keys():
            got, wanted = left.get(column), right.get(column)
            if column in SECRET_PARTS:
                got, wanted = masked_alike(got, wanted)
            assert got == wanted, f"{name} row {number}, {column}: {got!r}, expected {wanted!r}"


def masked_alike(got: Any, wanted: Any) -> tuple[Any, Any]:
    """Blank out of both what is a fingerprint of the other's value, to compare the rest.

    A secret of fewer than twenty characters could be guessed and has no fingerprint.
    """
    if got == "redacted" and got != wanted:
        return got, wanted if len(str(wanted)) >= SHORTEST_FINGERPRINTED else got
    if isinstance(got, str) and got.startswith("sha256:") and got != wanted:
        raw = (
            wanted
            if isinstance(wanted, str)
            else json.dumps(wanted, separators=(",", ":"), sort_keys=True)
        )
        return (got, fingerprint(raw)) if isinstance(wanted, (str, int, float)) else (got, got)
    if isinstance(got, str) and isinstance(wanted, str):
        return got, re.sub(r"(?<=://)[^/@]+:[^/@]+(?=@)", lambda m: fingerprint(m[0]), wanted)
    if isinstance(got, dict) and isinstance(wanted, dict) and got.keys() == wanted.keys():
        pairs = {key: masked_alike(got[key], wanted[key]) for key in got}
        return {k: v[0] for k, v in pairs.items()}, {k: v[1] for k, v in pairs.items()}
    if isinstance(got, list) and isinstance(wanted, list) and len(got) == len(wanted):
        items = [masked_alike(a, b) for a, b in zip(got, wanted, strict=True)]
        return [a for a, _ in items], [b for _, b in items]
    return got, wanted
