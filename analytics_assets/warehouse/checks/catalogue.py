"""All checks. To add one, add it to this list."""

from __future__ import annotations

from typing import Final

from analytics_assets.segment.model import Endpoint
from analytics_assets.warehouse.checks.columns import COLUMNS_AS_DECLARED
from analytics_assets.warehouse.checks.examination import Check
from analytics_assets.warehouse.checks.keys_and_counts import KEY_UNIQUE, NOT_HALVED
from analytics_assets.warehouse.checks.odd_values import VALUES_FIT
from analytics_assets.warehouse.checks.reading import READ_WHOLE
from analytics_assets.warehouse.checks.references import REFERENCES_HOLD
from analytics_assets.warehouse.checks.usage import NEVER_FALLS, NO_MISSING_DAY

CHECKS: Final = (
    READ_WHOLE,
    KEY_UNIQUE,
    NOT_HALVED,
    COLUMNS_AS_DECLARED,
    VALUES_FIT,
    NO_MISSING_DAY,
    NEVER_FALLS,
    REFERENCES_HOLD,
)


def checks_of(endpoint: Endpoint) -> list[Check]:
    """Return the checks that an asset has."""
    return [check for check in CHECKS if check.applies(endpoint)]
