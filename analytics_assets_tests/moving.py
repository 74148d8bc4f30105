"""Lists that change while they are read: what is served page by page, and what is true of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

import orjson
from hypothesis import strategies as st

from analytics_assets.sandbox import Reply, RequestInfo
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.faults import error_reply

Lie = Literal["", "ends early", "no pagination"]


@dataclass(frozen=True)
class Change:
    """Something that happens between two requests.

    Attributes:
        kind: what happens.
        where: which list it happens to, as a share of all lists.
        at: which record, or place, as a share of the list.
        to: where a record moves to, as a share of the list.
    """

    kind: Literal["add", "remove", "move", "fail"]
    where: float
    at: float
    to: float


@dataclass
class MovingList:
    """A list, and which of its records have stood in it ever since its latest walk began."""

    list_key: str
    keys: list[str]
    record: Callable[[str], Any]
    walks: int = 0
    standing: set[str] = field(default_factory=set)

    def page(self, offset: int, size: int) -> list[Any]:
        """Return the records of a page; a first page begins a walk."""
        if offset == 0:
            self.walks += 1
            self.standing = set(self.keys)
        return [self.record(key) for key in self.keys[offset : offset + size]]

    def apply(self, change: Change, fresh: str) -> None:
        """Change the list; a record that was removed never comes back."""
        if change.kind == "add":
            self.keys.insert(int(change.at * (len(self.keys) + 1)), fresh)
        elif self.keys:
            key = self.keys.pop(int(change.at * len(self.keys)))
            if change.kind == "move":
                self.keys.insert(int(change.to * (len(self.keys) + 1)), key)
            else:
                self.standing.discard(key)


@dataclass(frozen=True)
class Scene:
    """What a run meets.

    Attributes:
        sizes: records of the list; of a list of parents the records of each.
        gone: records that the destination holds and that have gone, of each list.
        page_size: records of a page.
        totals: whether answers carry ``totalEntries``.
        lie: what is untrue in the answers: lists end after a page, which the total tells, or pages
            come short and without pagination.
        quiet_again: whether nothing changes from the first second look on.
        changes: what happens before which request.
    """

    sizes: tuple[int, ...]
    gone: int
    page_size: int
    totals: bool
    lie: Lie
    quiet_again: bool
    changes: Mapping[int, tuple[Change, ...]]

    @property
    def is_calm(self) -> bool:
        """Whether nothing happens and everything served is true."""
        return not self.changes and not self.lie


SHARES = st.floats(0, 1, exclude_max=True, width=32)


@st.composite
def scenes(draw: st.DrawFn, *, families: bool) -> Scene:
    """Draw a scene of one list, or of a list of parents and the lists that hang on it.

    Without a total, a record that slips past the reader in both looks shows nowhere: no reader
    can tell. So records move then only if the second look is a quiet one.
    """
    totals = draw(st.booleans())
    quiet_again = draw(st.booleans())
    kinds = ["add", "remove", "remove", "fail"]
    if totals or quiet_again:
        kinds += ["move", "move"]
    change = st.builds(Change, st.sampled_from(kinds), SHARES, SHARES, SHARES)
    number = st.integers(1, 25 if families else 14)
    sizes = st.lists(st.integers(0, 4), max_size=5) if families else st.tuples(st.integers(0, 9))
    return Scene(
        sizes=tuple(draw(sizes)),
        gone=draw(st.integers(0, 2)),
        page_size=draw(st.integers(1, 4)),
        totals=totals,
        lie=draw(st.sampled_from(("", "", "", "ends early" if totals else "", "no pagination"))),
        quiet_again=quiet_again,
        changes=draw(
            st.dictionaries(number, st.lists(change, min_size=1, max_size=3).map(tuple), max_size=5)
        ),
    )


class MovingApi:
    """Answers in place of the sandbox, with lists that change as a scene says.

    Args:
        scene: what happens.
        name: the list that is read.
        parent: the list it hangs on, if it does.
        label: begins each key, to tell scenes apart.
    """

    def __init__(self, scene: Scene, name: str, parent: str = "", label: str = "") -> None:
        self.scene = scene
        self._name, self._parent = name, parent
        self._label = label
        self._fresh = count()
        self._requests = 0
        self._lock = threading.Lock()
        self.lists: dict[str, MovingList] = {}
        if not parent:
            self._add(BY_NAME[name].path, name, self._keys(scene.sizes[0]))
            return
        self._add(BY_NAME[parent].path, parent, self._keys(len(scene.sizes)))
        for key, size in zip(self.parents.keys, scene.sizes, strict=True):
            self._add(self._path_below(key), name, self._keys(size))

    @property
    def parents(self) -> MovingList:
        """The list that others hang on."""
        return self.lists[BY_NAME[self._parent].path]

    @property
    def rows(self) -> set[tuple[str, ...]]:
        """The keys of all rows that are served now."""
        if not self._parent:
            return {(key,) for key in self.lists[BY_NAME[self._name].path].keys}
        return {(p, key) for p in self.parents.keys for key in self._below(p).keys}

    @property
    def standing(self) -> set[tuple[str, ...]]:
        """The keys of rows that were there throughout the latest walk that can have shown them."""
        if not self._parent:
            return {(key,) for key in self.lists[BY_NAME[self._name].path].standing}
        found: set[tuple[str, ...]] = set()
        for p in self.parents.standing:
            below = self._below(p)
            found |= {(p, key) for key in (below.standing if below.walks else below.keys)}
        return found

    def answer(self, info: RequestInfo) -> Reply:
        """Answer a request, after what happens before it has happened."""
        with self._lock:
            self._requests += 1
            if any(change.kind == "fail" for change in self._happen()):
                return Reply(500)
            served = self.lists.get(info.path)
            if served is None or not self._stands(info.path):
                return error_reply(404)
            return Reply(body=orjson.dumps({"data": self._data(served, info)}))

    def _happen(self) -> Sequence[Change]:
        if self.scene.quiet_again and any(served.walks > 1 for served in self.lists.values()):
            return ()
        changes = self.scene.changes.get(self._requests, ())
        for change in changes:
            if change.kind != "fail":
                standing = [path for path in self.lists if self._stands(path)]
                path = standing[int(change.where * len(standing))]
                self._change(path, change)
        return changes

    def _change(self, path: str, change: Change) -> None:
        fresh = f"{self._label}new{next(self._fresh)}"
        self.lists[path].apply(change, fresh)
        if change.kind == "add" and self._parent and path == BY_NAME[self._parent].path:
            self._add(self._path_below(fresh), self._name, self._keys(1))

    def _data(self, served: MovingList, info: RequestInfo) -> dict[str, Any]:
        size = int(info.params["pagination.count"])
        offset = int(info.params.get("pagination.cursor", "0"))
        records = served.page(offset, size)
        if self.scene.lie == "no pagination":
            return {served.list_key: records[: size - 1]}
        following = offset + size
        last = following >= len(served.keys) or self.scene.lie == "ends early"
        pagination = {"current": str(offset), "next": None if last else str(following)}
        total = {"totalEntries": len(served.keys)} if self.scene.totals else {}
        return {served.list_key: records, "pagination": {**pagination, **total}}

    def _keys(self, number: int) -> list[str]:
        return [f"{self._label}k{next(self._fresh)}" for _ in range(number)]

    def _add(self, path: str, name: str, keys: list[str]) -> None:
        list_key = BY_NAME[name].data_selector.removeprefix("data.")
        self.lists[path] = MovingList(list_key, keys, lambda key: {"id": key})

    def _path_below(self, parent: str) -> str:
        way = BY_NAME[self._name].parent
        return BY_NAME[self._name].path.replace(f"{{{way.param if way else ''}}}", parent)

    def _below(self, parent: str) -> MovingList:
        return self.lists[self._path_below(parent)]

    def _stands(self, path: str) -> bool:
        if not self._parent or path == BY_NAME[self._parent].path:
            return True
        return any(self._path_below(key) == path for key in self.parents.keys)
