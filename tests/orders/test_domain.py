"""Tests of an order and its decisions, without any I/O."""

from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from todoku.contracts import (
    MAX_SAFE_INTEGER,
    BookingAttemptFailedEvent,
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancelledItem,
    Event,
    FailedItem,
    HoldEvent,
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    OrderCancelledEvent,
    OrderCompletedEvent,
    OrderCreatedEvent,
    OrderedItem,
    ParkingEvent,
    PausesEvent,
    ProductEvent,
    ReservedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    StockAwaitedEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
    fact_id,
)
from todoku.events import AuditAnchoredEvent
from todoku.orders.cancellation import CancelOrder, cancel_order
from todoku.orders.domain import ContradictoryEvent, Order, OrderStatus, UnknownOrder
from todoku.orders.parking import note_parked, note_resolved
from todoku.orders.placing import InvalidOrder, PlaceOrder, place_order
from todoku.orders.recovery import republish_order
from todoku.orders.service import orders_service
from todoku.settings import Settings

orders = orders_service(Settings())

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
SHIPMENT_ID: Final = fact_id(ORDER_ID, "Shipment")
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)
LATER_STILL: Final = LATER + timedelta(seconds=7)

RESERVED = StockReservedEvent(
    order_id=ORDER_ID, items=(ReservedItem(product_id="prod001", quantity=2),)
)
REFUSED = StockReservationFailedEvent(
    order_id=ORDER_ID,
    reason="insufficient stock",
    failed_items=(FailedItem(product_id="prod001", requested_quantity=2, available_quantity=1),),
)
INITIATED = ShipmentInitiatedEvent(order_id=ORDER_ID, shipment_id=SHIPMENT_ID)
COMPLETED = ShipmentCompletedEvent(
    order_id=ORDER_ID,
    shipment_id=SHIPMENT_ID,
    tracking_number="SIM-1",
    items=(ShippedItem(product_id="prod001", quantity=2),),
)
FAILED = ShipmentFailedEvent(
    order_id=ORDER_ID,
    shipment_id=SHIPMENT_ID,
    reason="no room",
    items=(ShippedItem(product_id="prod001", quantity=2),),
)

CHANGE: Final = {
    "order_id": ORDER_ID,
    "change_id": "0198c2f1-2a07-7d10-8f3b-5d1b6a9c0e42",
    "items": (CancelledItem(product_id="prod001", quantity=2),),
    "whole": True,
}
CONFIRMED = CancellationConfirmedEvent(**CHANGE)
TOO_LATE = CancellationRefusedEvent(**CHANGE, reason="The carrier was already called.")
RELEASED = StockReleasedEvent(**CHANGE, outcome="RELEASED")

SAGAS: Final = {
    OrderStatus.COMPLETED: (RESERVED, INITIATED, COMPLETED),
    OrderStatus.SHIPMENT_FAILED: (RESERVED, INITIATED, FAILED),
    OrderStatus.CANCELLED_NO_STOCK: (REFUSED,),
}
"""Every saga: all events about an order, in the sequence in which they are published."""


def item(product_id: str = "prod001", quantity: int = 2, price: int = 5000) -> OrderedItem:
    return OrderedItem(product_id=product_id, quantity=quantity, price=price)


def command(*items: OrderedItem) -> PlaceOrder:
    return PlaceOrder(
        order_id=ORDER_ID,
        user_id="user123",
        items=items,
        currency="JPY",
        shipping_address="1-1 Chiyoda",
    )


def placed(*items: OrderedItem) -> Order:
    order, _ = place_order(None, command(*items or (item(),)), NOW)
    return order


def handle(order: Order | None, event: Event, now: datetime = LATER) -> Order:
    """Handle an event as the service does, and check that an order publishes exactly its ending."""
    after, events = orders.event_handlers[type(event)](order, event, now)
    assert isinstance(after, Order)
    ends = after.status.terminal and (order is None or not order.status.terminal)
    assert [type(each) for each in events] == list(after.status.stage.publishes) * ends
    return after


