"""Test the database package on SQLite files, SQLite in memory and PostgreSQL."""

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from example_service import ACCOUNTS, ENTRIES, METADATA
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    CheckConstraint,
    Column,
    Engine,
    MetaData,
    Text,
    bindparam,
    delete,
    func,
    insert,
    inspect,
    select,
    text,
    update,
)

from todoku.database import (
    ConstraintViolated,
    Database,
    DatabaseBroken,
    DatabaseError,
    DatabaseInUse,
    DatabaseUnavailable,
    DatabaseUnsuitable,
    Integer64,
    Many,
    Query,
    SchemaMismatch,
    Timestamp,
    among,
    current_revision,
    head_revision,
    insert_ignoring_duplicates,
    migrate,
    postgresql,
    require_current,
    schema_differences,
    sqlite,
    table,
    upsert,
)

database_module = sys.modules["todoku.database.database"]
SERVICE = "example_service"
EXAMPLE = Path(__file__).parent / SERVICE
PATIENCE_SECONDS = 60
KEYED = ACCOUNTS.c.name == bindparam("key")
INSTANTS = st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones())


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Return the URL of a database of each persistent kind."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}[request.param]
    return str(request.getfixturevalue(fixture))


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    """Open a persistent database with the example's tables."""
    with Database.open(url) as opened:
        migrate(opened, SERVICE)
        yield opened


@pytest.fixture(params=["sqlite", "postgresql", "memory"])
def any_database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Open a database of any kind with the example's tables."""
    fixture = {"sqlite": "sqlite_url", "postgresql": "postgres_url"}.get(request.param)
    url = request.getfixturevalue(fixture) if fixture else "sqlite://"
    with Database.open(url) as opened:
        migrate(opened, SERVICE)
        yield opened


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    return tmp_path / "service.db"


def deposit(database: Database, *names: str, balance: int = 1) -> None:
    with database.transaction() as connection:
        connection.execute(insert(ACCOUNTS), [{"name": n, "balance": balance} for n in names])


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return list(connection.scalars(select(ACCOUNTS.c.name).order_by(ACCOUNTS.c.name)))


@contextlib.contextmanager
def other_process(script: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run `script` in another process, which is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(EXAMPLE.parent)},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def outcome(script: str, *arguments: str) -> str:
    """Return what another process prints."""
    with other_process(script, *arguments) as process:
        return process.communicate(timeout=PATIENCE_SECONDS)[0].strip()


