"""Tests of the decisions whether an order can still be cancelled, without any I/O."""

from datetime import UTC, datetime, timedelta
from typing import Final

import pytest

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    ReservedItem,
    ShipmentCompletedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    StockReservedEvent,
    fact_id,
)
from todoku.shipping.cancellation import (
    CARRIER_CALLED,
    ContradictoryEvent,
    InvalidCancellation,
    decide_cancellation,
    replay_confirmation,
    replay_refusal,
)
from todoku.shipping.domain import (
    Accepted,
    RecordAnswer,
    Rejected,
    Shipment,
    ShipmentStatus,
    initiate_shipment,
    record_answer,
    when_due,
)
from todoku.shipping.recovery import replay_completed, replay_initiated, republish_shipment

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
SHIPMENT_ID: Final = fact_id(ORDER_ID, "Shipment")
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)
DELAY: Final = timedelta(seconds=3)
ITEMS: Final = (CancelledItem(product_id="prod001", quantity=2),)
CHANGE: Final = {"order_id": ORDER_ID, "change_id": "change", "items": ITEMS, "whole": True}

REQUESTED: Final = CancellationRequestedEvent(**CHANGE)
CONFIRMED: Final = CancellationConfirmedEvent(**CHANGE)
REFUSED: Final = CancellationRefusedEvent(**CHANGE, reason=CARRIER_CALLED)
RESERVED: Final = StockReservedEvent(
    order_id=ORDER_ID,
    items=(ReservedItem(product_id="prod001", quantity=2),),
    shipping_address="1-1 Chiyoda",
)
INITIATED: Final = ShipmentInitiatedEvent(order_id=ORDER_ID, shipment_id=SHIPMENT_ID)
COMPLETED: Final = ShipmentCompletedEvent(
    order_id=ORDER_ID,
    shipment_id=SHIPMENT_ID,
    tracking_number="SIM-1",
    items=(ShippedItem(product_id="prod001", quantity=2),),
)


def initiate(shipment: Shipment | None = None) -> tuple[Shipment, list[Event]]:
    return initiate_shipment(shipment, RESERVED, NOW, pickup_delay=lambda _: DELAY)


def shipment_that_is(status: ShipmentStatus) -> Shipment:
    """Return a shipment that reached this status the usual way."""
    shipment, _ = initiate()
    if status is not ShipmentStatus.INITIATED:
        shipment, _ = when_due(shipment, NOW + DELAY)
    answers = {ShipmentStatus.COMPLETED: Accepted("SIM-1"), ShipmentStatus.FAILED: Rejected("no")}
    if status in answers:
        answer = RecordAnswer(order_id=ORDER_ID, answer=answers[status])
        shipment, _ = record_answer(shipment, answer, NOW + DELAY)
    assert shipment.status is status
    return shipment


BEHIND_PIVOT: Final = (ShipmentStatus.BOOKING, ShipmentStatus.COMPLETED, ShipmentStatus.FAILED)


class TestDeciding:
    def test_shipment_before_the_pivot_is_cancelled_and_never_falls_due(self) -> None:
        shipment, events = decide_cancellation(
            shipment_that_is(ShipmentStatus.INITIATED), REQUESTED, LATER
        )
        assert events == [CONFIRMED]
        assert (shipment.status, shipment.due_at) == (ShipmentStatus.CANCELLED, None)
        assert when_due(shipment, LATER) == (shipment, [])

    def test_order_that_is_still_to_come_is_never_shipped(self) -> None:
        shipment, events = decide_cancellation(None, REQUESTED, LATER)
        assert events == [CONFIRMED]
        assert (shipment.id, shipment.status) == (SHIPMENT_ID, ShipmentStatus.CANCELLED)
        assert initiate(shipment) == (shipment, []), "its stock is reserved later"

    @pytest.mark.parametrize("status", BEHIND_PIVOT)
    def test_shipment_behind_the_pivot_goes_on_and_the_refusal_is_published(
        self, status: ShipmentStatus
    ) -> None:
        before = shipment_that_is(status)
        shipment, events = decide_cancellation(before, REQUESTED, LATER)
        assert events == [REFUSED]
        assert (shipment.status, shipment.due_at, shipment.updated_at) == (
            before.status,
            before.due_at,
            before.updated_at,
        )

    @pytest.mark.parametrize("status", [None, ShipmentStatus.INITIATED, *BEHIND_PIVOT])
    def test_request_that_comes_twice_changes_nothing(self, status: ShipmentStatus | None) -> None:
        before = shipment_that_is(status) if status else None
        shipment, _ = decide_cancellation(before, REQUESTED, LATER)
        assert decide_cancellation(shipment, REQUESTED, LATER) == (shipment, [])

    def test_request_without_items_is_refused(self) -> None:
        empty = CancellationRequestedEvent(**{**CHANGE, "items": ()})
        with pytest.raises(InvalidCancellation, match="no items"):
            decide_cancellation(None, empty, NOW)

    def test_answer_of_the_carrier_about_a_cancelled_shipment_is_late(self) -> None:
        shipment, _ = decide_cancellation(
            shipment_that_is(ShipmentStatus.INITIATED), REQUESTED, LATER
        )
        answer = RecordAnswer(order_id=ORDER_ID, answer=Accepted("SIM-1"))
        assert record_answer(shipment, answer, LATER) == (shipment, [])


