"""The packages for development; deptry sees to all others, and to what is not declared."""

from __future__ import annotations

import ast
import re
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = sorted((ROOT / "analytics_assets_tests").rglob("*.py"))
COMMANDS = "".join(
    path.read_text("utf-8") for path in (ROOT / ".ci" / "run", ROOT / ".pre-commit-config.yaml")
)


def declared() -> set[str]:
    """Return the names of the packages of the group ``dev``, but for the project itself."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    _, _, group = text.partition("\ndev = [\n")
    names = re.findall(r'^    "([a-z0-9-]+)', group.partition("\n]")[0], re.MULTILINE)
    return {*names} - {"analytics-assets"}


def imported() -> set[str]:
    """Return the top-level modules that the product and its tests import."""
    nodes = [
        node
        for path in [*TESTS, *(ROOT / "analytics_assets").rglob("*.py")]
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
    ]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    named = {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return {name.partition(".")[0] for name in plain | named}


def normal(name: str) -> str:
    """Spell a package's name as pyproject.toml does."""
    return re.sub("[-_.]+", "-", name).lower()


def is_used(package: str, packages: set[str]) -> bool:
    """Tell whether a package is imported, types one that is, is called, or extends pytest."""
    if normal(package.removeprefix("types-")) in packages:
        return True
    found = distribution(package)
    commands = {file.stem for file in found.files or () if file.parent.name in ("bin", "Scripts")}
    called = [re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", COMMANDS) for name in commands]
    return any(called) or bool(found.entry_points.select(group="pytest11"))


def test_every_package_for_development_is_used() -> None:
    """Prevents packages that everybody installs and nobody needs."""
    modules, names = imported(), packages_distributions()
    packages = {normal(name) for module in modules for name in names.get(module, [])}
    assert "pytest" in packages
    assert [package for package in sorted(declared()) if not is_used(package, packages)] == []
