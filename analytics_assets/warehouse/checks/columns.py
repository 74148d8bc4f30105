"""Has the table the columns that are declared, with values in them?"""

from __future__ import annotations

from typing import Final

from analytics_assets.warehouse.checks.examination import Check, Examination, Verdict
from analytics_assets.warehouse.checks.words import many

_TOLD: Final = 10
"""Undeclared fields of which the message says how they are kept."""


def _columns_as_declared(this: Examination) -> Verdict:
    stored = this.tables.columns(this.endpoint.name)
    declared = [column.name for column in this.endpoint.table_columns]
    served = this.tables.loaded_columns(this.endpoint.name)
    added = [name for name in stored if name not in declared and name in served]
    foreign = [name for name in stored if name not in declared and name not in served]
    missing = [name for name in declared if name not in stored]
    emptied = _emptied(this)
    problems = [*_problems(added, foreign, missing, emptied), *_as_they_are_kept(this)]
    if not problems:
        return Verdict(True, f"The table has the {len(declared)} columns that are declared.")
    found = {"added": added, "by hand": foreign, "missing": missing, "emptied": emptied}
    offenders = [
        {"column": name, "type": stored.get(name, ""), "finding": finding}
        for finding, names in found.items()
        for name in names
    ]
    offenders += [
        {"column": kept.column or kept.field, "type": kept.type, "finding": kept.reason}
        for kept in this.past.notes.undeclared
    ]
    text = f"In {this.endpoint.name}, {'; '.join(problems)}."
    return Verdict(False, text, offenders=offenders)


def _as_they_are_kept(this: Examination) -> list[str]:
    """Say which undeclared fields are not stored as they came."""
    told = [
        f"{'the field' if kept.column else 'left out are'} {kept.field}: {kept.reason}"
        for kept in this.past.notes.undeclared
    ]
    more = [f"and {len(told) - _TOLD} more like these"] if len(told) > _TOLD else []
    return told[-_TOLD:] + more


def _emptied(this: Examination) -> list[str]:
    """Return the columns that held values at the last materialization, and hold none now."""
    if this.past.empty_columns is None or not this.live_rows:
        return []
    return [name for name in this.empty_columns if name not in this.past.empty_columns]


def _problems(
    added: list[str], foreign: list[str], missing: list[str], emptied: list[str]
) -> list[str]:
    problems = []
    if added:
        problems.append(
            f"the API serves {many(len(added), 'column')} that endpoints.py does not declare:"
            f" {', '.join(added)}; declare them, and say whether they are personal or secret"
        )
    if foreign:
        problems.append(
            f"{many(len(foreign), 'column')} that no load has made: {', '.join(foreign)}; drop it,"
            " or leave it and this warning: no load fills it"
        )
    if missing:
        problems.append(
            f"{many(len(missing), 'declared column')} not in the table: {', '.join(missing)};"
            " materialize the asset again, or look for who changed the table"
        )
    if emptied:
        problems.append(
            f"{many(len(emptied), 'column')} that held values before and hold none any more:"
            f" {', '.join(emptied)}; see whether the API still serves them"
        )
    return problems


COLUMNS_AS_DECLARED: Final = Check(
    "columns_as_declared",
    lambda _: "No column has been added, has gone, or has lost all its values.",
    _columns_as_declared,
    severity="WARN",
)
