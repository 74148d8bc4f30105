"""The walls between the storeys, as ruff and import-linter hold them.

That the code as it stands keeps to them is shown by ``ruff check`` and ``lint-imports``.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BANNED = {
    "segment": "dagster dagster_dlt duckdb warehouse reports orchestration definitions sandbox",
    "warehouse": "dagster dagster_dlt reports orchestration component sandbox",
    "reports": "dagster dagster_dlt requests orchestration definitions component sandbox",
    "orchestration": "urllib3 definitions component sandbox",
    "sandbox": "dagster dagster_dlt dlt segment warehouse reports orchestration definitions",
}
ALLOWED = {
    "segment": "dlt requests segment.model",
    "warehouse": "dlt duckdb segment.model",
    "reports": "dlt duckdb segment.model warehouse.settings",
    "orchestration": "dagster segment.model warehouse.settings",
    "sandbox": "starlette sandbox.server",
}
PRIVATE = {
    "analytics_assets/orchestration/failures.py": [
        "dagster._core.errors",
        "dagster._core.errors.DagsterUserCodeProcessError",
        "dagster_shared.error",
        "dagster_shared.error.SerializableErrorInfo",
    ],
}
"""Private modules of other packages, by the file that imports them: guarded, with a test."""
OURS = ("segment", "warehouse", "reports", "orchestration", "sandbox", "definitions", "component")


def refused(folder: str, modules: Sequence[str]) -> list[str]:
    """Return what ruff lets no file in ``folder`` import, not even for its types."""
    head = ["from typing import TYPE_CHECKING", "if TYPE_CHECKING:"]
    imports = [f"    from {full_name(module)} import anything" for module in modules]
    file = Path("analytics_assets", folder, "intruder.py")
    options = ["--select", "TID251,PLC2701", "--output-format", "json"]
    done = subprocess.run(
        [sys.executable, "-m", "ruff", "check", *options, "--stdin-filename", str(file), "-"],
        cwd=ROOT,
        input="\n".join([*head, *imports, ""]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    rows = {int(found["location"]["row"]) for found in json.loads(done.stdout)}
    return [module for row, module in enumerate(modules, len(head) + 1) if row in rows]


def full_name(module: str) -> str:
    """Return the name of a module of ours, or of somebody else's, as it is imported."""
    return f"analytics_assets.{module}" if module.partition(".")[0] in OURS else module


@pytest.mark.parametrize("folder", BANNED)
def test_each_storey_is_kept_from_what_it_must_not_know(folder: str) -> None:
    """Prevents a wall that stands in the README alone: an import through it is refused."""
    banned = BANNED[folder].split()
    assert refused(folder, [*ALLOWED[folder].split(), *banned]) == banned


def private_imports(code: str) -> list[str]:
    """Return the private modules of other packages that ``code`` imports, for types or not."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
            found.add(str(node.module))
    return sorted(name for name in found if is_private(name))


def is_private(name: str) -> bool:
    """Tell whether a module is another package's own; all of dagster_shared is Dagster's."""
    package, *parts = name.split(".")
    if package in ("analytics_assets", "analytics_assets_tests", "__future__"):
        return False
    return package == "dagster_shared" or any(part.startswith("_") for part in [package, *parts])


@pytest.mark.unit
def test_private_names_are_imported_where_they_are_guarded_and_nowhere_else() -> None:
    """Prevents a code location that the next version of a dependency breaks."""
    sample = "if 1:\n import a._b\nfrom c import _d\nfrom dagster_shared import e\nimport f.g"
    assert private_imports(sample) == ["a._b", "c._d", "dagster_shared", "dagster_shared.e"]
    found = {
        path.relative_to(ROOT).as_posix(): private_imports(path.read_text("utf-8"))
        for folder in ("analytics_assets", "analytics_assets_tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {file: names for file, names in found.items() if names} == PRIVATE


@pytest.mark.parametrize(
    ("file", "module", "contract"),
    [
        ("segment/model.py", "warehouse.settings", "Each storey imports only those below it"),
        ("warehouse/settings.py", "orchestration.jobs", "Each storey imports only those below it"),
        ("orchestration/jobs.py", "definitions", "Each storey imports only those below it"),
        ("warehouse/settings.py", "reports.model", "Each storey imports only those below it"),
        ("reports/model.py", "orchestration.jobs", "Each storey imports only those below it"),
        ("sandbox/options.py", "segment.model", "The sandbox imports nothing of the product"),
        ("segment/model.py", "sandbox.options", "The product imports nothing of the sandbox"),
        ("segment/model.py", "segment.endpoints", "No two modules import each other"),
    ],
)
def test_an_import_upward_or_in_a_circle_breaks_a_contract(
    tmp_path: Path, file: str, module: str, contract: str
) -> None:
    """Prevents contracts that would hold whatever the code does; imports for types count too."""
    shutil.copytree(ROOT / "analytics_assets", tmp_path / "analytics_assets")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    changed = tmp_path / "analytics_assets" / file
    changed.write_text(
        changed.read_text("utf-8")
        + "\n\nfrom typing import TYPE_CHECKING\n"
        + f"if TYPE_CHECKING:\n    import analytics_assets.{module}\n",
        encoding="utf-8",
    )
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [str(lint), "--no-cache"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"{contract} BROKEN" in done.stdout
