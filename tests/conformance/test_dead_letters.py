"""Dead letters are kept alike in SQLite and in PostgreSQL."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest

from todoku.broker import Delivery
from todoku.contracts import OrderCreatedEvent, OrderedItem, encode, seal
from todoku.database import Database, migrate
from todoku.engine import Topology
from todoku.engine.dead_letters import (
    Attempt,
    DeadLetter,
    DeadLetterState,
    DiscardDeadLetter,
    EditDeadLetter,
    RedeliveryFailed,
    RetryDeadLetter,
    RetryDeadLetters,
    group_of,
)
from todoku.engine.messages import IncomingEvent, PendingCommand
from todoku.engine.writer import Writer
from todoku.inventory.service import inventory_service
from todoku.orders.parking import ParkedMessage
from todoku.orders.store import find_parked, parked_messages
from todoku.settings import Settings

inventory = inventory_service(Settings())

NOW: Final = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
LETTERS: Final = inventory.store.tables.dead_letters


@pytest.fixture(params=["sqlite_url", "postgres_url"], ids=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated database of the inventory."""
    with Database.open(request.getfixturevalue(request.param)) as database:
        migrate(database, "todoku.inventory")
        yield database


def letter(n: int, *, error: str = "NoSuchThing: order 1", seconds: int = 0) -> DeadLetter:
    return DeadLetter(
        id=f"0198c2f0-7b1a-8c3e-9d55-{n:012x}",
        subject="orders.created",
        body=b"\x00\xff",
        headers='{"a":"b"}',
        event_id=f"event {n}",
        event_type="OrderCreatedEvent",
        key=f"order {n % 2}",
        parked_at=NOW + timedelta(seconds=seconds),
        attempts=1,
        error=error,
        traceback="Traceback",
        error_group=group_of(error),
    )


def park(database: Database, *letters: DeadLetter) -> None:
    attempts = [Attempt(letter_id=one.id, at=NOW, error=one.error) for one in letters]
    with database.transaction() as connection:
        LETTERS.park(connection, letters, attempts)


def test_a_letter_comes_back_as_it_was_parked_and_is_parked_once(database: Database) -> None:
    park(database, letter(1))
    park(database, msgspec.structs.replace(letter(1), body=b"other"))
    with database.read() as connection:
        assert LETTERS.get(connection, letter(1).id) == letter(1)
        assert LETTERS.get(connection, letter(2).id) is None


def test_pages_begin_behind_the_letter_before_also_where_all_were_parked_at_once(
    database: Database,
) -> None:
    park(database, *(letter(n, seconds=n // 4) for n in range(9)))
    seen: list[str] = []
    before = None
    with database.read() as connection:
        while page := LETTERS.page(
            connection,
            state=DeadLetterState.PARKED,
            key=None,
            group=None,
            before=before,
            limit=2,
        ):
            seen += [one.id for one in page]
            before = page[-1].parked_at, page[-1].id
    assert seen == [letter(n).id for n in reversed(range(9))]


def test_letters_are_grouped_by_the_shape_of_their_errors(database: Database) -> None:
    alike = [letter(n, error=f"NoSuchThing: order {n}", seconds=n) for n in range(3)]
    park(database, *alike, letter(7, error="Other: 'x'"))
    with database.read() as connection:
        first, second = LETTERS.groups(connection)
    assert (first.shape, first.letters, first.keys) == ("NoSuchThing: order …", 3, 2)
    assert (first.first_parked_at, first.last_parked_at) == (NOW, NOW + timedelta(seconds=2))
    assert (second.shape, second.letters) == ("Other: …", 1)


def test_retries_fall_due_one_after_the_other(database: Database) -> None:
    park(database, *(letter(n, seconds=n) for n in range(3)))
    with database.transaction() as connection:
        assert LETTERS.schedule(connection, letter(0).error_group, NOW, 0.5, "alice") == 3
        assert LETTERS.next_retry_at(connection) == NOW
        due = LETTERS.to_retry(connection, NOW + timedelta(seconds=2), 10)
    assert due == [(letter(0).id, "alice"), (letter(1).id, "alice")]


def test_each_thing_that_can_be_done_with_a_letter_is_written_down(database: Database) -> None:
    writer = Writer(inventory, database, Topology([inventory]), owner="test")

    def ask(command: Any) -> Any:
        ((_, answer),) = writer.step([PendingCommand(command, lambda _: None)], NOW, 0).answers
        return answer

    def parked(n: int) -> str:
        order_id = f"0198c2f0-7b1a-7c3e-9d55-{n:012x}"
        event = OrderCreatedEvent(order_id=order_id, user_id="u", items=(), total_amount=1)
        envelope = seal(event, NOW)
        delivery = Delivery(event.subject, encode(envelope), 99, n, token=None)
        writer.step([IncomingEvent(delivery, envelope, event)], NOW, 0)
        return envelope.id

    item = OrderedItem(product_id="prod001", quantity=1, price=1)
    retried, edited, discarded = (parked(n) for n in range(3))
    assert isinstance(ask(RetryDeadLetter(letter_id=retried, by="alice")), RedeliveryFailed)
    with database.read() as connection:
        before = LETTERS.get(connection, edited)
    assert before is not None
    data = msgspec.json.decode(before.body)["data"] | {"items": msgspec.to_builtins([item])}
    successor = ask(EditDeadLetter(letter_id=edited, data=msgspec.json.encode(data), by="alice"))
    assert ask(DiscardDeadLetter(letter_id=discarded, reason="noise", by="alice")).reason == "noise"
    assert ask(RetryDeadLetters(per_second=1)).count == 1
    writer.step([], NOW, 0)
    with database.read() as connection:
        states = {key: LETTERS.get(connection, key) for key in (retried, edited, discarded)}
        history = LETTERS.attempts_at(connection, retried)
    assert {one.state: one.attempts for one in states.values() if one} == {
        DeadLetterState.PARKED: 101,
        DeadLetterState.EDITED: 99,
        DeadLetterState.DISCARDED: 99,
    }
    assert [attempt.asked_by for attempt in history] == [None, "alice", None]
    assert (successor.state, successor.replaces) == (DeadLetterState.RETRIED, edited)


def test_orders_stores_parked_messages_of_other_services(request: pytest.FixtureRequest) -> None:
    for name in ("sqlite_url", "postgres_url"):
        with Database.open(request.getfixturevalue(name)) as database:
            migrate(database, "todoku.orders")
            waits = ParkedMessage(
                service="inventory",
                letter_id="letter",
                order_id="order",
                message_type="OrderCreatedEvent",
                error="NoSuchThing",
                parked_at=NOW,
            )
            with database.transaction() as connection:
                parked_messages.save(connection, [waits])
                assert find_parked(connection, ["order", "other"]) == {"order": [waits]}
                parked_messages.save(connection, [msgspec.structs.replace(waits, closed=True)])
                assert find_parked(connection, ["order"]) == {}
                assert find_parked(connection, []) == {}
