"""What a person reads in the terminal: a line per asset as it loads, and a summary at the end.

Printed by the operation, on standard output, which Dagster also keeps as the output of the step: a
line of its log would carry a prefix of a hundred characters. Plain where there is no terminal.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Final, TypeVar

from dagster import (
    AssetCheckResult,
    AssetExecutionContext,
    AssetKey,
    DagsterExecutionInterruptedError,
    DagsterLogManager,
    DagsterRunStatus,
    Failure,
    MaterializeResult,
)

from analytics_assets.orchestration.deployment import AssetIndex, Deployment
from analytics_assets.orchestration.failures import step_failure
from analytics_assets.orchestration.latest import Latest
from analytics_assets.reports.model import GROUP as REPORTS
from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.foreign_text import foreign_text

if TYPE_CHECKING:
    from rich.console import Console

Said = TypeVar("Said")
Result = TypeVar("Result", bound="MaterializeResult[Any] | AssetCheckResult")

ON_TERMINAL: Final = sys.stdout is not None and sys.stdout.isatty()
"""Found out when definitions load: in a step Dagster has put a file in the terminal's place."""
WIDEST: Final = 120
WIDTH: Final = min(get_terminal_size((WIDEST, 24)).columns, WIDEST) if ON_TERMINAL else WIDEST
FINDINGS: Final = 3
"""Findings of reports that the summary tells."""
NAME_WIDTH: Final = 30
SANDBOX_OPTIONS: Final = "SEGMENT_SANDBOX_OPTIONS"
"""Set by the sandbox for the command that it runs: the options that it was given."""
INTERRUPTED: Final = "Interrupted. What has loaded stays, and the next run brings the rest."


@dataclass(frozen=True)
class TerminalLog:
    """Dagster's log, of which progress is printed, too."""

    log: DagsterLogManager

    def info(self, msg: str, /) -> None:
        """Log what is going on."""
        self.log.info(msg)

    def warning(self, msg: str, /) -> None:
        """Log what a person should look at."""
        self.log.warning(msg)

    def progress(self, summary: str, details: str, /) -> None:
        """Print how far the reading is; details only matter to those who look closely."""
        console().print(summary, style="dim")
        self.log.debug(details)


@dataclass(frozen=True)
class _Line:
    """What became of one asset: its group, rows (and before this run), requests and checks."""

    name: str
    group: str
    rows: int | None
    before: int | None
    deleted: int
    requests: int | None
    checks: Sequence[AssetCheckResult]
    available: bool

    @property
    def bad(self) -> Sequence[AssetCheckResult]:
        """The checks that did not pass."""
        return [check for check in self.checks if not check.passed]

    @property
    def change(self) -> str:
        """What has changed since the last load, nothing if that is not known."""
        known = self.rows is not None and self.before is not None
        added = (self.rows or 0) - (self.before or 0) if known else 0
        parts = [
            f"{added:+,}" if added else "",
            f"{self.deleted:,} deleted" if self.deleted else "",
        ]
        return ", ".join(filter(None, parts))

    def text(self) -> str:
        """Return the line."""
        parts = [_many(self.rows, "row") if self.rows is not None else "loaded"]
        if self.change:
            parts[0] += f" ({self.change})"
        if self.requests is not None:
            parts.append(_many(self.requests, "request"))
        if self.checks:
            parts.append(_checks_text(len(self.checks), len(self.bad)))
        if not self.available:
            parts.append("not available in this workspace")
        return f"{self.name:<{NAME_WIDTH}}  " + "  ".join(parts)


def console() -> Console:
    """Return what prints: in colour on a terminal only, and never wider than it."""
    from rich.console import Console

    return Console(
        file=sys.stdout,
        force_terminal=ON_TERMINAL or None,
        width=WIDTH,
        highlight=False,
        markup=False,
    )


def shown(
    results: Iterable[Result],
    context: AssetExecutionContext,
    deployment: Deployment,
    index: AssetIndex,
    latest: Latest,
) -> Iterator[Result]:
    """Pass on the results of the operation, and print what they are.

    Args:
        results: of the operation; what they raise is passed on after the summary.
        context: of the operation.
        deployment: the workspace.
        index: its assets.
        latest: what the loads before have recorded.
    """
    lines: list[_Line] = []
    say = partial(_say, context)
    before = _rows_before(latest)
    try:
        for result in results:
            if isinstance(result, MaterializeResult) and result.asset_key:
                name, known = index.name(result.asset_key), before.get(result.asset_key)
                say(partial(_tell, lines, name, result, known))
            yield result
    except Failure as failure:
        say(lambda: _print_summary(lines, context, deployment))
        say(partial(_print_failures, failure.description or ""))
        raise
    except DagsterExecutionInterruptedError:
        if _is_cancelled(context):
            raise
        raise step_failure(INTERRUPTED, allow_retries=True) from None
    say(lambda: _print_summary(lines, context, deployment))


