"""The documented production deployment: code server, web server and daemon apart, on PostgreSQL."""

from __future__ import annotations

import itertools
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import psutil
import psycopg2

from analytics_assets_tests.harness import Project
from analytics_assets_tests.postgres import Server
from analytics_assets_tests.web import Dev, stop

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "analytics_assets" / "docs" / "dagster.yaml"
DATABASE = "dagster"


def storage_variables(server: Server) -> dict[str, str]:
    """Make a database for Dagster itself; return the variables that ``dagster.yaml`` reads."""
    with closing(psycopg2.connect(server.url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {DATABASE}")
    port = re.search(r":(\d+)/", server.url)
    assert port
    return {
        "DAGSTER_PG_HOST": "127.0.0.1",
        "DAGSTER_PG_PORT": port[1],
        "DAGSTER_PG_USERNAME": "postgres",
        "DAGSTER_PG_PASSWORD": "unused",
        "DAGSTER_PG_DB": DATABASE,
    }


def free_port() -> int:
    """Return a port that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Production:
    """Three long-lived processes, each of which can be killed and started again.

    Args:
        project: what they serve; its environment holds the variables of ``storage_variables``.
        settings: text of ``dagster.yaml``.
    """

    def __init__(self, project: Project, settings: str) -> None:
        home = project.folder / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text(settings, encoding="utf-8")
        project.env["DAGSTER_HOME"] = str(home)
        self.log = project.folder / "log.txt"
        self._code, web = free_port(), free_port()
        where = {"host": "127.0.0.1", "port": self._code, "location_name": "analytics_assets"}
        workspace = f"load_from:\n  - grpc_server: {where}\n"
        (project.folder / "workspace.yaml").write_text(workspace, encoding="utf-8")
        self.project = project
        self.web = Dev(project, f"http://127.0.0.1:{web}", self.log)
        listens = ["-h", "127.0.0.1", "-p", str(web)]
        serves = ["--host", "127.0.0.1", "--port", str(self._code)]
        module = ["--module-name", "analytics_assets.definitions"]
        self._words: Mapping[str, Sequence[str]] = {
            "code": ["dagster", "code-server", "start", *module, *serves],
            "web": ["dagster-webserver", "-w", "workspace.yaml", *listens],
            "daemon": ["dagster-daemon", "run", "-w", "workspace.yaml"],
            "dev": ["dagster", "dev", "-m", "analytics_assets", *listens],
        }
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> None:
        """Start ``code``, ``web`` or ``daemon``; or ``dev``, which is all of them."""
        program, *words = self._words[name]
        with self.log.open("ab") as output:
            self._processes[name] = subprocess.Popen(
                [Path(sys.executable).with_name(program), *words],
                cwd=self.project.folder,
                env=self.project.env,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stop(self, name: str) -> None:
        """End one in good order."""
        stop(self._processes.pop(name))

    def kill(self, name: str) -> None:
        """End one, and what it has started, without a word."""
        process = self._processes.pop(name)
        for each in reversed(self._family(process)):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait(10)

    def workers(self) -> list[psutil.Process]:
        """Return the processes in which runs are under way."""
        family = itertools.chain.from_iterable(map(self._family, self._processes.values()))
        return [process for process in family if is_worker(process)]

    def runs(self, name: str) -> bool:
        """Tell whether one has been started, and not been stopped since."""
        return name in self._processes

    def memory(self) -> dict[tuple[str, int], int]:
        """Return the bytes that each long-lived process needs with its servers, without runs."""
        return {
            (name, process.pid): sum(
                memory_of(p) for p in self._family(process) if not is_worker(p)
            )
            for name, process in self._processes.items()
        }

    @staticmethod
    def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
        try:
            parent = psutil.Process(process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def stop_all(self) -> None:
        """End all in good order."""
        for name in list(self._processes)[::-1]:
            self.stop(name)


def is_worker(process: psutil.Process) -> bool:
    """Tell whether a run is under way in a process, which the code server has spawned."""
    try:
        return "multiprocessing.spawn" in " ".join(process.cmdline())
    except psutil.Error:
        return False  # it has ended


def memory_of(process: psutil.Process) -> int:
    """Return the memory of a process that it shares with no other, 0 if it has ended."""
    try:
        size: int = process.memory_full_info().uss
    except psutil.Error:
        return 0
    return size


@contextmanager
def production(
    project: Project, settings: str = "", processes: Sequence[str] = ("code", "web", "daemon")
) -> Iterator[Production]:
    """Start the deployment with the shipped settings, or others."""
    found = Production(project, settings or SETTINGS.read_text(encoding="utf-8"))
    try:
        for name in processes:
            found.start(name)
        yield found
    finally:
        found.stop_all()
