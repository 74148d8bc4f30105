"""Did every value fit into its column?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Final

from analytics_assets.warehouse.checks.examination import Check, Examination, Verdict
from analytics_assets.warehouse.checks.words import many


def _values_fit(this: Examination) -> Verdict:
    odd = this.past.notes.odd_values
    if not odd:
        return Verdict(True, "Every value of the latest load is stored as it was served.")
    named = [
        f"{found.column}: {many(found.count, 'value')} {found.what} (such as {found.example})"
        for found in odd
    ]
    text = f"In {this.endpoint.name}, not every value could be stored as it was served: "
    return Verdict(
        False,
        f"{text}{'; '.join(named)}. Have them put right where they come from.",
        figures={"odd_values": sum(found.count for found in odd)},
        offenders=[asdict(found) for found in odd],
    )


VALUES_FIT: Final = Check(
    "values_fit",
    lambda _: "The latest load met no value that its column cannot hold.",
    _values_fit,
    severity="WARN",
)
