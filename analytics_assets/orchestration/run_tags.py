"""Tags of runs: what started one, of which workspace, what it loads, and what was seen before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from analytics_assets.orchestration.deployment import Deployment
from analytics_assets.reports.model import GROUP as REPORTS
from analytics_assets.segment.model import Table

TRIGGER_TAG: Final = "analytics_assets/trigger"
"""``schedule``, ``audit trail``, ``reports due`` or ``retry``; a run started by hand has none."""
WORKSPACE_TAG: Final = "analytics_assets/workspace"
GROUPS_TAG: Final = "analytics_assets/groups"
SAW_TAG: Final = "analytics_assets/saw"
"""What the sensor saw on the audit trail, such as ``2 Source Created``."""
LONGEST: Final = 200


def run_tags(
    deployment: Deployment, tables: Sequence[Table], trigger: str = "", saw: str = ""
) -> dict[str, str]:
    """Return the tags by which people, and the sensors, tell runs apart."""
    groups = dict.fromkeys(getattr(table, "group", REPORTS) for table in tables)
    found = {
        TRIGGER_TAG: trigger,
        WORKSPACE_TAG: deployment.workspace,
        GROUPS_TAG: ",".join(groups),
        SAW_TAG: saw[:LONGEST],
    }
    return {name: value for name, value in found.items() if value}
