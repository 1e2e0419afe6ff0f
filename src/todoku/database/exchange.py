"""Talk to PostgreSQL in as few round trips as possible."""

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from todoku.database.errors import DatabaseUnsuitable

Rows = Sequence[Sequence[Any]]

READ_ONLY = "25006"
STATEMENT_LOST = ("26000", "42P05")
"""A prepared statement does not exist, or exists already: a pooler has changed the server process."""


class Deferred:
    """Hold a statement that is sent with the next one whose rows are needed, or with the COMMIT."""

    def __init__(self, connection: Any, sql: str, parameters: Any) -> None:
        self._connection = connection
        self.sql = sql
        self.parameters = parameters
        self.cursor: Any = None

    def rows(self) -> Rows:
        """Return the rows of the result; send what waits, if that has not happened yet."""
        if self.cursor is None:
            self._connection.exchange()
            assert self.cursor is not None, "its exchange has failed"
        found: Rows = self.cursor.fetchall() if self.cursor.description else ()
        return found


@functools.cache
def connection_class() -> Any:
    """Return the class of connections, once the driver is imported."""
    psycopg = import_driver()

    class OrderedCursor(psycopg.Cursor):  # type: ignore[misc, name-defined]
        """Execute a statement after those that wait."""

        def execute(self, *arguments: Any, **options: Any) -> Any:
            self.connection.exchange()
            self.connection.round_trips += 1
            return super().execute(*arguments, **options)

        def executemany(self, *arguments: Any, **options: Any) -> None:
            self.connection.exchange()
            self.connection.round_trips += 1
            super().executemany(*arguments, **options)

    class DeferringConnection(psycopg.Connection):  # type: ignore[misc, name-defined]
        """Send statements together, and bound every wait for the server: a frozen one must not freeze
        this process.

        Each exchange ends with a Sync: a backend that waited for the rest of a pipeline would keep
        its row locks, and no timeout of the server would end it. A cursor executes its statement
        after what waits.
        """

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.cursor_factory = OrderedCursor
            self.wait_seconds_max: float | None = None
            self.round_trips = 0
            self._begin: Sequence[Deferred] = ()
            self._waiting: list[Deferred] = []

        def begin(self, statements: Sequence[str]) -> None:
            """Begin a transaction, together with its first exchange."""
            self._begin = [Deferred(self, sql, None) for sql in statements]
            self._waiting = []

        def defer(self, sql: str, parameters: Any) -> Deferred:
            """Add a statement to the next exchange."""
            deferred = Deferred(self, sql, parameters)
            self._waiting.append(deferred)
            return deferred

        def exchange(self) -> None:
            """Send all that waits, in one round trip. Raises the error of the first that fails; the
            server ignores those behind it."""
            together = [*self._begin, *self._waiting]
            self._forget()
            if not together:
                return
            failure: Exception | None = None
            try:
                with self.pipeline():
                    try:
                        for deferred in together:
                            deferred.cursor = psycopg.Cursor(self)
                            deferred.cursor.execute(deferred.sql, deferred.parameters)
                    except Exception as error:
                        failure = error
            except psycopg.Error as error:  # At the end of the pipeline.
                failure = failure or error
            self.round_trips += 1
            if failure is not None:
                for deferred in together:
                    deferred.cursor = None
                raise self._cause(failure)

        def commit(self) -> None:
            """Commit, together with all that waits. A transaction in which nothing was done sends
            nothing."""
            if self._waiting:
                self.defer("COMMIT", None)
                self.exchange()
            elif not self._begin:
                self.round_trips += 1
                super().commit()
            self._forget()

        def rollback(self) -> None:
            """Roll back, and forget what waits."""
            self._forget()
            super().rollback()

        def is_lost_after(self, error: BaseException) -> bool:
            """Return whether the connection cannot be used any more after this error."""
            return self.closed or ends_session(error)

        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            if timeout is None:
                timeout = self.wait_seconds_max
            try:
                return super().wait(gen, interval, timeout)
            except psycopg.errors._WaitTimeout as error:
                self.pgconn.finish()  # In the middle of an exchange: it cannot be used any more.
                raise psycopg.OperationalError(
                    f"the server did not respond within {timeout:g} s"
                ) from error

        def _forget(self) -> None:
            self._begin, self._waiting = (), []

        def _cause(self, error: BaseException) -> BaseException:
            """Return the error that made the server ignore the rest of a pipeline."""
            while isinstance(error, psycopg.errors.PipelineAborted) and error.__context__:
                error = error.__context__
            return error

    return DeferringConnection


def ends_session(error: BaseException) -> bool:
    """Return whether the session cannot be used any more, although the server still answers.

    A session keeps `default_transaction_read_only` as it was at its start, and one behind a pooler
    that lost its prepared statements does not get them back.
    """
    return getattr(error, "sqlstate", None) in (READ_ONLY, *STATEMENT_LOST)


@functools.cache
def import_driver() -> ModuleType:
    """Import the driver, which is optional."""
    try:
        import psycopg
        import psycopg.conninfo
    except ImportError as error:
        raise DatabaseUnsuitable(
            "PostgreSQL needs a driver that is not installed: pip install 'todoku[postgres]'"
        ) from error
    return psycopg
