"""Dagster's command line with a recorder: what ``benchmarks.profile`` starts as a new process.

``python -m analytics_assets_tests.benchmarks.profiled STARTED REPORT WORDS...`` runs ``dagster
WORDS...`` and writes the figures of its spans to the file REPORT. STARTED is the ``time.time()`` at
which the process was started.

What happens in Dagster and not in this project is measured around public methods of its classes.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from analytics_assets.segment.spans import Figures, Recorder, SpanName, recording, span


def main(started: float, report: Path, words: Sequence[str]) -> None:
    """Run the command and write the report, however it ends."""
    with recording() as recorder:
        recorder.add("import", time.time() - started, time.process_time())
        with span("import"):
            from dagster import DagsterInstance, Definitions

            import analytics_assets.definitions  # noqa: F401 - it holds a span of its own

            [command] = entry_points(group="console_scripts", name="dagster")
            run = command.load()
        _measure(Definitions, "get_repository_def", "definitions")
        _measure(DagsterInstance, "get", "instance")
        _measure(DagsterInstance, "handle_new_event", "events")
        _measure(DagsterInstance, "get_asset_records", "events")
        sys.argv = ["dagster", *words]
        try:
            run()
        finally:
            report.write_text(json.dumps(_figures(recorder)))


def _measure(owner: type, method: str, name: SpanName) -> None:
    """Put a span around each call of a method."""
    before = getattr(owner, method)

    @functools.wraps(before)
    def measured(*args: Any, **options: Any) -> Any:
        with span(name):
            return before(*args, **options)

    is_static = isinstance(vars(owner).get(method), staticmethod)
    setattr(owner, method, staticmethod(measured) if is_static else measured)


def _figures(recorder: Recorder) -> dict[str, dict[str, Any]]:
    names = ("critical", "loading", "aside")
    lanes: dict[str, dict[SpanName, Figures]] = {name: getattr(recorder, name) for name in names}
    return {
        lane: {name: asdict(figures) for name, figures in spans.items()}
        for lane, spans in lanes.items()
    }


if __name__ == "__main__":
    main(float(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
