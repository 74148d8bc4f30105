"""The errors that a person is meant to read: one sentence each, without secrets."""

from __future__ import annotations

from collections.abc import Iterable


class AnalyticsError(Exception):
    """A foreseeable mistake or failure; its text says what happened and what to do about it."""


class SettingError(AnalyticsError):
    """A setting that cannot work; raised before the first request."""


class ResourceError(AnalyticsError):
    """One API resource could not be read or loaded.

    Attributes:
        status: HTTP status of the answer that ended the reading, ``None`` if there was none.
        passing: whether the same request may well succeed later.
    """

    def __init__(self, message: str, *, status: int | None = None, passing: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.passing = passing


class TokenRejected(AnalyticsError):
    """The API refused everything that was asked: the token is not accepted."""


class DestinationBusy(AnalyticsError):
    """The destination stayed locked for longer than the run may wait."""


def root_message(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """Return the innermost message, which is the destination's own, fit for a log.

    See :func:`~analytics_assets.segment.foreign_text.foreign_text`, also for ``secrets``.
    """
    from analytics_assets.segment.foreign_text import foreign_text  # rarely needed

    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return foreign_text(str(error), secrets)
