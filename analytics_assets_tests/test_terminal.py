"""What a person reads in the terminal: of the first command, of a failure, of a change."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from dagster import DagsterInstance

from analytics_assets.sandbox import Reply
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.harness import (
    ALL_ASSETS,
    PATIENCE,
    Project,
    clean_environment,
    failure_of,
)

Runner = Callable[[list[str], Path, Mapping[str, str], str], tuple[int, str]]
MOST_LINES, WIDEST = 90, 120
FIRST = "analytics-sandbox dagster asset materialize --select '*' -m analytics_assets"
ROWS = re.compile(r"^(\w+) +([\d,]+) rows?\b", re.MULTILINE)
COLOUR = "\x1b["
CTRL_C = b"\x03"


def words(command: str, *options: str) -> list[str]:
    """Return the words of a command of the sandbox, with the programs of this environment."""
    program, *rest = shlex.split(command)
    return [str(Path(sys.executable).with_name(program)), *options, *rest]


@pytest.fixture
def environment(tmp_path: Path) -> Mapping[str, str]:
    """Return what a newcomer has: the programs of the environment, and no setting."""
    (tmp_path / "tmp").mkdir()
    env = clean_environment(tmp_path)
    return {**env, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}


def in_a_terminal(
    command: list[str], folder: Path, env: Mapping[str, str], interrupt_at: str = ""
) -> tuple[int, str]:
    """Run a command on a pseudo-terminal of 80 columns; return its exit code and what it shows.

    With ``interrupt_at`` Ctrl-C is pressed once that is shown.
    """
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    # setsid -c: the terminal is the one of the command, so that Ctrl-C reaches all of it
    run = subprocess.Popen(
        ["setsid", "-c", *command], cwd=folder, env=env, stdin=inner, stdout=inner, stderr=inner
    )
    os.close(inner)
    shown, pressed, end = b"", not interrupt_at, time.monotonic() + 3 * PATIENCE
    try:
        while time.monotonic() < end:
            if not select.select([outer], [], [], 0.1)[0]:
                continue
            try:
                piece = os.read(outer, 65536)
            except OSError:  # the last one to hold the terminal has gone
                break
            shown += piece
            if not pressed and interrupt_at.encode() in shown:
                os.write(outer, CTRL_C)
                pressed = True
        return run.wait(PATIENCE), shown.decode().replace("\r\n", "\n")
    finally:
        run.kill()
        os.close(outer)


def assert_readable(text: str, folder: Path) -> None:
    """Assert that the output of a whole load says what matters, and not much else."""
    lines = text.splitlines()
    assert len(lines) < MOST_LINES, text
    assert "DEBUG" not in text
    assert "Warning" not in text
    assert str(folder / "analytics_sandbox_story2_seed7_scale0.1.duckdb") in text.replace("\n", "")
    assert any(line.startswith("Next: ") for line in lines)
    told = {name: int(rows.replace(",", "")) for name, rows in ROWS.findall(text)}
    assert told.keys() == ALL_ASSETS
    project = Project(sandbox=None, folder=folder)  # type: ignore[arg-type]
    project.env["ANALYTICS_DUCKDB_PATH"] = str(
        folder / "analytics_sandbox_story2_seed7_scale0.1.duckdb"
    )
    counts = [f"SELECT '{name}', count(*) FROM analytics.{name}" for name in sorted(ALL_ASSETS)]
    assert told == dict(project.query(" UNION ALL ".join(counts)))


def test_the_first_command_in_a_pipe(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """Prevents hundreds of lines of DEBUG, and a run that does not say how many rows it brought."""
    done = subprocess.run(
        words(FIRST, "--scale", "0.1"),
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert COLOUR not in done.stdout
    assert "Next: uv run analytics-sandbox --scale 0.1 dagster dev; in SQL" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= WIDEST
    assert re.search(r"^sources +\d+ rows +1 request +\d checks ok$", done.stdout, re.MULTILINE)
    assert "month_forecast: 1 of 2 rows: the month is going to use more" in done.stdout
    assert_readable(done.stdout, tmp_path)


@pytest.mark.heavy
def test_the_first_command_on_a_terminal(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """Prevents lines that wrap on a terminal of 80 columns, and findings that nobody sees."""
    code, shown = in_a_terminal(words(FIRST, "--scale", "0.1"), tmp_path, environment)
    assert code == 0, shown
    assert COLOUR in shown
    plain = re.sub(r"\x1b\[[\d;]*m", "", shown)
    lines = [line for line in plain.splitlines() if not line.startswith("The tables are in")]
    assert max(map(len, lines)) <= 80
    assert_readable(plain, tmp_path)


@pytest.mark.heavy
def test_without_colour(tmp_path: Path, environment: Mapping[str, str]) -> None:
    """Prevents colours where NO_COLOR asks for none."""
    command = words(FIRST.replace("*", "labels"), "--scale", "0.1")
    code, shown = in_a_terminal(command, tmp_path, {**environment, "NO_COLOR": "1"})
    assert code == 0, shown
    assert not re.search(r"\x1b\[[\d;]*3\dm", shown), shown


def in_a_pipe(
    command: list[str], folder: Path, env: Mapping[str, str], interrupt_at: str = ""
) -> tuple[int, str]:
    """Run a command whose output goes into a pipe, and interrupt it; else as on a terminal."""
    run = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    shown = b""
    try:
        while piece := os.read(run.stdout.fileno(), 65536) if run.stdout else b"":
            shown += piece
            if interrupt_at and interrupt_at.encode() in shown:
                run.send_signal(signal.SIGINT)
                interrupt_at = ""
        return run.wait(PATIENCE), shown.decode()
    finally:
        run.kill()


@pytest.mark.heavy
@pytest.mark.parametrize("way", [in_a_terminal, in_a_pipe])
def test_ctrl_c_in_the_middle(tmp_path: Path, environment: Mapping[str, str], way: Runner) -> None:
    """Prevents tracebacks for a key that was pressed, and a next run that is not right."""
    slow = words(FIRST, "--scale", "0.1", "--latency-ms", "300")
    code, shown = way(slow, tmp_path, environment, "reading:")
    assert code != 0
    assert "Traceback" not in shown
    assert "Stack Trace" not in shown
    assert "Interrupted. What has loaded stays" in shown
    assert not [path for path in (tmp_path / "tmp").iterdir() if path.name.startswith("analytics")]
    code, shown = in_a_pipe(words(FIRST, "--scale", "0.1"), tmp_path, environment)
    assert code == 0, shown
    assert_readable(shown, tmp_path)


@pytest.mark.parametrize("seconds", [0.7, pytest.param(2, marks=pytest.mark.heavy)])
def test_ctrl_c_at_once(tmp_path: Path, environment: Mapping[str, str], seconds: float) -> None:
    """Prevents that whoever mistyped the command waits until all has been imported and set up."""
    outer, inner = pty.openpty()
    run = subprocess.Popen(
        ["setsid", "-c", *words(FIRST)],
        cwd=tmp_path, env=environment, stdin=inner, stdout=inner, stderr=inner,
    )  # fmt: skip
    os.close(inner)
    time.sleep(seconds)
    os.write(outer, CTRL_C)
    pressed, shown = time.monotonic(), b""
    try:
        while piece := os.read(outer, 65536):
            shown += piece
    except OSError:  # the last one to hold the terminal has gone
        assert time.monotonic() - pressed < PATIENCE / 2
    finally:
        run.kill()
        os.close(outer)
    assert run.wait(PATIENCE) == 130, shown
    assert b"Traceback" not in shown
    assert b"interrupted before anything was asked for" in shown
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("DAGSTER_HOME", "missing", "DAGSTER_HOME is 'missing'"),
        ("DAGSTER_HOME", "/proc/missing", "DAGSTER_HOME is '/proc/missing'"),
        ("TMPDIR", "/proc/missing", ""),
    ],
)
def test_a_folder_that_is_missing_is_named(
    tmp_path: Path, environment: Mapping[str, str], variable: str, value: str, said: str
) -> None:
    """Prevents a traceback of Dagster's for a variable that points nowhere."""
    done = subprocess.run(
        words("analytics-sandbox true"),
        cwd=tmp_path,
        env={**environment, variable: value},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == (2 if said else 0), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_and_a_folder_that_cannot_be_written_to(
    environment: Mapping[str, str], tmp_path: Path
) -> None:
    """Prevents a first command that fails, or complains at length, where nothing may be kept."""

    def said(folder: Path, **env: str) -> subprocess.CompletedProcess[str]:
        select = FIRST.replace("*", "labels,usage_api_calls_daily")
        return subprocess.run(
            words(select, "--scale", "0.1"),
            cwd=folder,
            env={**environment, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=3 * PATIENCE,
            check=False,
        )

    done = said(tmp_path, HOME="/proc/missing")
    assert done.returncode == 0, done.stdout
    assert "/proc" not in done.stdout
    done = said(Path("/proc"))
    assert done.returncode != 0
    assert "Traceback" not in done.stdout
    text = " ".join(done.stdout.split())
    assert "failed: labels (GET /labels): The lock file '/proc/" in text
    assert "choose another folder" in text


def test_a_broken_list_is_named_last(project: Project, tmp_path: Path) -> None:
    """Prevents that one looks for the reason in the middle of what went well."""
    path = BY_NAME["labels"].path
    project.sandbox.intercept = lambda info: Reply(422) if info.path == path else None
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("python_logs: {python_log_level: INFO}\n")
    done = project.run("labels,roles", DAGSTER_HOME=str(home))
    assert done.returncode != 0
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    own = [line for line in lines if line.startswith("failed: labels (GET /labels): HTTP 422")]
    assert len(own) == 1, done.stdout
    assert any("labels (GET /labels)" in line for line in lines[-10:])
    assert re.search(r"^roles +\d+ rows +1 request +\d checks ok$", done.stdout, re.MULTILINE)


def test_what_has_changed_stands_in_the_summary(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prevents that one has to compare two summaries to see what a run has changed."""
    with DagsterInstance.ephemeral() as instance:
        assert failure_of(project.materialize("labels", "roles", instance=instance)) == ""
        before = capsys.readouterr().out
        role = {**project.sandbox.served("roles")[0], "id": "another"}
        project.sandbox.workspace.put("roles", role)
        assert failure_of(project.materialize("labels", "roles", instance=instance)) == ""
        after = capsys.readouterr().out
    assert "+1" not in before
    assert re.search(r"^roles +\d+ rows \(\+1\) ", after, re.MULTILINE)
    [changed] = re.findall(r"^ +(\w+) \+1 ", after, re.MULTILINE)
    assert changed == "roles"
