"""The README's examples, run as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster import Definitions, build_defs_for_component

from analytics_assets import SegmentWorkspaceComponent
from analytics_assets.orchestration.resources import AnalyticsApi
from analytics_assets.reports.catalogue import reports
from analytics_assets_tests.harness import (
    ALL_ASSETS,
    PATIENCE,
    Project,
    clean_environment,
    failure_of,
    wait_for,
)

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "analytics_assets" / "docs"
DEPLOYING, OPERATIONS = DOCS / "deploying.md", DOCS / "operations.md"
PAGES = [README, *sorted(DOCS.glob("*.md"))]
"""What users read."""
MOST_WORDS = 700


def blocks(language: str, document: Path = README) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"```{language}\n(.*?)```", document.read_text("utf-8"), re.DOTALL)


@pytest.mark.unit
def test_the_snippets_in_python_run() -> None:
    """Prevents an example that a newcomer copies and that does not load."""
    for code in [code for page in PAGES for code in blocks("python", page)]:
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
    listed = (DOCS / "configuration.md").read_text("utf-8")
    assert {name for name in used if name not in listed} <= {"ANALYTICS_CRON"}


def test_the_reload_example_is_what_dagster_takes(project: Project) -> None:
    """Prevents an example of run config that no longer fits the op."""
    [line] = [block for block in blocks("sh", DOCS / "assets.md") if "--config-json" in block]
    words = shlex.split(line.replace("\\\n", " "))
    config = json.loads(words[words.index("--config-json") + 1])["ops"]["segment"]["config"]
    result = project.materialize("usage_mtu_daily", config=config)
    assert failure_of(result) == ""
    asked = [request for request in project.sandbox.requests if request.path != "/"]
    periods = sorted(str(request.params["period"]) for request in asked)
    assert periods == ["2026-01-01", "2026-02-01", "2026-03-01"]


@pytest.mark.unit
def test_the_readme_is_short() -> None:
    """Prevents that the first page grows into a manual again."""
    assert len(README.read_text("utf-8").split()) <= MOST_WORDS


@pytest.mark.unit
def test_every_report_and_page_is_in_the_readme() -> None:
    """Prevents a question or a page that a reader of the README never hears of."""
    text = README.read_text("utf-8")
    asked = dict(re.findall(r"^\| (\w+) \| (.+\?) \|$", text, re.MULTILINE))
    assert asked == {name: report.header.question for name, report in reports().items()}
    assert [page.name for page in PAGES if f"docs/{page.name})" not in text] == ["README.md"]


RUN_BY: Mapping[str, str] = {
    "uv run analytics-sandbox dagster asset materialize --select '*' -m analytics_assets": "here",
    "uv run analytics-sandbox dagster dev": "here",
    "uv run analytics-sandbox dg launch --assets '*'": "here",
    "uv run analytics-sandbox --seed 9 --scale 0.1 --latency-ms 5 --rate-limit 30000"
    " --fault-rate 0.05 dagster asset materialize --select sources -m analytics_assets": "here",
    "uv run dagster asset materialize --select '*' -m analytics_assets": "here",
    "export ANALYTICS_API_TOKEN=...": "here",
    "export DAGSTER_HOME=$PWD/.dagster": "test_terminal",
    "export ANALYTICS_API_BASE_URL=https://eu1.api.segmentapis.com": "nobody without an account",
    "dg scaffold defs analytics_assets.SegmentWorkspaceComponent us": "test_host",
    "dg scaffold defs analytics_assets.SegmentWorkspaceComponent segment": "test_host",
    "uv run pytest": "itself",
    "uv run pytest -m unit": "itself",
    "uv run pytest -m heavy": "itself",
    "uv run pytest -m rehearsal": "itself",
    "ANALYTICS_REHEARSAL_SECONDS=180 ANALYTICS_REHEARSAL_SEED=7"
    " uv run pytest -m rehearsal": "itself",
    "python -m analytics_assets.docs sources --key-prefix team/segment --dataset copy"
    " --select users": "test_docs",
    "dagster code-server start --module-name analytics_assets.definitions --host 0.0.0.0"
    " --port 4000": "the Dockerfile's steps",
}
"""Every command that users are told, and the test that runs it."""


def commands(page: Path) -> list[str]:
    """Return the commands of a page, each on one line, but programs in quotes and reloads."""
    text = "".join(block for block in blocks("sh", page) if "python -c" not in block)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    found = [re.sub(r"\s+#.*$", "", line).strip() for line in lines]
    return [line for line in found if line and "--config-json" not in line]


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_is_run_by_a_test(page: Path) -> None:
    """Prevents a command to copy that nobody has run."""
    assert [line for line in commands(page) if line not in RUN_BY] == []


@pytest.mark.unit
def test_no_command_is_kept_that_no_page_has() -> None:
    """Prevents a list of commands that says more than the pages do."""
    assert {line for page in PAGES for line in commands(page)} == RUN_BY.keys()


def as_installed(command: str) -> list[str]:
    """Return the words of a command, with the programs of this environment."""
    words = shlex.split(command.removeprefix("uv run "))
    return [str(Path(sys.executable).with_name(words[0])), *words[1:]]


@pytest.mark.heavy
@pytest.mark.parametrize(
    "command",
    [line for line, by in RUN_BY.items() if by == "here" and not line.endswith(("dev", "..."))],
)
def test_the_command_loads_what_it_names(command: str, start: Callable[..., Project]) -> None:
    """Prevents a command to copy that does not end well, or leaves no tables behind."""
    project = start()
    project.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{project.env['PATH']}"
    # dg wants to be in the project's folder
    shutil.copy(ROOT / "pyproject.toml", project.folder)
    (project.folder / "analytics_assets").symlink_to(ROOT / "analytics_assets")
    done = project.command(*as_installed(command))
    assert done.returncode == 0, done.stdout[-3000:]
    if "analytics-sandbox" in command:
        company = "seed9_scale0.1" if "--seed 9 --scale 0.1" in command else "seed7"
        own = project.folder / f"analytics_sandbox_story2_{company}.duckdb"
        project.env["ANALYTICS_DUCKDB_PATH"] = str(own)
    if command == next(iter(RUN_BY)):  # what the README shows of it
        shown = re.findall(r"^\w+ {5,}.+ ok$", README.read_text("utf-8"), re.MULTILINE)
        assert shown
        assert set(shown) <= set(done.stdout.splitlines())
    expected = ALL_ASSETS if "'*'" in command else {"sources"}
    assert project.tables() == expected


@pytest.mark.heavy
def test_the_question_of_the_readme_has_the_answer_it_shows(tmp_path: Path) -> None:
    """Prevents a first answer that looks otherwise than the README promises."""
    env = clean_environment(tmp_path)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    first = next(line for line in RUN_BY if "--select '*'" in line)
    [question] = [block for block in blocks("sh") if "python -c" in block]

    def said(command: str) -> str:
        words = as_installed(command)
        done = subprocess.run(
            words, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def cells(text: str) -> list[list[str]]:
        lines = [line.split("│") for line in text.splitlines() if line.startswith("│")]
        # the API calls of the last column depend on the day
        return [[cell.strip() for cell in line[1:3]] for line in lines]

    (tmp_path / "tmp").mkdir()
    said(first.replace("'*'", "'+idle_sources'"))
    assert cells(said(question)) == cells(README.read_text("utf-8"))


@pytest.mark.heavy
def test_the_ui_starts_as_the_readme_says(project: Project) -> None:
    """Prevents that the command for the UI brings up nothing, or cannot be stopped by Ctrl-C."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    project.env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{project.env['PATH']}"
    words = as_installed("uv run analytics-sandbox dagster dev")
    server = subprocess.Popen(
        [*words, "-p", port, "-w", str(ROOT / "workspace.yaml")],
        cwd=project.folder,
        env=project.env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: answers(f"http://127.0.0.1:{port}/server_info"))
    finally:
        os.killpg(server.pid, signal.SIGINT)
        server.wait(PATIENCE)


def answers(address: str) -> bool:
    """Tell whether there is a server at an address."""
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:
            return bool(answer.read())
    except OSError:
        return False


def anchors(document: Path) -> set[str]:
    """Return what a link into a document may name: its headings, spelt as GitHub does."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.unit
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    """Prevents links and pictures to files or headings that have moved."""
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {target}"


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


ELSEWHERE = {
    *("test_NAME.py", "./", "/data/lake", "../shared/api"),
    *("dagster/max_retries", "dagster/max_runtime"),
    *(f"analytics_assets/{tag}" for tag in ("groups", "retry_of", "saw", "trigger", "workspace")),
}
"""Names in documents that are no files of this repository."""
