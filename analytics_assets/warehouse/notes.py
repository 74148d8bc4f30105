"""What a load noted of the values it stored, for the checks of this run and of later ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.odd_values import Kept, Oddity

if TYPE_CHECKING:
    from analytics_assets.segment.records import RowTyper

_LONGEST_NAME: Final = 100


@dataclass(frozen=True)
class Notes:
    """What a load noted.

    Attributes:
        odd_values: values that no column could hold as they were.
        undeclared: undeclared fields that are not stored as they came.
    """

    odd_values: Sequence[Oddity] = ()
    undeclared: Sequence[Kept] = ()

    def __bool__(self) -> bool:
        return bool(self.odd_values or self.undeclared)

    @classmethod
    def of(cls, typer: RowTyper) -> Notes:
        """Gather the notes of a reading, their texts fit to be shown."""
        odd = [
            Oddity(_name(found.column), found.what, found.count, found.example)
            for found in typer.oddities.found()
        ]
        kept = [
            Kept(_name(kept.field), kept.column, kept.type, kept.reason)
            for kept in typer.undeclared.kept()
            if kept.reason
        ]
        return cls(odd, kept)

    def to_json(self) -> dict[str, Any]:
        """Return the form in which Dagster keeps it."""
        return {
            "odd_values": [asdict(found) for found in self.odd_values],
            "undeclared": [asdict(kept) for kept in self.undeclared],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Notes:
        """Read what :meth:`to_json` wrote."""
        return cls(
            [Oddity(**found) for found in content["odd_values"]],
            [Kept(**kept) for kept in content["undeclared"]],
        )


def _name(name: str) -> str:
    return foreign_text(name, limit=_LONGEST_NAME) or "''"