def _say(context: AssetExecutionContext, call: Callable[[], Said]) -> Said | None:
    """Print something; it informs, and must not fail a load."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001 - see above
        context.log.warning(f"Nothing printed: {type(error).__name__}: {foreign_text(str(error))}")
        return None


def _tell(
    lines: list[_Line], name: str, result: MaterializeResult[Any], before: int | None
) -> None:
    lines.append(_line(name, result, before))
    _print_line(lines[-1])


def _print_failures(text: str) -> None:
    """Print how many assets have failed, and a line for each."""
    for line in text.splitlines():
        console().print(f"failed: {line}" if ": " in line else line, style="bold red")


def _is_cancelled(context: AssetExecutionContext) -> bool:
    """Tell whether somebody terminates the run in the UI, which is no failure."""
    run = context.instance.get_run_by_id(context.run_id)
    return run is not None and run.status == DagsterRunStatus.CANCELING


def _rows_before(latest: Latest) -> Mapping[AssetKey, int]:
    """Return the row counts of the last load, by asset key."""
    counts = {key: last.metadata.get("dagster/row_count") for key, last in latest.items()}
    return {key: c.value for key, c in counts.items() if c and isinstance(c.value, int)}


def _line(name: str, result: MaterializeResult[Any], before: int | None) -> _Line:
    metadata: Mapping[str, Any] = result.metadata or {}
    values: dict[str, Any] = {k: getattr(value, "value", value) for k, value in metadata.items()}
    return _Line(
        name,
        BY_NAME[name].group if name in BY_NAME else REPORTS,
        values.get("dagster/row_count"),
        before,
        values.get("newly_deleted_rows", 0),
        values.get("requests"),
        list(result.check_results or ()),
        values.get("available", True),
    )


def _print_line(line: _Line) -> None:
    out = console()
    out.print(line.text(), style="yellow" if line.bad else None, soft_wrap=True, overflow="crop")
    for check in line.bad if line.group != REPORTS else ():
        _print_indented(f"{check.check_name}: {check.description}")


def _print_indented(text: str, style: str = "yellow") -> None:
    from rich.padding import Padding

    console().print(Padding(text, (0, 0, 0, 2), expand=False), style=style)


def _print_summary(
    lines: Sequence[_Line], context: AssetExecutionContext, deployment: Deployment
) -> None:
    if not lines:
        return
    from rich import box
    from rich.table import Table

    table = Table("", "assets", "rows", "requests", "checks", box=box.SIMPLE, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    groups: dict[str, list[_Line]] = defaultdict(list)
    for line in lines:
        groups[line.group].append(line)
    for group, members in groups.items():
        table.add_row(group, str(len(members)), *_sums(members))
        for line in members:
            if line.before is not None and line.change:
                table.add_row(f"  {line.name} {line.change}", "", *_sums([line]))
    console().print(table)
    reports = [(line.name, check) for line in lines if line.group == REPORTS for check in line.bad]
    for name, check in reports[:FINDINGS]:
        console().print(f"{name}: {check.description}", style="yellow")
    if len(reports) > FINDINGS:
        console().print(f"and {len(reports) - FINDINGS} more in the checks of the reports")
    for text in _whereabouts(context, deployment, lines):
        console().print(text)


def _sums(lines: Sequence[_Line]) -> Sequence[str]:
    checks = [check for line in lines for check in line.checks]
    return (
        f"{sum(line.rows or 0 for line in lines):,}",
        f"{sum(line.requests or 0 for line in lines):,}",
        _checks_text(len(checks), sum(len(line.bad) for line in lines)) if checks else "",
    )


def _whereabouts(
    context: AssetExecutionContext, deployment: Deployment, lines: Sequence[_Line]
) -> Iterator[str]:
    """Tell where the tables are and, for this code location, what to do next."""
    settings = deployment.warehouse_settings(context.resources)
    place = str(settings.duckdb_path.absolute()) if settings.is_duckdb else settings.destination
    yield f"The tables are in {place}, dataset {settings.dataset}."
    if deployment.name is None:
        table = next((line.name for line in lines if line.group == REPORTS), lines[0].name)
        options = os.environ.get(SANDBOX_OPTIONS)
        sandbox = "" if options is None else f"analytics-sandbox {options}".rstrip() + " "
        yield f"Next: uv run {sandbox}dagster dev; in SQL: FROM {settings.dataset}.{table}"


def _checks_text(count: int, bad: int) -> str:
    return f"{bad} of {count} checks not ok" if bad else f"{_many(count, 'check')} ok"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
