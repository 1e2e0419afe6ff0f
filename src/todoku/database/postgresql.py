"""Connect to PostgreSQL, a server that several replicas of a service share."""

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, func, select

from todoku.database.errors import (
    ConstraintViolated,
    DatabaseBroken,
    DatabaseError,
    DatabaseUnavailable,
    DatabaseUnsuitable,
)
from todoku.database.translation import translate_errors

POOL_WAIT_SECONDS = 30.0
MIGRATION_WAIT_SECONDS = 600
MIGRATION_LOCK = int.from_bytes(b"todoku", "big")
"""The advisory lock under which a schema changes; PostgreSQL keeps one set of them a database."""

# A replica that freezes inside a transaction holds its row locks: these bound the transaction and
# those that wait for it.
SESSION_SETTINGS: Mapping[str, str] = {
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
}
CONNECTION_PARAMETERS: Mapping[str, str | int] = {
    "application_name": "todoku",
    "connect_timeout": 5,  # seconds
    "tcp_user_timeout": 30_000,  # milliseconds until unacknowledged data means a lost connection
}


def writer(url: URL) -> Engine:
    """Create the engine with the one connection of this process that writes."""
    return _engine(url, 1, "READ COMMITTED")


def readers(url: URL, count: int) -> Engine:
    """Create the engine with up to `count` connections that read snapshots, from any thread."""
    engine = _engine(url, count, "REPEATABLE READ")

    @event.listens_for(engine, "connect")
    def read_only(driver_connection: Any, _record: object) -> None:
        driver_connection.read_only = True

    return engine


def _engine(url: URL, connections_max: int, isolation_level: Any) -> Engine:
    _import_driver()
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        connect_args=_connect_arguments(url),
        isolation_level=isolation_level,
        poolclass=QueuePool,
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        hide_parameters=True,
    )
    translate_errors(engine, translate)
    return engine


def _connect_arguments(url: URL) -> dict[str, Any]:
    """Merge our parameters with the URL's, which win. In `options`, the last value wins."""
    ours = " ".join(f"-c {name}={value}" for name, value in SESSION_SETTINGS.items())
    theirs = url.query.get("options", "")
    return {**CONNECTION_PARAMETERS, **url.query, "options": f"{ours} {theirs}".strip()}


@functools.cache
def _import_driver() -> ModuleType:
    try:
        import psycopg
    except ImportError as error:
        raise DatabaseUnsuitable(
            "PostgreSQL needs a driver that is not installed: pip install 'todoku[postgres]'"
        ) from error
    return psycopg


@contextmanager
def schema_change(connection: Connection) -> Iterator[None]:
    """Run a transaction that one process at a time has: replicas that start together take turns."""
    with connection.begin():
        _set_locally(connection, "statement_timeout", "0")
        _set_locally(connection, "lock_timeout", f"{MIGRATION_WAIT_SECONDS}s")
        connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
        # Waiting for a table lock makes all others queue behind it: keep it short.
        _set_locally(connection, "lock_timeout", SESSION_SETTINGS["lock_timeout"])
        yield


def _set_locally(connection: Connection, setting: str, value: str) -> None:
    connection.execute(select(func.set_config(setting, value, True)))


def translate(error: BaseException) -> DatabaseError | None:
    """Translate an error of the driver.

    Source: https://www.postgresql.org/docs/current/errcodes-appendix.html.
    """
    psycopg = _import_driver()
    if not isinstance(error, psycopg.Error):
        return None
    message = error.diag.message_primary or str(error)
    return _meaning(error)(f"PostgreSQL: {message}")


def _meaning(error: Any) -> type[DatabaseError]:
    psycopg = _import_driver()
    state = error.sqlstate
    if state is not None:
        return MEANINGS.get(state) or MEANINGS.get(state[:2], DatabaseError)
    if isinstance(error, psycopg.DataError):
        return ConstraintViolated
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return DatabaseUnavailable  # not from the server: refused, cut off, timed out
    return DatabaseError


MEANINGS: Mapping[str, type[DatabaseError]] = {
    "08": DatabaseUnavailable,  # connection exception
    "22": ConstraintViolated,  # data exception
    "23": ConstraintViolated,  # integrity constraint violation
    "25006": DatabaseUnavailable,  # read only transaction: on a writer, a server that is a standby
    "25P03": DatabaseUnavailable,  # idle in transaction for too long
    "25P04": DatabaseUnavailable,  # in transaction for too long
    "28": DatabaseUnsuitable,  # authorization
    "3D000": DatabaseUnsuitable,  # no such database
    "40": DatabaseUnavailable,  # rolled back: serialization, deadlock
    "42501": DatabaseUnsuitable,  # not permitted
    "53": DatabaseUnavailable,  # out of disk, memory or connections
    "54000": ConstraintViolated,  # program limit exceeded: too long for its index
    "55": DatabaseUnavailable,  # locked, in use
    "57": DatabaseUnavailable,  # cancelled, shutting down, starting up
    "58": DatabaseBroken,  # the server's disk
    "XX001": DatabaseBroken,  # damaged data
    "XX002": DatabaseBroken,  # damaged index
}
