"""A SQLite database that several transactions share, as PostgreSQL's READ COMMITTED lets them.

Each statement sees what is committed when it begins, and what its own transaction has written. One
connection to SQLite is enough for that: it shows the writes of one transaction at a time. When another
transaction has its turn, the writes of the first are rolled back, and repeated when it continues.

`SELECT … FOR UPDATE` locks the rows that it returns, and a change locks the row that it changes or adds. Who
meets a row that another transaction has locked waits for the end of that one, and looks again.
"""

import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from sqlalchemy import MetaData

from todoku.database import sqlite
from todoku.engine import EngineTables
from todoku.lab.simulation.row_locks import Row, RowLocks, Transaction

_engine_metadata = MetaData()
EngineTables(_engine_metadata)

ENGINE_TABLES = frozenset(_engine_metadata.tables) - {"dead_letters"}
"""The tables that the engine writes without deciding on what it has read: their keys are enough."""

_ADDED_BY_SEVERAL = frozenset({"api_keys", "paused_timers", "stream_positions"})
"""Those of them to which two processes may add the same row: the second waits, and finds it then."""

_INSERT = re.compile(r"INSERT INTO (\w+) \(([^)]*)\) VALUES \(")
_GROWING = re.compile(r"DO UPDATE SET .* WHERE .*excluded\.", re.DOTALL)
"""A statement that compares what it finds with what it writes, and so needs no lock from before."""

_LEASES = re.compile(r"^(INSERT INTO|DELETE FROM) leases\b")

Rows = list[tuple[Any, ...]]


class Result(NamedTuple):
    """What a statement has returned: the rows and the names of their columns, and how many rows it has
    changed."""

    rows: Rows
    description: Any
    rowcount: int


class _Locked(Exception):
    """A statement changes a row that another transaction has locked."""

    def __init__(self, row: Row) -> None:
        self.row = row


