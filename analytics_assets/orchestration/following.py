"""What the sensor on the audit trail remembers: how far it has read, and what is not loaded yet."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from analytics_assets.orchestration.retries import doubled
from analytics_assets.segment.audit_trail import Cursor
from analytics_assets.segment.errors import SettingError

FIRST_PAUSE: Final = 60.0
"""Seconds after which an asset that was requested and is not loaded is requested again."""


@dataclass(frozen=True)
class Wanted:
    """A change that has been seen and is not loaded yet.

    Attributes:
        since: timestamp of the look that saw it; a run that began earlier may have missed it.
        tries: how often it has been requested.
        due: timestamp from which it is to be requested (again).
    """

    since: float
    tries: int = 0
    due: float = 0.0

    def requested(self, now: float) -> Wanted:
        """Return it after one more request."""
        pause = doubled(FIRST_PAUSE, self.tries)
        return replace(self, tries=self.tries + 1, due=now + pause)


@dataclass(frozen=True)
class Following:
    """The cursor of the sensor.

    Attributes:
        trail: how far the trail has been read; ``None`` before the first look.
        wanted: what is not loaded yet, by asset.
        asked: run key of the last request.
    """

    trail: Cursor | None = None
    wanted: Mapping[str, Wanted] = field(default_factory=dict)
    asked: str = ""

    def with_changes(self, names: Iterable[str], now: float) -> Following:
        """Return it after a look that saw changes of some assets."""
        return replace(self, wanted={**self.wanted, **{name: Wanted(now) for name in names}})

    def without(self, names: Collection[str]) -> Following:
        """Return it without what has been loaded, or is there no more."""
        left = {name: wanted for name, wanted in self.wanted.items() if name not in names}
        return replace(self, wanted=left)

    def due(self, now: float) -> list[str]:
        """Return what is to be requested now."""
        return [name for name, wanted in self.wanted.items() if wanted.due <= now]

    def after_request(self, names: Collection[str], key: str, now: float) -> Following:
        """Return it after a request, which may or may not be followed by a run."""
        asked = {
            name: wanted.requested(now) if name in names else wanted
            for name, wanted in self.wanted.items()
        }
        return replace(self, wanted=asked, asked=key)

    def key(self, names: Collection[str], news: str) -> str:
        """Return the key of a request: the same if a daemon that died asks for the same again."""
        tries = sorted(f"{name} {self.wanted[name].tries}" for name in names)
        content = "\n".join([self.asked, *tries])
        return f"{news} {hashlib.sha256(content.encode()).hexdigest()[:16]}"

    def to_json(self) -> str:
        """Write it as text: that of the trail, and beside it what is wanted."""
        content = json.loads(self.trail.to_json()) if self.trail else {}
        wanted = {name: [w.since, w.tries, w.due] for name, w in self.wanted.items()}
        return json.dumps({**content, "wanted": wanted, "asked": self.asked})

    @classmethod
    def from_json(cls, text: str | None) -> Following:
        """Read what :meth:`to_json`, or version 0.1, wrote.

        Raises:
            SettingError: it is something else.
        """
        if not text:
            return cls()
        trail = Cursor.from_json(text)
        try:
            content = json.loads(text)
            wanted = {
                str(name): Wanted(float(since), int(tries), float(due))
                for name, (since, tries, due) in content.get("wanted", {}).items()
            }
        except (ValueError, TypeError, AttributeError):
            raise SettingError(
                "The cursor of the audit trail is not one that was written here; reset it to start"
                " from now."
            ) from None
        return cls(trail, wanted, str(content.get("asked", "")))