def order_that_is(status: OrderStatus) -> Order:
    """Return an order that reached this status by the usual events."""
    ways = {
        OrderStatus.PENDING: (),
        OrderStatus.AWAITING_SHIPMENT: (RESERVED,),
        OrderStatus.COMPLETED: (RESERVED, INITIATED, COMPLETED),
        OrderStatus.CANCELLED_NO_STOCK: (REFUSED,),
        OrderStatus.SHIPMENT_FAILED: (RESERVED, INITIATED, FAILED),
        OrderStatus.CANCELLING: (),
        OrderStatus.CANCELLED: (CONFIRMED, RELEASED),
    }
    order = placed()
    if status in (OrderStatus.CANCELLING, OrderStatus.CANCELLED):
        order, _ = cancel_order(
            order, CancelOrder(order_id=ORDER_ID, change_id=CONFIRMED.change_id), NOW
        )
    for event in ways[status]:
        order = handle(order, event, NOW)
    assert order.status is status
    return order


class TestPlacing:
    def test_new_order_is_pending_and_publishes_what_other_services_need(self) -> None:
        order, events = place_order(None, command(item(quantity=2, price=5000)), NOW)
        assert order == Order(
            id=ORDER_ID,
            user_id="user123",
            items=(item(quantity=2, price=5000),),
            total_amount=10_000,
            currency="JPY",
            shipping_address="1-1 Chiyoda",
            status=OrderStatus.PENDING,
            created_at=NOW,
            updated_at=NOW,
            status_since=NOW,
        )
        assert events == [
            OrderCreatedEvent(
                order_id=ORDER_ID,
                user_id="user123",
                items=(item(quantity=2, price=5000),),
                total_amount=10_000,
                currency="JPY",
                shipping_address="1-1 Chiyoda",
            )
        ]

    def test_placing_an_existing_order_changes_and_publishes_nothing(self) -> None:
        order = order_that_is(OrderStatus.COMPLETED)
        assert place_order(order, command(item(quantity=9)), LATER) == (order, [])

    def test_lines_of_one_product_are_merged_where_it_first_appears(self) -> None:
        order = placed(item("b", 1, 10), item("a", 1, 20), item("b", 2, 10))
        assert order.items == (item("b", 3, 10), item("a", 1, 20))
        assert order.total_amount == 50

    def test_order_without_items_is_refused(self) -> None:
        with pytest.raises(InvalidOrder, match="at least one item"):
            place_order(None, command(), NOW)

    def test_one_product_at_two_prices_is_refused(self) -> None:
        with pytest.raises(InvalidOrder, match="two prices"):
            place_order(None, command(item(price=1), item(price=2)), NOW)

    @pytest.mark.parametrize("line", [item(quantity=0), item(quantity=-1), item(price=-1)])
    def test_quantity_below_one_or_price_below_zero_is_refused(self, line: OrderedItem) -> None:
        with pytest.raises(InvalidOrder, match="at least 1"):
            place_order(None, command(line, item("other")), NOW)

    def test_total_may_be_the_largest_exact_integer(self) -> None:
        assert placed(item(quantity=MAX_SAFE_INTEGER, price=1)).total_amount == MAX_SAFE_INTEGER
        assert placed(item(quantity=1, price=MAX_SAFE_INTEGER)).total_amount == MAX_SAFE_INTEGER

    @pytest.mark.parametrize(
        "lines",
        [
            (item(quantity=MAX_SAFE_INTEGER + 1, price=1),),
            (item(quantity=MAX_SAFE_INTEGER, price=2),),
            (item("a", MAX_SAFE_INTEGER, 1), item("a", 1, 1)),
            (item("a", MAX_SAFE_INTEGER, 1), item("b", 1, 1)),
        ],
        ids=["pieces", "product", "summed line", "sum"],
    )
    def test_total_above_the_largest_exact_integer_is_refused(
        self, lines: tuple[OrderedItem, ...]
    ) -> None:
        with pytest.raises(InvalidOrder, match="split it"):
            place_order(None, command(*lines), NOW)


