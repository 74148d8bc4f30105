"""A run: plan the groups, read them side by side, load them one after the other.

Pure dlt, no Dagster. While one group is loaded the others are still read, so that the API's latency
costs little; and whoever is told what became of a group does not hold up the load of the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dlt.pipeline.pipeline import Pipeline

from analytics_assets.segment.endpoints import BY_NAME, GROUPS
from analytics_assets.segment.errors import (
    AnalyticsError,
    DestinationBusy,
    OtherWorkspace,
    PlaceUnusable,
)
from analytics_assets.segment.extraction import UNAVAILABLE
from analytics_assets.segment.model import Group
from analytics_assets.segment.reader import raise_if_refused, read_group
from analytics_assets.segment.reading import Reading
from analytics_assets.segment.reading_session import ReadingSession
from analytics_assets.segment.settings import Log
from analytics_assets.segment.spans import span
from analytics_assets.segment.token_workspace import (
    TokenWorkspace,
    Workspace,
    refuse_rows_of_others,
)
from analytics_assets.warehouse.ahead import ahead
from analytics_assets.warehouse.connections import interruptible
from analytics_assets.warehouse.destination import new_pipeline, pipeline_name
from analytics_assets.warehouse.dlt_config import configure_dlt
from analytics_assets.warehouse.duckdb_file import for_rows
from analytics_assets.warehouse.known_secrets import learn_secrets
from analytics_assets.warehouse.locks import Check, exclusive, open_database
from analytics_assets.warehouse.outcome import LoadRequest, Outcome
from analytics_assets.warehouse.ownership import check_owner
from analytics_assets.warehouse.package import load_group
from analytics_assets.warehouse.pinned import check_target, refuse_settings
from analytics_assets.warehouse.plan import GroupPlan, Period, plan_group
from analytics_assets.warehouse.preflight import check_settings
from analytics_assets.warehouse.settings import WarehouseSettings
from analytics_assets.warehouse.stopping import Stopping

Look = Callable[[Pipeline, Sequence[Outcome]], None]


def load_groups(request: LoadRequest, look: Look, log: Log) -> Iterator[Sequence[Outcome]]:
    """Load what is asked for; yield what became of each group as soon as that is known.

    From its plan to its load no other run loads a group. Groups that another run is loading come
    last, and are waited for one at a time while nothing else is held: so no two runs can wait for
    each other.

    Args:
        request: what to load.
        look: called with each group after its load, while the destination is open.
        log: told about waits, progress and what does not go as usual.

    Raises:
        SettingError: a setting cannot work; nothing was asked for or changed.
        TokenRejected: the API refused everything.
        OtherWorkspace: the dataset belongs to another workspace than the token.
        WrongAddress: there is no such API at the address.
        AnalyticsError: the destination cannot be reached.
    """
    configure_dlt(request.api.parallel_requests)
    check_settings(request.warehouse)
    for group in _groups(request):
        refuse_settings(group, pipeline_name(group))
    period = Period.of(request.options)
    learn_secrets()
    with interruptible(), tempfile.TemporaryDirectory(prefix="analytics_assets_") as folder:
        run = _Run(request, period, Path(folder), look, log, TokenWorkspace())
        busy = yield from run.load(_groups(request), request.warehouse.without_waiting())
        for group in busy:
            still_busy = yield from run.load([group], request.warehouse)
            for name, error in still_busy.items():
                yield _failed(name, request, error)


def _groups(request: LoadRequest) -> list[Group]:
    asked = {BY_NAME[name].group for name in request.names}
    return [group for group in GROUPS if group in asked]


def _failed(group: Group, request: LoadRequest, error: AnalyticsError) -> list[Outcome]:
    endpoints = [BY_NAME[name] for name in request.names]
    return [Outcome(each, failure=error) for each in endpoints if each.group == group]


@dataclass(frozen=True)
class _Run:
    """The parts of a run that all of its groups share."""

    request: LoadRequest
    period: Period
    folder: Path
    look: Look
    log: Log
    whose: TokenWorkspace

    def load(
        self, groups: Sequence[Group], patience: WarehouseSettings
    ) -> Generator[Sequence[Outcome], None, dict[Group, DestinationBusy]]:
        """Plan groups, read them side by side, load one after the other.

        Args:
            groups: what to load.
            patience: how long to wait for other runs.

        Returns:
            The groups that another run is loading; they were left out.
        """
        busy: dict[Group, DestinationBusy] = {}
        with ExitStack() as stack:
            plans: dict[Group, GroupPlan] = {}
            checks: dict[Group, Check] = {}
            locks = {group: stack.enter_context(ExitStack()) for group in groups}
            with span("plan"):
                for group in groups:
                    try:
                        plans[group], checks[group] = self._plan(group, patience, locks[group])
                    except DestinationBusy as error:
                        busy[group] = error
                    except PlaceUnusable as error:
                        yield _failed(group, self.request, error)
            if plans:
                yield from self._load_planned(plans, locks, checks)
        return busy

    def _plan(
        self, group: Group, patience: WarehouseSettings, lock: ExitStack
    ) -> tuple[GroupPlan, Check]:
        place = self.folder / group
        place.mkdir(exist_ok=True)
        pipeline = new_pipeline(group, self.request.warehouse, place)
        check = lock.enter_context(exclusive(group, patience, pipeline, self.log))
        check_target(self.request.warehouse, pipeline)
        plan = plan_group(group, self.request, pipeline, place, self.period, self.log)
        return plan, check

    def _load_planned(
        self,
        plans: Mapping[Group, GroupPlan],
        locks: Mapping[Group, ExitStack],
        checks: Mapping[Group, Check],
    ) -> Iterator[Sequence[Outcome]]:
        readings = [reading for plan in plans.values() for reading in plan.readings]
        stopping = Stopping()
        with (
            ReadingSession(self.request.api, self.log, readings, self.whose) as session,
            interruptible(stopping.tell, session.abort) as stop,
        ):
            workspace = self.whose.ask(session)
            if workspace:
                self._check_owner(plans, workspace)
            with _reading_aside(session, plans) as readers:
                if workspace is None:
                    _wait(*readers.values())
                    workspace = self._named_in_records(session, plans, readings)
                loading = _Loading(self, session, plans, readers, checks, workspace, stopping)
                with closing(ahead(loading.outcomes(), stop)) as told:
                    for group, outcomes in told:
                        yield outcomes
                        locks[group].close()  # by the thread that took it

    def _named_in_records(
        self,
        session: ReadingSession,
        plans: Mapping[Group, GroupPlan],
        readings: Sequence[Reading],
    ) -> Workspace | None:
        """Find out from what was read whose it is, before anything is loaded."""
        raise_if_refused(session, readings)
        if not any(reading.failure is None and reading.staging for reading in readings):
            return None
        workspace = self.whose.look_for(session, readings)
        self._check_owner(plans, workspace)
        return workspace

    def _check_owner(self, plans: Mapping[Group, GroupPlan], workspace: Workspace | None) -> None:
        """Refuse a token of another workspace than the dataset's; warn where that is not known.

        Raises:
            OtherWorkspace: it is one, or may be one.
        """
        dataset = self.request.warehouse.dataset
        for plan in plans.values():
            check_owner(dataset, plan.owner, workspace)
        if workspace is None:
            self.log.warning("Nothing that the token may read tells which workspace it belongs to.")
        elif any(plan.owner.inherited for plan in plans.values()):
            self.log.warning(
                f"The dataset {dataset!r} does not say whose it is yet; from now on it belongs to"
                f" the workspace {workspace}."
            )


@dataclass(frozen=True)
class _Loading:
    """The groups of a run that are being read, and loaded one after the other."""

    run: _Run
    session: ReadingSession
    plans: Mapping[Group, GroupPlan]
    readers: Mapping[Group, Future[None]]
    checks: Mapping[Group, Check]
    workspace: Workspace | None
    stopping: Stopping

    def outcomes(self) -> Iterator[tuple[Group, Sequence[Outcome]]]:
        """Load each group when it has been read; yield what became of it."""
        for group, plan in self.plans.items():
            _wait(self.readers[group])
            if all(map(_refused, plan.readings)):
                _wait(*self.readers.values())
                readings = [reading for each in self.plans.values() for reading in each.readings]
                raise_if_refused(self.session, readings)
            if self.workspace:
                refuse_rows_of_others(self.workspace, plan.readings)
            yield group, self._load(plan, self.checks[group])

    def _load(self, plan: GroupPlan, check_lock: Check) -> Sequence[Outcome]:
        request, log = self.run.request, self.run.log
        plan.pipeline.activate()  # for this thread, as dlt sees it
        tables = [each.staging for each in plan.readings if each.staging]
        sized = for_rows(request.warehouse, tables)
        try:
            self.stopping.check()
            check_lock()
            with open_database(sized, plan.pipeline, log), self.stopping.heeded_by_dlt():
                outcomes = load_group(plan, request.warehouse, request.options, log, self.workspace)
                with span("check"):
                    self.run.look(plan.pipeline, outcomes)
        except OtherWorkspace:
            raise
        except AnalyticsError as error:  # the destination is locked or gone
            return _failed(plan.group, request, error)
        finally:
            plan.pipeline.deactivate()
        return outcomes


@contextmanager
def _reading_aside(
    session: ReadingSession, plans: Mapping[Group, GroupPlan]
) -> Iterator[dict[Group, Future[None]]]:
    """Read each group in a thread of its own; end them all however the block ends."""
    with ThreadPoolExecutor(max(1, len(plans)), thread_name_prefix="read") as pool:
        try:
            yield {
                group: pool.submit(read_group, session, group, plan.readings)
                for group, plan in plans.items()
            }
        finally:
            session.abort()


def _wait(*readers: Future[None]) -> None:
    with span("read"):
        for reader in readers:
            reader.result()


def _refused(reading: Reading) -> bool:
    return getattr(reading.failure, "status", None) in UNAVAILABLE