def await_that(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


class TestTransactions:
    def test_committed_rows_can_be_read(self, any_database: Database) -> None:
        deposit(any_database, "a", "b")
        assert names(any_database) == ["a", "b"]

    def test_exception_rolls_the_transaction_back(self, any_database: Database) -> None:
        def fail_halfway() -> None:
            with any_database.transaction() as connection:
                connection.execute(insert(ACCOUNTS).values(name="a", balance=1))
                raise KeyError

        with pytest.raises(KeyError):
            fail_halfway()
        assert names(any_database) == []

    def test_violated_constraint_rolls_the_transaction_back(self, any_database: Database) -> None:
        rows = [{"name": "a", "balance": 1}, {"name": "b", "balance": -1}]
        with pytest.raises(ConstraintViolated), any_database.transaction() as connection:
            connection.execute(insert(ACCOUNTS), rows)
        assert names(any_database) == []

    def test_transaction_works_after_a_failed_one(self, any_database: Database) -> None:
        with pytest.raises(ConstraintViolated):
            deposit(any_database, "a", "a")
        deposit(any_database, "a")
        assert names(any_database) == ["a"]

    def test_committed_rows_survive_reopening(self, url: str) -> None:
        with Database.open(url) as database:
            migrate(database, SERVICE)
            deposit(database, "a")
        with Database.open(url) as database:
            assert names(database) == ["a"]

    def test_closed_database_raises(self, any_database: Database) -> None:
        any_database.close()
        with pytest.raises(DatabaseError, match="closed"):
            names(any_database)
        with pytest.raises(DatabaseError, match="closed"):
            deposit(any_database, "a")

    def test_row_locks_compile_on_each_database(self, any_database: Database) -> None:
        deposit(any_database, "a")
        with any_database.transaction() as connection:
            wanted = select(ACCOUNTS.c.name).with_for_update(skip_locked=True)
            assert connection.scalars(wanted).all() == ["a"]

    def test_only_sqlite_is_exclusive(self, database: Database) -> None:
        assert database.exclusive == (database.dialect_name == "sqlite")


class TestReads:
    def test_read_does_not_see_uncommitted_rows(self, database: Database) -> None:
        with database.transaction() as connection:
            connection.execute(insert(ACCOUNTS).values(name="a", balance=1))
            assert names(database) == []
        assert names(database) == ["a"]

    def test_read_sees_one_snapshot(self, database: Database) -> None:
        count = select(func.count()).select_from(ACCOUNTS)
        with database.read() as connection:
            assert connection.scalar(count) == 0
            deposit(database, "a")
            assert connection.scalar(count) == 0
        with database.read() as connection:
            assert connection.scalar(count) == 1

    def test_read_cannot_write(self, database: Database) -> None:
        with pytest.raises(DatabaseError), database.read() as connection:
            connection.execute(insert(ACCOUNTS).values(name="a", balance=1))
        assert names(database) == []

    def test_write_in_a_read_in_memory_is_rolled_back(self) -> None:
        with Database.in_memory() as database:
            migrate(database, SERVICE)
            with database.read() as connection:
                connection.execute(insert(ACCOUNTS).values(name="a", balance=1))
            assert names(database) == []

    def test_several_reads_run_at_once(self, database: Database) -> None:
        with database.read() as one, database.read() as two:
            assert one.scalar(select(func.count()).select_from(ACCOUNTS)) == 0
            assert two.scalar(select(func.count()).select_from(ACCOUNTS)) == 0

    def test_read_beyond_the_pool_is_unavailable(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sqlite, "POOL_WAIT_SECONDS", 0.01)
        monkeypatch.setattr(postgresql, "POOL_WAIT_SECONDS", 0.01)
        with (
            Database.open(url, readers=1) as database,
            database.read(),
            pytest.raises(DatabaseUnavailable, match="in use"),
            database.read(),
        ):
            pass


class TestErrors:
    @pytest.mark.parametrize(
        "row",
        [
            pytest.param({"name": "taken", "balance": 1}, id="unique"),
            pytest.param({"name": "x", "balance": -1}, id="check"),
            pytest.param({"name": "x", "balance": None}, id="not null"),
            pytest.param({"name": "x", "balance": "many"}, id="type"),
            pytest.param({"name": "x", "balance": 2**63}, id="beyond 64 bits"),
            pytest.param({"name": "x", "balance": 2**200}, id="far beyond 64 bits"),
            pytest.param({"name": "\ud800", "balance": 1}, id="half a surrogate pair"),
            pytest.param(
                {"name": "x", "balance": 1, "opened_at": datetime(2025, 1, 1)},
                id="naive time",
            ),
        ],
    )
    def test_row_that_does_not_fit_violates_a_constraint(
        self, any_database: Database, row: dict[str, object]
    ) -> None:
        deposit(any_database, "taken")
        with pytest.raises(ConstraintViolated) as raised, any_database.transaction() as connection:
            connection.execute(insert(ACCOUNTS), [{"opened_at": None, **row}])
        assert raised.value.__cause__ is not None
        assert "INSERT" not in str(raised.value)

    def test_row_without_its_parent_violates_a_constraint(self, any_database: Database) -> None:
        with pytest.raises(ConstraintViolated), any_database.transaction() as connection:
            connection.execute(insert(ENTRIES).values(account="nobody", amount=1))

    def test_wrong_sql_is_a_plain_database_error(self, any_database: Database) -> None:
        with pytest.raises(DatabaseError) as raised, any_database.transaction() as connection:
            connection.execute(text("SELECT * FROM nowhere"))
        assert type(raised.value) is DatabaseError

    def test_exception_of_the_caller_is_not_translated(self, any_database: Database) -> None:
        with pytest.raises(OverflowError), any_database.transaction():
            raise OverflowError

    def test_database_locked_by_another_program_is_unavailable(
        self, sqlite_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sqlite.WRITER_PRAGMAS, "busy_timeout", 1)
        with (
            Database.open(sqlite_file) as database,
            contextlib.closing(sqlite3.connect(sqlite_file, isolation_level=None)) as intruder,
        ):
            intruder.execute("BEGIN IMMEDIATE")
            with pytest.raises(DatabaseUnavailable, match="locked"), database.transaction():
                pass
            intruder.execute("ROLLBACK")
            with database.transaction():
                pass

    def test_rows_locked_by_another_replica_are_unavailable(
        self, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(postgresql.WRITER_SETTINGS, "lock_timeout", "10ms")
        with Database.open(postgres_url) as one, Database.open(postgres_url) as two:
            migrate(one, SERVICE)
            deposit(one, "a")
            with one.transaction() as connection:
                connection.execute(select(ACCOUNTS).with_for_update())
                with pytest.raises(DatabaseUnavailable), two.transaction() as late:
                    late.execute(update(ACCOUNTS).values(balance=2))

    def test_database_accepts_no_writes_while_one_is_stuck_or_has_failed(
        self, any_database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(database_module, "WRITE_SECONDS_MAX", 0.0)
        assert any_database.accepts_writes
        with any_database.transaction():
            assert not any_database.accepts_writes
        assert any_database.accepts_writes
        with contextlib.suppress(DatabaseUnavailable), any_database.transaction():
            raise DatabaseUnavailable
        assert not any_database.accepts_writes
        with contextlib.suppress(ConstraintViolated), any_database.transaction():
            raise ConstraintViolated
        deposit(any_database, "a")
        assert any_database.accepts_writes

    def test_killed_backend_is_replaced(self, postgres_url: str, postgres_server: Engine) -> None:
        with Database.open(postgres_url) as database:
            migrate(database, SERVICE)
            with database.transaction() as connection:
                pid = connection.scalar(select(func.pg_backend_pid()))
            with postgres_server.connect() as superuser:
                # Returns when the backend has ended.
                assert superuser.scalar(select(func.pg_terminate_backend(pid, 60_000)))
            with pytest.raises(DatabaseUnavailable):
                deposit(database, "a")
            deposit(database, "b")
            assert names(database) == ["b"]

    def test_unreachable_server_is_unavailable(self, tmp_path: Path) -> None:
        with pytest.raises(DatabaseUnavailable):
            Database.open(f"postgresql://nobody@/nothing?host={tmp_path}")

    def test_full_disk_is_unavailable_until_there_is_space(self, sqlite_file: Path) -> None:
        with Database.open(sqlite_file) as database:
            migrate(database, SERVICE)
            with database.transaction() as connection:
                pages = connection.scalar(text("PRAGMA page_count"))
                connection.execute(text(f"PRAGMA max_page_count = {pages}"))
            with pytest.raises(DatabaseUnavailable, match="disk is full"):
                deposit(database, *(f"{n:0200}" for n in range(100)))
            with database.transaction() as connection:
                connection.execute(text("PRAGMA max_page_count = 1000000"))
            deposit(database, "a")
            assert names(database) == ["a"]

    def test_failing_write_is_broken(self, sqlite_file: Path) -> None:
        script = """
import resource, sys
from todoku.database import Database, DatabaseError
from sqlalchemy import text
with Database.open(sys.argv[1]) as database:
    with database.transaction() as connection:
        connection.execute(text("CREATE TABLE t (x BLOB) STRICT"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**17, 2**17))
    try:
        with database.transaction() as connection:
            connection.execute(text("INSERT INTO t VALUES (zeroblob(1000000))"))
    except DatabaseError as error:
        print(type(error).__name__, flush=True)
"""
        assert outcome(script, str(sqlite_file)) == "DatabaseBroken"

    def test_file_that_is_no_database_is_broken(self, sqlite_file: Path) -> None:
        sqlite_file.write_bytes(b"something else" * 1000)
        with pytest.raises(DatabaseBroken, match=r"not a database.*restore a backup"):
            Database.open(sqlite_file)

    def test_folder_is_no_database(self, sqlite_file: Path) -> None:
        sqlite_file.mkdir()
        with pytest.raises(DatabaseUnsuitable, match="is a folder: name a file"):
            Database.open(sqlite_file)

    def test_damaged_file_is_broken(self, sqlite_file: Path) -> None:
        with Database.open(sqlite_file) as database:
            migrate(database, SERVICE)
            deposit(database, *(f"{n:0200}" for n in range(1000)))
        with sqlite_file.open("r+b") as file:
            file.seek(8 * 4096)
            file.write(os.urandom(16 * 4096))
        damaged = pytest.raises(DatabaseBroken, match=r"malformed.*restore a backup")
        with Database.open(sqlite_file) as database, damaged:
            names(database)

    @pytest.mark.parametrize(
        "where", ["mysql://localhost/x", "://", "postgresql://h:p/x", "sqlite+aiosqlite:///x"]
    )
    def test_unsupported_database_url_is_refused(self, where: str) -> None:
        with pytest.raises(DatabaseUnsuitable):
            Database.open(where)

    def test_folder_that_cannot_be_created_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DatabaseUnsuitable, match="folder"):
            Database.open(tmp_path / "file" / "service.db")

    def test_missing_postgresql_driver_says_what_to_install(self) -> None:
        script = """
import sys
sys.modules["psycopg"] = None  # as if it were not installed
from todoku.database import Database, DatabaseUnsuitable
try:
    Database.open("postgresql://localhost/x")
except DatabaseUnsuitable as error:
    print(error)
"""
        assert "pip install 'todoku[postgres]'" in outcome(script)

    def test_drivers_and_alembic_are_imported_only_when_used(self) -> None:
        script = """
import sys
import todoku.database
print({"psycopg", "alembic"} & sys.modules.keys())
"""
        assert outcome(script) == "set()"


class TestSqliteFile:
    def test_folder_is_created_for_its_owner_only(self, tmp_path: Path) -> None:
        with Database.open(tmp_path / "deep" / "folder" / "service.db"):
            assert (tmp_path / "deep" / "folder").stat().st_mode & 0o777 == 0o700

    def test_pragmas_for_durability_are_set(self, sqlite_file: Path) -> None:
        with Database.open(sqlite_file) as database, database.transaction() as connection:
            for pragma, value in {
                "journal_mode": "wal",
                "synchronous": 2,
                "busy_timeout": 100,
                "foreign_keys": 1,
                "trusted_schema": 0,
            }.items():
                assert connection.scalar(text(f"PRAGMA {pragma}")) == value

    def test_pages_that_become_free_are_not_written(self, sqlite_file: Path) -> None:
        with Database.open(sqlite_file) as database, database.transaction() as connection:
            assert connection.scalar(text("PRAGMA secure_delete")) == 2

    def test_memory_is_not_counted_where_the_driver_shows_its_library(self, tmp_path: Path) -> None:
        script = f"""
import ctypes, _sqlite3
from pathlib import Path
from todoku.database import Database
from todoku.database.sqlite_memory import count_no_memory
counts = not count_no_memory()
with Database.open(Path({str(tmp_path / "service.db")!r})) as database, database.transaction():
    used = 0 if counts else ctypes.CDLL(_sqlite3.__file__).sqlite3_memory_used()
print(used)
"""
        assert outcome(script) == "0"

    def test_path_with_special_characters_works(self, tmp_path: Path) -> None:
        with Database.open(tmp_path / "100% größer? #1.db") as database:
            migrate(database, SERVICE)
            assert names(database) == []
        assert (tmp_path / "100% größer? #1.db").is_file()

    def test_commit_into_a_deleted_file_raises(self, sqlite_file: Path) -> None:
        with Database.open(sqlite_file) as database:
            migrate(database, SERVICE)
            deposit(database, "a")
            sqlite_file.unlink()
            with pytest.raises(DatabaseBroken, match="deleted"):
                deposit(database, "b")

    def test_clean_close_leaves_one_complete_file(self, sqlite_file: Path) -> None:
        with Database.open(sqlite_file) as database:
            migrate(database, SERVICE)
            deposit(database, "a")
            assert names(database) == ["a"]
        assert not sqlite_file.with_name("service.db-wal").exists()


HOLD = """
import os, sys
from sqlalchemy import insert
from example_service import ACCOUNTS
from todoku.database import Database, migrate
database = Database.open(sys.argv[1])
migrate(database, "example_service")
with database.transaction() as connection:
    connection.execute(insert(ACCOUNTS).values(name="committed", balance=1))
with database.transaction() as connection:
    connection.execute(insert(ACCOUNTS).values(name="uncommitted", balance=1))
    print("ready", flush=True)
    sys.stdin.readline()
    os._exit(1)
"""
"""Open the database, commit one row, write another, and exit when told to."""


@contextlib.contextmanager
def holder(path: Path) -> Iterator["subprocess.Popen[str]"]:
    with other_process(HOLD, str(path)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process


class TestExclusivity:
    def test_second_process_is_refused_with_the_reason(self, sqlite_file: Path) -> None:
        with holder(sqlite_file), pytest.raises(DatabaseInUse) as raised:
            Database.open(sqlite_file)
        assert str(sqlite_file) in str(raised.value)

    def test_other_name_of_the_same_file_is_refused(self, sqlite_file: Path) -> None:
        link = sqlite_file.with_name("link.db")
        with Database.open(sqlite_file):
            link.symlink_to(sqlite_file)
            with pytest.raises(DatabaseInUse):
                Database.open(link)

    def test_killed_holder_releases_the_lock(self, sqlite_file: Path) -> None:
        with holder(sqlite_file) as process:
            process.kill()
            process.wait(PATIENCE_SECONDS)
            with Database.open(sqlite_file) as database:
                assert names(database) == ["committed"]

    def test_waiting_process_gets_the_lock_when_the_holder_ends(self, sqlite_file: Path) -> None:
        script = """
import sys
from todoku.database import Database
print("waiting", flush=True)
with Database.open(sys.argv[1], lock_wait_seconds=60):
    print("opened", flush=True)
"""
        holding = Database.open(sqlite_file)
        with holding, other_process(script, str(sqlite_file)) as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "waiting\n"
            holding.close()
            assert waiting.communicate(timeout=PATIENCE_SECONDS)[0] == "opened\n"

    def test_closing_releases_the_lock(self, sqlite_file: Path) -> None:
        Database.open(sqlite_file).close()
        Database.open(sqlite_file).close()

    def test_failed_open_releases_the_lock(self, sqlite_file: Path) -> None:
        sqlite_file.write_bytes(b"something else" * 1000)
        with pytest.raises(DatabaseBroken):
            Database.open(sqlite_file)
        sqlite_file.unlink()
        Database.open(sqlite_file).close()


class TestReadOnly:
    def test_write_is_refused(self, url: str) -> None:
        with Database.open(url) as database:
            migrate(database, SERVICE)
        with Database.open_read_only(url) as audit:
            with pytest.raises(DatabaseError, match="reading only"):
                deposit(audit, "a")
            assert names(audit) == []

    def test_reading_works_while_a_service_writes(self, sqlite_file: Path) -> None:
        with holder(sqlite_file), Database.open_read_only(sqlite_file) as audit:
            assert names(audit) == ["committed"]

    def test_reading_works_after_a_clean_stop(self, sqlite_file: Path) -> None:
        with Database.open(sqlite_file) as database:
            migrate(database, SERVICE)
            deposit(database, "a")
        with Database.open_read_only(sqlite_file) as audit:
            assert names(audit) == ["a"]
        with Database.open(sqlite_file) as database:
            deposit(database, "b")

    def test_reading_after_a_crash_keeps_the_log(self, sqlite_file: Path) -> None:
        with holder(sqlite_file) as process:
            process.communicate("die\n", timeout=PATIENCE_SECONDS)
        log = sqlite_file.with_name("service.db-wal")
        before = sqlite_file.read_bytes(), log.read_bytes()
        assert before[1], "the crash left no log, so this would prove nothing"
        with Database.open_read_only(sqlite_file) as audit:
            assert names(audit) == ["committed"]
        assert (sqlite_file.read_bytes(), log.read_bytes()) == before

    def test_missing_database_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(DatabaseUnsuitable, match="no database"):
            Database.open_read_only(tmp_path / "service.db")
        assert list(tmp_path.iterdir()) == []


class TestColumns:
    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(times=st.lists(INSTANTS, min_size=1))
    def test_instant_is_returned_exactly_and_in_utc(
        self, any_database: Database, times: list[datetime]
    ) -> None:
        rows = [{"name": str(n), "balance": 0, "opened_at": at} for n, at in enumerate(times)]
        with any_database.transaction() as connection:
            connection.execute(ACCOUNTS.delete())
            connection.execute(insert(ACCOUNTS), rows)
            found = dict(connection.execute(select(ACCOUNTS.c.name, ACCOUNTS.c.opened_at)).all())
        for n, at in enumerate(times):
            assert found[str(n)] == at.astimezone(UTC)
            assert found[str(n)].tzinfo is UTC

    def test_instants_compare_as_instants(self, any_database: Database) -> None:
        noon = datetime(2025, 1, 1, 12, tzinfo=UTC)
        tokyo = noon.astimezone(timezone(timedelta(hours=9)))
        with any_database.transaction() as connection:
            connection.execute(insert(ACCOUNTS).values(name="a", balance=0, opened_at=noon))
            due = select(ACCOUNTS.c.name).where(ACCOUNTS.c.opened_at <= tokyo)
            assert connection.scalars(due).all() == ["a"]

    def test_integers_of_64_bits_fit(self, any_database: Database) -> None:
        amounts = [-(2**63), -1, 0, 2**63 - 1]
        deposit(any_database, "a")
        with any_database.transaction() as connection:
            connection.execute(insert(ENTRIES), [{"account": "a", "amount": n} for n in amounts])
        with any_database.read() as connection:
            found = connection.scalars(select(ENTRIES.c.amount).order_by(ENTRIES.c.id))
            assert found.all() == amounts


class TestStatements:
    def test_duplicates_are_ignored_and_other_rows_inserted(self, any_database: Database) -> None:
        deposit(any_database, "a", balance=1)
        rows = [{"name": name, "balance": 2} for name in "abb"]
        with any_database.transaction() as connection:
            connection.execute(insert_ignoring_duplicates(ACCOUNTS), rows)
        with any_database.read() as connection:
            found = connection.execute(select(ACCOUNTS.c.name, ACCOUNTS.c.balance)).all()
        assert sorted(found) == [("a", 1), ("b", 2)]

    def test_ignoring_duplicates_ignores_no_other_violation(self, any_database: Database) -> None:
        with pytest.raises(ConstraintViolated), any_database.transaction() as connection:
            connection.execute(insert_ignoring_duplicates(ACCOUNTS), [{"name": "a", "balance": -1}])

    def test_upsert_changes_only_the_named_columns(self, any_database: Database) -> None:
        deposit(any_database, "a")
        rows = [{"name": name, "balance": 2, "note": "new"} for name in "ab"]
        with any_database.transaction() as connection:
            connection.execute(upsert(ACCOUNTS, ["name"], ["balance"]), rows)
        with any_database.read() as connection:
            columns = ACCOUNTS.c.name, ACCOUNTS.c.balance, ACCOUNTS.c.note
            found = connection.execute(select(*columns)).all()
        assert sorted(found) == [("a", 2, None), ("b", 2, "new")]

    @pytest.mark.parametrize(
        ("statement", "rows", "left"),
        [
            (delete(ACCOUNTS).where(KEYED), [{"key": "ab"}, {"key": "c"}], ["d"]),
            (
                update(ACCOUNTS).where(KEYED).values(name=bindparam("new")),
                [{"key": "ab", "new": "e"}, {"key": "c", "new": "f"}],
                ["d", "e", "f"],
            ),
        ],
    )
    def test_many_executes_for_each_row(
        self, any_database: Database, statement: Any, rows: list[dict[str, str]], left: list[str]
    ) -> None:
        deposit(any_database, "ab", "c", "d")
        run = Many(statement)
        with any_database.transaction() as connection:
            run(connection, rows)
            run(connection, [])
        assert names(any_database) == left

    @pytest.mark.parametrize("count", [1, 9, 10, 11, 25])
    def test_rows_of_any_number_are_tuples_of_named_columns(
        self, any_database: Database, count: int
    ) -> None:
        """Several are inserted, and deleted, by one statement on SQLite."""
        given = [(None, 1, f"n{number:02}") for number in range(count)]
        insert_rows = Many(insert(ACCOUNTS), ("note", "balance", "name"))
        change = update(ACCOUNTS).where(KEYED).values(balance=bindparam("amount"))
        change_rows = Many(change, ("unused", "amount", "key"))
        wrong = ACCOUNTS.c.balance == bindparam("amount")
        delete_rows = Many(delete(ACCOUNTS).where(KEYED, wrong), ("key", "amount"))
        with any_database.transaction() as connection:
            insert_rows(connection, [*given, ("note", 1, "kept")])
            change_rows(connection, [(None, 2, name) for _, _, name in given])
            delete_rows(connection, [(name, 2) for _, _, name in given[1:]] + [("kept", 2)])
        assert names(any_database) == ["kept", "n00"]

    @pytest.mark.parametrize(
        "notes", [(None, None), ("x", None), (None, "x"), ("x", "y")], ids=lambda notes: str(notes)
    )
    def test_many_inserts_rows_with_and_without_null(
        self, any_database: Database, notes: tuple[str | None, str | None]
    ) -> None:
        rows = [
            {"name": name, "balance": 1, "note": note}
            for name, note in zip("ab", notes, strict=True)
        ]
        insert_rows = Many(insert(ACCOUNTS))
        with any_database.transaction() as connection:
            insert_rows(connection, [{"name": "first", "balance": 1, "note": None}])
            insert_rows(connection, rows)
        with any_database.read() as connection:
            found = connection.execute(select(ACCOUNTS.c.name, ACCOUNTS.c.note)).all()
        assert sorted(found) == [*zip("ab", notes, strict=True), ("first", None)]

    def test_growing_upsert_keeps_larger_values(self, any_database: Database) -> None:
        deposit(any_database, "a", "b", balance=5)
        with any_database.transaction() as connection:
            grow = Many(upsert(ACCOUNTS, ["name"], ["balance"], growing="balance"))
            grow(connection, [{"name": n, "balance": b} for n, b in (("a", 4), ("b", 6), ("c", 1))])
            columns = ACCOUNTS.c.name, ACCOUNTS.c.balance
            assert sorted(connection.execute(select(*columns)).all()) == [
                ("a", 5),
                ("b", 6),
                ("c", 1),
            ]


NAMED = Query(select(ACCOUNTS).where(among(ACCOUNTS.c.name, "names")).order_by(ACCOUNTS.c.name))


class TestQueries:
    @pytest.mark.parametrize("count", [0, 1, 5_000])
    def test_among_finds_rows_for_lists_of_any_length(
        self, any_database: Database, count: int
    ) -> None:
        odd = ["it's", 'a "b"', "[]", "届く", "\\", "%s"]
        deposit(any_database, *odd, "other")
        wanted = [*odd, *(f"nobody {n}" for n in range(count))]
        with any_database.read() as connection:
            found = [row.name for row in NAMED(connection, names=wanted)]
        assert sorted(found) == sorted(odd)

    def test_query_converts_values_of_columns(self, any_database: Database) -> None:
        deposit(any_database, "a", balance=2**62)
        opened = datetime(2030, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
        since = Query(
            select(ACCOUNTS.c.opened_at, ACCOUNTS.c.balance, ACCOUNTS.c.note).where(
                ACCOUNTS.c.opened_at >= bindparam("since"), ACCOUNTS.c.balance > 0
            )
        )
        with any_database.transaction() as connection:
            connection.execute(update(ACCOUNTS).values(opened_at=opened))
            assert since(connection, since=opened) == [(opened, 2**62, None)]
            assert since.scalar(connection, since=opened) == opened
            assert since.scalar(connection, since=opened + timedelta(microseconds=1)) is None

    def test_queries_see_one_snapshot(self, database: Database) -> None:
        deposit(database, "a")
        with database.read() as connection:
            before = NAMED(connection, names=["a", "b"])
            deposit(database, "b")
            assert NAMED(connection, names=["a", "b"]) == before
        with database.read() as connection:
            assert len(NAMED(connection, names=["a", "b"])) == 2

    @pytest.mark.parametrize("name", ["\ud800", "a\0b"])
    def test_value_that_cannot_be_text_is_refused_or_not_found(
        self, any_database: Database, name: str
    ) -> None:
        deposit(any_database, "b")
        with any_database.read() as connection, contextlib.suppress(ConstraintViolated):
            assert NAMED(connection, names=[name]) == []

    def test_errors_of_a_query_are_translated(self, any_database: Database) -> None:
        with any_database.transaction() as connection:
            connection.execute(text("DROP TABLE entries"))
            connection.execute(text("DROP TABLE accounts"))
            with pytest.raises(DatabaseError):
                NAMED(connection, names=["a"])
            connection.rollback()


class TestInMemory:
    def test_copies_of_a_template_are_independent(self) -> None:
        with Database.in_memory() as original:
            migrate(original, SERVICE)
            deposit(original, "a")
            template = original.serialize()
        with Database.in_memory(template) as one, Database.in_memory(template) as two:
            deposit(one, "b")
            with pytest.raises(ConstraintViolated):
                deposit(two, "c", "a")
            assert names(one) == ["a", "b"]
            assert names(two) == ["a"]

    def test_only_a_database_in_memory_can_be_serialized(self, database: Database) -> None:
        with pytest.raises(DatabaseError, match="not in memory"):
            database.serialize()


@pytest.fixture
def older_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create the example before its second migration."""
    return package(tmp_path, monkeypatch, "older_service", ["0001_accounts.py"])


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, revisions: list[str]) -> str:
    """Create a service with some of the example's migrations, importable as `name`."""
    target = folder / name / "migrations"
    target.mkdir(parents=True)
    target.with_name("__init__.py").touch()
    for revision in revisions:
        shutil.copy(EXAMPLE / "migrations" / revision, target)
    monkeypatch.syspath_prepend(str(folder))
    return name


class TestMigrations:
    def test_empty_database_gets_the_newest_tables(self, url: str) -> None:
        with Database.open(url) as database:
            assert current_revision(database) is None
            migrate(database, SERVICE)
            assert current_revision(database) == head_revision(SERVICE) == "0002"
            require_current(database, SERVICE)

    def test_older_database_keeps_its_rows(self, url: str, older_service: str) -> None:
        with Database.open(url) as database:
            migrate(database, older_service)
            with database.transaction() as connection:
                connection.execute(text("INSERT INTO accounts (name, balance) VALUES ('a', 7)"))
                connection.execute(insert(ENTRIES).values(account="a", amount=7))
            with pytest.raises(SchemaMismatch, match=r"0001 .* needs 0002"):
                require_current(database, SERVICE)
            migrate(database, SERVICE)
            with database.read() as connection:
                assert connection.execute(select(ENTRIES.c.amount)).all() == [(7,)]
                assert connection.execute(select(ACCOUNTS.c.balance)).all() == [(7,)]

    def test_rebuilt_table_is_as_strict_as_before(self, any_database: Database) -> None:
        """The table that the second migration rebuilds on SQLite is still STRICT, checked and clustered."""
        with any_database.read() as connection:
            options = inspect(connection).get_table_options("accounts")
            checks = inspect(connection).get_check_constraints("accounts")
        assert [check["name"] for check in checks] == ["balance_not_negative"]
        if any_database.dialect_name == "sqlite":
            assert options == {"sqlite_strict": True, "sqlite_with_rowid": False}

    def test_foreign_keys_are_enforced_again_afterwards(self, any_database: Database) -> None:
        with pytest.raises(ConstraintViolated), any_database.transaction() as connection:
            connection.execute(insert(ENTRIES).values(account="nobody", amount=1))

    def test_newer_database_is_refused(self, database: Database, older_service: str) -> None:
        for refuse in migrate, require_current:
            with pytest.raises(SchemaMismatch, match="newer version was here"):
                refuse(database, older_service)
        assert current_revision(database) == "0002"

    def test_failed_migration_leaves_the_old_tables(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        service = package(tmp_path, monkeypatch, "clumsy_service", ["0001_accounts.py"])
        (tmp_path / service / "migrations" / "0002_clumsy.py").write_text(
            "from alembic import op\n"
            "def upgrade():\n"
            "    op.drop_table('entries')\n"
            "    raise ZeroDivisionError\n"
        )
        with Database.open(url) as database:
            with pytest.raises(ZeroDivisionError):
                migrate(database, service)
            assert current_revision(database) is None

    def test_two_migrations_of_one_number_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As after a merge of two branches: one of them would never be executed."""
        service = package(tmp_path, monkeypatch, "merged_service", ["0001_accounts.py"])
        other = tmp_path / service / "migrations" / "0001_audit.py"
        other.write_text("def upgrade(): pass\n")
        with (
            Database.in_memory() as database,
            pytest.raises(ValueError, match=r"0001_accounts\.py and 0001_audit\.py"),
        ):
            migrate(database, service)

    def test_processes_that_start_together_take_turns(
        self, postgres_url: str, postgres_server: Engine
    ) -> None:
        """Two replicas wait for one lock; released together, both find the tables up to date."""
        admin = Database.open(postgres_url)
        waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        with admin, contextlib.ExitStack() as replicas:
            with admin.schema_change(), postgres_server.connect() as superuser:
                started = [
                    replicas.enter_context(other_process(MIGRATE, postgres_url)) for _ in range(2)
                ]
                await_that(lambda: superuser.scalar(waiting) == 2)
            for process in started:
                assert process.communicate(timeout=PATIENCE_SECONDS)[0] == "0002\n"

    def test_processes_that_start_together_on_one_file_take_turns(self, sqlite_file: Path) -> None:
        with contextlib.ExitStack() as processes:
            started = [
                processes.enter_context(other_process(MIGRATE, str(sqlite_file))) for _ in range(2)
            ]
            for process in started:
                assert process.communicate(timeout=PATIENCE_SECONDS)[0] == "0002\n"

    def test_when_there_is_nothing_to_do_alembic_is_not_imported(self, sqlite_file: Path) -> None:
        assert outcome(MIGRATE, str(sqlite_file)) == "0002"
        script = MIGRATE + "\nprint('alembic' in sys.modules)"
        assert outcome(script, str(sqlite_file)) == "0002\nFalse"

    def test_one_version_may_be_left_out_of_the_numbers(
        self, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So a service's own migration can have a number of its own, above those of Todoku."""
        service = package(tmp_path, monkeypatch, "own_service", ["0001_accounts.py"])
        own = tmp_path / service / "migrations" / "0100_own.py"
        with Database.open(url) as database:
            migrate(database, service)
            own.write_text("from alembic import op\ndef upgrade():\n    op.drop_table('entries')\n")
            migrate(database, service)
            assert current_revision(database) == head_revision(service) == "0100"
            with database.read() as connection:
                assert not inspect(connection).has_table("entries")


MIGRATE = """
import sys
from todoku.database import Database, current_revision, migrate
with Database.open(sys.argv[1], lock_wait_seconds=60) as database:
    migrate(database, "example_service")
    print(current_revision(database))
"""


class TestSchemaDifferences:
    def test_the_migrated_tables_are_those_that_are_declared(self, any_database: Database) -> None:
        assert schema_differences(any_database, METADATA) == []

    def test_what_was_forgotten_in_a_migration_is_found(self, any_database: Database) -> None:
        declared = MetaData()
        for known in METADATA.tables.values():
            known.to_metadata(declared)
        declared.tables["accounts"].append_column(Column("forgotten", Integer64))
        table("also_forgotten", declared, Column("at", Timestamp, primary_key=True))
        found = " ".join(schema_differences(any_database, declared))
        assert "forgotten" in found
        assert "also_forgotten" in found

    def test_a_forgotten_check_is_found(self, any_database: Database) -> None:
        declared = MetaData()
        accounts = ACCOUNTS.to_metadata(declared)
        accounts.append_constraint(CheckConstraint("name <> ''", name="name_not_empty"))
        assert "name_not_empty" in " ".join(schema_differences(any_database, declared))

    def test_a_table_that_is_not_strict_is_found(self) -> None:
        with Database.in_memory() as database:
            with database.transaction() as connection:
                connection.execute(text("CREATE TABLE loose (at INTEGER NOT NULL PRIMARY KEY)"))
            declared = MetaData()
            table("loose", declared, Column("at", Timestamp, primary_key=True))
            assert schema_differences(database, declared) == ["loose: sqlite_strict is False"]

    def test_a_wrong_type_is_found(self, any_database: Database) -> None:
        declared = MetaData()
        table("entries", declared, Column("id", Integer64), Column("amount", Text))
        assert "modify_type" in " ".join(schema_differences(any_database, declared))
