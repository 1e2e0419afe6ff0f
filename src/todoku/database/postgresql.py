"""Connect to PostgreSQL, a server that several replicas of a service share."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, func, select

from todoku.database.errors import (
    ConstraintViolated,
    DatabaseBroken,
    DatabaseError,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    NotPermitted,
    RowsLocked,
)
from todoku.database.exchange import (
    READ_ONLY,
    STATEMENT_LOST,
    connection_class,
    ends_session,
    import_driver,
)
from todoku.database.passwords import PASSWORD_FILE, read_password, take_password_file
from todoku.database.translation import translate_errors

POOL_WAIT_SECONDS = 30.0
MIGRATION_WAIT_SECONDS = 600
MIGRATION_LOCK = int.from_bytes(b"todoku", "big")
"""The advisory lock under which a schema changes; PostgreSQL keeps one set of them a database."""

# A replica that freezes inside a transaction holds its row locks. These bound those that wait for it, and
# the transaction itself, but not one whose client froze in the middle of a pipeline: its backend counts
# neither as idle nor as executing a statement. Other replicas end that (`frozen.py`); without any,
# nobody waits for its locks. They are set in each transaction, because PgBouncer refuses them at the
# start of a session, and in its transaction mode a session's settings reach other clients.
TRANSACTION_SETTINGS: Mapping[str, str] = {
    "lock_timeout": "5s",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "30s",
}
WRITER_SETTINGS: Mapping[str, str] = {
    **TRANSACTION_SETTINGS,
    # After each wait the backends of frozen processes are looked for, so that two waits are enough.
    "lock_timeout": "3s",
    "statement_timeout": "15s",
    # A prepared statement keeps its plan: one that was chosen while a table had one page would read all
    # of it for ever. Every statement of a batch has an index, so it is to be used, whatever the
    # statistics say. What has none is read as a whole all the same; that is not worth compiling.
    "enable_seqscan": "off",
    "jit": "off",
}

READER_WAIT_SECONDS_MAX = 35.0
WRITER_WAIT_SECONDS_MAX = 20.0
"""Bounds of every wait for the server, above its own `statement_timeout`: a server that is frozen or
behind a frozen proxy does not enforce that."""

DURABLE = ("on", "remote_apply")
"""The values of `synchronous_commit` with which a commit is on the disks, of synchronous standbys too."""

DURABLY = (
    "SELECT set_config('synchronous_commit', CASE current_setting('synchronous_commit')"
    " WHEN 'remote_apply' THEN 'remote_apply' ELSE 'on' END, true)"
)
"""Makes the commit never less durable than `on`, and as durable as `remote_apply` where that is set.

