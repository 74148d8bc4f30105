"""Run checks over the tables of a group, right after a load or alone.

A check never ends a run: one that cannot be run has failed, and says why.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping

from dlt.common.destination.exceptions import DestinationException
from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets.segment.foreign_text import foreign_text
from analytics_assets.segment.settings import Log
from analytics_assets.warehouse.checks.catalogue import checks_of
from analytics_assets.warehouse.checks.examination import Check, Examination, Past, Verdict
from analytics_assets.warehouse.checks.findings import Figures, Finding, Findings
from analytics_assets.warehouse.connections import interruptible
from analytics_assets.warehouse.destination import new_pipeline, restore
from analytics_assets.warehouse.faults import question_error
from analytics_assets.warehouse.known_secrets import learn_secrets
from analytics_assets.warehouse.locks import open_database
from analytics_assets.warehouse.preflight import check_reachable
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.tables import open_tables


def look(
    pipeline: Pipeline,
    warehouse: WarehouseSettings,
    loaded: Collection[str],
    selected: Mapping[str, Collection[str]],
    past: Callable[[str], Past],
    log: Log,
) -> Findings:
    """Look at the tables of a group while the caller has the destination open.

    Args:
        pipeline: the pipeline of the group, its schema in step with the destination.
        warehouse: where the tables are.
        loaded: assets that have just been loaded; they get figures.
        selected: names of the checks to run, by asset.
        past: gives what the latest materialization of an asset recorded.
        log: told what could not be done: a look never fails a load.
    """
    findings = Findings()
    with open_tables(pipeline, warehouse) as tables:
        for name in dict.fromkeys([*loaded, *selected]):
            this = Examination(tables, BY_NAME[name], past(name))
            findings.results[name] = list(_findings(this, selected.get(name, ())))
            if name not in loaded:
                continue
            try:
                findings.figures[name] = _figures(this)
            except Exception as error:  # noqa: BLE001 - it adorns; the rows are loaded
                log.warning(f"{name}: no figures for its page: {type(error).__name__}: {error}")
    return findings


def evaluate_alone(
    group: str,
    selected: Mapping[str, Collection[str]],
    past: Callable[[str], Past],
    warehouse: WarehouseSettings,
    log: Log,
) -> list[Finding]:
    """Run checks without loading anything.

    Args:
        group: group of the assets.
        selected: names of checks, by asset.
        past: gives what the latest materialization of an asset recorded.
        warehouse: where the tables are.
        log: told when there is something to wait for.

    Raises:
        AnalyticsError: the destination cannot be reached or stayed locked.
    """
    learn_secrets()
    with interruptible(), tempfile.TemporaryDirectory(prefix="analytics_assets_") as folder:
        pipeline = new_pipeline(group, warehouse, folder)
        check_reachable(warehouse, pipeline)
        with open_database(warehouse, pipeline, log):
            restore(warehouse, pipeline, log)
            try:
                findings = look(pipeline, warehouse, (), selected, past, log)
            except DestinationException as error:
                raise question_error(error, warehouse) from None
    return [one for found in findings.results.values() for one in found]


def _findings(this: Examination, names: Collection[str]) -> Iterator[Finding]:
    for check in checks_of(this.endpoint):
        if check.name in names:
            yield Finding(this.endpoint.name, check, _verdict(this, check))


def _verdict(this: Examination, check: Check) -> Verdict:
    endpoint = this.endpoint
    if not this.tables.exists(endpoint.name):
        text = f"There is no table {endpoint.name} yet; materialize the asset first."
        return Verdict(endpoint.feature is not None, text)
    try:
        return check.examine(this)
    except Exception as error:  # noqa: BLE001 - the rows are loaded: their asset must not fail
        text = f"{type(error).__name__}: {foreign_text(str(error))}"
        return Verdict(False, f"The check could not be run on {endpoint.name}: {text}")


def _figures(this: Examination) -> Figures:
    return Figures(this.empty_columns if this.live_rows else None)
