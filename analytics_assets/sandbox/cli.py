"""The console script ``analytics-sandbox``: run a command against the sandbox, or just serve it."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType

from analytics_assets.sandbox import Options, Sandbox
from analytics_assets.sandbox.ledger import months_back
from analytics_assets.sandbox.story import PLAN, STORY
from analytics_assets.sandbox.workspace import Workspace

BASE_URL_VARIABLE = "ANALYTICS_API_BASE_URL"
TOKEN_VARIABLE = "ANALYTICS_API_TOKEN"  # noqa: S105 - the name of the variable
OPTIONS_VARIABLE = "SEGMENT_SANDBOX_OPTIONS"
"""Tells the command which options the sandbox was given, for the next command that it proposes."""
DATABASE = "ANALYTICS_DUCKDB_PATH"
DESTINATION = {
    "ANALYTICS_DESTINATION": "duckdb",
    DATABASE: f"analytics_sandbox_story{STORY}_{{company}}.duckdb",
    "ANALYTICS_DATASET": "analytics",
    "ANALYTICS_TABLE_FORMAT": "",
}
"""Where the invented company is loaded to: a database of its own, never one with real rows.

It is that of one company and one story, so that no load meets the rows of another.
"""
SILENT = {"DAGSTER_DISABLE_TELEMETRY": "1", "RUNTIME__DLTHUB_TELEMETRY": "false"}
"""What keeps Dagster and dlt from telling their makers of a run: nothing leaves the machine."""
KEEP_DESTINATION = "--keep-destination"

_EXIT_NOT_EXECUTABLE = 126
_EXIT_NOT_FOUND = 127
_SIGNAL_EXIT = 128
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 1.0
_INTERRUPTED = "analytics-sandbox: interrupted before anything was asked for"
_FLAGS = frozenset({"-h", "--help", KEEP_DESTINATION})
_DESCRIPTION = """\
Serve an invented workspace the way the Segment Public API does, on this machine only.
With a COMMAND, run it against the sandbox, with a DuckDB file of its own as destination, and pass
its exit code on; without one, print the variables to set and serve until interrupted."""
_HOST = "127.0.0.1"
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
_INSTANCE = """\
python_logs: {{python_log_level: {level}}}
telemetry: {{enabled: false}}
"""
_NO_CAPTURE = """\
compute_logs: {module: dagster._core.storage.noop_compute_log_manager, class: NoOpComputeLogManager}
"""
"""The name that Dagster's reference documents. Nobody can look at what a command's steps printed
once its instance is gone, and the processes that capture it show tracebacks when interrupted."""

Handler = Callable[[int, FrameType | None], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the console script and give its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    own, command = split_command(words)
    parser = _parser()
    args = parser.parse_args(own)
    try:
        sandbox = Sandbox(_options(args), port=args.port)
    except ValueError as error:
        parser.error(str(error))
    relay, company = _SignalRelay(), _company(args)
    with relay:
        try:
            sandbox.__enter__()
        except OSError as error:
            parser.error(f"cannot listen on port {args.port}: {error.strerror}")
        try:
            if command:
                base = {
                    **plan_of(sandbox.workspace),
                    **os.environ,
                    OPTIONS_VARIABLE: shlex.join(own),
                }
                environment = child_environment(
                    sandbox.url, sandbox.token, base, company, keep=args.keep_destination
                )
                try:
                    home = quiet_dagster(command, environment, args.log_level)
                    with home as quiet:
                        return _run(command, quiet, relay, begun=lambda: bool(sandbox.requests))
                except PlaceMissing as error:
                    parser.error(str(error))
            return _serve(sandbox, relay, company, keep=args.keep_destination)
        finally:
            sandbox.__exit__(None, None, None)


def split_command(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split the words after the program name into own options and the command to run.

    The command starts at the first word that is neither an option nor the value of one, so that
    its own options are left alone; ``--`` starts it, too.
    """
    place = 0
    while place < len(words):
        word = words[place]
        if word == "--":
            return list(words[:place]), list(words[place + 1 :])
        if not word.startswith("-"):
            break
        place += 1 if "=" in word or word in _FLAGS else 2
    return list(words[:place]), list(words[place:])


