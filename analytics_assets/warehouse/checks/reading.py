"""Did the load bring all there is, and was nothing odd about it?"""

from __future__ import annotations

from typing import Final

from analytics_assets.warehouse.checks.examination import Check, Examination, Verdict


def _read_whole(this: Examination) -> Verdict:
    warnings = this.past.warnings
    if not warnings:
        return Verdict(True, "The latest load brought all there is.")
    offenders = [{"warning": warning} for warning in warnings]
    return Verdict(False, f"{'; '.join(warnings)}.", offenders=offenders)


READ_WHOLE: Final = Check(
    "read_whole",
    lambda _: "The latest load brought all there is, and could tell that it did.",
    _read_whole,
    severity="WARN",
)