LATE: Final = "late"
NOTED: Final = "noted"
RECORDED: Final = "recorded"
CONTRADICTION: Final = "contradiction"
EXCLUDED: Final = CONTRADICTION

PENDING, AWAITING, DONE, NO_STOCK, CANCELLING, CANCELLED, NOT_SHIPPED = OrderStatus

EVENTS: Final = (RESERVED, REFUSED, INITIATED, COMPLETED, FAILED, CONFIRMED, TOO_LATE, RELEASED)
MATRIX: Final = {
    #             RESERVED  REFUSED   INITIATED COMPLETED FAILED       CONFIRMED   TOO_LATE  RELEASED
    PENDING:     (AWAITING, NO_STOCK, AWAITING, DONE,     NOT_SHIPPED, CANCELLING, AWAITING, CANCELLED),
    AWAITING:    (LATE,     EXCLUDED, NOTED,    DONE,     NOT_SHIPPED, CANCELLING, RECORDED, CANCELLED),
    CANCELLING:  (LATE,     NO_STOCK, NOTED,    DONE,     NOT_SHIPPED, RECORDED,   AWAITING, CANCELLED),
    DONE:        (LATE,     EXCLUDED, LATE,     LATE,     EXCLUDED,    EXCLUDED,   RECORDED, EXCLUDED),
    NO_STOCK:    (EXCLUDED, LATE,     EXCLUDED, EXCLUDED, EXCLUDED,    RECORDED,   EXCLUDED, EXCLUDED),
    CANCELLED:   (LATE,     EXCLUDED, RECORDED, EXCLUDED, EXCLUDED,    LATE,       EXCLUDED, LATE),
    NOT_SHIPPED: (LATE,     EXCLUDED, LATE,     EXCLUDED, LATE,        EXCLUDED,   RECORDED, EXCLUDED),
}  # fmt: skip
"""Every status × every event: the new status, or the other outcome."""


def cells(*outcomes: str) -> list[object]:
    """Return the cells of the matrix with one of these outcomes."""
    return [
        pytest.param(status, event, outcome, id=f"{status}-{type(event).__name__}")
        for status, row in MATRIX.items()
        for event, outcome in zip(EVENTS, row, strict=True)
        if outcome in outcomes
    ]


class TestRepublishing:
    def test_pending_order_republishes_its_created_event_unchanged(self) -> None:
        order, (event,) = place_order(None, command(item()), NOW)
        assert republish_order(order) == [(event, NOW)]

    def test_order_that_waits_for_others_republishes_nothing(self) -> None:
        assert republish_order(order_that_is(OrderStatus.AWAITING_SHIPMENT)) == []

    @pytest.mark.parametrize("event", [COMPLETED, FAILED, REFUSED], ids=lambda e: type(e).__name__)
    def test_ended_order_republishes_its_ending_with_the_original_time(self, event: Event) -> None:
        order, (ending,) = orders.event_handlers[type(event)](placed(), event, LATER)
        assert republish_order(order) == [(ending, LATER)]

    def test_unknown_order_republishes_nothing(self) -> None:
        assert republish_order(None) == []


def ending(event: Event) -> tuple[Order, Event]:
    """Return the order that this event ends, and the event that it publishes."""
    order, (published,) = orders.event_handlers[type(event)](placed(), event, LATER)
    return order, published


ENDINGS: Final = (COMPLETED, FAILED, REFUSED)


