"""Build statements whose syntax SQLAlchemy offers only for each database by itself.

Where the two databases share a syntax, SQLAlchemy's PostgreSQL construct compiles for SQLite as well.
Row locks need nothing from here: `select(...).with_for_update()` adds FOR UPDATE on PostgreSQL and
nothing on SQLite, where a transaction has the whole database to itself.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    DateTime,
    Dialect,
    Table,
    Text,
    TypeDecorator,
    bindparam,
    case,
    cast,
    func,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import Insert, insert
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine


def insert_ignoring_duplicates(table: Table) -> Insert:
    """Build an INSERT that skips rows whose key or other unique value exists."""
    return insert(table).on_conflict_do_nothing()


def upsert(
    table: Table,
    key_columns: Iterable[str],
    update_columns: Iterable[str],
    *,
    growing: str | None = None,
) -> Insert:
    """Build an INSERT that overwrites `update_columns` of the row with the same `key_columns`; if
    `growing` is given, only where that column's new value is larger.

    There must be a primary key or a unique constraint on exactly `key_columns`.
    """
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=list(key_columns),
        set_={name: statement.excluded[name] for name in update_columns},
        where=None if growing is None else table.c[growing] < statement.excluded[growing],
    )


def count_up(table: Table, key: Column[str], number: Column[int]) -> Insert:
    """Build an INSERT that saves a number, or where one is saved that is as high, the one after that.

    The row is changed in any case, so a second transaction waits for the first, and counts on.
    """
    statement = insert(table)
    given = statement.excluded[number.name]
    return statement.on_conflict_do_update(
        index_elements=[key],
        set_={number.name: case((number >= given, number + 1), else_=given)},
    )


class among(ColumnElement[bool]):
    """Test that a text column is in a list, bound as a single parameter on either database; so the
    statement is the same however long the list is."""

    inherit_cache = False

    def __init__(self, column: Column[str], name: str) -> None:
        self.column = column
        self.list = bindparam(name, type_=_TextList())


class _TextList(TypeDecorator[Sequence[str]]):
    """Bind a list of texts: an array on PostgreSQL, JSON on SQLite."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(ARRAY(Text) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Sequence[str] | None, dialect: Dialect) -> Any:
        return value if dialect.name == "postgresql" else msgspec.json.encode(value).decode()


@compiles(among, "sqlite")
def _among_in_sqlite(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, given = _parts(element, compiler, **options)
    return f"{column} IN (SELECT value FROM json_each({given}))"  # nosec B608


@compiles(among, "postgresql")
def _among_in_postgresql(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, given = _parts(element, compiler, **options)
    return f"{column} = ANY ({given})"


class among_pairs(ColumnElement[bool]):
    """Test that two text columns are one of the pairs of a list, bound as a single parameter: JSON, as
    `pairs` returns it."""

    inherit_cache = False

    def __init__(self, first: Column[str], second: Column[str], name: str) -> None:
        self.columns = tuple_(first, second)
        self.list = bindparam(name, type_=Text())


def pairs(values: Sequence[tuple[str, str]]) -> str:
    """Return the parameter of `among_pairs`."""
    return msgspec.json.encode(values).decode()


@compiles(among_pairs, "sqlite")
def _among_pairs_in_sqlite(element: among_pairs, compiler: SQLCompiler, **options: Any) -> str:
    columns = compiler.process(element.columns, **options)
    given = compiler.process(element.list, **options)
    return (
        f"{columns} IN (SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]')"  # nosec B608
        f" FROM json_each({given}))"
    )


@compiles(among_pairs, "postgresql")
def _among_pairs_in_postgresql(element: among_pairs, compiler: SQLCompiler, **options: Any) -> str:
    columns = compiler.process(element.columns, **options)
    given = compiler.process(element.list, **options)
    return (
        f"{columns} IN (SELECT value ->> 0, value ->> 1"  # nosec B608
        f" FROM jsonb_array_elements(CAST({given} AS jsonb)))"
    )


def has_several_writers(connection: Connection) -> bool:
    """Return whether other processes may write to the database at the same time."""
    dialect = connection.dialect
    return dialect.name == "postgresql" or getattr(dialect, "several_writers", False)


def server_time(connection: Connection) -> datetime | None:
    """Return the time (UTC) by the clock of the server, which all processes share; None on SQLite."""
    if connection.dialect.name != "postgresql":
        return None
    return connection.scalar(select(cast(func.clock_timestamp(), DateTime(timezone=True))))


def bound_idle_time(connection: Connection, seconds: int) -> None:
    """Let the server end this transaction if this process does nothing with it for so long. Does nothing
    on SQLite."""
    if connection.dialect.name == "postgresql":
        timeout = f"SET LOCAL idle_in_transaction_session_timeout = '{seconds}s'"
        connection.exec_driver_sql(timeout)


def _parts(element: among, compiler: SQLCompiler, **options: Any) -> tuple[str, str]:
    return compiler.process(element.column, **options), compiler.process(element.list, **options)
