"""What a report reads and makes, found in its SQL, so that its lineage is true."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Final

from sqlglot import exp, parse_one
from sqlglot.errors import OptimizeError, SqlglotError
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import traverse_scope

from analytics_assets.reports.model import ReportError

Tables = Mapping[str, Mapping[str, str]]
"""The type of each column that can be read, by table."""
DIALECT: Final = "duckdb"
_CACHE: Final = Path(__file__).parent / "__pycache__"


@dataclass(frozen=True)
class Lineage:
    """Where a report comes from, and what becomes of it.

    Attributes:
        reads: the columns that it reads, by table.
        makes: the columns of its rows, in order.
    """

    reads: Mapping[str, tuple[str, ...]]
    makes: Sequence[str]


def known_lineage(name: str, sql: str, tables: Tables) -> Lineage:
    """Return what :func:`lineage` finds, from the cache if neither file nor tables have changed.

    A code location is loaded often, and to prove a report takes as long as to import a library. The
    cache lies where Python keeps compiled modules, and is as dispensable.

    Raises:
        ReportError: see :func:`lineage`.
    """
    file = _CACHE / f"{name}.lineage.json"
    version = sha256(repr((metadata.version("sqlglot"), sql, tables)).encode()).hexdigest()
    with suppress(OSError, ValueError, LookupError, TypeError):
        kept = json.loads(file.read_bytes())
        if kept["version"] == version:
            reads = {table: tuple(columns) for table, columns in kept["reads"].items()}
            return Lineage(reads, kept["makes"])
    found = lineage(name, sql, tables)
    with suppress(OSError):
        _CACHE.mkdir(exist_ok=True)
        file.write_text(json.dumps({"version": version, **asdict(found)}), encoding="utf-8")
    return found


def lineage(name: str, sql: str, tables: Tables) -> Lineage:
    """Find out what a report reads and makes.

    Args:
        name: name of the report, for messages.
        sql: its SELECT.
        tables: what there is to read.

    Raises:
        ReportError: it is no SELECT, or names a table or column that there is not.
    """
    query = _parsed(name, sql)
    found = _tables_of(name, query, tables)
    query = _qualified(name, query, tables)
    read: dict[str, set[str]] = {table: set() for table in found}
    for scope in traverse_scope(query):
        for column in scope.columns:
            source = scope.sources.get(column.table)
            if isinstance(source, exp.Table) and source.name in read:
                read[source.name].add(column.name)
    for table, names in read.items():
        if unknown := sorted(names - tables[table].keys()):
            raise ReportError(
                f"reports/{name}.sql reads {table}.{unknown[0]}, which is no column of"
                " endpoints.py."
            )
    reads = {table: tuple(c for c in tables[table] if c in read[table]) for table in found}
    return Lineage(reads, query.named_selects)


def _parsed(name: str, sql: str) -> exp.Query:
    try:
        parsed = parse_one(sql, dialect=DIALECT)
    except SqlglotError as error:
        raise ReportError(
            f"reports/{name}.sql cannot be parsed as DuckDB's SQL: {_reason(error)}."
        ) from None
    if not isinstance(parsed, exp.Query):
        raise ReportError(f"reports/{name}.sql is not one SELECT; write it as one.")
    return parsed


def _tables_of(name: str, query: exp.Query, tables: Tables) -> list[str]:
    """Return the tables that a query names, without what it defines itself."""
    found = {
        source.name
        for scope in traverse_scope(query)
        for source in scope.sources.values()
        if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier)
    }
    if unknown := sorted(found - tables.keys()):
        raise ReportError(
            f"reports/{name}.sql reads {unknown[0]}, which is no table of endpoints.py."
        )
    return [table for table in tables if table in found]


def _qualified(name: str, query: exp.Query, tables: Tables) -> exp.Query:
    """Give every column the name of what it comes from."""
    schema: dict[str, object] = {table: dict(columns) for table, columns in tables.items()}
    try:
        qualified = qualify(query, schema=schema, dialect=DIALECT)
    except OptimizeError as error:
        raise ReportError(
            f"reports/{name}.sql names a column that its tables do not have: {_reason(error)}."
        ) from None
    return qualified if isinstance(qualified, exp.Query) else query


def _reason(error: SqlglotError) -> str:
    return str(error).splitlines()[0].rstrip(". ")
