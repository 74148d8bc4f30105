"""Is each row there once, and are there about as many as before?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from analytics_assets.segment.model import Endpoint
from analytics_assets.warehouse.checks.examination import Check, Examination, Verdict
from analytics_assets.warehouse.checks.values import shown
from analytics_assets.warehouse.checks.words import (
    COUNTED,
    again_advice,
    firsts,
    in_order,
    many,
    reload_advice,
)


def _key_unique(this: Examination) -> Verdict:
    names = ", ".join(this.endpoint.key_columns)
    records = in_order(_bad_keys(this))
    if not records:
        return Verdict(True, f"Every row has a key ({names}) of its own.")
    twice = [r for r in records if _complete(this.endpoint, r)]
    incomplete = sum(r["rows"] for r in records if not _complete(this.endpoint, r))
    problems = []
    if twice:
        named = firsts([f"{_key_text(this.endpoint, r)} in {r['rows']} rows" for r in twice])
        problems.append(f"{many(len(twice), 'key')} ({names}) in more than one row: {named}")
    if incomplete:
        problems.append(f"{many(incomplete, 'row')} without a complete key ({names})")
    advice = [reload_advice(this.endpoint)] if twice else []
    advice += ["Delete what has no key: no load finds such a row."] if incomplete else []
    text = f"{'; '.join(problems)}. {' '.join(advice)}"
    return Verdict(False, text, offenders=records)


def _bad_keys(this: Examination) -> list[dict[str, Any]]:
    """Return keys that are incomplete or in several rows, with the number of rows."""
    key = ", ".join(this.keys)
    missing = " OR ".join(f"{column} IS NULL" for column in this.keys)
    found = this.tables.rows(
        f"SELECT {key}, count(*) FROM {this.table} GROUP BY {key} HAVING count(*) > 1 OR {missing}",
        COUNTED + 1,
    )
    return [
        {**dict(zip(this.endpoint.key_columns, map(shown, values), strict=True)), "rows": int(rows)}
        for *values, rows in found
    ]


def _complete(endpoint: Endpoint, record: Mapping[str, Any]) -> bool:
    return all(record[key] is not None for key in endpoint.key_columns)


def _key_text(endpoint: Endpoint, record: Mapping[str, Any]) -> str:
    return " / ".join(str(record[key]) for key in endpoint.key_columns)


def _not_halved(this: Examination) -> Verdict:
    now, before, name = this.live_rows, this.past.live_rows, this.endpoint.name
    if before is None:
        text = f"{now} live rows; no earlier count to compare with."
        return Verdict(True, text, {"live_rows": now})
    figures = {"live_rows": now, "live_rows_before": before}
    if now < before and not this.endpoint.full_list:
        text = (
            f"{name} has {now} rows where the last materialization left {before}, and nothing but a"
            f" hand removes any of a history. {again_advice(this.endpoint)}"
        )
        return Verdict(False, text, figures, severity="WARN" if now * 2 >= before else None)
    if now * 2 >= before:
        text = f"{now} live rows, {before} at the last materialization."
        return Verdict(True, text, figures)
    text = f"{name} has {now} live rows where the last materialization left {before}"
    if this.past.fewer_expected:
        text += ": less than half. The run was told to expect that (expect_fewer_rows)."
        return Verdict(False, text, figures, severity="WARN")
    text += (
        ": less than half. Unless the rows were removed on purpose, look for who changed the"
        f" table, and materialize {name} again."
    )
    return Verdict(False, text, figures)


KEY_UNIQUE: Final = Check(
    "key_unique_and_not_null",
    lambda endpoint: f"The key ({', '.join(endpoint.key_columns)}) is set, and in one row only.",
    _key_unique,
)
NOT_HALVED: Final = Check(
    "row_count_not_halved",
    lambda endpoint: (
        f"Live rows are at least {'half ' if endpoint.full_list else ''}as many as at the last"
        " materialization."
    ),
    _not_halved,
)
