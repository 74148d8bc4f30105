"""The README's examples, run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import socket
import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance, Definitions, build_defs_for_component

from analytics_assets import SegmentWorkspaceComponent
from analytics_assets.orchestration.resources import AnalyticsApi
from analytics_assets_tests.harness import PATIENCE, Project, failure_of

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


DEPLOYING = ROOT / "analytics_assets" / "docs" / "deploying.md"


def blocks(language: str, document: Path = README) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", document.read_text("utf-8"), re.DOTALL)


def test_the_production_settings_load(tmp_path: Path) -> None:
    """Prevents a dagster.yaml in the README that Dagster refuses."""
    [text] = [block for block in blocks("yaml") if "run_retries" in block]
    settings: dict[str, Any] = yaml.safe_load(text)
    del settings["storage"]  # needs a package of its own
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.run_retries_enabled
        assert instance.get_settings("concurrency")["pools"] == {"default_limit": 1}


@pytest.mark.unit
def test_the_snippets_in_python_run() -> None:
    """Prevents an example that a newcomer copies and that does not load."""
    for code in blocks("python") + blocks("python", DEPLOYING):
        names: dict[str, Any] = {}
        exec(code, names)  # noqa: S102 - the README's own code
        assert isinstance(names["defs"], Definitions)
        Definitions.validate_loadable(names["defs"])


@pytest.mark.unit
def test_the_component_of_the_docs_builds() -> None:
    """Prevents a defs.yaml to copy that the component does not take."""
    [text] = [block for block in blocks("yaml", DEPLOYING) if "attributes" in block]
    written = yaml.safe_load(text)
    component = SegmentWorkspaceComponent.from_attributes_dict(attributes=written["attributes"])
    definitions = build_defs_for_component(component)
    groups = {spec.group_name for spec in definitions.resolve_all_asset_specs()}
    own = {"segment_inventory", "segment_identity", "segment_usage"}
    assert groups == {*own, "default"}  # that of the workspace itself, which no run makes
    assert all(yaml.safe_load(block) for block in blocks("yaml", DEPLOYING))


@pytest.mark.heavy
def test_the_steps_of_the_dockerfile_work_without_docker(tmp_path: Path) -> None:
    """Prevents an image that does not build, or a code server in it that does not start."""
    [text] = blocks("dockerfile", DEPLOYING)
    for line in re.findall(r"^COPY (.+) (\S+)$", text, re.MULTILINE):
        for name in line[0].split():
            place = tmp_path / line[1] / name if line[1] == "./" else tmp_path / line[1]
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, place)
    venv.create(tmp_path / "venv", with_pip=True)
    bin_ = tmp_path / "venv" / "bin"
    [install] = re.findall(r"pip install --no-cache-dir (.+) && useradd", text)
    words = shlex.split(install)
    subprocess.run([bin_ / "pip", "install", "-q", *words], cwd=tmp_path, check=True)
    [command] = re.findall(r"^CMD (.+)$", text, re.MULTILINE)
    words = json.loads(command)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        words[words.index("--port") + 1] = str(free.getsockname()[1])
    server = subprocess.Popen(
        [bin_ / words[0], *words[1:]], cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert server.stdout is not None
        said = next(line for line in server.stdout if b"tarted Dagster code server" in line)
        assert b"analytics_assets.definitions" in said
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.mark.unit
def test_every_variable_is_in_the_table() -> None:
    """Prevents settings that nobody can find."""
    source = "".join(
        path.read_text("utf-8") for path in (README.parent / "analytics_assets").rglob("*.py")
    )
    used = set(re.findall(r"ANALYTICS_[A-Z_]+[A-Z]", source)) | {AnalyticsApi().token_variable}
    listed = README.read_text("utf-8")
    assert {name for name in used if name not in listed} <= {"ANALYTICS_CRON"}


def test_the_reload_example_is_what_dagster_takes(project: Project) -> None:
    """Prevents an example of run config that no longer fits the op."""
    [line] = [block for block in blocks("sh") if "--config-json" in block]
    words = shlex.split(line.replace("\\\n", " "))
    config = json.loads(words[words.index("--config-json") + 1])["ops"]["segment"]["config"]
    result = project.materialize("usage_mtu_daily", config=config)
    assert failure_of(result) == ""
    asked = [request for request in project.sandbox.requests if request.path != "/"]
    periods = sorted(str(request.params["period"]) for request in asked)
    assert periods == ["2026-01-01", "2026-02-01", "2026-03-01"]


DOCUMENTS = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not {".venv", "node_modules"} & set(path.relative_to(ROOT).parts)
)
_PATH = re.compile(r"`([\w./-]+/[\w.-]*|[\w.-]+\.(?:py|toml|json|txt))`")
_LINK = re.compile(r"\]\(([^)#:]+)\)")


@pytest.mark.unit
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    """Prevents that somebody is sent to a file that has moved."""
    text = re.sub(r"^```.*?^```", "", document.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    places = [document.parent, ROOT, ROOT / "analytics_assets", ROOT / "analytics_assets_tests"]
    for name in {*_PATH.findall(text), *_LINK.findall(text)}:
        if "/" in name or (ROOT / "analytics_assets_tests") in document.parents:
            found = [place / name for place in places if (place / name).exists()]
            assert found or name in ELSEWHERE, f"{document.name} names {name}"


ELSEWHERE = {"test_NAME.py", "./", "/data/lake", "../shared/api"}
"""Names in documents that are no files of this repository."""
