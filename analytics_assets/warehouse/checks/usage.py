"""Is the usage of every day there, and do its counters only rise? And the figures of its chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any, Final

from analytics_assets.segment.model import Endpoint
from analytics_assets.warehouse.checks.examination import Check, Examination, Verdict
from analytics_assets.warehouse.checks.values import shown, utc_day
from analytics_assets.warehouse.checks.words import firsts, in_order, many, months_advice


def _no_missing_day(this: Examination) -> Verdict:
    rows = _rows_by_day(this)
    if not rows:
        return Verdict(True, "The table has no rows, so there is no first day to count from.")
    first, last = min(rows), datetime.now(timezone.utc).date() - timedelta(days=1)
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    missing = [str(day) for day in days if day not in rows]
    several = [] if _per_source(this.endpoint) else [str(d) for d in sorted(rows) if rows[d] > 1]
    problems = []
    if missing:
        number = many(len(missing), "day")
        problems.append(f"{number} without a row between {first} and {last}: {firsts(missing)}")
    if several:
        problems.append(f"{many(len(several), 'day')} with more than one row: {firsts(several)}")
    if not problems:
        return Verdict(True, f"Every day from {first} to {last} is there.")
    bad = [date.fromisoformat(day) for day in sorted({*missing, *several})]
    offenders = [{"day": str(day), "rows": rows[day]} for day in bad]
    return Verdict(False, f"{'; '.join(problems)}. {months_advice(bad)}", offenders=offenders)


def _rows_by_day(this: Examination) -> Counter[date]:
    day = this.tables.column(str(this.endpoint.cursor_column))
    rows: Counter[date] = Counter()
    for when, count in this.tables.rows(f"SELECT {day}, count(*) FROM {this.table} GROUP BY {day}"):
        rows[utc_day(when)] += int(count)
    return rows


def _per_source(endpoint: Endpoint) -> bool:
    return len(endpoint.primary_key) > 1


def _never_falls(this: Examination) -> Verdict:
    endpoint = this.endpoint
    counters = [counter.name for counter in endpoint.counters]
    others = [key for key in endpoint.key_columns if key != endpoint.cursor_column]
    records = in_order(_falls(this, counters, others))
    if not records:
        return Verdict(True, f"{', '.join(counters)} never fall within a month.")
    named = firsts([_fall_text(record, others) for record in records])
    days = [date.fromisoformat(record["day"]) for record in records]
    text = (
        f"Counters fall within a month {many(len(records), 'time')}: {named}. That is right if a"
        " source was moved to another workspace, as it takes its month along; if none was:"
    )
    return Verdict(False, f"{text} {months_advice(days)}", offenders=records)


def _fall_text(record: Mapping[str, Any], others: Sequence[str]) -> str:
    source = "".join(f", {key} {record[key]}" for key in others)
    return (
        f"{record['counter']} on {record['day']}{source} is {record['now']} after"
        f" {record['before']}"
    )


def _falls(
    this: Examination, counters: Sequence[str], others: Sequence[str]
) -> Iterator[Mapping[str, Any]]:
    """Yield each counter that is lower than on the day before it, of the same month and source.

    The months are told apart here and not in SQL, where a time zone would come into it.
    """
    for when, previous, *rest in this.tables.rows(_falls_sql(this, counters, others)):
        day = utc_day(when)
        if day.replace(day=1) != utc_day(previous).replace(day=1):
            continue
        pairs, source = rest[: len(counters) * 2], rest[len(counters) * 2 :]
        shown_source = dict(zip(others, map(shown, source), strict=True))
        for name, now, before in zip(counters, pairs[::2], pairs[1::2], strict=True):
            if None not in (now, before) and now < before:
                fall = {"counter": name, "before": before, "now": now}
                yield {"day": str(day), **shown_source, **fall}


def _falls_sql(this: Examination, counters: Sequence[str], others: Sequence[str]) -> str:
    """Return SQL for rows with a counter below that of the row before it, of the same source.

    Its columns: the day, the day before, each counter and what it was before, the other keys.
    """
    column = this.tables.column
    day = str(this.endpoint.cursor_column)
    before = {name: column(f"before_{name}") for name in [day, *counters]}
    window = f"ORDER BY {column(day)}"
    if others:
        window = f"PARTITION BY {', '.join(map(column, others))} {window}"
    inner = [*map(column, [*this.endpoint.key_columns, *counters])]
    inner += [f"lag({column(n)}) OVER ({window}) AS {before[n]}" for n in before]
    outer = [f"{column(name)}, {before[name]}" for name in before] + [*map(column, others)]
    falls = " OR ".join(f"{column(name)} < {before[name]}" for name in counters)
    return (
        f"SELECT {', '.join(outer)} FROM (SELECT {', '.join(inner)} FROM {this.table}) AS numbered"
        f" WHERE {falls}"
    )


NO_MISSING_DAY: Final = Check(
    "no_missing_day",
    lambda endpoint: (
        "Every day from the first to yesterday (UTC) has"
        f" {'some row' if _per_source(endpoint) else 'exactly one row'}."
    ),
    _no_missing_day,
    lambda endpoint: endpoint.monthly,
)
NEVER_FALLS: Final = Check(
    "never_falls_within_month",
    lambda _: "The counters, which accumulate over a month, never fall within it.",
    _never_falls,
    lambda endpoint: endpoint.monthly,
    severity="WARN",
)
