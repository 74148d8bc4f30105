"""Whether a request is sent again, and when."""

from __future__ import annotations

import requests
from urllib3.exceptions import HTTPError

from analytics_assets.segment.errors import ResourceError
from analytics_assets.segment.network import may_pass
from analytics_assets.segment.rate_limit import wait_hint
from analytics_assets.segment.responses import Answer, is_transient
from analytics_assets.segment.settings import ApiSettings

Outcome = Answer | OSError | HTTPError
"""What comes of a request: an answer, or the error of the connection."""


class Patience:
    """What is left of the patience with one request.

    A transient fault costs one of the retries and is followed by a back-off that doubles. To wait
    one's turn is no fault: a refusal that says for how long costs no retry, but all such waits
    together may not take longer than ``max_wait``. A hint that proves too short gives way to the
    back-off, and a hint of zero is none.
    """

    def __init__(self, settings: ApiSettings) -> None:
        self._settings = settings
        self._faults = 0
        self._seconds_hinted = 0.0
        self.refusals = 0

    def again_in(self, outcome: Outcome) -> float | None:
        """Return the seconds to wait before the next attempt, or ``None`` if there is none.

        Raises:
            ResourceError: the API asks for more patience than ``max_wait``.
        """
        if isinstance(outcome, Answer):
            if not is_transient(outcome.status):
                return None
            if outcome.refused and (hint := wait_hint(outcome)):
                return self._after_hint(hint)
        elif not may_pass(outcome):
            return None
        self._faults += 1
        return self._back_off(self._faults) if self._faults <= self._settings.retries else None

    def _back_off(self, number: int) -> float:
        return self._settings.backoff_factor * 2.0 ** (number - 1) if number else 0.0

    def _after_hint(self, hint: float) -> float:
        most = self._settings.max_wait
        left = most - self._seconds_hinted
        if hint > left:
            so_far = f", after {self._seconds_hinted:.0f} s already" if self.refusals else ""
            raise ResourceError(
                f"the API asks to wait {hint:.0f} s for its rate limit{so_far}, which is longer"
                f" than max_wait ({most:.0f} s); run later, or raise max_wait",
                status=requests.codes.too_many_requests,
                transient=True,
            )
        seconds = max(hint, min(self._back_off(self.refusals), left))
        self.refusals += 1
        self._seconds_hinted += max(seconds, 1.0)  # however short the hint, this comes to an end
        return seconds
