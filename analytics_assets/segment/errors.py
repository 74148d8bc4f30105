"""The errors that a person is meant to read: one sentence each, without secrets."""

from __future__ import annotations

from collections.abc import Iterator


class AnalyticsError(Exception):
    """A foreseeable mistake or failure; its text says what happened and what to do about it.

    Attributes:
        transient: whether the same may well succeed later.
    """

    transient: bool = True


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and what lies behind it, the innermost last."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # one that is raised again closes a circle
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


class SettingError(AnalyticsError):
    """A setting that cannot work; raised before the first request."""

    transient = False


class PlaceUnusable(SettingError):
    """A file or folder that a run needs cannot be used; it concerns one group only."""


class ResourceError(AnalyticsError):
    """One API resource could not be read or loaded.

    Attributes:
        status: HTTP status of the answer that ended the reading, ``None`` if there was none.
        from_api: whether that answer had the form of the API's errors, so that nothing in between
            can have given it.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        transient: bool = False,
        from_api: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.transient = transient
        self.from_api = from_api


class TooFewRows(ResourceError):
    """A list has become so short that this is more likely a fault than the truth."""


class UnreadableFiles(ResourceError):
    """What lies in the folder of a table cannot be read as the files that loads put there.

    Attributes:
        replaceable: whether a load that replaces all rows would get over it.
    """

    def __init__(self, message: str, *, replaceable: bool = False) -> None:
        super().__init__(message)
        self.replaceable = replaceable


def unexpected(error: Exception) -> ResourceError:
    """Return the error of a resource that failed in a way that nobody foresaw."""
    return ResourceError(f"unexpected {type(error).__name__} while reading: {error}")


class TokenRejected(AnalyticsError):
    """The API refused everything that was asked: the token is not accepted."""

    transient = False


class OtherWorkspace(AnalyticsError):
    """The dataset belongs to another workspace than the token, or nobody can tell."""

    transient = False


class WrongAddress(AnalyticsError):
    """The API has nothing that was asked for: it is not where it was asked."""

    transient = False


class DestinationBusy(AnalyticsError):
    """The destination stayed locked for longer than the run may wait."""


class DestinationUnreachable(AnalyticsError):
    """The destination is away, starting or silent; it may well be there later."""


class DestinationSilent(DestinationUnreachable):
    """The destination is connected and does not answer."""
