"""Keep the connection that writes from one transaction to the next."""

import threading
from collections.abc import Callable
from types import TracebackType

from sqlalchemy import Connection

from todoku.database.errors import DatabaseUnavailable


class KeptConnection:
    """Lend one connection to one caller at a time: `with kept as connection:`.

    SQLAlchemy needs longer to take a connection from a pool and to give it back than SQLite needs for a small
    transaction. A connection whose use has raised is given back: the pool then decides whether it is still
    good. Raises `DatabaseUnavailable` if others use it for longer than `wait_seconds`.
    """

    def __init__(self, connect: Callable[[], Connection], wait_seconds: float) -> None:
        self._connect = connect
        self._wait_seconds = wait_seconds
        self._in_use = threading.Lock()
        self._connection: Connection | None = None

    def __enter__(self) -> Connection:
        if not self._in_use.acquire(timeout=self._wait_seconds):
            raise DatabaseUnavailable(
                f"other transactions have used the connection for {self._wait_seconds:.0f} s."
            )
        try:
            if self._connection is None:
                self._connection = self._connect()
        except BaseException:
            self._in_use.release()
            raise
        return self._connection

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error is not None:
                self._give_back()
        finally:
            self._in_use.release()

    def close(self) -> None:
        """Give the connection back to its pool, unless somebody uses it."""
        if self._in_use.acquire(blocking=False):
            try:
                self._give_back()
            finally:
                self._in_use.release()

    def _give_back(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
