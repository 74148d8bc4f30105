"""What is handed out: its version, and the lowest versions of what it needs."""

from __future__ import annotations

import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text("utf-8")


@pytest.mark.unit
def test_the_version_is_in_the_changelog() -> None:
    """Prevents a version of which nobody can read what it changes."""
    [version] = re.findall(r'^version = "(.+)"$', PYPROJECT, re.MULTILINE)
    changelog = (ROOT / ".github" / "CHANGELOG.md").read_text("utf-8")
    heads = re.findall(r"^## ([\d.]+)", changelog, re.MULTILINE)
    assert heads[0] == version
    assert heads[-1] == "0.1.0"


@pytest.mark.heavy
def test_the_lowest_versions_do() -> None:
    """Prevents lower bounds that nobody has tried."""
    subprocess.run([ROOT / ".ci" / "lowest"], check=True)


@pytest.mark.heavy
def test_a_source_distribution_holds_the_sources_alone(tmp_path: Path) -> None:
    """Prevents pictures, caches or a lock file with index addresses in what is handed out."""
    subprocess.run(["uv", "build", "-q", "--sdist", "-o", tmp_path, ROOT], check=True)
    [file] = tmp_path.glob("*.tar.gz")
    with tarfile.open(file) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    folders = {".ci", ".github", "analytics_assets", "analytics_assets_tests"}
    own = {".gitignore", "PKG-INFO", "README.md", "pyproject.toml", "workspace.yaml"}
    assert {name.split("/")[0] for name in names} == folders | own
    assert not [name for name in names if name.endswith((".png", ".pyc", ".lock", ".duckdb"))]
    assert os.path.getsize(file) < 2_000_000
