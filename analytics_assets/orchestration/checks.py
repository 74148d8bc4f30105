"""Asset checks, derived from the rows of ``endpoints.py``.

They run inside the op of a group, on what has just been loaded, so that an asset that fails takes
no other asset's checks with it. They can also run alone: then nothing is read from the API.

A check never ends a run. One that fails says what is wrong, where it begins and what to do.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta, timezone
from functools import cached_property
from typing import Any, Final

from dagster import (
    AssetCheckResult,
    AssetCheckSeverity,
    AssetCheckSpec,
    AssetKey,
    MetadataValue,
    TableRecord,
)
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.orchestration.charts import usage_chart
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.model import Endpoint, Reference
from analytics_assets.segment.settings import Log
from analytics_assets.segment.spans import span
from analytics_assets.warehouse.settings import WarehouseSettings, new_pipeline
from analytics_assets.warehouse.tables import Tables, daily_figures, sql_list, utc_day

KEY_UNIQUE: Final = "key_unique_and_not_null"
NOT_HALVED: Final = "row_count_not_halved"
COLUMNS_AS_DECLARED: Final = "columns_as_declared"
NO_MISSING_DAY: Final = "no_missing_day"
NEVER_FALLS: Final = "never_falls_within_month"
REFERENCES_HOLD: Final = "references_hold"

SHOWN: Final = 10
"""Offenders listed in the metadata of a check."""
NAMED: Final = 3
"""Offenders named in its message."""
COUNTED: Final = 1000
"""Offenders counted; beyond it "more than" has to do."""


@dataclass(frozen=True)
class Past:
    """What an asset's latest materialization recorded, to compare with.

    Attributes:
        live_rows: rows that were not marked as deleted, ``None`` if nothing was recorded.
        empty_columns: columns that held no value in any row, ``None`` if nothing was recorded.
        fewer_expected: whether this run was told to accept lists that have become shorter.
    """

    live_rows: int | None = None
    empty_columns: frozenset[str] | None = None
    fewer_expected: bool = False


@dataclass(frozen=True)
class _Verdict:
    passed: bool
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
    severity: AssetCheckSeverity | None = None


@dataclass(frozen=True)
class _Check:
    name: str
    description: Callable[[Endpoint], str]
    applies: Callable[[Endpoint], bool]
    examine: Callable[[Examination], _Verdict]
    severity: AssetCheckSeverity = AssetCheckSeverity.ERROR


class Examination:
    """The checks of one table, with the figures that several of them share.

    Args:
        tables: the dataset, open.
        endpoint: whose table to examine.
        past: what the latest materialization recorded.
    """

    def __init__(self, tables: Tables, endpoint: Endpoint, past: Past) -> None:
        self.tables = tables
        self.endpoint = endpoint
        self.past = past

    @cached_property
    def table(self) -> str:
        """What to select from, for SQL."""
        return self.tables.source(self.endpoint)

    @cached_property
    def keys(self) -> list[str]:
        """The quoted key columns, for SQL."""
        return [self.tables.column(name) for name in self.endpoint.column_keys]

    @cached_property
    def _counts(self) -> tuple[int, Mapping[str, int]]:
        """The live rows, and how many of them hold a value, by declared column."""
        names = [
            column.name
            for column in self.endpoint.columns
            if column.name in self.tables.columns(self.endpoint.name)
        ]
        live = self.tables.live(self.endpoint)
        filled = f"{live} AND {self._newest_load()}" if self.endpoint.monthly else live
        counts = [f"count(CASE WHEN {live} THEN 1 END)"]
        counts += [f"count(CASE WHEN {filled} THEN {self.tables.column(n)} END)" for n in names]
        rows = self.tables.rows(f"SELECT {sql_list(counts)} FROM {self.table}")
        total, *values = (int(value) for value in rows[0])
        return total, dict(zip(names, values, strict=True))

    def _newest_load(self) -> str:
        """Return the condition for rows of the newest load: older months keep what they had."""
        column = self.tables.column("_dlt_load_id")
        rows = self.tables.rows(f"SELECT max({column}) FROM {self.table}")
        return f"{column} = '{rows[0][0] or ''}'"

    @property
    def live_rows(self) -> int:
        """Rows that are not marked as deleted."""
        return self._counts[0]

    @property
    def empty_columns(self) -> list[str]:
        """Declared columns that hold no value in any live row."""
        return [name for name, filled in self._counts[1].items() if not filled]

    def metadata(self) -> dict[str, Any]:
        """Return what the next run will compare with, for the materialization."""
        return {"empty_columns": self.empty_columns} if self.live_rows else {}

    def results(self, names: Collection[str]) -> Iterator[AssetCheckResult]:
        """Run the checks ``names`` of this asset; a check that cannot be run has failed."""
        for check in _checks_of(self.endpoint):
            if check.name not in names:
                continue
            verdict = self._verdict(check)
            yield AssetCheckResult(
                asset_key=self.endpoint.name,
                check_name=check.name,
                passed=verdict.passed,
                severity=verdict.severity or check.severity,
                description=verdict.text,
                metadata=dict(verdict.metadata),
            )

    def _verdict(self, check: _Check) -> _Verdict:
        endpoint = self.endpoint
        if not self.tables.exists(endpoint.name):
            text = f"There is no table {endpoint.name} yet; materialize the asset first."
            return _Verdict(endpoint.feature is not None, text)
        try:
            return check.examine(self)
        except Exception as error:  # noqa: BLE001 - the rows are loaded: their asset must not fail
            text = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return _Verdict(False, f"The check could not be run on {endpoint.name}: {text}")


# The checks, one function each.


def _key_unique(this: Examination) -> _Verdict:
    endpoint, key = this.endpoint, sql_list(this.keys)
    missing = " OR ".join(f"{column} IS NULL" for column in this.keys)
    found = this.tables.rows(
        f"SELECT {key}, count(*) FROM {this.table} GROUP BY {key} HAVING count(*) > 1 OR {missing}",
        COUNTED + 1,
    )
    names = ", ".join(endpoint.column_keys)
    if not found:
        return _Verdict(True, f"Every row has a key ({names}) of its own.")
    records: list[dict[str, Any]] = [
        {**dict(zip(endpoint.column_keys, map(_shown, values), strict=True)), "rows": int(rows)}
        for *values, rows in found
    ]
    records.sort(key=lambda record: [str(value) for value in record.values()])
    nulls = sum(r["rows"] for r in records if any(r[k] is None for k in endpoint.column_keys))
    twice = [r for r in records if all(r[k] is not None for k in endpoint.column_keys)]
    problems = []
    if twice:
        firsts = _firsts([f"{_key_text(endpoint, r)} in {r['rows']} rows" for r in twice])
        problems.append(f"{_many(len(twice), 'key')} ({names}) in more than one row: {firsts}")
    if nulls:
        problems.append(f"{_many(nulls, 'row')} without a complete key ({names})")
    return _Verdict(False, f"{'; '.join(problems)}. {_reload_advice(endpoint)}", _table(records))


def _not_halved(this: Examination) -> _Verdict:
    now, before, name = this.live_rows, this.past.live_rows, this.endpoint.name
    metadata = {"live_rows": now, **({} if before is None else {"live_rows_before": before})}
    if before is None:
        return _Verdict(True, f"{now} live rows; no earlier count to compare with.", metadata)
    if now * 2 >= before:
        return _Verdict(True, f"{now} live rows, {before} at the last materialization.", metadata)
    text = f"{name} has {now} live rows where the last materialization left {before}"
    if this.past.fewer_expected:
        text += ": less than half. The run was told to expect that (expect_fewer_rows)."
        return _Verdict(False, text, metadata, AssetCheckSeverity.WARN)
    return _Verdict(
        False,
        f"{text}: less than half. Unless the rows were removed on purpose, look for who changed the"
        f" table, and materialize {name} again.",
        metadata,
    )


def _columns_as_declared(this: Examination) -> _Verdict:
    endpoint, stored = this.endpoint, this.tables.columns(this.endpoint.name)
    declared = [column.name for column in endpoint.table_columns]
    added = {name: kind for name, kind in stored.items() if name not in declared}
    missing = [name for name in declared if name not in stored]
    emptied: list[str] = []
    if this.past.empty_columns is not None and this.live_rows:
        emptied = [name for name in this.empty_columns if name not in this.past.empty_columns]
    problems = []
    if added:
        problems.append(
            f"the API serves {_many(len(added), 'column')} that endpoints.py does not declare:"
            f" {', '.join(added)}; declare them, and say whether they are personal or secret"
        )
    if missing:
        problems.append(
            f"{_many(len(missing), 'declared column')} not in the table: {', '.join(missing)};"
            " materialize the asset again, or look for who changed the table"
        )
    if emptied:
        problems.append(
            f"{_many(len(emptied), 'column')} that held values before and hold none any more:"
            f" {', '.join(emptied)}; see whether the API still serves them"
        )
    if not problems:
        return _Verdict(True, f"The table has the {len(declared)} columns that are declared.")
    records = [
        *({"column": name, "type": kind, "finding": "added"} for name, kind in added.items()),
        *({"column": name, "type": "", "finding": "missing"} for name in missing),
        *({"column": name, "type": stored[name], "finding": "emptied"} for name in emptied),
    ]
    return _Verdict(False, f"In {endpoint.name}, {'; '.join(problems)}.", _table(records))


def _no_missing_day(this: Examination) -> _Verdict:
    endpoint = this.endpoint
    day = this.tables.column(str(endpoint.cursor_column))
    found = this.tables.rows(f"SELECT {day}, count(*) FROM {this.table} GROUP BY {day}")
    rows: Counter[date] = Counter()
    for when, count in found:
        rows[utc_day(when)] += int(count)
    if not rows:
        return _Verdict(True, "The table has no rows, so there is no first day to count from.")
    first, last = min(rows), _today() - timedelta(days=1)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    missing = [one for one in days if one not in rows]
    several = [] if _per_source(endpoint) else sorted(one for one in rows if rows[one] > 1)
    problems = []
    if missing:
        problems.append(
            f"{_many(len(missing), 'day')} without a row between {first} and {last}:"
            f" {_firsts([str(one) for one in missing])}"
        )
    if several:
        problems.append(
            f"{_many(len(several), 'day')} with more than one row: "
            f"{_firsts([str(one) for one in several])}"
        )
    if not problems:
        return _Verdict(True, f"Every day from {first} to {last} is there.")
    bad = sorted({*missing, *several})
    records = [{"day": str(one), "rows": rows[one]} for one in bad]
    return _Verdict(False, f"{'; '.join(problems)}. {_months_advice(bad)}", _table(records))


def _never_falls(this: Examination) -> _Verdict:
    """Compare each row with the one before it, of the same source.

    The months are told apart here and not in SQL, where a time zone would come into it.
    """
    endpoint, column = this.endpoint, this.tables.column
    day = column(str(endpoint.cursor_column))
    others = [key for key in endpoint.column_keys if key != endpoint.cursor_column]
    window = f"ORDER BY {day}"
    if others:
        window = f"PARTITION BY {sql_list(map(column, others))} {window}"
    counters = [counter.name for counter in endpoint.counters]
    before = {name: column(f"before_{name}") for name in [*counters, "day"]}
    inner = [*map(column, [*endpoint.column_keys, *counters])]
    inner += [f"lag({column(name)}) OVER ({window}) AS {before[name]}" for name in counters]
    inner.append(f"lag({day}) OVER ({window}) AS {before['day']}")
    pairs = [f"{column(name)}, {before[name]}" for name in counters]
    outer = sql_list([day, before["day"], *pairs, *map(column, others)])
    falls = " OR ".join(f"{column(name)} < {before[name]}" for name in counters)
    found = this.tables.rows(
        f"SELECT {outer} FROM (SELECT {sql_list(inner)} FROM {this.table}) AS numbered"
        f" WHERE {falls}"
    )
    records = []
    for when, previous, *rest in found:
        one = utc_day(when)
        if one.replace(day=1) != utc_day(previous).replace(day=1):
            continue
        source = dict(zip(others, map(_shown, rest[len(counters) * 2 :]), strict=True))
        for number, name in enumerate(counters):
            value, earlier = rest[number * 2 : number * 2 + 2]
            if None not in (value, earlier) and value < earlier:
                records.append(
                    {"day": str(one), **source, "counter": name, "before": earlier, "now": value}
                )
    if not records:
        return _Verdict(True, f"{', '.join(counters)} never fall within a month.")
    records.sort(key=lambda record: [str(value) for value in record.values()])
    firsts = _firsts(
        [
            f"{r['counter']} on {r['day']}"
            + "".join(f", {key} {r[key]}" for key in others)
            + f" is {r['now']} after {r['before']}"
            for r in records
        ]
    )
    days = [date.fromisoformat(record["day"]) for record in records]
    text = f"Counters fall within a month {_many(len(records), 'time')}: {firsts}."
    return _Verdict(False, f"{text} {_months_advice(days)}", _table(records))


def _references_hold(this: Examination) -> _Verdict:
    fine, skipped, problems, records = [], [], [], []
    for reference in this.endpoint.references:
        target = f"{reference.table}.{reference.column}"
        if not this.tables.exists(reference.table):
            skipped.append(f"{reference.path}: there is no table {reference.table} yet")
            continue
        # The history of usage outlives its source, whose row stays, marked as deleted.
        known = this.tables.values(reference.table, reference.column, live=this.endpoint.full_list)
        used = _referring(this, reference)
        orphans = {value: where for value, where in used.items() if value not in known}
        if not orphans:
            fine.append(f"{len(used)} values of {reference.path} in {target}")
            continue
        for value, where in sorted(orphans.items(), key=lambda item: str(item[0])):
            records.append({"reference": reference.path, "value": _shown(value), **where})
        rows = sum(int(where["rows"]) for where in orphans.values())
        problems.append(
            f"{reference.path}: {_many(len(orphans), 'value')} (in {_many(rows, 'row')}) not among"
            f" the live rows of {target}: {_firsts(sorted(map(str, orphans)))}"
        )
    if problems:
        tables = dict.fromkeys([this.endpoint.name, *(r.table for r in this.endpoint.references)])
        return _Verdict(
            False,
            f"{'; '.join([*problems, *skipped])}. Materialize {' and '.join(tables)} together; what"
            " is left then is missing in the workspace too.",
            _table(records),
        )
    return _Verdict(True, "; ".join(["All found: " + ", ".join(fine)] * bool(fine) + skipped) + ".")


def _referring(this: Examination, reference: Reference) -> Mapping[Any, Mapping[str, Any]]:
    """Return each value of a reference with the number of rows it stands in, and one of their keys.

    JSON is taken apart here: each database has functions of its own for it.
    """
    endpoint, tables = this.endpoint, this.tables
    wire, *inside = reference.path.replace("[]", ".[]").split(".")
    name = next(column.name for column in endpoint.columns if column.wire == wire)
    column, key, live = tables.column(name), this.keys[0], tables.live(endpoint)
    where = f"FROM {this.table} WHERE {live} AND {column} IS NOT NULL"
    if not inside:
        found = tables.rows(f"SELECT {column}, count(*), min({key}) {where} GROUP BY {column}")
        return {value: {"rows": int(rows), "example": _shown(row)} for value, rows, row in found}
    used: dict[Any, dict[str, Any]] = {}
    for row, document in tables.rows(f"SELECT {key}, {column} {where} ORDER BY {key}"):
        parsed = json.loads(document) if isinstance(document, (str, bytes)) else document
        for value in {value for value in values_at(parsed, inside) if value is not None}:
            used.setdefault(value, {"rows": 0, "example": _shown(row)})["rows"] += 1
    return used


def values_at(document: Any, path: Sequence[str]) -> Iterator[Any]:
    """Yield the scalars at a path of keys within JSON; ``[]`` stands for every item of a list."""
    if not path:
        if not isinstance(document, (dict, list)):
            yield document
    elif path[0] == "[]":
        for item in document if isinstance(document, list) else ():
            yield from values_at(item, path[1:])
    elif isinstance(document, dict):
        yield from values_at(document.get(path[0]), path[1:])


_CHECKS: Final = (
    _Check(
        KEY_UNIQUE,
        lambda endpoint: (
            f"The key ({', '.join(endpoint.column_keys)}) is set, and in one row only."
        ),
        lambda endpoint: True,  # noqa: ARG005
        _key_unique,
    ),
    _Check(
        NOT_HALVED,
        lambda endpoint: "Live rows are at least half as many as at the last materialization.",  # noqa: ARG005
        lambda endpoint: True,  # noqa: ARG005
        _not_halved,
    ),
    _Check(
        COLUMNS_AS_DECLARED,
        lambda endpoint: "No column has been added, has gone, or has lost all its values.",  # noqa: ARG005
        lambda endpoint: True,  # noqa: ARG005
        _columns_as_declared,
        AssetCheckSeverity.WARN,
    ),
    _Check(
        NO_MISSING_DAY,
        lambda endpoint: (
            f"Every day from the first to yesterday (UTC) has {_rows_a_day(endpoint)}."
        ),
        lambda endpoint: endpoint.monthly,
        _no_missing_day,
    ),
    _Check(
        NEVER_FALLS,
        lambda endpoint: "The counters, which accumulate over a month, never fall within it.",  # noqa: ARG005
        lambda endpoint: endpoint.monthly,
        _never_falls,
    ),
    _Check(
        REFERENCES_HOLD,
        lambda endpoint: (
            "These point at rows that exist: "
            + ", ".join(f"{r.path} at {r.table}.{r.column}" for r in endpoint.references)
            + "."
        ),
        lambda endpoint: bool(endpoint.references),
        _references_hold,
        AssetCheckSeverity.WARN,
    ),
)


def _checks_of(endpoint: Endpoint) -> list[_Check]:
    return [check for check in _CHECKS if check.applies(endpoint)]


def check_specs(endpoint: Endpoint) -> list[AssetCheckSpec]:
    """Return the checks of an asset."""
    return [
        AssetCheckSpec(
            check.name, asset=AssetKey(endpoint.name), description=check.description(endpoint)
        )
        for check in _checks_of(endpoint)
    ]


@dataclass
class Findings:
    """What a look at the tables brought.

    Attributes:
        results: results of checks, by asset.
        metadata: what the materialization of an asset should show besides, by asset.
    """

    results: dict[str, list[AssetCheckResult]] = field(default_factory=dict)
    metadata: dict[str, dict[str, Any]] = field(default_factory=dict)


def look(
    pipeline: Pipeline,
    warehouse: WarehouseSettings,
    loaded: Collection[str],
    selected: Mapping[str, Collection[str]],
    past: Callable[[str], Past],
    log: Log,
) -> Findings:
    """Look at the tables of a group while the caller has the destination open.

    Args:
        pipeline: the pipeline of the group, its schema in step with the destination.
        warehouse: where the tables are.
        loaded: assets that have just been loaded; they get metadata.
        selected: names of the checks to run, by asset.
        past: gives what the latest materialization of an asset recorded.
        log: told what could not be done: a look never fails a load.
    """
    findings = Findings()
    with Tables(pipeline, warehouse) as tables:
        for name in dict.fromkeys([*loaded, *selected]):
            examination = Examination(tables, BY_NAME[name], past(name))
            findings.results[name] = list(examination.results(selected.get(name, ())))
            if name not in loaded:
                continue
            try:
                findings.metadata[name] = {**examination.metadata(), **_chart(tables, name)}
            except Exception as error:  # noqa: BLE001 - it adorns; the rows are loaded
                log.warning(f"{name}: no figures for its page: {type(error).__name__}: {error}")
    return findings


def _chart(tables: Tables, name: str) -> dict[str, Any]:
    endpoint = BY_NAME[name]
    if not endpoint.monthly:
        return {}
    with span("chart"):
        chart = usage_chart(name, *daily_figures(tables, endpoint), _today())
    return {"chart": chart} if chart else {}


def evaluate_alone(
    group: str,
    selected: Mapping[str, Collection[str]],
    past: Callable[[str], Past],
    warehouse: WarehouseSettings,
    log: Log,
) -> list[AssetCheckResult]:
    """Run checks without loading anything.

    Args:
        group: group of the assets.
        selected: names of checks, by asset.
        past: gives what the latest materialization of an asset recorded.
        warehouse: where the tables are.
        log: told when there is something to wait for.

    Raises:
        AnalyticsError: the destination cannot be reached or stayed locked.
    """
    with tempfile.TemporaryDirectory(prefix="analytics_assets_") as folder:
        pipeline = new_pipeline(group, warehouse, folder)
        warehouse.check_reachable(pipeline)
        with warehouse.open(pipeline, log):
            warehouse.restore(pipeline)
            findings = look(pipeline, warehouse, (), selected, past, log)
    return [result for results in findings.results.values() for result in results]


# Words.


def _today() -> date:
    return datetime.now(timezone.utc).date()


def _per_source(endpoint: Endpoint) -> bool:
    return len(endpoint.key) > 1


def _rows_a_day(endpoint: Endpoint) -> str:
    return "some row" if _per_source(endpoint) else "exactly one row"


def _many(count: int, noun: str) -> str:
    number = f"more than {COUNTED}" if count > COUNTED else str(count)
    return f"{number} {noun}{'' if count == 1 else 's'}"


def _firsts(items: Sequence[str]) -> str:
    more = ", ..." if len(items) > NAMED else ""
    return ", ".join(items[:NAMED]) + more


def _key_text(endpoint: Endpoint, record: Mapping[str, Any]) -> str:
    return " / ".join(str(record[key]) for key in endpoint.column_keys)


def _shown(value: Any) -> Any:
    """Return a value as a cell of a table in the metadata."""
    if isinstance(value, datetime):
        return str(utc_day(value)) if value.time() == datetime.min.time() else value.isoformat()
    return value if value is None or isinstance(value, (bool, int, float)) else str(value)


def _table(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    table = MetadataValue.table([TableRecord(dict(record)) for record in records[:SHOWN]])
    return {"offenders": len(records), "first_offenders": table}


def _reload_advice(endpoint: Endpoint) -> str:
    if endpoint.monthly:
        return "Load the months concerned again, with start_month and end_month in the run config."
    if endpoint.cursor:
        return "Delete the surplus rows: a load replaces only recent ones."
    return f"Materialize {endpoint.name} again: a load replaces rows by key."


def _months_advice(days: Sequence[date]) -> str:
    first, last = min(days), max(days)
    return (
        f"Load the months again, with the run config start_month: {first:%Y-%m}, end_month:"
        f" {last:%Y-%m}; what is left then is so in the API."
    )
