"""Tests of the decisions whether an order can still be held, without any I/O."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    HoldConfirmedEvent,
    HoldRefusedEvent,
    HoldReleasedEvent,
    HoldRequestedEvent,
    PlacedHold,
    ReservedItem,
    ShipmentInitiatedEvent,
    StockReservedEvent,
    fact_id,
)
from todoku.settings import Settings, Span
from todoku.shipping.domain import (
    Accepted,
    RecordAnswer,
    Shipment,
    ShipmentStatus,
    record_answer,
    when_due,
)
from todoku.shipping.recovery import replay_initiated, republish_shipment
from todoku.shipping.service import shipping_service
from todoku.shipping.settings import ShippingSettings

DELAY: Final = timedelta(seconds=3)
shipping = shipping_service(
    Settings(own_settings=(ShippingSettings(carrier_delay_seconds=Span(3, 3)),))
)

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
SOON: Final = NOW + timedelta(seconds=1)
LATER: Final = NOW + timedelta(seconds=7)

ABOUT: Final[dict[str, Any]] = {
    "order_id": ORDER_ID,
    "hold_id": "hold",
    "holder": "fraud-review",
    "reason": "Three orders to one address.",
}
REQUESTED: Final = HoldRequestedEvent(**ABOUT)
PLACED: Final = HoldRequestedEvent(**ABOUT, with_order=True)
RELEASED: Final = HoldReleasedEvent(**ABOUT, outcome="RELEASED")
CONFIRMED: Final = HoldConfirmedEvent(**ABOUT)
REFUSED: Final = HoldRefusedEvent(**ABOUT, refusal="The carrier was already called.")
OTHER: Final = msgspec.structs.replace(REQUESTED, hold_id="other")
RESERVED: Final = StockReservedEvent(
    order_id=ORDER_ID,
    items=(ReservedItem(product_id="prod001", quantity=2),),
    shipping_address="1-1 Chiyoda",
)
RESERVED_HELD: Final = msgspec.structs.replace(
    RESERVED,
    holds=(PlacedHold(hold_id="hold", holder=REQUESTED.holder, reason=REQUESTED.reason),),
)
INITIATED: Final = ShipmentInitiatedEvent(
    order_id=ORDER_ID, shipment_id=fact_id(ORDER_ID, "Shipment")
)
CANCEL: Final = CancellationRequestedEvent(
    order_id=ORDER_ID,
    change_id="change",
    items=(CancelledItem(product_id="prod001", quantity=2),),
    whole=True,
)


def handle(
    shipment: Shipment | None, *events: Event, now: datetime = NOW
) -> tuple[Shipment, list[Event]]:
    """Return the shipment after these events, and what they published."""
    published: list[Event] = []
    for event in events:
        shipment, more = shipping.event_handlers[type(event)](shipment, event, now)
        published += more
    assert shipment is not None
    return shipment, published


def after(*events: Event, now: datetime = NOW) -> Shipment:
    return handle(None, *events, now=now)[0]


def booking(*events: Event) -> Shipment:
    """Return a shipment for which the carrier was called."""
    shipment, (_,) = when_due(after(RESERVED), NOW + DELAY)
    return handle(shipment, *events)[0]


class TestDeciding:
    def test_shipment_before_the_pivot_is_held_and_never_falls_due(self) -> None:
        shipment, events = handle(after(RESERVED), REQUESTED)
        assert events == [CONFIRMED]
        assert (shipment.status, shipment.due_at) == (ShipmentStatus.INITIATED, None)
        assert when_due(shipment, LATER) == (shipment, [])

    def test_order_that_is_held_before_it_arrives_is_opened_and_not_due(self) -> None:
        expected, events = handle(None, REQUESTED)
        assert events == [CONFIRMED]
        shipment, events = handle(expected, RESERVED)
        assert [type(event) for event in events] == [ShipmentInitiatedEvent]
        assert (shipment.status, shipment.due_at) == (ShipmentStatus.INITIATED, None)

    def test_hold_of_the_request_that_placed_the_order_comes_with_its_stock(self) -> None:
        shipment, events = handle(None, RESERVED_HELD)
        assert (shipment.due_at, events[1:]) == (None, [CONFIRMED])
        assert handle(shipment, PLACED) == (shipment, [])

    @pytest.mark.parametrize("answered", [False, True])
    def test_hold_behind_the_pivot_is_refused_and_nothing_else_changes(
        self, answered: bool
    ) -> None:
        shipment = booking()
        if answered:
            answer = RecordAnswer(order_id=ORDER_ID, answer=Accepted("SIM-1"))
            shipment, _ = record_answer(shipment, answer, LATER)
        refused, events = handle(shipment, REQUESTED)
        assert events == [REFUSED]
        assert msgspec.structs.replace(refused, holds=()) == shipment

    def test_hold_is_decided_once(self) -> None:
        for shipment in (after(RESERVED, REQUESTED), booking(REQUESTED)):
            assert handle(shipment, REQUESTED) == (shipment, [])

    def test_shipment_that_an_older_version_has_opened_is_not_booked(self) -> None:
        held = msgspec.structs.replace(after(RESERVED, REQUESTED), due_at=NOW)
        assert when_due(held, LATER) == (msgspec.structs.replace(held, due_at=None), [])

    def test_held_order_can_be_cancelled(self) -> None:
        shipment, events = handle(after(RESERVED, REQUESTED), CANCEL)
        assert shipment.status is ShipmentStatus.CANCELLED
        assert [type(event) for event in events] == [CancellationConfirmedEvent]
        assert handle(shipment, RELEASED)[0].due_at is None


class TestReleasing:
    def test_carrier_is_called_when_the_last_hold_is_released(self) -> None:
        shipment = after(RESERVED, REQUESTED, OTHER)
        shipment, events = handle(shipment, RELEASED, now=LATER)
        assert (shipment.due_at, events) == (None, [])
        other = msgspec.structs.replace(RELEASED, hold_id="other")
        assert handle(shipment, other, now=LATER)[0].due_at == LATER

    def test_carrier_is_not_called_before_its_delay(self) -> None:
        shipment, _ = handle(after(RESERVED, REQUESTED), RELEASED, now=SOON)
        assert shipment.due_at == NOW + DELAY

    def test_clock_that_was_set_back_delays_nothing(self) -> None:
        ahead = after(RESERVED, REQUESTED, now=NOW + timedelta(days=1))
        assert handle(ahead, RELEASED)[0].due_at == NOW + DELAY

    def test_release_that_overtakes_its_request_closes_the_hold(self) -> None:
        shipment, events = handle(None, RELEASED)
        assert events == [CONFIRMED]
        assert handle(shipment, REQUESTED) == (shipment, [])
        assert handle(shipment, RESERVED_HELD)[0].due_at == NOW + DELAY

    def test_release_of_a_hold_that_was_refused_changes_no_due_time(self) -> None:
        shipment = booking(REQUESTED)
        assert handle(shipment, RELEASED)[0].due_at == shipment.due_at

    @given(data=st.data())
    def test_shipment_is_due_whatever_the_sequence_of_the_events(self, data: st.DataObject) -> None:
        """Each event arrives at least once, in any sequence: then nothing holds the order."""
        saga = [RESERVED_HELD, PLACED, RELEASED]
        arrivals = data.draw(
            st.lists(st.sampled_from(saga), max_size=4).flatmap(
                lambda repeats: st.permutations([*saga, *repeats])
            )
        )
        shipment, published = handle(None, *arrivals)
        assert shipment.due_at == NOW + DELAY
        assert [each for each in published if each == CONFIRMED] == [CONFIRMED]

    @given(arrivals=st.permutations([RESERVED_HELD, PLACED, OTHER, RELEASED]))
    def test_shipment_with_an_open_hold_is_never_due(self, arrivals: list[Event]) -> None:
        shipment, published = handle(None, *arrivals)
        assert shipment.due_at is None
        assert len(published) == 3, "the shipment is open, and two holds are confirmed"


class TestRestoring:
    @pytest.mark.parametrize("answer", [CONFIRMED, REFUSED])
    def test_replay_restores_what_was_decided(self, answer: Event) -> None:
        replay = shipping.replay_handlers[type(answer)]
        shipment, _ = replay(None, answer, LATER)
        assert replay(shipment, answer, LATER) == (shipment, [])
        assert handle(shipment, REQUESTED) == (shipment, [])
        opened, _ = handle(shipment, RESERVED)
        assert (opened.due_at is None) is (answer is CONFIRMED)

    def test_replay_holds_a_shipment_of_the_backup(self) -> None:
        shipment, _ = shipping.replay_handlers[HoldConfirmedEvent](after(RESERVED), CONFIRMED, NOW)
        assert shipment.due_at is None

    def test_call_that_may_be_forgotten_is_too_late_for_new_holds_only(self) -> None:
        """What came with the order was decided before anything could be called for it."""
        restored, _ = replay_initiated(None, INITIATED, NOW)
        assert handle(restored, REQUESTED)[1] == [REFUSED]
        assert handle(restored, PLACED)[1] == [CONFIRMED]
        assert handle(restored, RESERVED_HELD)[0].due_at is None

    def test_answers_are_republished_with_their_times(self) -> None:
        shipment, _ = handle(after(RESERVED), REQUESTED, now=LATER)
        assert republish_shipment(shipment)[0] == (CONFIRMED, LATER)
        refused, _ = handle(booking(), REQUESTED, now=LATER)
        assert republish_shipment(refused)[0] == (REFUSED, LATER)