class SharedStorage:
    """The database of a service, at a server that several processes use.

    `template` is a serialized SQLite database with the `add_row_triggers`. `unlocked` is called with a
    row of the service that a transaction changes without having locked it.
    """

    def __init__(self, template: bytes, unlocked: Callable[[Row], None]) -> None:
        self.locks = RowLocks()
        self.commits = 0
        """How many transactions that changed more than a lease are committed."""
        self._unlocked = unlocked
        self._connection = sqlite.connect_copy(template, cached_statements=256)
        self._connection.execute("PRAGMA foreign_keys = 1")
        self._keys = key_columns(self._connection)
        self._identities = _identity_columns(self._connection)
        self._drawn = {table: count(1) for table in self._identities}
        self._shown: Transaction | None = None
        self._repeating = False
        self._meets: Row | None = None
        self._compares = False
        self._locking: dict[str, _LockingSelect | None] = {}
        for name, function in (
            ("may_change", self._may_change),
            ("inserted", self._inserted),
            ("is_free", self._is_free),
        ):
            self._connection.create_function(name, 2, function)

    def look(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Return what is committed."""
        return self.read(sql, parameters).rows

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> Result:
        """Execute a SELECT on what is committed."""
        self._show(None)
        return _result(self._connection.execute(sql, parameters))

    def execute(self, transaction: Transaction, sql: str, parameters: Sequence[Any]) -> Result:
        """Execute a statement of a transaction; wait for locks."""
        locking = self._locking_select(sql)
        if locking is not None:
            return self._lock(transaction, locking, parameters)
        if sql.startswith("SELECT"):
            self._show(transaction)
            return _result(self._connection.execute(sql, parameters))
        return self._write(transaction, sql, parameters)

    def commit(self, transaction: Transaction) -> None:
        """Commit a transaction, which others see from now on."""
        if transaction.writes:
            self._show(transaction)
            self._connection.execute("COMMIT")
            self._shown = None
            self.commits += any(not _LEASES.search(sql) for sql, _ in transaction.writes)
        self.end(transaction)

    def end(self, transaction: Transaction) -> None:
        """Roll back what is not committed, and release the locks."""
        if self._shown is transaction:
            self._show(None)
        self.locks.release(transaction)

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    # One connection shows the writes of one transaction at a time.

    def _show(self, transaction: Transaction | None) -> None:
        if self._shown is transaction:
            return
        if self._shown is not None:
            self._connection.execute("ROLLBACK")
            self._shown = None
        if transaction is not None:
            self._connection.execute("BEGIN")
            self._shown = transaction
            self._repeat(transaction)

    def _repeat(self, transaction: Transaction) -> None:
        self._repeating = True
        try:
            for sql, parameters in transaction.writes:
                self._connection.execute(sql, parameters)
        except BaseException:
            # It met what another has committed since: a key that exists, for instance.
            self._connection.execute("ROLLBACK")
            self._shown = None
            raise
        finally:
            self._repeating = False

    def _write(self, transaction: Transaction, sql: str, parameters: Sequence[Any]) -> Result:
        sql, parameters = self._with_identity(sql, parameters)
        while True:
            self._show(transaction)
            try:
                result = _result(self._change(sql, parameters))
            except _Locked as locked:
                self.locks.wait_for(transaction, locked.row)
            else:
                transaction.writes.append((sql, parameters))
                return result

    def _with_identity(self, sql: str, parameters: Sequence[Any]) -> tuple[str, Sequence[Any]]:
        """Return a statement with the number that PostgreSQL would draw for the row that it inserts: from a
        sequence, so that numbers are not committed in their order, and a rollback leaves a gap."""
        match = _INSERT.match(sql)
        column = self._identities.get(match[1]) if match else None
        if match is None or column is None or column in match[2].split(", "):
            return sql, parameters
        named = f"INSERT INTO {match[1]} ({column}, {match[2]}) VALUES (?, {sql[match.end() :]}"
        return named, (next(self._drawn[match[1]]), *parameters)

    def _change(self, sql: str, parameters: Sequence[Any]) -> sqlite3.Cursor:
        self._meets = None
        self._compares = _GROWING.search(sql) is not None
        try:
            return self._connection.execute(sql, parameters)
        except sqlite3.OperationalError:
            if self._meets is None:
                raise
            raise _Locked(self._meets) from None

    # SELECT … FOR UPDATE.

    def _locking_select(self, sql: str) -> "_LockingSelect | None":
        if sql not in self._locking:
            self._locking[sql] = _locking_select(sql, self._keys)
        return self._locking[sql]

    def _lock(
        self, transaction: Transaction, select: "_LockingSelect", parameters: Sequence[Any]
    ) -> Result:
        """Lock the rows one by one, in their order. After a wait, the rows that were found first are
        read again: they may have changed, and not fit any more."""
        found = self._find(transaction, select, parameters)
        wanted = {key for key, *_ in found.rows}
        done: set[Row] = set()
        while True:
            rows = [row for row in found.rows if row[0] in wanted]
            locked = self._lock_all(transaction, [Row(select.table, key) for key, *_ in rows], done)
            if locked:
                transaction.locked |= done
                return Result([row[1:] for row in rows], found.description[1:], found.rowcount)
            found = self._find(transaction, select, parameters)

    def _lock_all(self, transaction: Transaction, rows: Iterable[Row], done: set[Row]) -> bool:
        """Lock rows until one has to be waited for; return whether none had to."""
        for row in rows:
            if not self.locks.take(transaction, row):
                self.locks.wait_for(transaction, row)
                return False
            done.add(row)
        return True

    def _find(
        self, transaction: Transaction, select: "_LockingSelect", parameters: Sequence[Any]
    ) -> Result:
        self._show(transaction)
        return _result(self._connection.execute(select.sql, parameters))

    # What triggers and statements call.

    def _may_change(self, table: str, key: str) -> bool:
        """Lock a row that is changed; return whether the change may happen. One that is repeated changes
        the rows that it has changed the first time, and no others."""
        row, transaction = Row(table, key), self._shown
        assert transaction is not None
        if self._repeating:
            return self.locks.holds(transaction, row)
        if not self.locks.take(transaction, row):
            self._meets = row
            raise _Locked(row)
        if table not in ENGINE_TABLES and not self._compares and not transaction.owns(row):
            self._unlocked(row)
        return True

    def _inserted(self, table: str, key: str) -> None:
        """Lock a row that is added: who adds the same one waits, and finds it then."""
        row, transaction = Row(table, key), self._shown
        assert transaction is not None
        if not self._repeating and not self.locks.take(transaction, row):
            self._meets = row
            raise _Locked(row)
        transaction.inserted.add(row)

    def _is_free(self, table: str, key: str) -> bool:
        assert self._shown is not None
        return self.locks.is_free(self._shown, Row(table, key))


class _LockingSelect(NamedTuple):
    """A `SELECT … FOR UPDATE` of one table, as SQLite executes it: the key of each row comes first."""

    table: str
    sql: str


_FOR_UPDATE = re.compile(
    r"SELECT (?P<columns>.*?)\sFROM (?P<table>\w+)(?P<rest>\s.*)\sFOR UPDATE(?P<skip> SKIP LOCKED)?\s*",
    re.DOTALL,
)


def _locking_select(sql: str, keys: Mapping[str, Sequence[str]]) -> _LockingSelect | None:
    """Return how to execute a statement that locks rows, None if it locks none."""
    if "FOR UPDATE" not in sql:
        return None
    match = _FOR_UPDATE.fullmatch(sql)
    assert match is not None, f"the simulation locks the rows of one table: {sql}"
    columns, table, rest, skip = match.groups()
    key = json_key(table, keys[table])
    source = (
        f"(SELECT * FROM {table} WHERE is_free('{table}', {key})) AS {table}" if skip else table
    )
    return _LockingSelect(table, f"SELECT {key}, {columns} FROM {source}{rest}")


def json_key(row: str, columns: Sequence[str]) -> str:
    """Return an expression for the key of a row."""
    return f"json_array({', '.join(f'{row}.{column}' for column in columns)})"


def key_columns(connection: sqlite3.Connection) -> dict[str, tuple[str, ...]]:
    """Return the columns of each table's primary key, or else of its first unique index."""
    return {table: _key_columns(connection, table) for table in _tables(connection)}


def _identity_columns(connection: sqlite3.Connection) -> dict[str, str]:
    """Return the column of each table that numbers its rows: a primary key that is an integer."""
    found = {}
    for table in _tables(connection):
        primary = connection.execute(
            f"SELECT name, type FROM pragma_table_info('{table}') WHERE pk"
        ).fetchall()
        if [kind for _, kind in primary] == ["INTEGER"]:
            found[table] = primary[0][0]
    return found


def _tables(connection: sqlite3.Connection) -> list[str]:
    found = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    )
    return [name for (name,) in found]


