"""Models of dbt on the tables: built on the source that the documentation generates."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import duckdb

from analytics_assets_tests.harness import Project

ROOT = Path(__file__).parents[1]

HOST = """
from pathlib import Path

import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

from analytics_assets import build_segment_definitions

project = DbtProject(Path(__file__).parent)


@dbt_assets(manifest=project.manifest_path)
def models(context: dg.AssetExecutionContext, dbt: DbtCliResource):
    yield from dbt.cli(["build"], context=context).stream()


defs = dg.Definitions.merge(
    build_segment_definitions(name="us", token="SEGMENT_TOKEN"),
    dg.Definitions(assets=[models], resources={"dbt": DbtCliResource(project_dir=project)}),
)

graph = defs.resolve_asset_graph()
for key in sorted(models.keys):
    assert graph.get(key).parent_keys <= graph.materializable_asset_keys
    print(key.to_user_string(), *sorted(p.to_user_string() for p in graph.get(key).parent_keys))
"""
"""A host whose models stand on the tables of a workspace; it prints what each hangs on."""
MODELS = {
    "live_sources": ["us/sources"],
    "sources_with_label": ["us/labels", "us/sources"],
}


def test_models_stand_on_the_generated_source(project: Project) -> None:
    """Prevents a source that dbt does not take, or models beside the lineage of our assets."""
    host = project.folder / "host"
    shutil.copytree(ROOT / "analytics_assets_tests" / "data" / "dbt", host)
    written = [sys.executable, "-m", "analytics_assets.docs", "sources", "--key-prefix", "us"]
    written += ["--select", "sources,labels"]
    source = subprocess.run(written, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (host / "models" / "sources.yml").write_text(source, encoding="utf-8")
    (host / "downstream.py").write_text(HOST, encoding="utf-8")
    assert project.materialize("sources", "labels").success

    told = in_its_environment(project, host, "dbt", "build", "--profiles-dir", ".")
    assert "ERROR=0" in told
    with duckdb.connect(str(project.database), read_only=True) as connection:
        found = connection.execute("SELECT id FROM marts.live_sources ORDER BY id").fetchall()
    assert [key for (key,) in found] == [row["id"] for row in project.rows("sources")]

    lineage = in_its_environment(project, host, "python", "downstream.py")
    shown = {line.split()[0]: line.split()[1:] for line in lineage.splitlines() if line.strip()}
    assert {model: shown.get(model) for model in MODELS} == MODELS


def in_its_environment(project: Project, folder: Path, *words: str) -> str:
    """Run a command where dbt is installed, which it cannot be beside mypy."""
    uv = ["uv", "run", "-q", "--project", str(ROOT), "--isolated", "--no-default-groups"]
    done = subprocess.run(
        [*uv, "--group", "dbt", *words],
        cwd=folder,
        env={**project.env, "DBT_SEND_ANONYMOUS_USAGE_STATS": "false"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout
