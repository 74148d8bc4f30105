"""How a failed step tells its reason: one sentence, and whether trying again is any use.

Dagster shows a traceback with every failure of a step, and has no public way to leave it out. There
is nothing to debug in a mistyped setting or a refused token, so the traceback goes, by names that
are Dagster's own. They are imported here and nowhere else; if they are gone or have changed, the
failure is a plain ``dagster.Failure``, with the same sentence and a traceback below it.
"""

from __future__ import annotations

from dagster import Failure

from analytics_assets.segment.errors import AnalyticsError


class StepFailure(Failure):
    """A failure with a text for people.

    Args:
        text: what happened, and what can be done about it.
        allow_retries: whether the same run may well succeed later.
    """

    def __init__(self, text: str, *, allow_retries: bool) -> None:
        super().__init__(description=text, allow_retries=allow_retries)


def _without_traceback() -> type[StepFailure]:
    """Return the kind of failure that Dagster shows as its text alone.

    Dagster shows the error info that a ``DagsterUserCodeProcessError`` carries in place of a
    traceback of its own.
    """
    from dagster._core.errors import DagsterUserCodeProcessError  # noqa: PLC2701 - see above
    from dagster_shared.error import SerializableErrorInfo

    class _Shown(DagsterUserCodeProcessError):
        def __init__(self, text: str) -> None:
            info = SerializableErrorInfo(f"{text}\n", [], None)
            super().__init__(text, user_code_process_error_infos=[info])  # type: ignore[no-untyped-call]

    class TextFailure(StepFailure, _Shown):
        """A failure without a traceback."""

    TextFailure("tried once", allow_retries=False)
    return TextFailure


try:
    _Kind = _without_traceback()
except Exception:  # noqa: BLE001 - whatever has changed there, a cosmetic effect must not cost a run
    _Kind = StepFailure


def step_failure(text: str, *, allow_retries: bool) -> Failure:
    """Return the failure of a step that has nothing to show but ``text``."""
    return _Kind(text, allow_retries=allow_retries)


def failure_of(error: AnalyticsError) -> Failure:
    """Return the failure of a step that ``error`` has ended."""
    return step_failure(str(error), allow_retries=error.transient)


def allows_retries(error: Exception) -> bool:
    """Tell whether a step that ``error`` has ended may well succeed later."""
    if isinstance(error, Failure):
        return bool(error.allow_retries)
    return error.transient if isinstance(error, AnalyticsError) else True