def _key_columns(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    columns = connection.execute(f"SELECT name, pk FROM pragma_table_info('{table}')").fetchall()
    if primary := sorted((place, name) for name, place in columns if place):
        return tuple(name for _, name in primary)
    unique = connection.execute(
        f"SELECT name FROM pragma_index_list('{table}') WHERE \"unique\" ORDER BY name"
    ).fetchone()
    assert unique is not None, f"no column tells the rows of {table} apart"
    found = connection.execute(f"SELECT name FROM pragma_index_info('{unique[0]}') ORDER BY seqno")
    return tuple(name for (name,) in found)


def add_row_triggers(connection: sqlite3.Connection) -> None:
    """Add the triggers by which `SharedStorage` notes which rows a statement changes."""
    for table, columns in key_columns(connection).items():
        for change in ("UPDATE", "DELETE"):
            connection.execute(
                f"CREATE TRIGGER simulated_{change}_{table} BEFORE {change} ON {table} BEGIN"
                f" SELECT RAISE(IGNORE) WHERE NOT may_change('{table}', {json_key('OLD', columns)});"
                " END"
            )
        if table not in ENGINE_TABLES or table in _ADDED_BY_SEVERAL:
            connection.execute(
                f"CREATE TRIGGER simulated_INSERT_{table} AFTER INSERT ON {table} BEGIN"
                f" SELECT inserted('{table}', {json_key('NEW', columns)}); END"
            )


def _result(cursor: sqlite3.Cursor) -> Result:
    rows = cursor.fetchall() if cursor.description else []
    return Result(rows, cursor.description, cursor.rowcount)