`ALTER DATABASE`, a role or a reload of the server may set `synchronous_commit`, and behind a pooler each
transaction may have another session: so each transaction sets it.
"""

CONNECTION_PARAMETERS: Mapping[str, str | int] = {
    "application_name": "todoku",
    "client_encoding": "UTF8",
    "connect_timeout": 5,  # seconds
    # A machine that died answers no probe: the connection is lost after 5 + 3 * 2 seconds.
    "keepalives": 1,
    "keepalives_idle": 5,  # seconds
    "keepalives_interval": 2,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,  # milliseconds until unacknowledged data means a lost connection
}


ADDRESS_ADVICE = (
    "write postgresql://USER:PASSWORD@HOST:5432/DATABASE, with special characters of the password"
    " percent-encoded (/ is %2F, @ is %40, : is %3A)."
)


SERVER_KEEPALIVES = (
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3;"
    " SET tcp_user_timeout = 10000"
)
"""The server's own view of a connection that was cut: its backend would keep row locks for two hours,
and no other timeout applies to one that waits for the rest of a pipeline."""


def writer(parameters: Mapping[str, str]) -> Engine:
    """Create the engine with the one connection of this process that writes."""
    begin = [*_begin("READ COMMITTED", WRITER_SETTINGS, parameters), DURABLY]
    if "," in parameters.get("host", "") + parameters.get("hostaddr", ""):
        parameters = {"target_session_attrs": "read-write", **parameters}
    return _engine(parameters, 1, begin, WRITER_WAIT_SECONDS_MAX)


def readers(parameters: Mapping[str, str], count: int) -> Engine:
    """Create the engine with up to `count` connections that read snapshots, from any thread."""
    begin = _begin("REPEATABLE READ READ ONLY", TRANSACTION_SETTINGS, parameters)
    return _engine(parameters, count, begin, READER_WAIT_SECONDS_MAX)


def parse_connection_string(text: str) -> dict[str, str]:
    """Parse a URL or a `key=value` string as libpq does; it may have a `password_file`.

    The messages of the errors contain no part of it: that may be a password.
    """
    psycopg = import_driver()
    text, password_file = take_password_file(text)
    try:
        parsed = psycopg.conninfo.conninfo_to_dict(text)
    except psycopg.Error as error:
        unknown = re.search(r'invalid (URI query parameter|connection option): "\w*"', str(error))
        reason = f" ({unknown.group()})" if unknown else ""
        raise DatabaseUnsuitable(
            f"libpq cannot parse this PostgreSQL address{reason}: {ADDRESS_ADVICE}"
        ) from None
    parameters = {name: str(value) for name, value in parsed.items()}
    if not re.fullmatch(r"[\d,]*", parameters.get("port", "")) or "@" in parameters.get(
        "dbname", ""
    ):
        raise DatabaseUnsuitable(
            f"The port of this PostgreSQL address is not a number: {ADDRESS_ADVICE}"
        )
    return {**parameters, PASSWORD_FILE: password_file} if password_file else parameters


def _begin(mode: str, settings: Mapping[str, str], parameters: Mapping[str, str]) -> list[str]:
    """Return statements that begin a transaction with its settings.

    Settings that the address names in its `options` are left as they are.
    """
    options = parameters.get("options", "")
    chosen = [f"set_config('{k}', '{v}', true)" for k, v in settings.items() if k not in options]
    return [f"BEGIN ISOLATION LEVEL {mode}", f"SELECT {', '.join(chosen)}"]


def _engine(
    parameters: Mapping[str, str],
    connections_max: int,
    begin: Sequence[str],
    wait_seconds_max: float,
) -> Engine:
    connect_bounded = connection_class().connect
    parameters = {**parameters}
    password_file = parameters.pop(PASSWORD_FILE, None)
    timelines: set[int] = set()
    engine = create_engine(
        URL.create("postgresql+psycopg"),
        connect_args={**CONNECTION_PARAMETERS, **parameters, "autocommit": True},
        poolclass=QueuePool,
        pool_size=connections_max,
        max_overflow=0,
        pool_timeout=POOL_WAIT_SECONDS,
        hide_parameters=True,
    )
    translate_errors(engine, translate, ends_connection=ends_session)

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, arguments: Any, options: Any) -> Any:
        if password_file is not None:
            options = {**options, "password": read_password(password_file)}
        connection = connect_bounded(*arguments, **options)
        connection.wait_seconds_max = wait_seconds_max
        try:
            _check(connection)
            _require_same_timeline(connection, timelines)
        except BaseException:
            connection.close()
            raise
        return connection

    @event.listens_for(engine, "begin")
    def begin_transaction(connection: Connection) -> None:
        driver_connection: Any = connection.connection.driver_connection
        driver_connection.begin(begin)

    return engine


def _check(connection: Any) -> None:
    """Refuse a server that cannot serve; recognise a pooler between it and this process. One round trip."""
    row = connection.execute(
        "SELECT current_setting('fsync'), current_setting('server_encoding'), pg_backend_pid();"
        f" {SERVER_KEEPALIVES}"
    ).fetchone()
    fsync, encoding, server_pid = row
    if fsync == "off":
        raise DatabaseUnsuitable(
            "PostgreSQL runs with fsync = off, so a power cut destroys its data: set fsync = on in"
            " postgresql.conf and reload it."
        )
    if encoding != "UTF8":
        raise DatabaseUnsuitable(
            f"The PostgreSQL database has the encoding {encoding}, which cannot store every name and"
            " address: create one with `CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0`."
        )
    if connection.info.backend_pid != server_pid:
        # PgBouncer: in transaction mode the next transaction may have another server process, which
        # does not know the statements prepared by this one.
        connection.prepare_threshold = None


def configured_durability(connection: Connection) -> str | None:
    """Return `synchronous_commit` as role, database or server set it, if that is below `on`."""
    value = connection.scalar(select(func.current_setting("synchronous_commit")))
    return None if value in DURABLE else str(value)


def writes_whole_pages(connection: Connection) -> bool:
    """Return whether the server can repair a page that a power cut has left half written."""
    return connection.scalar(select(func.current_setting("full_page_writes"))) == "on"


def unlogged_tables(connection: Connection) -> set[str]:
    """Return the tables of this schema that the server empties after a crash."""
    return set(connection.exec_driver_sql(UNLOGGED_TABLES).scalars())


UNLOGGED_TABLES = (
    "SELECT relname FROM pg_class"
    " WHERE relpersistence = 'u' AND relkind = 'r' AND pg_table_is_visible(oid)"
)


@contextmanager
def schema_change(connection: Connection) -> Iterator[None]:
    """Run a transaction that one process at a time has: replicas that start together take turns."""
    driver_connection: Any = connection.connection.driver_connection
    bound = driver_connection.wait_seconds_max
    driver_connection.wait_seconds_max = None  # It may take as long as it takes.
    try:
        with connection.begin():
            yield from _locked(connection)
    finally:
        driver_connection.wait_seconds_max = bound


def _locked(connection: Connection) -> Iterator[None]:
    _set_locally(connection, "application_name", "todoku migration")  # It may compute for long.
    _set_locally(connection, "statement_timeout", "0")
    _set_locally(connection, "enable_seqscan", "on")  # It changes whole tables.
    _set_locally(connection, "lock_timeout", f"{MIGRATION_WAIT_SECONDS}s")
    connection.execute(select(func.pg_advisory_xact_lock(MIGRATION_LOCK)))
    # Waiting for a table lock makes all others queue behind it: keep it short.
    _set_locally(connection, "lock_timeout", TRANSACTION_SETTINGS["lock_timeout"])
    yield


def _set_locally(connection: Connection, setting: str, value: str) -> None:
    connection.execute(select(func.set_config(setting, value, True)))


def translate(error: BaseException) -> DatabaseError | None:
    """Translate an error of the driver.

    Source: https://www.postgresql.org/docs/current/errcodes-appendix.html.
    """
    psycopg = import_driver()
    if not isinstance(error, psycopg.Error):
        return None
    message = error.diag.message_primary or str(error)
    return _meaning(error)(f"PostgreSQL: {message}")


def timeline(connection: Connection) -> int | None:
    """Return the timeline of the server's log, which changes when a standby is promoted or a backup is
    restored; None on a standby."""
    return _timeline(connection.connection.driver_connection)


def _timeline(connection: Any) -> int | None:
    try:
        (found,) = connection.execute(
            "SELECT CASE WHEN NOT pg_is_in_recovery()"
            " THEN left(pg_walfile_name(pg_current_wal_lsn()), 8) END"
        ).fetchone()
    except import_driver().Error:
        return (
            None  # A service that hides its log; or the connection is lost, as the next use says.
        )
    return None if found is None else int(found, 16)


def _require_same_timeline(connection: Any, seen: set[int]) -> None:
    """Raise `DatabaseBroken` if another server has taken over since this process started."""
    found = _timeline(connection)
    if found is None:
        return
    if seen and found not in seen:
        raise DatabaseBroken(
            f"PostgreSQL continues on timeline {found} instead of {max(seen)}: a standby was promoted, or"
            " a backup restored, and commits of this process may be lost. The next start recovers"
            " them from the stream."
        )
    seen.add(found)


def _meaning(error: Any) -> type[DatabaseError]:
    psycopg = import_driver()
    state = error.sqlstate
    if state is not None:
        return MEANINGS.get(state) or MEANINGS.get(state[:2], DatabaseError)
    if isinstance(error, psycopg.DataError):
        return ConstraintViolated
    if isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return DatabaseUnavailable  # not from the server: refused, cut off, timed out
    return DatabaseError


MEANINGS: Mapping[str, type[DatabaseError]] = {
    **dict.fromkeys(STATEMENT_LOST, DatabaseUnavailable),
    "08": DatabaseUnavailable,  # connection exception
    "22": ConstraintViolated,  # data exception
    "23": ConstraintViolated,  # integrity constraint violation
    READ_ONLY: DatabaseUnavailable,  # on a writer: a standby, or writes are locked
    "25P03": DatabaseUnavailable,  # idle in transaction for too long
    "25P04": DatabaseUnavailable,  # in transaction for too long
    "28": DatabaseUnsuitable,  # authorization
    "3D000": DatabaseUnsuitable,  # no such database
    "40": DatabaseUnavailable,  # rolled back: serialization, deadlock
    "42501": NotPermitted,
    "53": DatabaseUnavailable,  # out of disk, memory or connections
    "54000": ConstraintViolated,  # program limit exceeded: too long for its index
    "55P03": RowsLocked,
    "55": DatabaseUnavailable,  # in use
    "57": DatabaseUnavailable,  # cancelled, shutting down, starting up
    "58": DatabaseBroken,  # the server's disk
    "XX001": DatabaseBroken,  # damaged data
    "XX002": DatabaseBroken,  # damaged index
}
