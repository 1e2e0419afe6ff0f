"""Failed attempts to book a parcel are published: at most one a minute of each shipment."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Final

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from todoku.contracts import (
    BookingAttemptFailedEvent,
    ReservedItem,
    ShipmentInitiatedEvent,
    StockReservedEvent,
    fact_id,
)
from todoku.database import Database, migrate
from todoku.engine import StateCache
from todoku.events import Event
from todoku.shipping.answers import checked_answer
from todoku.shipping.domain import (
    PUBLISHED_EVERY,
    Accepted,
    Answer,
    RecordAnswer,
    Shipment,
    ShipmentStatus,
    Unknown,
    initiate_shipment,
    record_answer,
    when_due,
)
from todoku.shipping.recovery import replay_failed_attempt, replay_initiated
from todoku.shipping.store import ShippingStore

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
SECOND: Final = timedelta(seconds=1)
RESERVED: Final = StockReservedEvent(
    order_id=ORDER_ID,
    items=(ReservedItem(product_id="prod001", quantity=2),),
    shipping_address="1-1 Chiyoda",
)
NO_ANSWER: Final = Unknown("no answer")
INITIATED: Final = ShipmentInitiatedEvent(
    order_id=ORDER_ID, shipment_id=fact_id(ORDER_ID, "Shipment")
)


def opened() -> Shipment:
    return initiate_shipment(None, RESERVED, NOW, pickup_delay=lambda _: timedelta(0))[0]


def attempt(
    shipment: Shipment, at: datetime, answer: Answer = NO_ANSWER
) -> tuple[Shipment, list[Event]]:
    """Call the carrier when it is due, and record its answer."""
    claimed, _ = when_due(shipment, at)
    return record_answer(claimed, RecordAnswer(order_id=ORDER_ID, answer=answer), at)


def test_first_failed_attempt_is_published_at_once() -> None:
    after, events = attempt(opened(), NOW, Unknown("no answer"))
    assert events == [
        BookingAttemptFailedEvent(
            order_id=ORDER_ID,
            shipment_id=after.id,
            attempts=1,
            error="no answer",
            next_attempt_at=NOW + 2 * SECOND,
        )
    ]


def test_next_one_is_published_after_a_minute_with_the_number_of_all_attempts() -> None:
    shipment, _ = attempt(opened(), NOW)
    shipment, silent = attempt(shipment, NOW + PUBLISHED_EVERY - SECOND)
    _, (event,) = attempt(shipment, NOW + PUBLISHED_EVERY)
    assert silent == []
    assert isinstance(event, BookingAttemptFailedEvent)
    assert event.attempts == 3


@given(pauses=st.lists(st.integers(-7_200, 7_200), max_size=30))
def test_between_two_of_them_there_is_a_minute_by_the_clock_wherever_it_is_set(
    pauses: list[int],
) -> None:
    shipment, now, published = opened(), NOW, []
    for pause in pauses:
        now += pause * SECOND
        shipment, events = attempt(shipment, now)
        published += [now for _ in events]
    assert all(abs(after - before) >= PUBLISHED_EVERY for before, after in pairwise(published))
    assert bool(published) == bool(pauses)


def test_secret_in_the_reason_of_a_carrier_is_hidden() -> None:
    answer = checked_answer(Unknown("POST https://user:hunter2@carrier.example/book: timed out"))
    _, (event,) = attempt(opened(), NOW, answer)
    assert isinstance(event, BookingAttemptFailedEvent)
    assert "hunter2" not in event.error
    assert "carrier.example" in event.error


def test_restored_shipment_knows_its_attempts_and_when_one_was_published() -> None:
    shipment, now = opened(), NOW
    for _ in range(3):
        now += PUBLISHED_EVERY
        shipment, (event,) = attempt(shipment, now)
    assert isinstance(event, BookingAttemptFailedEvent)
    restored, _ = replay_failed_attempt(opened(), event, now)
    assert (restored.attempts, restored.reason) == (3, "no answer")
    assert restored.failure_published_at == shipment.failure_published_at
    assert restored.pivot_passed, "nothing can be cancelled any more"
    assert attempt(restored, now + SECOND)[1] == []
    assert replay_failed_attempt(shipment, event, now)[0] == shipment


def test_replay_of_a_failed_attempt_changes_no_ending() -> None:
    shipment, (event,) = attempt(opened(), NOW)
    assert isinstance(event, BookingAttemptFailedEvent)
    completed, _ = attempt(shipment, NOW, Accepted("SIM-1"))
    assert replay_failed_attempt(completed, event, NOW) == (completed, [])


def test_shipment_that_was_lost_has_its_attempts_when_it_is_opened_again() -> None:
    _, (event,) = attempt(opened(), NOW)
    assert isinstance(event, BookingAttemptFailedEvent)
    expected, _ = replay_initiated(None, INITIATED, NOW)
    expected, _ = replay_failed_attempt(expected, event, NOW)
    reopened, _ = initiate_shipment(expected, RESERVED, NOW, pickup_delay=lambda _: timedelta(0))
    assert (reopened.status, reopened.attempts) == (ShipmentStatus.INITIATED, 1)
    assert (reopened.reason, reopened.failure_published_at) == ("no answer", NOW)
    assert attempt(reopened, NOW + SECOND)[1] == [], "published again within the minute"


def test_when_an_attempt_was_published_is_stored() -> None:
    shipment, _ = attempt(opened(), NOW)
    with Database.in_memory() as database:
        migrate(database, "todoku.shipping")
        _save(database, opened())
        _save(database, shipment)
        later = msgspec.structs.replace(shipment, attempts=2, updated_at=NOW + SECOND)
        _save(database, later)
        assert _load(database) == later


def _save(database: Database, shipment: Shipment) -> None:
    with database.transaction() as connection:
        unit_of_work = ShippingStore().load(connection, [RESERVED], StateCache(0))
        unit_of_work.put(RESERVED, shipment)
        ShippingStore().save(connection, unit_of_work, NOW)


def _load(database: Database) -> Shipment | None:
    with database.read() as connection:
        return ShippingStore().load(connection, [RESERVED], StateCache(0)).view(RESERVED)
