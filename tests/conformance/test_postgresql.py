"""Test what only PostgreSQL can do wrong: addresses, durability, poolers, servers that do not respond."""

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from example_service import ACCOUNTS
from sqlalchemy import (
    URL,
    Engine,
    MetaData,
    Table,
    bindparam,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)

from todoku.database import (
    ConstraintViolated,
    Database,
    DatabaseBroken,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    Many,
    Query,
    frozen_transactions,
    is_postgresql,
    migrate,
    postgresql,
    require_tables,
    upsert,
)
from todoku.database.addresses import parse_address
from todoku.database.columns import EPOCH
from todoku.engine.tables import Outbox, PendingDelivery

SERVICE = "example_service"
SETTLES_SECONDS_MAX = 20


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.scalars(select(ACCOUNTS.c.name).order_by(ACCOUNTS.c.name)))


def deposit(database: Database, name: str) -> None:
    with database.transaction() as connection:
        connection.execute(insert(ACCOUNTS).values(name=name, balance=1))


add = Many(insert(ACCOUNTS))
change = Many(
    update(ACCOUNTS).where(ACCOUNTS.c.name == bindparam("key")).values(balance=bindparam("balance"))
)
find = Query(select(ACCOUNTS).where(ACCOUNTS.c.name == bindparam("name")))


def setting(database: Database, name: str) -> str:
    with database.transaction() as connection:
        return str(connection.scalar(select(func.current_setting(name))))


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    with Database.open(postgres_url) as opened:
        migrate(opened, SERVICE)
        yield opened


