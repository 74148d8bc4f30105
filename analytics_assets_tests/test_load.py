"""The main job: what lands equals what the API serves, through Dagster's front doors."""

from __future__ import annotations

from collections.abc import Callable

from analytics_assets.sandbox import Options
from analytics_assets_tests.harness import ALL_TABLES, Project, materialized, steps_failed


def test_the_whole_workspace_lands_exactly(start: Callable[..., Project]) -> None:
    """Prevents rows that are lost, invented or altered on the way from the API to the table."""
    project = start(Options())
    done = project.run("*")
    assert done.returncode == 0, done.stdout[-3000:]
    assert project.tables() == ALL_TABLES
    project.assert_equal()


def test_a_second_run_changes_nothing(project: Project) -> None:
    """Prevents duplicates and drift when nothing has changed."""
    assert steps_failed(project.materialize()) == {}
    before = {name: project.rows(name, live=False) for name in ALL_TABLES}
    result = project.materialize()
    assert set(materialized(result)) == ALL_TABLES
    assert {name: project.rows(name, live=False) for name in ALL_TABLES} == before
