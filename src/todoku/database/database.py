"""Provide a service's own database: one writing connection, and readers beside it."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from todoku.database import frozen_transactions, postgresql, sqlite
from todoku.database.addresses import parse_address
from todoku.database.errors import (
    DatabaseAbsent,
    DatabaseError,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    RowsLocked,
)
from todoku.database.kept_connection import KeptConnection
from todoku.database.lock import FileLock

WRITER_WAIT_SECONDS = 30.0
"""How long a write transaction waits for those of other threads."""

WRITE_SECONDS_MAX = 5.0
"""How long a write transaction may take before the database counts as not accepting writes."""


def _ignore(seconds: float) -> None:
    """Do nothing with how long a commit took."""


class Database:
    """Run transactions, one at a time, and snapshots, several at a time, on one database.

    `name` is its URL or path without a password. `dialect_name` is "sqlite" or "postgresql".
    `exclusive` means that no other process can write as long as this is open.

    Created by `open`, `open_read_only` or `in_memory`; may be used from several threads.
    """

    def __init__(
        self,
        name: str,
        *,
        writer: Engine | None,
        readers: Engine,
        lock: FileLock | None = None,
        keeps_connection: bool = False,
    ) -> None:
        self.name = name
        self.dialect_name = readers.dialect.name
        self.exclusive = writer is not None and self.dialect_name == "sqlite"
        self._writer = writer
        self._readers = readers
        self._lock = lock
        self._closed = False
        self._kept: KeptConnection | None = None
        if keeps_connection:
            self._kept = KeptConnection(lambda: self._connect(writer), WRITER_WAIT_SECONDS)
        self._write_started_at: float | None = None
        self._write_failed = False
        self.observe_commit: Callable[[float], None] = _ignore
        """Called with the seconds that each successful COMMIT of a write transaction took."""

    @classmethod
    def open(
        cls, where: str | Path, *, readers: int = 2, lock_wait_seconds: float = 0.0
    ) -> "Database":
        """Open the database at a path, `sqlite:///path`, `sqlite://` (in memory), `postgresql://…`, or a
        `key=value` string of libpq.

        Creates a missing SQLite file and its folder. Raises `DatabaseInUse` when another process
        still has the file open after `lock_wait_seconds`, `DatabaseUnsuitable` when the settings
        must change, `DatabaseUnavailable` when PostgreSQL does not answer.
        """
        address = parse_address(where)
        if address.parameters is not None:
            return cls(
                address.name,
                writer=postgresql.writer(address.parameters),
                readers=postgresql.readers(address.parameters, readers),
                keeps_connection=True,
            )._connected()
        if address.path is None:
            return cls.in_memory()
        return cls._open_sqlite(address.path, readers, lock_wait_seconds)

    @classmethod
    def open_read_only(cls, where: str | Path, *, readers: int = 2) -> "Database":
        """Open the database for reading only: `transaction` raises, and nothing is locked or changed.

        Works while a service has the database open, after it has stopped and after it was killed.
        """
        address = parse_address(where)
        if address.parameters is not None:
            engine = postgresql.readers(address.parameters, readers)
        elif address.path is None:
            raise DatabaseUnsuitable("A database in memory cannot be opened for reading only.")
        elif not address.path.is_file():
            raise DatabaseAbsent(f"There is no database at {address.path}.")
        else:
            engine = sqlite.readers(address.path, readers)
        return cls(address.name, writer=None, readers=engine)._connected()

    @classmethod
    def in_memory(cls, template: bytes | None = None) -> "Database":
        """Create a SQLite database in memory: empty, or a copy of a `serialize()`d one.

        It has a single connection, so a read waits for the end of a transaction.
        """
        engine = sqlite.memory(template)
        return cls(":memory:", writer=engine, readers=engine)._connected()

    @classmethod
    def _open_sqlite(cls, path: Path, readers: int, lock_wait_seconds: float) -> "Database":
        if path.is_dir():
            raise DatabaseUnsuitable(f"{path} is a folder: name a file, or move it aside.")
        _make_folder(path.parent)
        lock = FileLock(path.with_name(path.name + ".lock"), wait_seconds=lock_wait_seconds)
        return cls(
            str(path),
            writer=sqlite.writer(path),
            readers=sqlite.readers(path, readers),
            lock=lock,
            keeps_connection=True,
        )._connected()

    def _connected(self) -> "Database":
        """Connect once, so that problems show now; return this."""
        try:
            with self._connect(self._writer or self._readers) as connection:
                connection.exec_driver_sql("SELECT 1")
        except BaseException:
            self.close()
            raise
        return self

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """Run a write transaction: committed at the end, rolled back on any exception.

        On SQLite it locks the database (BEGIN IMMEDIATE); on PostgreSQL it is READ COMMITTED. A
        second one waits for the first, so never open one inside another. One that has waited for rows
        which a frozen process keeps locked raises `DatabaseUnavailable`, and may be repeated at once.
        """
        self._write_started_at = time.monotonic()
        try:
            with self._writing() as connection:
                with connection.begin():
                    yield connection
                    began = time.perf_counter()
                self.observe_commit(time.perf_counter() - began)
            self._write_failed = False
        except DatabaseUnavailable as error:
            self._write_failed = True
            if isinstance(error, RowsLocked):
                self.end_frozen()
            raise
        finally:
            self._write_started_at = None

    def end_frozen(self) -> int:
        """End the transactions of other processes that have frozen; return how many. SQLite has none, and
        while the server does not respond there are none."""
        if self.dialect_name != "postgresql":
            return 0
        try:
            with self.read() as connection:
                return frozen_transactions.end_frozen(connection)
        except DatabaseUnavailable:
            return 0

    @property
    def accepts_writes(self) -> bool:
        """Return whether the last write transaction did not fail for want of the database, and the
        current one does not take longer than `WRITE_SECONDS_MAX`."""
        started_at = self._write_started_at
        overdue = started_at is not None and time.monotonic() - started_at > WRITE_SECONDS_MAX
        return not (overdue or self._write_failed)

    def free_bytes(self) -> int | None:
        """Return the free space on the disk of a SQLite file; None for PostgreSQL, in memory, or if it cannot
        be found out."""
        if self._lock is None:
            return None
        try:
            return shutil.disk_usage(Path(self.name).parent).free
        except OSError:
            return None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """Read a snapshot as of the first statement.

        Keep it short: while it lasts, SQLite cannot shrink its log and PostgreSQL cannot vacuum.
        """
        with self._connect(self._readers) as connection:
            yield connection

    @contextmanager
    def schema_change(self) -> Iterator[Connection]:
        """Run a transaction that may alter tables: one process at a time, foreign keys checked at
        its end."""
        change = sqlite.schema_change if self.dialect_name == "sqlite" else postgresql.schema_change
        with self._writing() as connection, change(connection):
            yield connection

    def version(self, connection: Connection) -> int | None:
        """Return a number that changes when another connection commits (SQLite's `data_version`); None
        on PostgreSQL, which has none."""
        return sqlite.version(connection) if self.dialect_name == "sqlite" else None

    def timeline(self) -> int | None:
        """Return PostgreSQL's timeline: another one may lack commits of the one before. None on
        SQLite."""
        if self.dialect_name == "sqlite":
            return None
        with self.read() as connection:
            return postgresql.timeline(connection)

    def configured_durability(self) -> str | None:
        """Return PostgreSQL's `synchronous_commit` if it is set below `on`, else None. Transactions
        are durable all the same."""
        if self.dialect_name == "sqlite":
            return None
        with self.read() as connection:
            return postgresql.configured_durability(connection)

    def writes_whole_pages(self) -> bool:
        """Return whether a page that a power cut has left half written can be repaired: always on SQLite,
        and on PostgreSQL unless `full_page_writes` is off."""
        if self.dialect_name == "sqlite":
            return True
        with self.read() as connection:
            return postgresql.writes_whole_pages(connection)

    def unlogged_tables(self) -> set[str]:
        """Return the tables that PostgreSQL empties after a crash; SQLite has none of this kind."""
        if self.dialect_name == "sqlite":
            return set()
        with self.read() as connection:
            return postgresql.unlogged_tables(connection)

    def serialize(self) -> bytes:
        """Return a copy of a database in memory, as a template for others."""
        if self._writer is not self._readers:
            raise DatabaseError(f"{self.name} is not in memory: back it up instead.")
        with self._connect(self._readers) as connection:
            return sqlite.serialize(connection)

    def close(self) -> None:
        """Close every connection, then release the lock."""
        self._closed = True
        self._readers.dispose()
        # The writer closes last: the last connection to a SQLite file removes its log.
        if self._kept is not None:
            self._kept.close()
        if self._writer is not None:
            self._writer.dispose()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _writing(self) -> AbstractContextManager[Connection]:
        if self._kept is None or self._closed:
            return self._connect(self._writer)
        return self._kept

    def _connect(self, engine: Engine | None) -> Connection:
        if self._closed:
            raise DatabaseError(f"{self.name} was closed.")
        if engine is None:
            raise DatabaseError(f"{self.name} was opened for reading only.")
        try:
            return engine.connect()
        except PoolTimeoutError as error:
            raise DatabaseUnavailable(
                f"{self.name}: all connections are in use, and none became free in time."
            ) from error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUnsuitable(
            f"The folder {folder} cannot be created ({error.strerror}): create it yourself, or use "
            "another one."
        ) from error
