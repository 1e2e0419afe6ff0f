"""Tests of a shipment and its decisions, without any I/O."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from todoku.contracts import (
    BookingAttemptFailedEvent,
    Event,
    ReservedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    StockReservedEvent,
    fact_id,
)
from todoku.shipping.domain import (
    BACKOFF_SECONDS_MAX,
    CLAIM_SECONDS,
    Accepted,
    Answer,
    BookParcel,
    Parcel,
    RecordAnswer,
    Rejected,
    Shipment,
    ShipmentStatus,
    Unknown,
    UnknownShipment,
    initiate_shipment,
    record_answer,
    when_due,
)
from todoku.shipping.recovery import republish_shipment
from todoku.shipping.service import bookings

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
SHIPMENT_ID: Final = fact_id(ORDER_ID, "Shipment")
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)
DELAY: Final = timedelta(seconds=3)
ITEMS: Final = (ShippedItem(product_id="prod001", quantity=2),)

RESERVED = StockReservedEvent(
    order_id=ORDER_ID,
    items=(ReservedItem(product_id="prod001", quantity=2),),
    shipping_address="1-1 Chiyoda",
)

ACCEPTED: Final = Accepted("SIM-1")
REJECTED: Final = Rejected("no room")
UNKNOWN: Final = Unknown("no answer in time")


def initiate(shipment: Shipment | None = None, now: datetime = NOW) -> tuple[Shipment, list[Event]]:
    return initiate_shipment(shipment, RESERVED, now, pickup_delay=lambda _: DELAY)


def record(shipment: Shipment | None, answer: Answer) -> tuple[Shipment, list[Event]]:
    return record_answer(shipment, RecordAnswer(order_id=ORDER_ID, answer=answer), LATER)


def shipment_that_is(status: ShipmentStatus) -> Shipment:
    """Return a shipment that reached this status the usual way."""
    shipment, _ = initiate()
    if status is not ShipmentStatus.INITIATED:
        shipment, _ = when_due(shipment, NOW + DELAY)
    if status is ShipmentStatus.COMPLETED:
        shipment, _ = record(shipment, ACCEPTED)
    if status is ShipmentStatus.FAILED:
        shipment, _ = record(shipment, REJECTED)
    assert shipment.status is status
    return shipment


OPENED: Final = (
    ShipmentStatus.INITIATED,
    ShipmentStatus.BOOKING,
    ShipmentStatus.COMPLETED,
    ShipmentStatus.FAILED,
)
"""The statuses of a shipment of which nothing was cancelled."""


class TestInitiating:
    def test_shipment_has_the_reserved_items_and_is_due_after_the_delay(self) -> None:
        shipment, events = initiate()
        assert shipment == Shipment(
            id=SHIPMENT_ID,
            order_id=ORDER_ID,
            items=ITEMS,
            shipping_address="1-1 Chiyoda",
            status=ShipmentStatus.INITIATED,
            attempts=0,
            due_at=NOW + DELAY,
            created_at=NOW,
            updated_at=NOW,
        )
        assert events == [
            ShipmentInitiatedEvent(
                order_id=ORDER_ID, shipment_id=SHIPMENT_ID, shipping_address="1-1 Chiyoda"
            )
        ]

    def test_delay_depends_on_the_shipment_id(self) -> None:
        asked: list[str] = []

        def pickup_delay(shipment_id: str) -> timedelta:
            asked.append(shipment_id)
            return DELAY

        initiate_shipment(None, RESERVED, NOW, pickup_delay=pickup_delay)
        assert asked == [SHIPMENT_ID]

    @pytest.mark.parametrize("status", OPENED)
    def test_order_has_one_shipment(self, status: ShipmentStatus) -> None:
        shipment = shipment_that_is(status)
        assert initiate(shipment, LATER) == (shipment, [])


class TestRepublishing:
    def test_open_shipment_republishes_its_initiated_event_unchanged(self) -> None:
        shipment, events = initiate()
        assert republish_shipment(shipment) == [(events[0], NOW)]
        booking = shipment_that_is(ShipmentStatus.BOOKING)
        assert republish_shipment(booking) == [(events[0], NOW)]

    @pytest.mark.parametrize("answer", [ACCEPTED, REJECTED])
    def test_ended_shipment_republishes_its_last_event_unchanged(self, answer: Answer) -> None:
        ended, (event,) = record(shipment_that_is(ShipmentStatus.BOOKING), answer)
        assert republish_shipment(ended) == [(event, LATER)]

    def test_order_without_shipment_republishes_nothing(self) -> None:
        assert republish_shipment(None) == []


class TestClaiming:
    def test_due_shipment_is_claimed_before_the_carrier_is_called(self) -> None:
        before, now = shipment_that_is(ShipmentStatus.INITIATED), NOW + DELAY
        claimed, effects = when_due(before, now)
        assert claimed == msgspec.structs.replace(
            before,
            status=ShipmentStatus.BOOKING,
            attempts=1,
            due_at=now + timedelta(seconds=CLAIM_SECONDS),
            updated_at=now,
        )
        assert effects == [
            BookParcel(
                shipment_id=SHIPMENT_ID,
                order_id=ORDER_ID,
                parcel=Parcel(order_id=ORDER_ID, items=ITEMS, shipping_address="1-1 Chiyoda"),
                attempt=1,
            )
        ]

    @pytest.mark.parametrize("status", [ShipmentStatus.INITIATED, ShipmentStatus.BOOKING])
    def test_shipment_is_due_at_its_time_and_not_a_microsecond_before(
        self, status: ShipmentStatus
    ) -> None:
        """By the window of the agenda; the domain decides on what the engine finds to be due."""
        due_at = shipment_that_is(status).due_at
        assert due_at is not None
        assert bookings().window(due_at).has_come(due_at)
        assert not bookings().window(due_at - timedelta(microseconds=1)).has_come(due_at)

    def test_expired_claim_is_repeated_with_the_same_key(
        self,
    ) -> None:
        claimed = shipment_that_is(ShipmentStatus.BOOKING)
        assert claimed.due_at is not None
        again, effects = when_due(claimed, claimed.due_at)
        assert (again.attempts, effects[0].attempt, effects[0].shipment_id) == (2, 2, SHIPMENT_ID)

    @pytest.mark.parametrize("status", [ShipmentStatus.COMPLETED, ShipmentStatus.FAILED])
    def test_ended_shipment_is_never_due(self, status: ShipmentStatus) -> None:
        shipment = shipment_that_is(status)
        assert when_due(shipment, NOW + timedelta(days=365)) == (shipment, [])


ANSWERS: Final = {
    #                          Accepted                  Rejected               Unknown
    ShipmentStatus.INITIATED: (None,                     None,                  None),
    ShipmentStatus.BOOKING:   (ShipmentStatus.COMPLETED, ShipmentStatus.FAILED, "retry"),
    ShipmentStatus.COMPLETED: (None,                     None,                  None),
    ShipmentStatus.FAILED:    (None,                     None,                  None),
}  # fmt: skip
"""Every status × every answer: the new status; None where the answer changes nothing."""


class TestAnswers:
    def test_matrix_covers_every_status(self) -> None:
        assert set(ANSWERS) == set(OPENED)

    @pytest.mark.parametrize("status", [s for s, row in ANSWERS.items() if row == (None,) * 3])
    @pytest.mark.parametrize(
        "answer", [ACCEPTED, REJECTED, UNKNOWN], ids=lambda a: type(a).__name__
    )
    def test_unexpected_answer_changes_nothing(
        self, status: ShipmentStatus, answer: Answer
    ) -> None:
        """The first answer that accepts or rejects counts; a later one may even contradict it."""
        shipment = shipment_that_is(status)
        assert record(shipment, answer) == (shipment, [])

    def test_accepted_parcel_completes_the_shipment(self) -> None:
        before = shipment_that_is(ShipmentStatus.BOOKING)
        completed, events = record(before, ACCEPTED)
        assert completed == msgspec.structs.replace(
            before,
            status=ShipmentStatus.COMPLETED,
            tracking_number="SIM-1",
            due_at=None,
            updated_at=LATER,
        )
        assert events == [
            ShipmentCompletedEvent(
                order_id=ORDER_ID, shipment_id=SHIPMENT_ID, tracking_number="SIM-1", items=ITEMS
            )
        ]

    def test_rejected_parcel_fails_the_shipment(self) -> None:
        before = shipment_that_is(ShipmentStatus.BOOKING)
        failed, events = record(before, REJECTED)
        assert failed == msgspec.structs.replace(
            before,
            status=ShipmentStatus.FAILED,
            reason="no room",
            due_at=None,
            updated_at=LATER,
        )
        assert events == [
            ShipmentFailedEvent(
                order_id=ORDER_ID, shipment_id=SHIPMENT_ID, reason="no room", items=ITEMS
            )
        ]

    def test_unknown_outcome_is_retried_after_a_pause(self) -> None:
        before = shipment_that_is(ShipmentStatus.BOOKING)
        after, events = record(before, UNKNOWN)
        assert after == msgspec.structs.replace(
            before,
            reason="no answer in time",
            due_at=LATER + timedelta(seconds=2),
            updated_at=LATER,
            failure_published_at=LATER,
        )
        assert events == [
            BookingAttemptFailedEvent(
                order_id=ORDER_ID,
                shipment_id=SHIPMENT_ID,
                attempts=1,
                error="no answer in time",
                next_attempt_at=LATER + timedelta(seconds=2),
            )
        ]

    def test_accepted_parcel_clears_the_reason_of_earlier_retries(self) -> None:
        waiting, _ = record(shipment_that_is(ShipmentStatus.BOOKING), UNKNOWN)
        assert record(waiting, ACCEPTED)[0].reason is None

    @given(attempts=st.integers(1, 10_000))
    def test_pause_doubles_up_to_a_limit(self, attempts: int) -> None:
        before = msgspec.structs.replace(
            shipment_that_is(ShipmentStatus.BOOKING), attempts=attempts
        )
        after, _ = record(before, UNKNOWN)
        assert after.due_at is not None
        pause = (after.due_at - LATER).total_seconds()
        assert pause == (2**attempts if attempts <= 8 else BACKOFF_SECONDS_MAX)

    @pytest.mark.parametrize(
        "answer", [ACCEPTED, REJECTED, UNKNOWN], ids=lambda a: type(a).__name__
    )
    def test_answer_without_a_shipment_is_refused(self, answer: Answer) -> None:
        with pytest.raises(UnknownShipment, match=ORDER_ID):
            record(None, answer)


@given(
    answers=st.lists(st.sampled_from([ACCEPTED, REJECTED, UNKNOWN]), max_size=8),
    pauses=st.lists(st.integers(0, 60), min_size=8, max_size=8),
)
def test_shipment_never_moves_back_and_publishes_at_most_one_ending(
    answers: list[Answer], pauses: list[int]
) -> None:
    ranks = {status: rank for rank, status in enumerate(OPENED)}
    (shipment, _), now, endings = initiate(), NOW, []
    for answer, pause in zip(answers, pauses, strict=False):
        now += timedelta(seconds=pause)
        due, _ = when_due(shipment, now)
        after, events = record(due, answer)
        assert ranks[shipment.status] <= ranks[due.status] <= ranks[after.status]
        endings += [event for event in events if not isinstance(event, BookingAttemptFailedEvent)]
        shipment = after
    assert len(endings) == (shipment.due_at is None)
