"""What a report reads and makes, found in its SQL, so that its lineage is true."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from analytics_assets.reports.model import ReportError

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

Tables = Mapping[str, Mapping[str, str]]
"""The type of each column that can be read, by table."""
DIALECT: Final = "duckdb"
_COMMENTS_AND_TEXTS: Final = re.compile(r"--[^\n]*|/\*.*?\*/|'[^']*'", re.DOTALL)
_READ: Final = re.compile(r"\b(?:FROM|JOIN)\s+(\w+)\b(?!\s*[.(])", re.IGNORECASE)
_DEFINED: Final = re.compile(
    r"\b(\w+)\s*(?:\([\w\s,]*\)\s*)?AS\s+(?:NOT\s+)?(?:MATERIALIZED\s+)?\(", re.IGNORECASE
)


@dataclass(frozen=True)
class Lineage:
    """Where a report comes from, and what becomes of it.

    Attributes:
        reads: the columns that it reads, by table.
        makes: the columns of its rows, in order.
    """

    reads: Mapping[str, tuple[str, ...]]
    makes: Sequence[str]


def tables_read(name: str, sql: str, tables: Collection[str]) -> tuple[str, ...]:
    """Return the tables that a report names after FROM or JOIN, in a fraction of a parser's time.

    A code location is loaded often, and needs no more than this; :func:`lineage` proves it.

    Raises:
        ReportError: it names a table that there is not.
    """
    words = _COMMENTS_AND_TEXTS.sub(" ", sql)
    named = set(_READ.findall(words)) - set(_DEFINED.findall(words))
    if unknown := sorted(named.difference(tables)):
        raise _no_table(name, unknown[0])
    return tuple(table for table in tables if table in named)


def _no_table(name: str, table: str) -> ReportError:
    return ReportError(f"reports/{name}.sql reads {table}, which is no table of endpoints.py.")


def lineage(name: str, sql: str, tables: Tables) -> Lineage:
    """Find out which columns a report reads and makes.

    Args:
        name: name of the report, for messages.
        sql: its SELECT.
        tables: what there is to read.

    Raises:
        ReportError: it is no SELECT, or names a table or column that there is not.
    """
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

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
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

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
    from sqlglot import exp
    from sqlglot.optimizer.scope import traverse_scope

    found = {
        source.name
        for scope in traverse_scope(query)
        for source in scope.sources.values()
        if isinstance(source, exp.Table) and isinstance(source.this, exp.Identifier)
    }
    if unknown := sorted(found - tables.keys()):
        raise _no_table(name, unknown[0])
    return [table for table in tables if table in found]


def _qualified(name: str, query: exp.Query, tables: Tables) -> exp.Query:
    """Give every column the name of what it comes from."""
    from sqlglot import exp
    from sqlglot.errors import OptimizeError
    from sqlglot.optimizer.qualify import qualify

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
