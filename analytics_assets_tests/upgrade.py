"""The database of version 0.1 that ``test_upgrade.py`` goes on from, and the workspace behind it.

``data/version_0_1.zip`` was made with the code of the commit "Share the test of a terminated run;
say how files are read". To make it again, copy this file into a checkout of that commit and run
there ``python -m analytics_assets_tests.upgrade FILE``.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

from analytics_assets.sandbox import Options, Sandbox
from analytics_assets_tests.conftest import project_for
from analytics_assets_tests.harness import Project
from analytics_assets_tests.timetravel import at

FILE = Path(__file__).parent / "data" / "version_0_1.zip"
MEMBER = "warehouse.duckdb"
FIRST = datetime(2026, 5, 20, 6, tzinfo=timezone.utc)
"""When version 0.1 loaded for the first time; the second time was a day later."""
OPTIONS = Options(
    scale=0.02,
    counts={
        **{"catalog_destinations": 8, "catalog_sources": 7, "catalog_warehouses": 5},
        **{"sources": 4, "destinations": 6, "users": 5, "audit_events": 60},
    },
)


def restore(project: Project) -> None:
    """Put the database where the project looks for it."""
    with zipfile.ZipFile(FILE) as archive:
        project.database.write_bytes(archive.read(MEMBER))


def happen(sandbox: Sandbox) -> None:
    """Change the workspace as it changed between the two loads: somebody left, a field came."""
    workspace = sandbox.workspace
    workspace.remove("users", workspace.records("users")[1]["id"])
    workspace.put("sources", {**workspace.records("sources")[0], "newField": 5})


def make(file: Path) -> None:
    """Load everything twice, and write the database."""
    with tempfile.TemporaryDirectory() as name, Sandbox(OPTIONS, now=FIRST) as sandbox:
        project = project_for(sandbox, Path(name))
        for days in (0, 1):
            with at(project, FIRST + timedelta(days=days)):
                assert project.materialize().success
                project.assert_equal()
            if not days:
                happen(sandbox)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            archive.write(project.database, MEMBER)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
