"""No live record is ever marked as deleted, whatever happens to a list while it is read.

Random lists, page sizes, removals, moves and failures between pages, against a model of what is
true: thousands of readings, and some through the whole pipeline. ``-m heavy`` takes more of both.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from analytics_assets.sandbox import Options, Sandbox
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.extraction import Extraction
from analytics_assets.segment.reader import read_group
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.reading_session import ReadingSession
from analytics_assets.segment.records import RowTyper
from analytics_assets.segment.settings import ApiSettings
from analytics_assets.segment.staging import Key, Staging
from analytics_assets.segment.token_workspace import TokenWorkspace
from analytics_assets_tests.conftest import project_for
from analytics_assets_tests.harness import Project
from analytics_assets_tests.moving import MovingApi, Scene, scenes
from analytics_assets_tests.test_deletions import deleted

FLAT, PARENT, CHILD = "roles", "groups", "group_users"
QUICK = settings(
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Return a server; what it answers is the model's."""
    with Sandbox(Options(scale=0.01)) as server:
        yield server


def reading_of(name: str, folder: Path, parent: Reading | None, held: frozenset[Key]) -> Reading:
    """Return the reading of a list, as a run plans it."""
    endpoint = BY_NAME[name]
    return Reading(
        Extraction(endpoint, parent=parent.extraction if parent else None),
        RowTyper(endpoint, {}),
        Staging(endpoint, folder / name),
        as_of=datetime.now(timezone.utc),
        held=held,
        loaded_before=True,
    )


def read(sandbox: Sandbox, api: MovingApi, names: list[str], held: frozenset[Key]) -> Reading:
    """Read a list, after the one it hangs on; return its reading."""
    sandbox.intercept = api.answer
    url = ApiSettings(
        sandbox.url, sandbox.token, page_size=api.scene.page_size, retries=0, parallel_requests=1
    )
    with tempfile.TemporaryDirectory() as folder:
        readings: list[Reading] = []
        for name in names:
            mine = held if name == names[-1] else frozenset()
            parent = readings[0] if readings else None
            readings.append(reading_of(name, Path(folder), parent, mine))
        log = logging.getLogger("quiet")
        with ReadingSession(url, log, readings, TokenWorkspace()) as session:
            read_group(session, "identity", readings)
    return readings[-1]


def would_mark(reading: Reading) -> frozenset[Key]:
    """Return the keys that a load of this reading marks as deleted."""
    assert reading.staging is not None
    if reading.failure or reading.extraction.doubts:
        return frozenset()
    return reading.staging.missing


def check_reading(sandbox: Sandbox, scene: Scene, *names: str) -> None:
    """Read a list that changes meanwhile, and compare with what is true."""
    api = MovingApi(scene, names[-1], *names[:-1])
    gone = {tuple(f"gone{n}" for _ in names) for n in range(scene.gone)}
    marks = would_mark(read(sandbox, api, [*names], frozenset(api.rows | gone)))
    assert not marks & api.standing
    if scene.is_calm:
        assert marks == gone


@settings(QUICK, max_examples=400)
@given(scenes(families=False))
def test_no_live_row_is_marked(sandbox: Sandbox, scene: Scene) -> None:
    """Prevents that a row which slid past the reader, or a list that lies, marks the living."""
    check_reading(sandbox, scene, FLAT)


@settings(QUICK, max_examples=200)
@given(scenes(families=True))
def test_no_live_row_of_a_child_is_marked(sandbox: Sandbox, scene: Scene) -> None:
    """Prevents the same of lists that hang on another, which changes as well."""
    check_reading(sandbox, scene, PARENT, CHILD)


@pytest.mark.heavy
@settings(QUICK, max_examples=4000)
@given(scenes(families=False))
def test_no_live_row_is_marked_in_thousands_of_readings(sandbox: Sandbox, scene: Scene) -> None:
    """Prevents what the quick lane is too short to find."""
    check_reading(sandbox, scene, FLAT)


@pytest.mark.heavy
@settings(QUICK, max_examples=2000)
@given(scenes(families=True))
def test_no_live_child_is_marked_in_thousands_of_readings(sandbox: Sandbox, scene: Scene) -> None:
    """Prevents what the quick lane is too short to find, of lists that hang on another."""
    check_reading(sandbox, scene, PARENT, CHILD)


# Through the whole pipeline.

EXAMPLE = count()


@pytest.fixture(scope="module")
def shared(sandbox: Sandbox, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Return a project whose database all examples share: each begins with a load of its own."""
    return project_for(sandbox, tmp_path_factory.mktemp("shared"))


def check_load(project: Project, scene: Scene) -> None:
    """Load a quiet list, then one that changes meanwhile; compare the marks with what is true."""
    label = f"e{next(EXAMPLE)}"
    api = MovingApi(scene, FLAT, label=label)
    quiet = MovingApi(CALM, FLAT)
    quiet.lists = api.lists
    config = {"expect_fewer_rows": True}
    project.sandbox.intercept = quiet.answer
    assert project.materialize(FLAT, config=config).success
    assert {(row["id"],) for row in project.rows(FLAT)} == api.rows  # the last example's are gone
    project.sandbox.intercept = api.answer
    options = {"page_size": scene.page_size, "retries": 0}
    result = project.materialize(FLAT, config=config, api=options)
    assert not {*deleted(project, FLAT)} & api.standing
    if not result.success:
        assert any(c.kind == "fail" for cs in scene.changes.values() for c in cs)


CALM = Scene((0,), 0, 1, totals=True, lie="", quiet_again=True, changes={})


@settings(QUICK, max_examples=30)
@given(scenes(families=False))
def test_no_live_row_is_marked_by_a_load(shared: Project, scene: Scene) -> None:
    """Prevents that marks are made past the proof, or not made once a list is quiet again."""
    check_load(shared, scene)


@pytest.mark.heavy
@settings(QUICK, max_examples=200)
@given(scenes(families=False))
def test_no_live_row_is_marked_by_hundreds_of_loads(shared: Project, scene: Scene) -> None:
    """Prevents what the quick lane is too short to find."""
    check_load(shared, scene)