class TestEndingEvents:
    def test_completed_order_publishes_customer_items_and_amount(self) -> None:
        _, published = ending(COMPLETED)
        assert published == OrderCompletedEvent(
            order_id=ORDER_ID,
            user_id="user123",
            items=(item(),),
            total_amount=10_000,
            currency="JPY",
            shipment_id=SHIPMENT_ID,
            tracking_number="SIM-1",
        )

    @pytest.mark.parametrize(
        ("event", "status", "reason", "shipment_id"),
        [
            (REFUSED, "CANCELLED_NO_STOCK", "insufficient stock", None),
            (FAILED, "SHIPMENT_FAILED", "no room", SHIPMENT_ID),
        ],
        ids=["no stock", "shipment failed"],
    )
    def test_unfulfilled_order_publishes_its_status_and_the_reason(
        self, event: Event, status: str, reason: str, shipment_id: str | None
    ) -> None:
        _, published = ending(event)
        assert published == OrderCancelledEvent(
            order_id=ORDER_ID,
            user_id="user123",
            status=status,
            reason=reason,
            items=(item(),),
            total_amount=10_000,
            currency="JPY",
            shipment_id=shipment_id,
        )

    @pytest.mark.parametrize("event", ENDINGS, ids=lambda event: type(event).__name__)
    def test_replay_restores_the_ending_with_the_original_time(self, event: Event) -> None:
        order, published = ending(event)
        replay = orders.replay_handlers[type(published)]
        assert replay(placed(), published, LATER) == (order, [])
        assert handle(order, event, LATER_STILL) is order, "the event that led to it is late"

    @pytest.mark.parametrize("event", ENDINGS, ids=lambda event: type(event).__name__)
    def test_replay_keeps_an_ending_that_the_backup_has(self, event: Event) -> None:
        order, published = ending(event)
        replay = orders.replay_handlers[type(published)]
        assert replay(order, published, LATER_STILL) == (order, [])

    @pytest.mark.parametrize("event", ENDINGS, ids=lambda event: type(event).__name__)
    def test_replay_restores_an_order_as_far_as_its_ending_describes_it(self, event: Event) -> None:
        order, published = ending(event)
        restored, _ = orders.replay_handlers[type(published)](None, published, LATER)
        assert restored == msgspec.structs.replace(order, shipping_address="", created_at=LATER)

    def test_replay_of_a_contradicting_ending_is_refused(self) -> None:
        completed, _ = ending(COMPLETED)
        _, cancelled = ending(FAILED)
        with pytest.raises(ContradictoryEvent, match=r"OrderCancelledEvent.*COMPLETED"):
            orders.replay_handlers[type(cancelled)](completed, cancelled, LATER)


