"""The failure of a step, with and without the names of Dagster's own that hide its traceback."""

from __future__ import annotations

import sys

import pytest

from analytics_assets_tests.harness import Project

NO_TOKEN = "No API token: set ANALYTICS_API_TOKEN"
RUN_DAGSTER = "import runpy; runpy.run_module('dagster', run_name='__main__')"
# what another version of Dagster may bring; Dagster itself must not notice
CHANGES = {
    "as it is": "",
    "no private names": """
import builtins
found = builtins.__import__
def search(name, globals=None, *rest, **named):
    ours = (globals or {}).get("__name__", "").startswith("analytics_assets")
    if ours and name.startswith(("dagster._", "dagster_shared")):
        raise ImportError(name)
    return found(name, globals, *rest, **named)
builtins.__import__ = search
""",
    "no such attribute": """
def changed(self, *texts, **infos):
    raise AttributeError(infos)
from dagster._core.errors import DagsterUserCodeProcessError as error
error.__init__ = changed
""",
    "other arguments": """
from dagster._core.errors import DagsterUserCodeProcessError as error
error.__init__ = lambda self: None
""",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_failure_tells_its_sentence_whatever_dagster_has_changed(
    project: Project, change: str
) -> None:
    """Prevents that a cosmetic effect costs the whole code location with the next Dagster."""
    del project.env["ANALYTICS_API_TOKEN"]
    words = project.words("labels")[3:]  # after "python -m dagster"
    done = project.command(sys.executable, "-c", CHANGES[change] + RUN_DAGSTER, *words)
    assert done.returncode != 0
    assert NO_TOKEN in done.stdout, done.stdout[-3000:]
    assert "Steps failed: ['segment']" in done.stdout  # what a step prints last may be lost
    assert ("Stack Trace" in done.stdout) == (change != "as it is"), done.stdout[-3000:]
    assert project.sandbox.requests == []
