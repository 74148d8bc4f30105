"""A rehearsal of production: what changes, a plan of faults, and what must be true after."""

from __future__ import annotations

import heapq
import itertools
import random
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, RunsFilter

from analytics_assets.orchestration.retries import WILL_RETRY_TAG
from analytics_assets.sandbox import Reply, RequestInfo
from analytics_assets_tests.harness import ALL_TABLES
from analytics_assets_tests.postgres import Server
from analytics_assets_tests.production import Production
from analytics_assets_tests.web import WHERE

START_SCHEDULE = """
mutation ($schedule: ScheduleSelector!) {
  startSchedule(scheduleSelector: $schedule) {
    __typename ... on ScheduleStateResult { scheduleState { id } }
  }
}"""
STOP_SCHEDULE = """
mutation ($id: String!) { stopRunningSchedule(id: $id) { __typename } }"""
CRONS = {
    "inventory": "*/2 * * * *",
    "identity": "1-59/2 * * * *",
    "catalog": "*/2 * * * *",
    "usage": "1-59/2 * * * *",
    "details": "*/2 * * * *",
    "reports": "1-59/2 * * * *",
}
CHANGES = {
    "labels": ("Label Modified", "description"),
    "sources": ("Source Modified", "name"),
    "spaces": ("Space Modified", "name"),
    "warehouses": ("Storage Destination Modified", "name"),
}
"""Lists that change, the event that tells of it, and the field."""
SHARPENED = {
    "poll_interval_seconds": 5,
    "start_timeout_seconds": 40,
    "max_runtime_seconds": 75,
    "cancel_timeout_seconds": 10,
    "user_code_failure_retry_delay": 5,
}
"""Settings in place of the shipped ones, so that what takes hours there shows in minutes."""
LOST = r"maximum runtime|to start|forcibly marked|outside the execution|terminated|interrupted"
KINDS = {
    "a worker is killed": LOST,
    "the code server is killed": rf"{LOST}|gRPC|code location|[Ll]aunch",
    "the code server restarts": rf"{LOST}|gRPC|code location|[Ll]aunch",
    "the daemon is killed": LOST,
    "the web server restarts": LOST,
    "the destination is away": r"postgres|PostgreSQL|connect",
    "the token is revoked": r"token",
    "the API is away": r"HTTP 503|fault",
}
"""What the plan lets happen, and how the failures read that it may cause."""
OF_ONE = {
    "a worker is killed": LOST,
    "dagster dev restarts": rf"{LOST}|gRPC|code location|[Ll]aunch",
    "the token is revoked": KINDS["the token is revoked"],
    "the API is away": KINDS["the API is away"],
}
"""The same where one person runs ``dagster dev``."""
SHARE_OF_FAULTS = 0.1
FAULTS = (Reply(500), Reply(502), Reply(503), Reply(429, headers={"Retry-After": "1"}))
FAULTY = r"HTTP (429|5\d\d)|connection|no answer|fault"
TWO_MINUTES = 120
ENDED = (DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED)
WARM = 300
GROWTH = 1.2


def sharpened(settings: str) -> str:
    """Return the shipped settings with shorter times."""
    for name, value in SHARPENED.items():
        settings, found = re.subn(rf"{name}: \d+", f"{name}: {value}", settings)
        assert found == 1, name
    return settings


def plan(
    seed: int, seconds: float, kinds_of: Collection[str] = KINDS.keys()
) -> list[tuple[float, str]]:
    """Return what happens when: each kind at least once, all of it in the first two thirds."""
    chance = random.Random(seed)  # noqa: S311 - a plan that can be repeated
    rounds = max(1, round(seconds / 60 / len(kinds_of)))
    kinds = [kind for _ in range(rounds) for kind in chance.sample([*kinds_of], len(kinds_of))]
    step = seconds * 2 / 3 / len(kinds)
    return [(step * (n + chance.random() / 2), kind) for n, kind in enumerate(kinds)]


@dataclass
class Sample:
    """What the long-lived processes needed at a moment, by the pid of each."""

    at: float
    memory: dict[tuple[str, int], int]


