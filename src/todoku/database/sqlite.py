"""Connect to SQLite: one file that one process owns; one connection writes, others only read.

Versions before 3.51.3 can damage a write-ahead log when two connections write and checkpoint at
once. Hence exactly one connection may write, and readers open the file with `mode=ro`: such a
connection can neither checkpoint nor delete the log, not even when it is the last to close.
"""

import functools
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Dialect, Engine, QueuePool, create_engine, event, make_url
from sqlalchemy.pool import ConnectionPoolEntry

from todoku.database.errors import (
    ConstraintViolated,
    DatabaseBroken,
    DatabaseError,
    DatabaseUnavailable,
    DatabaseUnsuitable,
)
from todoku.database.translation import raise_translated, translate_errors

POOL_WAIT_SECONDS = 30.0
IN_MEMORY = Path(":memory:")

COMMON_PRAGMAS: Mapping[str, int] = {
    "busy_timeout": 5000,  # milliseconds
    "trusted_schema": 0,
    "temp_store": 2,  # memory
    "cache_size": -16 * 1024,  # KiB when negative
}
# mmap_size stays 0: with a mapped file, a failing disk kills the process instead of raising.
WRITER_PRAGMAS: Mapping[str, int | str] = {
    **COMMON_PRAGMAS,
    "busy_timeout": 100,  # the only writer; while another program holds a lock, reads must continue
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: NORMAL loses commits in a power cut
    "foreign_keys": 1,
    # What is deleted is overwritten where that writes no more pages. The default of Debian also writes
    # every page that becomes free: a fifth of the log.
    "secure_delete": "fast",
    "wal_autocheckpoint": 4000,  # pages: pages written often are copied back once, not each time
    "journal_size_limit": 64 * 1024 * 1024,  # bytes that the log keeps after a checkpoint
}
ANSWERS: Mapping[int | str, int] = {"fast": 2}
"""What SQLite answers for a value, where that is something else."""

READER_PRAGMAS: Mapping[str, int] = {**COMMON_PRAGMAS, "query_only": 1}
MEMORY_PRAGMAS: Mapping[str, int] = {**COMMON_PRAGMAS, "foreign_keys": 1}


# The driver looks for an adapter of each value that is no text and no number, in three places if none is
# registered: that takes longer than to bind the value.
sqlite3.register_adapter(bytes, bytes)
sqlite3.register_adapter(type(None), {None: None}.get)  # Faster than a function in Python.


def writer(path: Path) -> Engine:
    """Create the engine with the one connection that writes and checkpoints."""
    engine = _engine(lambda: _connect_file(path, "rwc", WRITER_PRAGMAS), "BEGIN IMMEDIATE", 1, path)
    _refuse_to_commit_into_a_deleted_file(engine, path)
    return engine


def readers(path: Path, count: int) -> Engine:
    """Create the engine with up to `count` connections that read snapshots, from any thread."""
    return _engine(lambda: _connect_file(path, "ro", READER_PRAGMAS), "BEGIN", count, path)


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """Open a read-only driver connection to a file."""
    return _connect_file(path, "ro", READER_PRAGMAS)


def memory(template: bytes | None) -> Engine:
    """Create the engine with one connection to a database in memory, a copy of `template`.

    All such engines share a dialect and its compiled statements, so that creating many is cheap.
    """
    dialect, compiled = _memory_dialect()
    pool = QueuePool(
        lambda: _connect_memory(template),  # type: ignore[arg-type]
        pool_size=1,
        max_overflow=0,
        timeout=POOL_WAIT_SECONDS,
        dialect=dialect,
    )
    engine = Engine(
        pool,
        dialect,
        make_url("sqlite://"),
        execution_options={"compiled_cache": compiled},
        hide_parameters=True,
    )
    _begin_with(engine, "BEGIN IMMEDIATE")
    return engine


@functools.cache
def _memory_dialect() -> tuple[Dialect, dict[object, object]]:
    engine = create_engine("sqlite://")
    translate_errors(engine, lambda error: translate(error, IN_MEMORY))
    with engine.connect():
        pass  # a dialect detects the features of SQLite on its first connection
    engine.dispose()
    return engine.dialect, {}


def _engine(
    connect: Callable[[], sqlite3.Connection], begin: str, connections_max: int, path: Path
) -> Engine:
    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        hide_parameters=True,
    )
    translate_errors(engine, lambda error: translate(error, path))
    _begin_with(engine, begin)
    return engine


