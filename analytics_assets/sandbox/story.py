"""What is wrong in the company: findings that are planted, so that reports have something to say.

Each stands at an index of its list, the same for every seed. Apart from these the company is in
order: every source feeds an enabled destination, follows a tracking plan and sends what that names,
every integration in use is public, no two things share a credential, every member does something
once in a while, and a source that is switched off has sent nothing since. (A company of more
than the usual size repeats settings, and with them credentials.)

- **Idle sources.** Nine sources are enabled, all of their destinations are disabled, and no
  warehouse takes them.
- **A silent source.** One source is enabled and has not sent anything for twelve days.
- **A spike.** One source sent five times as much as usual on the day before the start.
- **Gaps in governance.** Three sources have no tracking plan, one plan has no source, two sources
  let events through that their plans do not name, and one sends such an event.
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
from datetime import date, timedelta
from typing import Final

STORY: Final = 2
"""Version of the story; what a database holds of an earlier one does not fit."""
IDLE_SOURCES: Final = frozenset({4, 16, 28, 39, 51, 62, 74, 86, 97})
"""Sources that feed disabled destinations only."""
DEPRECATED_DESTINATION: Final = 5
"""A destination of a deprecated kind."""
SHARED_KEY: Final = (0, 10)
"""Two destinations with the API key of the first."""
SILENT_ADMINISTRATOR: Final = 11
"""A user who may do everything, and does nothing."""
UNGOVERNED_SOURCES: Final = frozenset({6, 47, 103})
"""Sources that no tracking plan governs."""
PLAN_WITHOUT_SOURCE: Final = 13
"""A live tracking plan that governs nothing."""
OPEN_SOURCES: Final = (9, 69)
"""Sources whose settings let unplanned events through; settings repeat after 60 sources."""
UNPLANNED_EVENT: Final = (8, "Debug Message Sent")
"""A source, and the event of it that its plan does not name."""
SILENT_SOURCE: Final = 20
"""An enabled source that has stopped sending."""
SILENT_DAYS: Final = 12
"""For how long it has."""
SPIKE: Final = (22, 5.0)
"""A source, and how many times the usual it sent on the day before the start."""
SWITCHED_OFF: Final = date(2025, 3, 1)
"""When sources that are disabled were; since then they send nothing."""
PLAN: Final[Mapping[str, tuple[str, tuple[str, ...], float]]] = {
    "ANALYTICS_PLAN_API_CALLS": ("usage_api_calls_daily", ("apiCalls",), 0.85),
    "ANALYTICS_PLAN_MTU": ("usage_mtu_daily", ("identified", "neverIdentified"), 1.5),
}
"""The list, the counters and the share of the month before that the plan includes, by variable."""


def is_switched_off(source: int) -> bool:
    """Tell whether a source is disabled: one in seven is."""
    return source % 7 == 3  # noqa: PLR2004 - so that it is one in seven


def turns(sources: int, today: date) -> Mapping[int, tuple[date, date, float]]:
    """Give what befalls sources: between two days, both included, so many times the usual use.

    Args:
        sources: how many there are.
        today: the day on which the sandbox starts.
    """
    off = (SWITCHED_OFF, date.max, 0.0)
    found = {source: off for source in range(sources) if is_switched_off(source)}
    source, factor = SPIKE
    yesterday = today - timedelta(days=1)
    found[source] = (yesterday, yesterday, factor)
    found[SILENT_SOURCE] = (today - timedelta(days=SILENT_DAYS), date.max, 0.0)
    return found
