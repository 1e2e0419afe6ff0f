"""Connects SQLAlchemy to a `SharedStorage`: a dialect that writes FOR UPDATE, and a driver that locks."""

import functools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, NullPool, create_engine, make_url
from sqlalchemy.dialects import registry
from sqlalchemy.dialects.sqlite.base import SQLiteCompiler
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite

from todoku.database import sqlite
from todoku.database.translation import translate_errors
from todoku.lab.simulation.row_locks import Transaction
from todoku.lab.simulation.shared_storage import Result, SharedStorage


class _RowLockCompiler(SQLiteCompiler):
    def for_update_clause(self, select: Any, **_: Any) -> str:
        skips = select._for_update_arg.skip_locked
        return "\n FOR UPDATE SKIP LOCKED" if skips else "\n FOR UPDATE"


class RowLockDialect(SQLiteDialect_pysqlite):
    """SQLite with PostgreSQL's row locks."""

    statement_compiler = _RowLockCompiler
    several_writers = True
    supports_statement_cache = True


registry.register("sqlite.row_locks", __name__, RowLockDialect.__name__)


class SharedConnection:
    """One connection to a `SharedStorage`, as a driver makes it.

    `before_statement` is called before each statement, and may wait. A connection without it reads
    what is committed.
    """

    def __init__(
        self, storage: SharedStorage, before_statement: Callable[[], None] | None = None
    ) -> None:
        self.transaction = Transaction()
        self._storage = storage
        self._before_statement = before_statement

    def cursor(self) -> "SharedCursor":
        return SharedCursor(self)

    def execute(self, sql: str, parameters: Sequence[Any]) -> Result:
        """Execute a statement within the current transaction."""
        if self._before_statement is None:
            return self._storage.read(sql, parameters)
        self._before_statement()
        return self._storage.execute(self.transaction, sql, parameters)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> Result:
        """Execute a statement for each of many rows, without waiting between them."""
        results = [self.execute(sql, rows[0])]
        results += [self._storage.execute(self.transaction, sql, row) for row in rows[1:]]
        return Result([], None, sum(result.rowcount for result in results))

    def commit(self) -> None:
        self._storage.commit(self.transaction)
        self.transaction = Transaction()

    def rollback(self) -> None:
        self._storage.end(self.transaction)
        self.transaction = Transaction()

    def close(self) -> None:
        self.rollback()


class SharedCursor:
    """The result of a statement."""

    lastrowid = None
    arraysize = 1

    def __init__(self, connection: SharedConnection) -> None:
        self.connection = connection
        self.description: Any = None
        self.rowcount = -1
        self._rows: deque[tuple[Any, ...]] = deque()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> None:
        self._keep(self.connection.execute(sql, parameters))

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self._keep(self.connection.executemany(sql, rows))

    def fetchone(self) -> tuple[Any, ...] | None:
        return self._rows.popleft() if self._rows else None

    def fetchmany(self, size: int = 1) -> list[tuple[Any, ...]]:
        return [self._rows.popleft() for _ in range(min(size, len(self._rows)))]

    def fetchall(self) -> list[tuple[Any, ...]]:
        return self.fetchmany(len(self._rows))

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.fetchall())

    def close(self) -> None:
        self._rows.clear()

    def _keep(self, result: Result) -> None:
        self._rows, self.description, self.rowcount = deque(result.rows), *result[1:]


def shared_engine(
    storage: SharedStorage, before_statement: Callable[[], None] | None = None
) -> Engine:
    """Create an engine with any number of connections to a storage.

    All such engines share a dialect and its compiled statements, so that creating many is cheap.
    """
    dialect, compiled = _dialect()
    pool = NullPool(
        lambda: SharedConnection(storage, before_statement),  # type: ignore[arg-type]
        dialect=dialect,
    )
    return Engine(
        pool,
        dialect,
        make_url("sqlite+row_locks://"),
        execution_options={"compiled_cache": compiled},
        hide_parameters=True,
    )


@functools.cache
def _dialect() -> tuple[Dialect, dict[object, object]]:
    engine = create_engine("sqlite+row_locks://")
    translate_errors(engine, lambda error: sqlite.translate(error, sqlite.IN_MEMORY))
    with engine.connect():
        pass  # A dialect detects the features of SQLite on its first connection.
    engine.dispose()
    return engine.dialect, {}


def transaction_of(connection: Connection) -> Transaction:
    """Return the current transaction of a connection to a shared storage."""
    driver_connection: Any = connection.connection.driver_connection
    transaction: Transaction = driver_connection.transaction
    return transaction


__all__ = ["RowLockDialect", "SharedConnection", "shared_engine", "transaction_of"]