def _refuse_to_commit_into_a_deleted_file(engine: Engine, path: Path) -> None:
    """Compare inodes before a commit: SQLite reports no error for a deleted or replaced file."""

    @event.listens_for(engine, "connect")
    def remember(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["inode"] = path.stat().st_ino

    @event.listens_for(engine, "commit")
    def compare(connection: Connection) -> None:
        if _inode(path) != connection.info["inode"]:
            raise DatabaseBroken(f"{path} was deleted or replaced while this process had it open.")


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _begin_with(engine: Engine, statement: str) -> None:
    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        try:
            _driver_connection(connection).execute(statement)
        except sqlite3.Error as error:
            raise_translated(connection.dialect, error)


def _connect_file(path: Path, mode: str, pragmas: Mapping[str, int | str]) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
    )
    try:
        _apply(pragmas, connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_memory(template: bytes | None) -> sqlite3.Connection:
    connection = connect_copy(template)
    _apply(MEMORY_PRAGMAS, connection, IN_MEMORY)
    return connection


def connect_copy(pages: bytes | None, cached_statements: int = 128) -> sqlite3.Connection:
    """Open a database in memory: a copy of a serialized one, or empty.

    Only a new connection may be deserialized. One that has used a table-valued function, such as
    json_each, still has the schema that is freed then, and SQLite 3.40 reads past the heap in search of it.
    """
    connection = sqlite3.connect(
        ":memory:",
        isolation_level=None,
        check_same_thread=False,
        cached_statements=cached_statements,
    )
    if pages is not None:
        connection.deserialize(pages)
    return connection


def _apply(pragmas: Mapping[str, int | str], connection: sqlite3.Connection, path: Path) -> None:
    """Set each and read it back: SQLite silently ignores what it does not know or cannot do."""
    for name, value in pragmas.items():
        connection.execute(f"PRAGMA {name} = {value}")
        (found,) = connection.execute(f"PRAGMA {name}").fetchone()
        if found != ANSWERS.get(value, value):
            raise DatabaseUnsuitable(
                f"SQLite answers {name}={found} instead of {value} for {path}: keep the database "
                "on a local disk, not on a network or overlay file system."
            )


def version(connection: Connection) -> int:
    """Return a number that changes when another connection commits."""
    (found,) = _driver_connection(connection).execute("PRAGMA data_version").fetchone()
    return int(found)


def serialize(connection: Connection) -> bytes:
    """Return the pages of the whole database."""
    return _driver_connection(connection).serialize()


@contextmanager
def schema_change(connection: Connection) -> Iterator[None]:
    """Run a transaction that may rebuild tables: foreign keys are checked once, at its end.

    SQLite alters most things by copying a table and dropping the old one, and dropping a parent
    would delete its children.
    """
    driver_connection = _driver_connection(connection)
    driver_connection.execute("PRAGMA foreign_keys = OFF")  # does nothing inside a transaction
    try:
        with connection.begin():
            yield
            _check_foreign_keys(connection)
    finally:
        driver_connection.execute("PRAGMA foreign_keys = ON")


def _driver_connection(connection: Connection) -> sqlite3.Connection:
    driver_connection = connection.connection.driver_connection
    assert isinstance(driver_connection, sqlite3.Connection)
    return driver_connection


def _check_foreign_keys(connection: Connection) -> None:
    orphans = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if orphans:
        tables = ", ".join(sorted({orphan[0] for orphan in orphans}))
        raise ConstraintViolated(f"{len(orphans)} rows would have no parent, in {tables}")


def translate(error: BaseException, path: Path) -> DatabaseError | None:
    """Translate an error of the driver. Source: https://sqlite.org/rescode.html."""
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # absent: Python's own refusal
    meaning = MEANINGS.get(code) or MEANINGS.get(code & PRIMARY_CODE, DatabaseError)
    if meaning is DatabaseBroken and code & PRIMARY_CODE in DAMAGED:
        return meaning(f"{path}: {error}. {RESTORE}")
    return meaning(f"{path}: {ADVICE.get(code) or error}")


PRIMARY_CODE = 0xFF
"""An extended result code carries the primary one in its lowest byte."""

MEANINGS: Mapping[int, type[DatabaseError]] = {
    sqlite3.SQLITE_CONSTRAINT: ConstraintViolated,
    sqlite3.SQLITE_MISMATCH: ConstraintViolated,
    sqlite3.SQLITE_TOOBIG: ConstraintViolated,
    sqlite3.SQLITE_BUSY: DatabaseUnavailable,
    sqlite3.SQLITE_LOCKED: DatabaseUnavailable,
    sqlite3.SQLITE_PROTOCOL: DatabaseUnavailable,
    sqlite3.SQLITE_CANTOPEN: DatabaseUnavailable,
    sqlite3.SQLITE_FULL: DatabaseUnavailable,
    sqlite3.SQLITE_IOERR_SHMSIZE: DatabaseUnavailable,
    sqlite3.SQLITE_INTERRUPT: DatabaseUnavailable,
    sqlite3.SQLITE_IOERR: DatabaseBroken,
    sqlite3.SQLITE_CORRUPT: DatabaseBroken,
    sqlite3.SQLITE_NOTADB: DatabaseBroken,
    sqlite3.SQLITE_READONLY_DBMOVED: DatabaseBroken,
    sqlite3.SQLITE_READONLY: DatabaseUnsuitable,
    sqlite3.SQLITE_PERM: DatabaseUnsuitable,
}

DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
RESTORE = (
    "The file is damaged, or was replaced: stop, move it aside, and restore a backup"
    " (`todoku docs backup-and-restore`)."
)
DISK_FULL = "the disk is full: free some space."
ADVICE: Mapping[int, str] = {
    sqlite3.SQLITE_BUSY: "locked by another program: is it open in a shell?",
    sqlite3.SQLITE_FULL: DISK_FULL,
    sqlite3.SQLITE_IOERR_SHMSIZE: DISK_FULL,
    sqlite3.SQLITE_READONLY_DIRECTORY: "a stopped database can be read only by a user who may "
    "write in its folder, where SQLite keeps the index of its log: use the user of the service.",
}
"""What to do, where the driver's message does not say it."""
