"""Every asset as Dagster shows it, in a text file that a reviewer can read.

After a change that is meant, write it anew and read the difference before it is committed:
``python -m analytics_assets_tests.regenerate``.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import AssetsDefinition, AssetSpec

from analytics_assets.definitions import defs
from analytics_assets.orchestration.deployment import JOBS
from analytics_assets.reports.catalogue import reports
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.harness import ALL_ASSETS, ALL_TABLES, Project

SNAPSHOT = Path(__file__).parent / "data" / "specs.txt"


def described() -> dict[str, str]:
    """Return a block of lines for each asset."""
    blocks = {}
    for assets in defs.assets or ():
        if isinstance(assets, AssetSpec):  # the workspace, which no run makes
            continue
        assert isinstance(assets, AssetsDefinition)
        checks: dict[str, list[str]] = {}
        for check in assets.check_specs:
            kind = " (blocking)" if check.blocking else ""
            checks.setdefault(check.asset_key.to_user_string(), []).append(f"{check.name}{kind}")
        for spec in assets.specs:
            name = spec.key.to_user_string()
            blocks[name] = "\n".join([name, *lines(spec, sorted(checks.get(name, [])))])
    return blocks


def snapshot() -> str:
    """Return the text of the file."""
    blocks = described()
    return "\n\n".join(blocks[name] for name in [*BY_NAME, *reports()]) + "\n"


def lines(spec: AssetSpec, checks: list[str]) -> Iterator[str]:
    """Yield what Dagster knows of an asset before anything has run."""
    tags = {k: v for k, v in spec.tags.items() if not k.startswith("dagster/kind/")}
    freshness: Any = spec.freshness_policy
    yield f"  group: {spec.group_name}"
    yield f"  description: {first_sentence(spec.description or '')}"
    yield f"  kinds: {listed(spec.kinds)}"
    yield f"  tags: {listed(f'{k}={v}' if v else k for k, v in tags.items())}"
    yield f"  owners: {listed(spec.owners)}"
    yield (
        f"  freshness: warn after {freshness.warn_window.to_timedelta()},"
        f" fail after {freshness.fail_window.to_timedelta()}"
    )
    yield f"  metadata: {listed(spec.metadata)}"
    yield f"  checks: {listed(checks)}"


def listed(items: Any) -> str:
    """Join items in alphabetical order."""
    return ", ".join(sorted(items)) or "-"


def first_sentence(text: str) -> str:
    """Return the text up to the first full stop, colon or end of a line."""
    return re.split(r"[.:] |\n", text, maxsplit=1)[0].removesuffix(".")


@pytest.mark.unit
def test_every_asset_is_shown_as_agreed() -> None:
    """A change of the translator alters every asset's page, and no other test would notice."""
    assert set(described()) == ALL_ASSETS
    shown = snapshot()
    kept = SNAPSHOT.read_text(encoding="utf-8") if SNAPSHOT.exists() else ""
    changes = difflib.unified_diff(kept.splitlines(), shown.splitlines(), "agreed", "now", n=2)
    assert shown == kept, "\n".join(changes)


def test_dg_lists_everything(project: Project) -> None:
    """Dagster's current command line finds less than the old one if the project file is wrong."""
    dg = str(Path(sys.executable).parent / "dg")
    root = str(Path(__file__).resolve().parent.parent)
    done = project.command(dg, "list", "defs", "--json", "--target-path", root)
    assert done.returncode == 0, done.stdout[-3000:]
    found = json.loads(done.stdout[done.stdout.index("{") :])
    names = {
        kind: {item.get("name") or item["asset_key"] for item in items}
        for kind, items in found.items()
    }
    assert names["assets"] == {*ALL_ASSETS, "segment_workspace"}
    assert names["jobs"] == {f"{group}_job" for group in JOBS}
    assert names["schedules"] == {f"{group}_schedule" for group in JOBS}
    assert names["sensors"] == {"workspace_changes", "retries", "reports_due"}
    assert names["resources"] == {"api", "warehouse"}
    checked = {report.name for report in reports().values() if report.header.warns}
    assert {item["asset_key"] for item in found["asset_checks"]} == ALL_TABLES | checked