def child_environment(
    url: str, token: str, base: Mapping[str, str], company: str, *, keep: bool = False
) -> dict[str, str]:
    """Give the environment of the command: everything of ours, and what belongs to the sandbox.

    Args:
        url: where the sandbox is.
        token: that it accepts.
        base: everything of ours.
        company: what names its database.
        keep: whether to load to where ``base`` says.
    """
    environment = {**base, **SILENT, **variables(url, token, company, keep=keep)}
    if any(name.lower() in ("http_proxy", "all_proxy") for name in base):
        for name in ("NO_PROXY", "no_proxy"):
            environment[name] = ",".join(filter(None, (base.get(name), _HOST)))
    return environment


def variables(url: str, token: str, company: str, *, keep: bool = False) -> dict[str, str]:
    """Give the variables that lead to the sandbox, and what it serves to a database of its own."""
    own = {name: value.format(company=company) for name, value in DESTINATION.items()}
    return {BASE_URL_VARIABLE: url, TOKEN_VARIABLE: token, **({} if keep else own)}


class PlaceMissing(Exception):
    """A folder that is needed is not there."""


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(prefix="analytics_sandbox_")
    except OSError as error:
        raise PlaceMissing(f"no temporary folder can be made ({error}); set TMPDIR") from None


def _loads(command: Sequence[str]) -> bool:
    """Tell a command that loads, and then ends, from ``dagster dev`` and those of others."""
    return Path(command[0]).name in ("dagster", "dg") and "dev" not in command


@contextmanager
def quiet_dagster(
    command: Sequence[str], environment: Mapping[str, str], level: str
) -> Iterator[dict[str, str]]:
    """Give the environment with a Dagster instance for this once, unless it names one already.

    Dagster alone would print each event as a line of DEBUG, warnings of its own, and a welcome.

    Args:
        command: its words.
        environment: of the command.
        level: what Dagster prints at least.

    Raises:
        PlaceMissing: DAGSTER_HOME is no folder, or there is no place for a temporary one.
    """
    if home := environment.get("DAGSTER_HOME"):
        if not (os.path.isabs(home) and os.path.isdir(home)):
            raise PlaceMissing(
                f"DAGSTER_HOME is {home!r}, and Dagster wants a folder that is there, from / on:"
                " make it, or unset DAGSTER_HOME"
            )
        yield {"PYTHONWARNINGS": "ignore", **environment}
        return
    with _temporary_folder() as home:
        instance = _INSTANCE.format(level=level) + ("" if "dev" in command else _NO_CAPTURE)
        (Path(home) / "dagster.yaml").write_text(instance)
        yield {"PYTHONWARNINGS": "ignore", **environment, "DAGSTER_HOME": home}


def plan_of(workspace: Workspace) -> dict[str, str]:
    """Give what the company's plan includes, as variables; nothing without a month of usage."""
    month = months_back(workspace.now().date(), 1).isoformat()
    plan: dict[str, str] = {}
    for variable, (name, counters, share) in PLAN.items():
        if rows := workspace.usage(name, month):
            used = sum(int(rows[-1][counter]) for counter in counters)
            plan[variable] = str(int(used * share) or 1)
    return plan


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="analytics-sandbox",
        usage="%(prog)s [options] [COMMAND ...]",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--seed", type=int, default=7, help="decides every record (default: 7)")
    add("--scale", type=_positive, default=1.0, help="multiplies the size of the workspace")
    add(
        "--count",
        type=_named_count,
        action="append",
        default=[],
        metavar="NAME=N",
        help="number of records of one list, e.g. audit_events=100000; may be repeated",
    )
    add("--latency-ms", type=_not_negative, default=0.0, help="hold every answer back so long")
    add(
        "--page-limit",
        type=_whole,
        default=1000,
        help="largest page (default: 1000); no less than 200 will do for this project's assets",
    )
    add("--rate-limit", type=_positive, help="requests per minute (default: no limit)")
    add("--burst", type=_whole, help="requests that may come at once")
    add("--fault-rate", type=_share, default=0.0, help="share of requests that fail, 0 to 1")
    add("--port", type=_port, default=0, help="port to listen on (default: a free one)")
    add(
        "--log-level",
        choices=_LEVELS,
        default="INFO",
        help="what Dagster prints at least, where DAGSTER_HOME is not set (default: INFO)",
    )
    add(
        KEEP_DESTINATION,
        action="store_true",
        help="load to the destination of your own variables, not to a DuckDB file of the sandbox",
    )
    return parser


