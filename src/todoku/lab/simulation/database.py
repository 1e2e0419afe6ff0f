"""Simulated databases, unavailable at times, with injected errors: SQLite in memory for one process, and
one that several processes share, as at a PostgreSQL server."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import cache
from typing import Any

from sqlalchemy import Connection, Engine

from todoku.database import Database, DatabaseBroken, DatabaseUnavailable, migrate, sqlite
from todoku.lab.simulation.faults import Faults
from todoku.lab.simulation.replicas import DueRowsTaken
from todoku.lab.simulation.row_locks import Row
from todoku.lab.simulation.shared_driver import shared_engine
from todoku.lab.simulation.shared_storage import SharedStorage, add_row_triggers
from todoku.lab.simulation.stepped import can_wait, wait

STATEMENT_SECONDS_MAX = 1.0
AT_ONCE_SHARE = 0.5
"""How often a transaction that is interrupted lets only those run that are ready to."""


@cache
def empty_database(package: str) -> bytes:
    """Return a migrated, empty database of a service's package, made once: migrating is slow."""
    with Database.in_memory() as database:
        migrate(database, package)
        return database.serialize()


@cache
def empty_shared_database(package: str) -> bytes:
    """Return an empty database of a service's package for a `SharedStorage`."""
    with closing(sqlite.connect_copy(empty_database(package))) as connection:
        add_row_triggers(connection)
        return connection.serialize()


class SimulatedDatabase(Database):
    """A service's database, which can be unavailable and can fail.

    `committed` is called after every commit, before any other code runs.
    """

    def __init__(self, service: str, faults: Faults, writer: Engine, readers: Engine) -> None:
        super().__init__(f"{service}.db", writer=writer, readers=readers)
        self.away = False
        self.committed: Callable[[str], None] = lambda _: None
        self._service = service
        self._faults = faults

    @property
    def changes(self) -> int:
        """Return a number that grows when something is committed."""
        raise NotImplementedError

    def look(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return what is committed, without injected faults."""
        raise NotImplementedError

    def bare(self) -> sqlite3.Connection:
        """Return the driver's connection, which reads what is committed without injected faults, of a
        database that one process has to itself."""
        raise NotImplementedError

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        self._refuse_while_away()
        with super().transaction() as connection:
            yield connection
            if self._faults.strike("disk-error", self._service):
                raise DatabaseBroken("the disk has failed")
        self.committed(self._service)
        if self._faults.strike("lose-commit-answer", self._service):
            raise DatabaseUnavailable("the connection was lost during the commit")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self._refuse_while_away()
        with super().read() as connection:
            yield connection

    def _refuse_while_away(self) -> None:
        if self.away:
            raise DatabaseUnavailable("the database is unavailable")


class ExclusiveDatabase(SimulatedDatabase):
    """A SQLite database, which one process has to itself."""

    def __init__(self, service: str, package: str, faults: Faults) -> None:
        engine = sqlite.memory(empty_database(package))
        super().__init__(service, faults, engine, engine)
        with Database.read(self) as connection:
            bare = connection.connection.driver_connection
            assert isinstance(bare, sqlite3.Connection)
            self._bare = bare

    @property
    def changes(self) -> int:
        return self._bare.total_changes

    def bare(self) -> sqlite3.Connection:
        return self._bare

    def look(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self._bare.execute(statement, parameters).fetchall()


class SharedDatabase(SimulatedDatabase):
    """A database that several processes share, as at a PostgreSQL server: transactions are interrupted
    between statements, and row locks are all that keeps them apart.

    `unlocked` is called with a row that a transaction changes without having locked it.
    """

    def __init__(
        self, service: str, package: str, faults: Faults, unlocked: Callable[[Row], None]
    ) -> None:
        self.storage = SharedStorage(empty_shared_database(package), unlocked)
        writer = shared_engine(self.storage, self._before_statement)
        super().__init__(service, faults, writer, shared_engine(self.storage))
        self.exclusive = False
        self.due_rows: DueRowsTaken = {}

    @property
    def changes(self) -> int:
        return self.storage.commits

    def look(self, statement: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        return self.storage.look(statement, parameters)

    def version(self, connection: Connection) -> None:
        return None

    def close(self) -> None:
        super().close()
        self.storage.close()

    def be_slow(self, fault: str, seconds_max: float) -> None:
        """Inject a fault that lets other processes run between two statements of a transaction: for a
        while, or only as far as they are ready to."""
        if can_wait() and (dice := self._faults.strike(fault, self._service)):
            at_once = dice.random() < AT_ONCE_SHARE
            wait(asyncio.sleep(0.0 if at_once else dice.uniform(0, seconds_max)))

    def _before_statement(self) -> None:
        self.be_slow("slow-statement", STATEMENT_SECONDS_MAX)
        self._refuse_while_away()
