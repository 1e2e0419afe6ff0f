"""Simulated databases: SQLite in memory, unavailable at times, with injected errors."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from sqlalchemy import Connection

from todoku.database import Database, DatabaseBroken, DatabaseUnavailable, migrate, sqlite
from todoku.lab.simulation.faults import Faults


@cache
def empty_database(package: str) -> bytes:
    """Return a migrated, empty database of a service's package, made once: migrating is slow."""
    with Database.in_memory() as database:
        migrate(database, package)
        return database.serialize()


class SimulatedDatabase(Database):
    """A service's database, which can be unavailable and can fail.

    `committed` is called after every commit, before any other code runs.
    """

    def __init__(self, service: str, package: str, faults: Faults) -> None:
        engine = sqlite.memory(empty_database(package))
        super().__init__(f"{service}.db", writer=engine, readers=engine)
        self.away = False
        self.committed: Callable[[str], None] = lambda _: None
        self._service = service
        self._faults = faults

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

    def bare(self) -> sqlite3.Connection:
        """Return the driver's connection, which reads what is committed without injected faults."""
        with super().read() as connection:
            bare = connection.connection.driver_connection
            assert isinstance(bare, sqlite3.Connection)
            return bare

    def _refuse_while_away(self) -> None:
        if self.away:
            raise DatabaseUnavailable("the database is unavailable")
