"""Do the rows point at rows that exist?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from analytics_assets.segment.model import Column, Endpoint, Reference
from analytics_assets.warehouse.checks.examination import Check, Examination, Verdict
from analytics_assets.warehouse.checks.values import shown, values_at
from analytics_assets.warehouse.checks.words import firsts, many

Uses = Mapping[Any, Mapping[str, Any]]
"""Each value of a reference, with the number of ``rows`` it stands in and an ``example`` key."""


def _references_hold(this: Examination) -> Verdict:
    fine, skipped, problems, offenders = [], [], [], []
    for reference in this.endpoint.references:
        target = f"{reference.table}.{reference.column}"
        place = _place(this.endpoint, reference)
        if not this.tables.exists(reference.table):
            skipped.append(f"{place}: there is no table {reference.table} yet")
            continue
        used = _used(this, reference)
        orphans = _orphans(this, reference, used)
        if not orphans:
            fine.append(f"{len(used)} values of {place} in {target}")
            continue
        problems.append(_problem(place, reference, orphans))
        offenders += [
            {"reference": place, "value": shown(value), **where}
            for value, where in sorted(orphans.items(), key=lambda item: str(item[0]))
        ]
    if not problems:
        found = ["All found: " + ", ".join(fine)] if fine else []
        return Verdict(True, "; ".join(found + skipped) + ".")
    advice = _advice(this.endpoint)
    return Verdict(False, f"{'; '.join([*problems, *skipped])}. {advice}", offenders=offenders)


def _place(endpoint: Endpoint, reference: Reference) -> str:
    """Return the column of a reference, and the path within it if it holds JSON."""
    column, _ = _column_at(endpoint, reference.path)
    return column.name + reference.path.removeprefix(column.field)


def _orphans(this: Examination, reference: Reference, used: Uses) -> Uses:
    """Return the values that no row has which is referred to."""
    # The history of usage outlives its source, whose row stays, marked as deleted.
    known = this.tables.values(reference.table, reference.column, live=this.endpoint.full_list)
    return {value: where for value, where in used.items() if value not in known}


def _problem(place: str, reference: Reference, orphans: Uses) -> str:
    rows = sum(int(where["rows"]) for where in orphans.values())
    return (
        f"{place}: {many(len(orphans), 'value')} (in {many(rows, 'row')}) not among the"
        f" live rows of {reference.table}.{reference.column}:"
        f" {firsts(sorted(map(str, orphans)))}"
    )


def _advice(endpoint: Endpoint) -> str:
    tables = dict.fromkeys([endpoint.name, *(r.table for r in endpoint.references)])
    return (
        f"Materialize {' and '.join(tables)} together; what is left then is missing in the"
        " workspace too."
    )


def _used(this: Examination, reference: Reference) -> Uses:
    """Return the values that stand in live rows; an empty text points nowhere, and is meant to.

    JSON is taken apart here: each database has functions of its own for it.
    """
    endpoint, tables = this.endpoint, this.tables
    declared, inside = _column_at(endpoint, reference.path)
    column, key, live = tables.column(declared.name), this.keys[0], tables.live(endpoint)
    filled = f"{column} IS NOT NULL" + (f" AND {column} <> ''" if declared.missing == "" else "")
    where = f"FROM {this.table} WHERE {live} AND {filled}"
    if not inside:
        found = tables.rows(f"SELECT {column}, count(*), min({key}) {where} GROUP BY {column}")
        return {
            value: {"rows": int(rows), "example": shown(row)}
            for value, rows, row in found
            if value != ""
        }
    used: dict[Any, dict[str, Any]] = {}
    for row, document in tables.rows(f"SELECT {key}, {column} {where} ORDER BY {key}"):
        parsed = json.loads(document) if isinstance(document, (str, bytes)) else document
        for value in {value for value in values_at(parsed, inside) if value not in (None, "")}:
            used.setdefault(value, {"rows": 0, "example": shown(row)})["rows"] += 1
    return used


def _column_at(endpoint: Endpoint, path: str) -> tuple[Column, Sequence[str]]:
    """Return the column that a path within the record leads to, and the rest of the path in it."""
    columns = {column.field: column for column in endpoint.columns}
    if path in columns:
        return columns[path], ()
    field, *inside = path.replace("[]", ".[]").split(".")
    return columns[field], inside


REFERENCES_HOLD: Final = Check(
    "references_hold",
    lambda endpoint: (
        "These point at rows that exist: "
        + ", ".join(f"{_place(endpoint, r)} at {r.table}.{r.column}" for r in endpoint.references)
        + "."
    ),
    _references_hold,
    lambda endpoint: bool(endpoint.references),
    severity="WARN",
)