class TestAddresses:
    def test_every_form_of_libpq_reaches_the_same_database(self, postgres_url: str) -> None:
        url = make_url(postgres_url)
        rest = postgres_url.partition("://")[2]
        host = url.query["host"]
        forms = [
            postgres_url,
            f"postgres://{rest}",
            f"postgresql+psycopg://{rest}",
            f"host={host} dbname={url.database} user={url.username}",
            f" dbname = {url.database} host='{host}' user={url.username}",
        ]
        for form in forms:
            assert is_postgresql(form)
            with Database.open(form) as database, database.read() as connection:
                assert connection.scalar(select(func.current_database())) == url.database

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            ("postgresql://u:p%40%2F%3A@h:1/d", {"password": "p@/:", "port": "1", "dbname": "d"}),
            ("postgresql://u@h1:1,h2:2/d", {"host": "h1,h2", "port": "1,2"}),
            ("postgresql://h/d?sslmode=require", {"sslmode": "require"}),
            ("host=h password='a b' dbname=d", {"password": "a b"}),
            ("service=orders", {"service": "orders"}),
        ],
    )
    def test_addresses_are_parsed_as_libpq_does(self, where: str, expected: dict[str, str]) -> None:
        address = parse_address(where)
        assert address.parameters is not None
        assert {name: address.parameters[name] for name in expected} == expected
        assert expected.get("password", "no password") not in address.name

    @pytest.mark.parametrize(
        "where",
        [
            "postgresql+psycopg2://h/secret",
            "postgresql+asyncpg://h/secret",
            "postgresql:/h/secret",
            "postgresql:secret",
            "jdbc:postgresql://h/d?password=secret",
            "file:secret.db",
            "sqlite:secret.db",
            "sqlite+aiosqlite:///secret",
            "mysql://u:secret@h/d",
            "postgresql://u:se/cret@h/d",
            "postgresql://u:secret@h:x/d",
            "postgresql://h/d?passwort=secret",
            "host=h passwort=secret",
            "host=h secret",
        ],
    )
    def test_other_forms_are_refused_with_what_to_write(
        self, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for open_database in Database.open, Database.open_read_only:
            with pytest.raises(DatabaseUnsuitable, match="write") as raised:
                open_database(where)
            assert "cret" not in str(raised.value).partition("write")[0]
        assert list(tmp_path.iterdir()) == []

    def test_two_slashes_of_sqlite_say_how_many_are_needed(self) -> None:
        with pytest.raises(DatabaseUnsuitable, match=r"sqlite:///data/orders\.db"):
            Database.open("sqlite://data/orders.db")

    def test_options_of_the_address_win(self, postgres_url: str) -> None:
        options = "&options=-c%20lock_timeout%3D7s%20-c%20work_mem%3D5MB"
        with Database.open(postgres_url + options) as database:
            assert setting(database, "lock_timeout") == "7s"
            assert setting(database, "work_mem") == "5MB"
            assert setting(database, "statement_timeout") == "15s"


class TestDurability:
    @pytest.mark.parametrize(
        ("configured", "effective"),
        [
            ("off", "on"),
            ("local", "on"),
            ("remote_write", "on"),
            ("on", "on"),
            ("remote_apply", "remote_apply"),
        ],
    )
    def test_commits_are_durable_whatever_the_database_is_set_to(
        self, postgres_url: str, postgres_server: Engine, configured: str, effective: str
    ) -> None:
        name = make_url(postgres_url).database
        with postgres_server.connect() as superuser:
            superuser.execute(text(f"ALTER DATABASE {name} SET synchronous_commit = {configured}"))
        with Database.open(postgres_url) as database:
            for _ in range(2):
                assert setting(database, "synchronous_commit") == effective
            expected = None if configured == effective else configured
            assert database.configured_durability() == expected

    def test_change_of_durability_is_followed_in_the_next_transaction(
        self, database: Database
    ) -> None:
        for configured, effective in (("remote_apply", "remote_apply"), ("off", "on")):
            with database._writing() as connection:
                session: Any = connection.connection.driver_connection
                session.execute(f"SET synchronous_commit = {configured}")
            assert setting(database, "synchronous_commit") == effective

    def test_server_without_fsync_is_refused(
        self, postgres_url: str, postgres_server: Engine
    ) -> None:
        with postgres_server.connect() as superuser:
            try:
                set_for_the_server(superuser, "fsync", "off")
                with pytest.raises(DatabaseUnsuitable, match="fsync = on"):
                    Database.open(postgres_url)
            finally:
                set_for_the_server(superuser, "fsync", "on")
        Database.open(postgres_url).close()

    def test_table_that_a_crash_empties_is_refused(self, database: Database) -> None:
        declared = MetaData()
        ACCOUNTS.to_metadata(declared)
        Table("counters", declared)
        with database.schema_change() as connection:
            connection.execute(text("CREATE UNLOGGED TABLE counters (count BIGINT)"))
        assert database.unlogged_tables() == {"counters"}
        with pytest.raises(DatabaseUnsuitable, match="ALTER TABLE counters SET LOGGED"):
            require_tables(database, declared)
        with database.schema_change() as connection:
            connection.execute(text("ALTER TABLE counters SET LOGGED"))
        require_tables(database, declared)

    def test_pages_that_may_be_written_by_half_are_noticed(
        self, database: Database, postgres_server: Engine
    ) -> None:
        with postgres_server.connect() as superuser:
            try:
                set_for_the_server(superuser, "full_page_writes", "off")
                assert not database.writes_whole_pages()
            finally:
                set_for_the_server(superuser, "full_page_writes", "on")
        assert database.writes_whole_pages()

    def test_what_does_not_depend_on_each_other_shares_a_round_trip(
        self, database: Database
    ) -> None:
        with database.transaction() as connection:
            session: Any = connection.connection.driver_connection
        before = session.round_trips
        with database.transaction() as connection:
            add(connection, [{"name": "a", "balance": 1}, {"name": "b", "balance": 2}])
            change(connection, [{"key": "a", "balance": 3}, {"key": "b", "balance": 4}])
        assert session.round_trips == before + 1  # BEGIN with all settings, two statements, COMMIT.
        with database.transaction() as connection:
            change(connection, [{"key": "a", "balance": 5}])
            first, second = find.send(connection, name="a"), find.send(connection, name="b")
            assert [row.balance for row in (*first(), *second())] == [5, 4]
        assert session.round_trips == before + 3
        with database.transaction():
            pass
        assert session.round_trips == before + 3


class TestRowsOfABatch:
    """Rows are written as arrays: nothing that a value contains may change what it means there."""

    VALUES = ("", "NULL", "a,b", '"', "\\", "{}", "\n", " a ", "届く", None)

    def test_any_text_arrives_as_it_is(self, database: Database) -> None:
        rows = [{"name": str(n), "balance": n, "note": v} for n, v in enumerate(self.VALUES)]
        without = [{**row, "name": f"without {n}"} for n, row in enumerate(rows[:-1])]
        with database.transaction() as connection:
            Many(insert(ACCOUNTS))(connection, rows)
            Many(insert(ACCOUNTS))(connection, without)
        with database.read() as connection:
            columns = select(ACCOUNTS.c.name, ACCOUNTS.c.note)
            found = {row.name: row.note for row in connection.execute(columns)}
        assert found == {row["name"]: row["note"] for row in (*rows, *without)}

    @pytest.mark.parametrize(
        "row",
        [
            {"name": "a\0b", "balance": 1},
            {"name": "\ud800", "balance": 1},
            {"name": "a", "balance": "1,2"},
            {"name": "a", "balance": 1.5},
            {"name": "a", "balance": 2**63},
            {"name": "a", "balance": -1},
            {"name": None, "balance": 1},
        ],
    )
    def test_value_that_does_not_fit_is_refused_with_all_rows(
        self, database: Database, row: dict[str, Any]
    ) -> None:
        with pytest.raises(ConstraintViolated), database.transaction() as connection:
            add(connection, [{"name": "b", "balance": 1}, row, {"name": "c", "balance": 2}])
        assert names(database) == []

    def test_error_of_a_statement_that_waits_is_the_first_one(self, database: Database) -> None:
        deposit(database, "a")

        def refused() -> None:
            with database.transaction() as connection:
                add(connection, [{"name": "b", "balance": 1}])
                add(connection, [{"name": "a", "balance": 1}])
                add(connection, [{"name": "c", "balance": -1}])
                find(connection, name="a")

        with pytest.raises(ConstraintViolated, match="accounts_pkey"):
            refused()
        assert names(database) == ["a"]

    def test_last_of_rows_with_the_same_key_wins(self, database: Database) -> None:
        put = Many(upsert(ACCOUNTS, ["name"], ["balance"]))
        with database.transaction() as connection:
            put(connection, [{"name": "a", "balance": n} for n in (1, 2, 3)])
            assert find(connection, name="a")[0].balance == 3
            change(connection, [{"key": "a", "balance": n} for n in (6, 5, 4)])
            assert find(connection, name="a")[0].balance == 4

    def test_statement_planned_for_a_tiny_table_keeps_using_the_index(
        self, database: Database
    ) -> None:
        outbox = Outbox(MetaData())
        with database.schema_change() as connection:
            outbox.table.create(connection)
            connection.exec_driver_sql("ALTER TABLE outbox SET (autovacuum_enabled = false)")

        def enqueue(ids: range) -> None:
            events = [PendingDelivery(str(n), "subject", b"body", ("reader",)) for n in ids]
            with database.transaction() as connection:
                outbox.add(connection, "owner", ids.start, events, EPOCH)

        def deliver(ids: range) -> None:
            with database.transaction() as connection:
                outbox.mark_delivered(connection, [(str(n), "reader") for n in ids])
                outbox.mark_stored(connection, "owner", [(ids.start, ids.stop)])

        enqueue(range(1))
        with database.schema_change() as connection:
            connection.exec_driver_sql("ANALYZE outbox")
        for _ in range(12):  # Prepared after five, with one plan for all after another five.
            deliver(range(1))
        enqueue(range(2_000))
        deliver(range(1_000))
        scans = text("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'outbox'")
        with database.transaction() as connection:
            connection.exec_driver_sql("SELECT pg_stat_force_next_flush()")
        with database.transaction() as connection:
            assert connection.scalar(scans) <= 2  # The index was built, and the table analysed.
            assert outbox.backlog(connection) == 1_000


class TestFrozenProcesses:
    """A process that has frozen in a transaction is another `Database` that does nothing more."""

    @pytest.fixture
    def other(self, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
        monkeypatch.setattr(frozen_transactions, "FROZEN_SECONDS", 0)
        with Database.open(f"{postgres_url}&options=-c%20lock_timeout%3D300ms") as opened:
            yield opened

    def until_deposited(self, database: Database) -> int:
        """Deposit to an account that another one has locked; return how many attempts failed."""
        for attempt in range(5):
            with contextlib.suppress(DatabaseUnavailable), database.transaction() as connection:
                change(connection, [{"key": "a", "balance": 7}])
                return attempt
        raise AssertionError("the rows are locked for ever")

    def until_locked(self, database: Database) -> None:
        """Wait until another transaction has changed something."""
        changing = text("SELECT 1 FROM pg_stat_activity WHERE backend_xid IS NOT NULL")
        deadline = time.monotonic() + SETTLES_SECONDS_MAX
        found = None
        while not found:
            assert time.monotonic() < deadline
            with database.read() as connection:
                found = connection.scalar(changing)

    def test_its_rows_are_free_after_one_wait_and_nothing_of_it_is_committed(
        self, database: Database, other: Database
    ) -> None:
        def freeze_within_a_transaction() -> None:
            with database.transaction() as connection:
                change(connection, [{"key": "a", "balance": 9}])
                find(connection, name="a")
                assert self.until_deposited(other) == 1

        deposit(database, "a")
        with pytest.raises(DatabaseUnavailable):
            freeze_within_a_transaction()
        with database.read() as connection:
            assert find(connection, name="a")[0].balance == 7
        deposit(database, "b")  # It connects again.

    def test_one_in_the_middle_of_a_pipeline_is_ended_too(
        self, database: Database, other: Database, postgres_url: str
    ) -> None:
        deposit(database, "a")
        with contextlib.closing(
            psycopg.connect(postgres_url, application_name="todoku")
        ) as connection:
            server = connection.pgconn
            server.enter_pipeline_mode()
            for sql in b"BEGIN", b"UPDATE accounts SET balance = 9", b"SELECT 1":
                server.send_query_params(sql, [])
            server.send_flush_request()
            server.flush()
            self.until_locked(other)
            assert self.until_deposited(other) == 1

    def test_what_only_reads_and_what_is_not_of_this_program_is_left_alone(
        self, database: Database, other: Database, postgres_url: str
    ) -> None:
        with (
            psycopg.connect(postgres_url, application_name="psql") as person,
            psycopg.connect(postgres_url, application_name="todoku") as reader,
        ):
            person.execute("SELECT pg_current_xact_id()")
            reader.execute("SELECT 1")
            assert other.end_frozen() == 0
            assert person.execute("SELECT 1").fetchone() == (1,)

    def test_change_of_the_schema_may_compute_for_long(
        self, database: Database, other: Database
    ) -> None:
        with database.schema_change() as connection:
            connection.execute(insert(ACCOUNTS).values(name="a", balance=1))
            assert other.end_frozen() == 0
        assert names(database) == ["a"]


def set_for_the_server(superuser: Any, name: str, value: str) -> None:
    """Change a setting of the whole server, and wait until it is in effect."""
    superuser.execute(text(f"ALTER SYSTEM SET {name} = {value}"))
    superuser.execute(text("SELECT pg_reload_conf()"))
    deadline = time.monotonic() + SETTLES_SECONDS_MAX
    while superuser.scalar(text(f"SHOW {name}")) != value:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def disconnect(database: Database) -> None:
    """Close the connection that writes: the next transaction connects anew."""
    assert database._writer is not None
    assert database._kept is not None
    database._kept.close()
    database._writer.dispose()


class TestServers:
    def test_writer_recovers_after_writes_were_locked(
        self, postgres_url: str, postgres_server: Engine
    ) -> None:
        name = make_url(postgres_url).database
        lock = f"ALTER DATABASE {name} SET default_transaction_read_only = "
        with Database.open(postgres_url) as database, postgres_server.connect() as superuser:
            migrate(database, SERVICE)
            superuser.execute(text(f"{lock} on"))
            disconnect(database)
            for _ in range(3):
                with pytest.raises(DatabaseUnavailable, match="read-only"):
                    deposit(database, "a")
            superuser.execute(text(f"{lock} off"))
            deposit(database, "a")
            assert names(database) == ["a"]

    def test_database_that_cannot_store_every_text_is_refused(
        self, postgres_server: Engine
    ) -> None:
        name = f"test_{uuid.uuid4().hex}"
        with postgres_server.connect() as superuser:
            superuser.execute(
                text(
                    f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'"
                    " TEMPLATE template0"
                )
            )
            url = postgres_server.url.set(drivername="postgresql", database=name)
            with pytest.raises(DatabaseUnsuitable, match=r"SQL_ASCII.*ENCODING 'UTF8'"):
                Database.open(url.render_as_string(hide_password=False))
            superuser.execute(text(f"DROP DATABASE {name}"))

    def test_value_too_large_for_an_index_violates_a_constraint(self, database: Database) -> None:
        long = os.urandom(9_000).hex()
        with pytest.raises(ConstraintViolated):
            deposit(database, long)

    def test_prepared_statements_lost_behind_a_pooler_end_the_connection_only(
        self, database: Database
    ) -> None:
        named = Query(select(ACCOUNTS.c.name).where(ACCOUNTS.c.name == bindparam("name")))

        def find() -> list[Any]:
            with database.transaction() as connection:
                return named(connection, name="a")

        deposit(database, "a")
        for _ in range(8):
            find()
        with database._writing() as connection:
            session: Any = connection.connection.driver_connection
            session.pgconn.exec_(b"DEALLOCATE ALL")  # Unnoticed by psycopg.
        with pytest.raises(DatabaseUnavailable):
            find()
        assert find() == [("a",)]

    def test_dead_machine_is_noticed_by_keepalives(self, database: Database) -> None:
        with database._writing() as connection:
            session: Any = connection.connection.driver_connection
            parameters = session.info.get_parameters()
        probes = int(parameters["keepalives_interval"]) * int(parameters["keepalives_count"])
        assert parameters["keepalives"] == "1"
        assert int(parameters["keepalives_idle"]) + probes <= 11

    def test_server_that_does_not_respond_is_unavailable_within_the_bound(
        self, postgres_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any
    ) -> None:
        monkeypatch.setattr(postgresql, "WRITER_WAIT_SECONDS_MAX", 0.5)
        monkeypatch.setattr(postgresql, "READER_WAIT_SECONDS_MAX", 0.5)
        monkeypatch.setitem(postgresql.CONNECTION_PARAMETERS, "connect_timeout", 2)
        url = make_url(postgres_url)
        with Proxy(url) as proxy, Database.open(proxy.url) as database:
            migrate(database, SERVICE)
            deposit(database, "a")
            proxy.freeze()
            for attempt in deposit, lambda database, _: names(database):
                begun = time.monotonic()
                with pytest.raises(DatabaseUnavailable, match="did not respond within"):
                    attempt(database, "b")
                assert time.monotonic() - begun < 5
            with pytest.raises(DatabaseUnavailable, match="timeout"):
                deposit(database, "b")
            proxy.thaw()
            deposit(database, "c")
            assert names(database) == ["a", "c"]

    def test_server_that_was_replaced_by_its_standby_ends_the_process(
        self, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert database.timeline() == 1
        monkeypatch.setattr(postgresql, "_timeline", lambda _: 2)
        disconnect(database)
        with pytest.raises(DatabaseBroken, match="timeline 2 instead of 1"):
            deposit(database, "a")

    def test_change_of_the_schema_may_take_longer_than_a_wait(
        self, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(postgresql, "WRITER_WAIT_SECONDS_MAX", 0.5)
        with Database.open(postgres_url) as database:
            with database.schema_change() as connection:
                connection.exec_driver_sql("SELECT pg_sleep(1)")
            with pytest.raises(DatabaseUnavailable), database.transaction() as connection:
                connection.exec_driver_sql("SELECT pg_sleep(1)")


class Proxy:
    """Forward a unix socket to PostgreSQL's, and stop forwarding when frozen."""

    def __init__(self, url: URL) -> None:
        folder = Path(f"/tmp/todoku-proxy-{uuid.uuid4().hex[:8]}")
        folder.mkdir()
        self._folder = folder
        self._target = f"{url.query['host']}/.s.PGSQL.5432"
        self.url = url.set(query={"host": str(folder)}).render_as_string(hide_password=False)
        self._flowing = threading.Event()
        self._flowing.set()
        self._sockets: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        self._flowing.clear()

    def thaw(self) -> None:
        self._flowing.set()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._target)
                self._sockets += [client, server]
                for source, target in ((client, server), (server, client)):
                    threading.Thread(
                        target=self._forward, args=(source, target), daemon=True
                    ).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        for each in (self._listener, *self._sockets):
            each.close()
        for file in self._folder.iterdir():
            file.unlink()
        self._folder.rmdir()
