"""What is wrong in the company: findings that are planted, so that reports have something to say.

Each stands at an index of its list, the same for every seed. Apart from these the company is in
order: every source feeds an enabled destination, every integration in use is public, no two things
share a credential, and every member does something once in a while. (A company of more than the
usual size repeats settings, and with them credentials.)

- **Idle sources.** Nine sources are enabled, and all of their destinations are disabled.
- **A deprecated integration in use.** One enabled destination is of a kind that the catalogue has
  given up.
- **A shared key.** Two destinations hold the same API key.
- **An administrator whom nobody sees.** One Workspace Owner has not done anything for as long as
  the audit trail goes back.
- **A plan that is too small.** It includes 85 % of the API calls of the month before, and half
  as many tracked users again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

IDLE_SOURCES: Final = frozenset({4, 16, 28, 39, 51, 62, 74, 86, 97})
"""Sources that feed disabled destinations only."""
DEPRECATED_DESTINATION: Final = 5
"""A destination of a deprecated kind."""
SHARED_KEY: Final = (0, 10)
"""Two destinations with the API key of the first."""
SILENT_ADMINISTRATOR: Final = 11
"""A user who may do everything, and does nothing."""
PLAN: Final[Mapping[str, tuple[str, tuple[str, ...], float]]] = {
    "ANALYTICS_PLAN_API_CALLS": ("usage_api_calls_daily", ("apiCalls",), 0.85),
    "ANALYTICS_PLAN_MTU": ("usage_mtu_daily", ("identified", "neverIdentified"), 1.5),
}
"""The list, the counters and the share of the month before that the plan includes, by variable."""
