"""A service's own database: one writer, and readers beside it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from todoku.database import postgresql, sqlite
from todoku.database.errors import DatabaseError, DatabaseUnavailable, DatabaseUnsuitable
from todoku.database.lock import FileLock


class Database:
    """Transactions, one at a time, and snapshots, several at a time, on one database.

    `name` says which one, without a password. `dialect_name` is "sqlite" or "postgresql".
    `exclusive` says that nobody else can write here as long as this is open.

    Made by `open`, `open_read_only` or `in_memory`; may be used from several threads.
    """

    def __init__(
        self, name: str, *, writer: Engine | None, readers: Engine, lock: FileLock | None = None
    ) -> None:
        self.name = name
        self.dialect_name = readers.dialect.name
        self.exclusive = writer is not None and self.dialect_name == "sqlite"
        self._writer = writer
        self._readers = readers
        self._lock = lock
        self._closed = False

    @classmethod
    def open(
        cls, where: str | Path, *, readers: int = 2, lock_wait_seconds: float = 0.0
    ) -> "Database":
        """The database at a path, `sqlite:///path`, `sqlite://` (in memory) or `postgresql://…`.

        Makes a missing SQLite file and its folder. Raises `DatabaseInUse` when another process
        still has the file open after `lock_wait_seconds`, `DatabaseUnsuitable` when nothing will
        help but a change of settings, `DatabaseUnavailable` when PostgreSQL does not answer.
        """
        url = _parse(where)
        if url.get_backend_name() == "postgresql":
            return cls._open_postgresql(url, readers)
        if _is_in_memory(url):
            return cls.in_memory()
        return cls._open_sqlite(_path(url), readers, lock_wait_seconds)

    @classmethod
    def open_read_only(cls, where: str | Path, *, readers: int = 2) -> "Database":
        """The same for an auditor: `transaction` is refused, and nothing is locked or changed.

        Works while a service has the database open, after it has stopped and after it was killed.
        """
        url = _parse(where)
        if url.get_backend_name() == "postgresql":
            database = cls(_name(url), writer=None, readers=postgresql.readers(url, readers))
        else:
            path = _path(url)
            if not path.is_file():
                raise DatabaseUnsuitable(f"There is no database at {path}.")
            database = cls(str(path), writer=None, readers=sqlite.readers(path, readers))
        return database._connected()

    @classmethod
    def in_memory(cls, template: bytes | None = None) -> "Database":
        """A SQLite database that is gone when closed: empty, or a copy of a `serialize()`d one.

        It has a single connection, so a read waits for the end of a transaction.
        """
        engine = sqlite.memory(template)
        return cls(":memory:", writer=engine, readers=engine)._connected()

    @classmethod
    def _open_postgresql(cls, url: URL, readers: int) -> "Database":
        writer = postgresql.writer(url)
        return cls(_name(url), writer=writer, readers=postgresql.readers(url, readers))._connected()

    @classmethod
    def _open_sqlite(cls, path: Path, readers: int, lock_wait_seconds: float) -> "Database":
        _make_folder(path.parent)
        lock = FileLock(path.with_name(path.name + ".lock"), wait_seconds=lock_wait_seconds)
        return cls(
            str(path), writer=sqlite.writer(path), readers=sqlite.readers(path, readers), lock=lock
        )._connected()

    def _connected(self) -> "Database":
        """This, after a first connection, so that what is wrong shows now."""
        try:
            with self._connect(self._writer or self._readers) as connection:
                connection.exec_driver_sql("SELECT 1")
        except BaseException:
            self.close()
            raise
        return self

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A write transaction: committed at the end, rolled back if anything is raised.

        On SQLite it has the database to itself (BEGIN IMMEDIATE); on PostgreSQL it is READ
        COMMITTED. A second one waits for the first, so never open one inside another.
        """
        with self._connect(self._writer) as connection, connection.begin():
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot as of the first statement: it sees what was committed then, and nothing else.

        Keep it short: while it lasts, SQLite's log cannot shrink and PostgreSQL cannot tidy up.
        """
        with self._connect(self._readers) as connection:
            yield connection

    @contextmanager
    def schema_change(self) -> Iterator[Connection]:
        """A transaction that may alter tables: alone among all processes, foreign keys checked at
        its end."""
        change = sqlite.schema_change if self.dialect_name == "sqlite" else postgresql.schema_change
        with self._connect(self._writer) as connection, change(connection):
            yield connection

    def version(self, connection: Connection) -> int | None:
        """A number that is another one once any other connection has committed something; None on
        PostgreSQL, which cannot tell."""
        return sqlite.version(connection) if self.dialect_name == "sqlite" else None

    def serialize(self) -> bytes:
        """A copy of a database in memory, to be a template for others."""
        if self._writer is not self._readers:
            raise DatabaseError(f"{self.name} is not in memory: back it up instead.")
        with self._connect(self._readers) as connection:
            return sqlite.serialize(connection)

    def close(self) -> None:
        """Let go of every connection, then of the lock."""
        self._closed = True
        self._readers.dispose()
        # The writer goes last: the last connection to a SQLite file tidies its log away.
        if self._writer is not None:
            self._writer.dispose()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> "Database":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _connect(self, engine: Engine | None) -> AbstractContextManager[Connection]:
        if self._closed:
            raise DatabaseError(f"{self.name} was closed.")
        if engine is None:
            raise DatabaseError(f"{self.name} was opened for reading only.")
        try:
            return engine.connect()
        except PoolTimeoutError as error:
            raise DatabaseUnavailable(
                f"{self.name}: every connection is in use, and none came free in time."
            ) from error


def _parse(where: str | Path) -> URL:
    if isinstance(where, Path) or "://" not in where:
        return URL.create("sqlite", database=str(where))
    try:
        url = make_url(where)
    except (ArgumentError, ValueError) as error:  # ValueError: its port is not a number
        raise DatabaseUnsuitable(
            "This is not a database URL: use sqlite:///path or postgresql://…"
        ) from error
    if url.drivername not in ("sqlite", "postgresql", "postgresql+psycopg"):
        raise DatabaseUnsuitable(
            f"There is no support for {url.drivername}: use sqlite:///path or postgresql://…"
        )
    return url


def _is_in_memory(url: URL) -> bool:
    return url.database in (None, "", ":memory:")


def _path(url: URL) -> Path:
    """Resolved, so that two names of one file lead to one lock."""
    if _is_in_memory(url):
        raise DatabaseUnsuitable("A database in memory cannot be opened for reading only.")
    return Path(url.database or "").resolve()


def _name(url: URL) -> str:
    return url.render_as_string(hide_password=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise DatabaseUnsuitable(
            f"The folder {folder} cannot be made ({error.strerror}): make it yourself, or use "
            "another one."
        ) from error
