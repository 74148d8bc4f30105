"""The walls between the storeys, as ruff and import-linter hold them.

That the code as it stands keeps to them is shown by ``ruff check`` and ``lint-imports``.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
DAGSTER = ("dagster", "dagster._core.errors", "dagster_dlt", "dagster_shared.error")
BANNED = {
    "segment": (*DAGSTER, "warehouse", "reports", "orchestration", "definitions", "sandbox"),
    "warehouse": (*DAGSTER, "reports", "orchestration", "component", "sandbox"),
    "orchestration": (*DAGSTER[1:2], *DAGSTER[3:], "definitions", "component", "sandbox"),
    "sandbox": (*DAGSTER, "segment", "warehouse", "reports", "orchestration", "definitions"),
    "": (*DAGSTER[1:2], *DAGSTER[3:]),
}
ALLOWED = {
    "segment": ("dlt", "requests", "segment.model"),
    "warehouse": ("dlt", "duckdb", "segment.model"),
    "orchestration": ("dagster", "segment.model", "warehouse.settings"),
    "sandbox": ("starlette", "sandbox.server"),
    "": ("dagster", "orchestration.assets", "sandbox"),
}
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
    banned = [*BANNED[folder]]
    assert refused(folder, [*ALLOWED[folder], *banned]) == banned


@pytest.mark.parametrize(
    ("file", "module", "contract"),
    [
        ("segment/model.py", "warehouse.settings", "Each storey imports only those below it"),
        ("warehouse/settings.py", "orchestration.jobs", "Each storey imports only those below it"),
        ("orchestration/jobs.py", "definitions", "Each storey imports only those below it"),
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