class TestRestoring:
    def test_database_from_before_the_request_never_ships_a_cancelled_order(self) -> None:
        decided, _ = decide_cancellation(None, REQUESTED, LATER)
        restored, _ = replay_confirmation(None, CONFIRMED, LATER)
        assert restored == decided
        assert initiate(restored) == (restored, [])
        assert decide_cancellation(restored, REQUESTED, LATER) == (restored, [])

    def test_database_from_before_the_decision_is_cancelled_again(self) -> None:
        initiated = shipment_that_is(ShipmentStatus.INITIATED)
        decided, _ = decide_cancellation(initiated, REQUESTED, LATER)
        assert replay_confirmation(initiated, CONFIRMED, LATER) == (decided, [])
        assert replay_confirmation(decided, CONFIRMED, LATER) == (decided, [])

    def test_confirmation_of_what_the_carrier_has_is_refused(self) -> None:
        with pytest.raises(ContradictoryEvent, match="COMPLETED"):
            replay_confirmation(shipment_that_is(ShipmentStatus.COMPLETED), CONFIRMED, LATER)

    @pytest.mark.parametrize("status", [None, ShipmentStatus.INITIATED])
    def test_refused_order_stays_refused_where_the_call_to_the_carrier_is_lost(
        self, status: ShipmentStatus | None
    ) -> None:
        restored, _ = replay_refusal(shipment_that_is(status) if status else None, REFUSED, LATER)
        assert replay_refusal(restored, REFUSED, LATER) == (restored, [])
        shipment, _ = initiate(restored)
        assert shipment.status is ShipmentStatus.INITIATED, "the carrier is called again"
        other = CancellationRequestedEvent(**{**CHANGE, "change_id": "other"})
        _, (answer,) = decide_cancellation(shipment, other, LATER)
        assert isinstance(answer, CancellationRefusedEvent)

    @pytest.mark.parametrize("status", [None, ShipmentStatus.INITIATED])
    def test_call_that_a_restored_database_may_have_forgotten_counts_as_made(
        self, status: ShipmentStatus | None
    ) -> None:
        shipment = shipment_that_is(status) if status else None
        restored, _ = replay_initiated(shipment, INITIATED, LATER)
        assert replay_initiated(restored, INITIATED, LATER) == (restored, [])
        opened, _ = initiate(restored)
        assert (opened.status, opened.pivot_passed) == (ShipmentStatus.INITIATED, True)
        _, (answer,) = decide_cancellation(opened, REQUESTED, LATER)
        assert isinstance(answer, CancellationRefusedEvent)
        _, (booking,) = when_due(opened, LATER)
        assert booking.shipment_id == SHIPMENT_ID, "the call is made again, with the same key"

    def test_confirmation_tells_that_no_call_is_forgotten(self) -> None:
        restored, _ = replay_initiated(None, INITIATED, LATER)
        cancelled, _ = replay_confirmation(restored, CONFIRMED, LATER)
        assert (cancelled.status, cancelled.attempts) == (ShipmentStatus.CANCELLED, 0)

    def test_expected_shipment_is_opened_when_its_stock_is_reserved(self) -> None:
        expected, _ = replay_refusal(None, REFUSED, LATER)
        assert (expected.status, expected.due_at) == (ShipmentStatus.EXPECTED, None)
        shipment, events = initiate(expected)
        assert (shipment.items, shipment.shipping_address) == (
            (ShippedItem(product_id="prod001", quantity=2),),
            "1-1 Chiyoda",
        )
        assert [type(event) for event in events] == [ShipmentInitiatedEvent]

    def test_expected_shipment_is_completed_by_its_own_event(self) -> None:
        expected, _ = replay_refusal(None, REFUSED, LATER)
        completed, _ = replay_completed(expected, COMPLETED, LATER)
        assert completed.status is ShipmentStatus.COMPLETED
        assert completed.changes == expected.changes

    def test_answers_are_republished_with_their_times(self) -> None:
        initiated = shipment_that_is(ShipmentStatus.INITIATED)
        cancelled, _ = decide_cancellation(initiated, REQUESTED, LATER)
        assert republish_shipment(cancelled) == [(CONFIRMED, LATER)]
        booking = shipment_that_is(ShipmentStatus.BOOKING)
        refused, _ = decide_cancellation(booking, REQUESTED, LATER)
        (answer, at), (initiated_event, _) = republish_shipment(refused)
        assert (answer, at) == (REFUSED, LATER)
        assert isinstance(initiated_event, ShipmentInitiatedEvent)