def _number(text: str, low: float, high: float, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
    return number


def _positive(text: str) -> float:
    return _number(text, 1e-9, 1e9, "a positive number")


def _not_negative(text: str) -> float:
    return _number(text, 0, 1e9, "a number of 0 or more")


def _share(text: str) -> float:
    return _number(text, 0, 1, "a number from 0 to 1")


def _whole(text: str) -> int:
    number = _number(text, 1, 1e9, "a whole number of 1 or more")
    if number != int(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(number)


def _port(text: str) -> int:
    return int(_number(text, 0, 65535, "a port"))


def _named_count(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=N")
    return name, int(number)


def _company(args: argparse.Namespace) -> str:
    """Name the company: one of another size is another, or its lists would seem to shrink."""
    return f"seed{args.seed}" + (f"_scale{args.scale:g}" if args.scale != 1 else "")


def _options(args: argparse.Namespace) -> Options:
    return Options(
        seed=args.seed,
        scale=args.scale,
        counts=dict(args.count),
        latency=args.latency_ms / 1000,
        page_limit=args.page_limit,
        rate_limit=args.rate_limit,
        burst=args.burst,
        fault_rate=args.fault_rate,
    )


class _SignalRelay:
    """Catches interrupt and termination, and hands them to the command once there is one.

    An interrupt typed at the terminal reaches the command without our help, since it belongs to
    the same foreground job; it is not handed on a second time.
    """

    def __init__(self) -> None:
        self.received = False
        self.gave_up = 0
        self._begun: Callable[[], bool] | None = None
        self._pending: list[int] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> _SignalRelay:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def attach(
        self, child: subprocess.Popen[bytes], begun: Callable[[], bool] | None = None
    ) -> None:
        """Hand signals to this process from now on, also those that came meanwhile.

        Args:
            child: the process.
            begun: tells whether it has begun its work; before that, it is ended if a signal does
                not do so soon: Dagster heeds one only when the first step begins.
        """
        self._child, self._begun = child, begun
        while self._pending:
            self._forward(self._pending.pop(0))

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.received = True
        if self._child is None:
            self._pending.append(number)
        else:
            self._forward(number)

    def _end_if_idle(self, number: int) -> None:
        if self._child is not None and self._begun is not None and not self._begun():
            self.gave_up = number
            self._child.kill()

    def _forward(self, number: int) -> None:
        if self._begun is not None:
            end = threading.Timer(_GRACE_SECONDS, self._end_if_idle, [number])
            end.daemon = True
            end.start()
        if number == signal.SIGINT and _in_terminal_foreground():
            return
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)


def _in_terminal_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.__stdin__.fileno()) == os.getpgrp()  # type: ignore[union-attr]
    except (OSError, AttributeError, ValueError):
        return False


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Let a process that is started within begin deaf to Ctrl-C, until it listens by itself.

    Python would answer it with a traceback of whatever it happened to import.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run(
    command: Sequence[str],
    environment: Mapping[str, str],
    relay: _SignalRelay,
    begun: Callable[[], bool],
) -> int:
    loads = _loads(command)
    try:
        with _interrupts_ignored() if loads else nullcontext():
            child = subprocess.Popen(list(command), env=environment)  # noqa: S603 - asked for
    except FileNotFoundError:
        print(f"analytics-sandbox: command not found: {command[0]}", file=sys.stderr)
        return _EXIT_NOT_FOUND
    except OSError as error:
        print(f"analytics-sandbox: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return _EXIT_NOT_EXECUTABLE
    relay.attach(child, begun if loads else None)
    code = child.wait()
    if relay.gave_up:
        print(_INTERRUPTED, file=sys.stderr)
        return _SIGNAL_EXIT + relay.gave_up
    return code if code >= 0 else _SIGNAL_EXIT - code


def _serve(sandbox: Sandbox, relay: _SignalRelay, company: str, *, keep: bool) -> int:
    for name, value in variables(sandbox.url, sandbox.token, company, keep=keep).items():
        print(f"export {name}={shlex.quote(value)}", flush=True)
    while not relay.received:
        time.sleep(_POLL_SECONDS)
    return 0
