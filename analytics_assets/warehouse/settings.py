"""Where to load, as plain values: definitions name them without importing what a run needs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class WarehouseSettings:
    """Where to load; ``preflight.py`` tells whether it can work.

    Attributes:
        destination: name of a dlt destination; its credentials come from dlt's configuration.
        dataset: schema (or folder) of the tables.
        destination_object: a dlt destination with its credentials, of the kind that is named;
            ``None``: dlt makes one.
        duckdb_path: database file, for the DuckDB destination only.
        table_format: ``delta`` for Delta tables on the filesystem destination, else ``None``.
        lock_timeout: seconds to wait for another run.
        reader_timeout: seconds to wait for a reader that holds the DuckDB file open.
        forget_days: days after which personal data of what is gone is blanked; ``None``: never.
        table_lock_timeout: seconds to wait for another session's lock on a PostgreSQL table.
        statement_timeout: seconds that a statement may take on PostgreSQL.
        server_timeout: seconds without a sign of life after which PostgreSQL is given up.
        duckdb_memory_mb: memory that DuckDB may use, in MB of 10^6 bytes; ``None`` to follow the
            width of the rows.
        guarded_rows: rows from which on a list that loses more than half of them is not loaded.
    """

    destination: str = "duckdb"
    dataset: str = "analytics"
    destination_object: Any = field(default=None, repr=False, compare=False)
    duckdb_path: Path = Path("analytics_assets.duckdb")
    table_format: str | None = None
    lock_timeout: float = 3600.0
    reader_timeout: float = 120.0
    forget_days: int | None = None
    table_lock_timeout: float = 120.0
    statement_timeout: float = 3600.0
    server_timeout: float = 60.0
    duckdb_memory_mb: float | None = None
    guarded_rows: int = 20

    def without_waiting(self) -> WarehouseSettings:
        """Return the settings of somebody who gives up at once where another run is loading."""
        return replace(self, lock_timeout=0)

    @property
    def is_duckdb(self) -> bool:
        """Whether the destination is a DuckDB file."""
        return self.destination == "duckdb"

    @property
    def merges(self) -> bool:
        """Whether rows can be merged by key; plain Parquet files cannot be changed."""
        return self.destination != "filesystem" or self.table_format == "delta"

    @property
    def stages(self) -> bool:
        """Whether rows are put into a dataset of their own before they are merged."""
        return self.destination != "filesystem"

    @property
    def holds_nul(self) -> bool:
        """Whether texts may hold U+0000; what is not known to take it is spared it."""
        return self.destination in ("duckdb", "filesystem", "motherduck")

    @property
    def loses_rows(self) -> bool:
        """Whether a row that a list no longer has is marked as deleted, or replaced by nothing."""
        return self.marks_deletions or not self.merges

    @property
    def marks_deletions(self) -> bool:
        """Whether rows can be updated in place, as ``deleted_at`` needs."""
        return self.destination not in ("filesystem", "clickhouse")