class TestEvents:
    def test_matrix_covers_every_status_and_every_event(self) -> None:
        assert set(MATRIX) == set(OrderStatus)
        # A hold does not move its order; a failed attempt, and that it waits for stock, explain it only,
        # and what is paused, too; a product is none, and an anchor of an audit log.
        others = (
            *(ParkingEvent, HoldEvent, BookingAttemptFailedEvent),
            *(ProductEvent, StockAwaitedEvent, PausesEvent, AuditAnchoredEvent),
        )
        followed = {kind for kind in orders.event_handlers if not issubclass(kind, others)}
        assert {type(event) for event in EVENTS} == followed

    @pytest.mark.parametrize(("status", "event", "expected"), cells(*OrderStatus))
    def test_new_event_moves_the_order_forward(
        self, status: OrderStatus, event: Event, expected: OrderStatus
    ) -> None:
        after = handle(order_that_is(status), event)
        assert (after.status, after.updated_at) == (expected, LATER)

    @pytest.mark.parametrize(("status", "event", "_"), cells(LATE))
    def test_late_event_changes_nothing(self, status: OrderStatus, event: Event, _: str) -> None:
        order = order_that_is(status)
        assert handle(order, event) == order

    @pytest.mark.parametrize(("status", "event", "_"), cells(NOTED))
    def test_awaiting_order_records_its_shipment_once(
        self, status: OrderStatus, event: Event, _: str
    ) -> None:
        order = order_that_is(status)
        noted = handle(order, event)
        assert noted == msgspec.structs.replace(order, shipment_id=SHIPMENT_ID, updated_at=LATER)
        assert handle(noted, event, now=LATER_STILL) is noted, "a repeat changes nothing"

    @pytest.mark.parametrize(("status", "event", "_"), cells(RECORDED))
    def test_event_that_decides_nothing_new_is_recorded_once(
        self, status: OrderStatus, event: Event, _: str
    ) -> None:
        order = order_that_is(status)
        recorded = handle(order, event)
        assert recorded != order
        assert recorded.status is status
        if status.terminal:
            assert recorded.updated_at == order.updated_at, "the time at which it ended"
        assert handle(recorded, event, now=LATER_STILL) == recorded, "a repeat changes nothing"

    @pytest.mark.parametrize(("status", "event", "_"), cells(CONTRADICTION))
    def test_contradicting_event_is_refused(
        self, status: OrderStatus, event: Event, _: str
    ) -> None:
        with pytest.raises(ContradictoryEvent, match=f"{type(event).__name__}.*{status}"):
            handle(order_that_is(status), event)

    @pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
    def test_event_about_an_unknown_order_is_refused(self, event: Event) -> None:
        with pytest.raises(UnknownOrder, match=ORDER_ID):
            handle(None, event)

    def test_terminal_statuses_are_those_that_no_event_leaves(self) -> None:
        for status, row in MATRIX.items():
            leads_on = any(isinstance(cell, OrderStatus) for cell in row)
            assert status.terminal == (not leads_on)

    def test_completed_order_has_shipment_and_tracking_number(self) -> None:
        order = handle(placed(), COMPLETED)
        assert (order.shipment_id, order.tracking_number) == (SHIPMENT_ID, "SIM-1")

    def test_failed_order_has_the_reason(self) -> None:
        assert handle(placed(), REFUSED).reason == "insufficient stock"
        assert handle(placed(), FAILED).reason == "no room"


class TestAnyOrderOfArrival:
    @pytest.mark.parametrize("ending", SAGAS)
    @given(data=st.data())
    def test_order_ends_the_same_way_whatever_the_sequence_of_its_events(
        self, ending: OrderStatus, data: st.DataObject
    ) -> None:
        """Each event arrives at least once, repeated and permuted at will; the status never moves back."""
        saga = SAGAS[ending]
        repeats = data.draw(st.lists(st.sampled_from(saga), max_size=6))
        arrivals = data.draw(st.permutations([*saga, *repeats]))
        order, ended = placed(), None
        for event in arrivals:
            order = handle(order, event)
            ended = ended or (order if order.status.terminal else None)
            assert ended is None or order == ended
        assert order.status is ending
        expected = order_that_is(ending)
        assert msgspec.structs.replace(order, updated_at=NOW, status_since=NOW) == expected


PARKED: Final = InventoryMessageParkedEvent(
    order_id=ORDER_ID,
    letter_id="letter",
    message_type="OrderCreatedEvent",
    error="UnknownProduct",
    parked_at=NOW,
)
CLOSED: Final = InventoryMessageClosedEvent(
    **{name: getattr(PARKED, name) for name in PARKED.__struct_fields__}
)


class TestParkedMessages:
    def test_message_is_open_until_it_is_resolved(self) -> None:
        parked, _ = note_parked(None, PARKED, LATER)
        assert (parked.service, parked.letter_id, parked.parked_at) == ("inventory", "letter", NOW)
        assert not parked.closed
        closed, _ = note_resolved(parked, CLOSED, LATER)
        assert closed.closed

    def test_message_resolved_before_it_is_parked_is_never_open(self) -> None:
        closed, _ = note_resolved(None, CLOSED, LATER)
        assert note_parked(closed, PARKED, LATER) == (closed, [])
        assert closed.closed
