"""The README's examples, run as they stand there."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import DagsterInstance, Definitions

from analytics_assets.orchestration.resources import AnalyticsApi
from analytics_assets_tests.harness import Project, failure_of

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def blocks(language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


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
    for code in blocks("python"):
        names: dict[str, Any] = {}
        exec(code, names)  # noqa: S102 - the README's own code
        assert isinstance(names["defs"], Definitions)
        Definitions.validate_loadable(names["defs"])


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
    periods = sorted(str(request.params["period"]) for request in project.sandbox.requests)
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
