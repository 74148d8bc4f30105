"""Which modules a part of the package brings in, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def modules_loaded_by(module: str) -> set[str]:
    """Import ``module`` in a fresh interpreter; return the top-level modules that it brought in."""
    return set(
        said_by(
            "import sys; before = set(sys.modules);"
            f" import {module};"
            " print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
        ).split()
    )


def said_by(code: str) -> str:
    """Run ``code`` in a fresh interpreter; return what it printed."""
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_endpoints_need_the_standard_library_only() -> None:
    """An import of dlt here makes every reader of the table, the sandbox too, slow to start."""
    loaded = modules_loaded_by("analytics_assets.segment.endpoints")
    assert loaded - sys.stdlib_module_names == {"analytics_assets"}


@pytest.mark.parametrize(
    ("setting", "is_on", "frozen"),
    [("pass", True, False), ("gc.disable()", False, False), ("gc.freeze()", True, True)],
)
def test_definitions_load_without_searches_for_garbage(
    setting: str, is_on: bool, frozen: bool
) -> None:
    """Prevents a start that looks hundreds of times through modules, of which nothing goes.

    And a host whose own settings for that are lost by loading definitions.
    """
    code = (
        "import gc, dagster, analytics_assets;"
        f" {setting}; before = gc.get_threshold();"
        " searches = []; gc.callbacks.append(lambda phase, info: searches.append(phase));"
        " analytics_assets.defs; found = len(searches);"
        " print(found, gc.isenabled(), gc.get_freeze_count() > 0, gc.get_threshold() == before)"
    )
    found, *settings = said_by(code).split()
    assert settings == [str(is_on), str(frozen), "True"]
    assert (int(found) == 0) is not frozen
