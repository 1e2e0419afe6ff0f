"""The connection that writes is kept from one transaction to the next."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, text

from todoku.database import Database, DatabaseError, DatabaseUnavailable
from todoku.database.kept_connection import KeptConnection


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Database.open(tmp_path / "kept.db") as opened:
        yield opened


def used(database: Database) -> Connection:
    with database.transaction() as connection:
        return connection


def test_transactions_use_the_same_connection(database: Database) -> None:
    assert used(database) is used(database)


def test_connection_that_raised_is_given_back(database: Database) -> None:
    before = used(database)
    with pytest.raises(DatabaseError), database.transaction() as connection:
        connection.execute(text("SELECT nothing FROM nowhere"))
    assert before.closed
    assert used(database) is not before


def test_connection_is_lent_to_one_caller_at_a_time(database: Database) -> None:
    writer = database._writer
    assert writer is not None
    kept = KeptConnection(writer.connect, wait_seconds=0.0)
    with kept, pytest.raises(DatabaseUnavailable, match="other transactions"), kept:
        raise AssertionError("it was lent twice")
    with kept as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    kept.close()


def test_failure_to_connect_leaves_it_free() -> None:
    failures = iter([DatabaseUnavailable("down"), DatabaseUnavailable("still down")])

    def connect() -> Connection:
        raise next(failures)

    kept = KeptConnection(connect, wait_seconds=0.0)
    for why in ("^down", "^still down"):
        with pytest.raises(DatabaseUnavailable, match=why), kept:
            raise AssertionError("there is no connection")


def test_closed_database_keeps_no_connection(tmp_path: Path) -> None:
    path = tmp_path / "closed.db"
    with Database.open(path) as database:
        used(database)
    assert not path.with_name("closed.db-wal").exists()
    with pytest.raises(DatabaseError, match="was closed"), database.transaction():
        pass