class Rehearsal:
    """A deployment under faults.

    Args:
        deployed: the deployment, which has just started.
        destination: the server that the tables are in; ``None`` if they are in a file.
        seed: decides what happens when, and which requests fail.
        kinds: what happens, and how the failures read that it may cause.
    """

    def __init__(
        self,
        deployed: Production,
        destination: Server | None,
        seed: int,
        kinds: Mapping[str, str] = MappingProxyType(KINDS),
    ) -> None:
        self._deployed = deployed
        self._web = deployed.web
        self._project = deployed.project
        self._sandbox = deployed.project.sandbox
        self._destination = destination
        self._kinds = kinds
        self._chance = random.Random(seed)  # noqa: S311 - as above
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._answer: Reply | None = None
        self._faulty = False
        self._number = 0
        self._samples: list[Sample] = []
        self.happened: list[str] = []
        self._acts: dict[str, Callable[[], None]] = {
            "a worker is killed": self._kill_worker,
            "the code server is killed": lambda: self._killed("code", 5),
            "the code server restarts": lambda: self._restarts("code"),
            "the daemon is killed": lambda: self._killed("daemon", 3),
            "the web server restarts": lambda: self._restarts("web"),
            "dagster dev restarts": lambda: self._restarts("dev"),
            "the destination is away": self._destination_away,
            "the token is revoked": lambda: self._answers(Reply(401, b"{}"), 25),
            "the API is away": lambda: self._answers(Reply(503), 20),
        }

    # what happens

    def load_everything(self) -> None:
        """Load all there is, before anything breaks."""
        ids = [self._web.wait(lambda job=f"{n}_job": self._web.launch(job), 90) for n in CRONS]  # type: ignore[misc]
        runs = [self._web.wait(lambda run=run: self._web.run(runId=run), 300) for run in ids]  # type: ignore[misc]
        assert {run["status"] for run in runs} == {"SUCCESS"}

    def run(self, seed: int, seconds: float) -> None:
        """Let everything happen, for so long."""
        begun = time.monotonic()
        self._sandbox.intercept = self._intercept
        self._faulty = True
        schedules = [self._start_schedule(name) for name in CRONS]
        for at, kind in plan(seed, seconds, self._kinds.keys()):
            self._in(at, lambda kind=kind: self._happen(kind))  # type: ignore[misc]
        self._every(5, self._change, begun + seconds)
        self._every(10, self._sample, begun + seconds)
        while self._later or time.monotonic() < begun + seconds:
            if self._later and self._later[0][0] <= time.monotonic():
                heapq.heappop(self._later)[2]()
            time.sleep(0.2)
        self._faulty = False
        for schedule in schedules:
            self._web.wait(lambda s=schedule: self._web.ask(STOP_SCHEDULE, id=s))  # type: ignore[misc]
        for name in CHANGES:
            self._change(name)
        with self._deployed.log.open("a", encoding="utf-8") as log:
            log.write(f"\nThe rehearsal, {time.strftime('%H:%M:%S')}: the last change.\n")

    def _start_schedule(self, name: str) -> str:
        selector = {**WHERE, "scheduleName": f"{name}_schedule"}
        found = self._web.ask(START_SCHEDULE, schedule=selector)["startSchedule"]
        return str(found["scheduleState"]["id"])

    def _in(self, seconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), act))

    def _every(self, seconds: float, act: Callable[[], None], end: float) -> None:
        def again() -> None:
            act()
            if time.monotonic() + seconds < end:
                self._in(seconds, again)

        self._in(seconds, again)

    def _happen(self, kind: str) -> None:
        self.happened.append(kind)
        with self._deployed.log.open("a", encoding="utf-8") as log:
            log.write(f"\nThe rehearsal, {time.strftime('%H:%M:%S')}: {kind}.\n")
        self._acts[kind]()

    def _change(self, name: str = "") -> None:
        """Change a record and tell of it, as the workspace's own people do."""
        name = name or self._chance.choice([*CHANGES])
        kind, changed = CHANGES[name]
        self._number += 1
        record = self._chance.choice(self._sandbox.workspace.records(name))
        self._sandbox.workspace.put(name, {**record, changed: f"change {self._number}"})
        self._sandbox.workspace.add_event(type=kind)

    def _intercept(self, _: RequestInfo) -> Reply | None:
        if self._answer is not None:
            return self._answer
        unlucky = self._faulty and self._chance.random() < SHARE_OF_FAULTS
        return self._chance.choice(FAULTS) if unlucky else None

    def _answers(self, reply: Reply, seconds: float) -> None:
        self._answer = reply

        def over() -> None:
            self._answer = None

        self._in(seconds, over)

    def _kill_worker(self) -> None:
        workers = self._deployed.workers()
        if not workers:
            self._in(1, self._kill_worker)
            return
        for worker in workers:
            worker.kill()

    def _killed(self, name: str, seconds: float) -> None:
        if self._deployed.runs(name):
            self._deployed.kill(name)
            self._in(seconds, lambda: self._deployed.start(name))

    def _restarts(self, name: str) -> None:
        if self._deployed.runs(name):
            self._deployed.stop(name)
            self._deployed.start(name)

    def _destination_away(self) -> None:
        assert self._destination
        self._destination.stop("fast")
        self._in(20, self._destination.start)

    def _sample(self) -> None:
        self._samples.append(Sample(time.monotonic(), self._deployed.memory()))

    # what must be true after

    def complaints(self, instance: DagsterInstance) -> list[str]:
        """Return what is not as it should be, two minutes after the last change."""
        end = time.monotonic() + TWO_MINUTES
        while time.monotonic() < end and (self._open(instance) or self._differ()):
            time.sleep(2)
        return [
            *self._open(instance),
            *self._differ(),
            *self._pools(instance),
            *self._early(),
            *self._unexplained(instance),
            *self._grown(),
        ]

    @staticmethod
    def _open(instance: DagsterInstance) -> list[str]:
        """Name the runs that have not ended."""
        runs = instance.get_runs(
            RunsFilter(statuses=[s for s in DagsterRunStatus if s not in ENDED])
        )
        return [f"{run.run_id} of {run.job_name} is {run.status.value}" for run in runs]

    def _differ(self) -> list[str]:
        """Name the tables that do not hold what the workspace serves."""
        return [name for name in sorted(ALL_TABLES) if not self._equal(name)]

    def _equal(self, name: str) -> bool:
        try:
            self._project.assert_equal([name])
        except AssertionError:
            return False
        return True

    @staticmethod
    def _pools(instance: DagsterInstance) -> list[str]:
        storage = instance.event_log_storage
        found = {key: storage.get_concurrency_info(key) for key in storage.get_concurrency_keys()}
        return [f"pool {key} is held" for key, info in found.items() if info.active_slot_count]

    def _early(self) -> list[str]:
        """Name requests of runs that came before a wait was over.

        Those for the audit trail are left out: the sensor, another process, asks for it as well.
        """
        own = [info for info in self._sandbox.requests if info.path != "/audit-events"]
        return [
            f"{after.path} came {after.arrived_at - told.arrived_at:.2f} s after a 429"
            for told, after in itertools.pairwise(own)
            if told.status == 429 and 0.1 < after.arrived_at - told.arrived_at < 0.9
        ]

    def _unexplained(self, instance: DagsterInstance) -> list[str]:
        """Name final failures that nothing in the plan explains."""
        causes = "|".join([FAULTY, *(self._kinds[kind] for kind in self.happened)])
        failed = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.FAILURE]))
        final = [run for run in failed if run.tags.get(WILL_RETRY_TAG) != "true"]
        texts = {run.run_id: " ".join(_texts(instance, run.run_id)) for run in final}
        return [f"{run}: {text}" for run, text in texts.items() if not re.search(causes, text)]

    def _grown(self) -> Iterator[str]:
        """Name the processes that need more than five minutes after their start."""
        begun: dict[tuple[str, int], float] = {}
        warm: dict[tuple[str, int], int] = {}
        for sample in self._samples:
            for process, size in sample.memory.items():
                if sample.at - begun.setdefault(process, sample.at) >= WARM:
                    warm.setdefault(process, size)
        for process, size in self._samples[-1].memory.items():
            if size > GROWTH * warm.get(process, size):
                yield f"{process[0]} grew from {warm[process] >> 20} to {size >> 20} MB"


def _texts(instance: DagsterInstance, run_id: str) -> Iterator[str]:
    """Yield what a failed run says of itself."""
    kinds: Any = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.dagster_event
        yield entry.user_message
        if event is not None and event.is_step_failure and event.step_failure_data.error:
            yield event.step_failure_data.error.message
        if event is not None:
            yield event.message or ""
