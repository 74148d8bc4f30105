"""Installed from its wheel, from a working directory that has nothing to do with it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CURRENT = f"{sys.version_info.major}.{sys.version_info.minor}"
OTHERS = [version for version in ("3.10", "3.11", "3.12", "3.13", "3.14") if version != CURRENT]
FRONT_DOORS = """
import tempfile
from pathlib import Path
import dagster as dg
from analytics_assets import SegmentWorkspaceComponent, build_segment_definitions

built = build_segment_definitions(name="us", token="US_TOKEN", select=["labels"])
dg.Definitions.validate_loadable(built)
attributes = {"name": "eu", "token": "EU_TOKEN", "select": ["labels"]}
component = SegmentWorkspaceComponent.from_attributes_dict(attributes=attributes)
dg.Definitions.validate_loadable(dg.build_defs_for_component(component))
import analytics_assets
assert "site-packages" in analytics_assets.__file__, analytics_assets.__file__
"""


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command; return what it printed."""
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def interpreter(version: str) -> str:
    """Return the Python of a version, as far as there is one here."""
    if version == CURRENT:
        return sys.executable
    found = subprocess.run(
        ["uv", "python", "find", version, "--no-python-downloads"],
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        pytest.skip(f"there is no Python {version} here")
    return found.stdout.strip()


@pytest.mark.parametrize(
    "version", [CURRENT, *(pytest.param(v, marks=pytest.mark.heavy) for v in OTHERS)]
)
def test_the_wheel_works_anywhere(tmp_path: Path, version: str) -> None:
    """Prevents a file that is left out of the wheel, or is found beside the tests only."""
    python = interpreter(version)
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", ".venv", ".git", "*.duckdb")
    shutil.copytree(ROOT / "analytics_assets", source / "analytics_assets", ignore=ignored)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source / name)
    run("uv", "build", "--quiet", "--wheel", "--out-dir", tmp_path, cwd=source)
    [wheel] = tmp_path.glob("*.whl")
    run("uv", "venv", "--quiet", "--python", python, tmp_path / "venv", cwd=tmp_path)
    bin_ = tmp_path / "venv" / "bin"
    run("uv", "pip", "install", "--quiet", "--python", bin_ / "python", wheel, cwd=tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(bin_ / "python", "-c", FRONT_DOORS, cwd=elsewhere)
    load = ["dagster", "asset", "materialize", "--select", "labels", "-m", "analytics_assets"]
    options = ["--scale", "0.1"]
    run(bin_ / "analytics-sandbox", *options, bin_ / load[0], *load[1:], cwd=elsewhere)
