"""The feed in a database that several processes write to: PostgreSQL."""

import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, text

from todoku.database import Database, migrate, migrations
from todoku.orders.feed import ARRIVALS_MAX
from todoku.orders.feed_pages import read_page
from todoku.orders.store import feed, history_entries

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def database(postgres_url: str) -> Iterator[Database]:
    with Database.open(postgres_url) as database:
        migrate(database, "todoku.orders")
        yield database


@pytest.fixture
def other(database: Database, postgres_url: str) -> Iterator[Database]:
    """The same database, opened by another process."""
    with Database.open(postgres_url) as other:
        yield other


def add(connection: Connection, *names: str) -> None:
    feed.add(connection, [("order", name) for name in names], NOW)


def names(database: Database) -> list[str]:
    with database.read() as connection:
        return [entry.event_id for entry in feed.read(connection, 0, 1_000)]


def sequence(database: Database) -> int:
    with database.transaction() as connection:
        return feed.sequence(connection)


def test_arrivals_are_numbered_without_a_gap(database: Database) -> None:
    for batch in (("a", "b"), ("c",), ("d", "e", "f")):
        with database.transaction() as connection:
            add(connection, *batch)
    assert names(database) == []
    assert sequence(database) == 3
    assert sequence(database) == 0
    assert names(database) == ["a", "b", "c", "d", "e", "f"]
    with database.read() as connection:
        assert [entry.position for entry in feed.read(connection, 0, 10)] == [1, 2, 3, 4, 5, 6]


def test_open_transaction_delays_its_own_events_only_and_loses_none(
    database: Database, other: Database
) -> None:
    """The one that began first commits last: its place is behind what was read meanwhile."""
    with database.transaction() as slow:
        add(slow, "slow")
        with other.transaction() as connection:
            add(connection, "quick")
        assert sequence(other) == 1
        assert names(other) == ["quick"]
    assert sequence(other) == 1
    assert names(other) == ["quick", "slow"]


def test_effect_comes_behind_its_cause_although_its_transaction_began_before(
    database: Database, other: Database
) -> None:
    with database.transaction() as late:
        late.execute(text("SELECT pg_current_xact_id()"))  # Its number is the lower one.
        with other.transaction() as connection:
            add(connection, "cause")
        add(late, "effect")
    assert sequence(database) == 2
    assert names(database) == ["cause", "effect"]


def test_rolled_back_batch_leaves_no_gap(database: Database) -> None:
    with suppress(KeyError), database.transaction() as connection:
        add(connection, "lost")
        raise KeyError
    with database.transaction() as connection:
        add(connection, "kept")
    sequence(database)
    with database.read() as connection:
        assert [(e.position, e.event_id) for e in feed.read(connection, 0, 10)] == [(1, "kept")]


def test_two_processes_do_not_put_batches_into_the_feed_at_once(
    database: Database, other: Database
) -> None:
    with other.transaction() as connection:
        add(connection, "a")
    with database.transaction() as connection:
        assert feed.sequence(connection) == 1
        assert sequence(other) == 0
    assert names(other) == ["a"]


def test_many_arrivals_take_several_transactions(database: Database) -> None:
    with database.transaction() as connection:
        for n in range(ARRIVALS_MAX + 1):
            add(connection, str(n))
    assert [sequence(database) for _ in range(3)] == [ARRIVALS_MAX, 1, 0]
    assert names(database) == [str(n) for n in range(ARRIVALS_MAX + 1)]


OLD = text(
    "INSERT INTO order_events (order_id, event_id, sequence, type, source, said_at, recorded_at, status,"
    " data) VALUES (:order, :event, :sequence, 'OrderCreatedEvent', 'orders', 0, :at, 'PENDING', '{}')"
)


def record(connection: Connection, order: str, event: str, sequence: int, at: int) -> None:
    """Record an event as a program does that does not know the feed."""
    row = {"order": order, "event": event, "sequence": sequence, "at": at}
    connection.execute(OLD, row)


def test_events_that_the_version_before_records_are_in_the_feed(database: Database) -> None:
    order = str(uuid.uuid4())
    with database.transaction() as connection:
        record(connection, order, "of the version before", 1, at=1)
    sequence(database)
    with database.read() as connection:
        page = read_page(connection, None, 10)
    assert [event.event_id for _, event in page.events] == ["of the version before"]
    assert page.complete


@pytest.mark.parametrize("kind", ["sqlite_url", "postgres_url"])
def test_events_from_before_the_feed_are_in_it(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind all that their orders had recorded before, also if the clock was set back in between."""
    with Database.open(request.getfixturevalue(kind)) as database:
        with monkeypatch.context() as before:
            files = {n: f for n, f in migrations._files("todoku.orders").items() if n < "0011"}
            before.setattr(migrations, "_files", lambda _: files)
            migrate(database, "todoku.orders")
        with database.transaction() as connection:
            record(connection, "a", "a1", 1, at=10)
            record(connection, "a", "a2", 2, at=5)
            record(connection, "b", "b1", 1, at=7)
            record(connection, "b", "b2", 2, at=11)
            for n in range(1, 500):
                record(connection, "c", f"c{n}", n, at=20)
        migrate(database, "todoku.orders")
        with database.read() as connection:
            found = [entry.event_id for entry in feed.read(connection, 0, 1_000)]
            keys = [("a", "a2"), ("c", "c7")]
            assert history_entries(connection, keys).keys() == set(keys)
    assert found == ["b1", "a1", "a2", "b2", *(f"c{n}" for n in range(1, 500))]
