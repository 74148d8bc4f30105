"""Which modules a part of the package brings in, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def modules_loaded_by(module: str) -> set[str]:
    """Import ``module`` in a fresh interpreter; return the top-level modules that it brought in."""
    code = (
        "import sys; before = set(sys.modules);"
        f" import {module};"
        " print(*{name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.split())


def test_endpoints_need_the_standard_library_only() -> None:
    """An import of dlt here makes every reader of the table, the sandbox too, slow to start."""
    loaded = modules_loaded_by("analytics_assets.segment.endpoints")
    assert loaded - sys.stdlib_module_names == {"analytics_assets"}
