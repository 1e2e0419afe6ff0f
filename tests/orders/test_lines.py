"""Tests of cancelled pieces of an order's lines, without any I/O."""

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any, Final

import pytest

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    OrderCompletedEvent,
    OrderedItem,
    ShipmentCompletedEvent,
    ShippedItem,
    StockReleasedEvent,
    StockReservedEvent,
)
from todoku.orders.cancellation import (
    CancelOrder,
    InvalidCancellation,
    TooLateToCancel,
    cancel_order,
)
from todoku.orders.changes import ChangeState
from todoku.orders.deadlines import when_late
from todoku.orders.domain import Order, OrderStatus
from todoku.orders.placing import PlaceOrder, place_order
from todoku.orders.recovery import republish_order
from todoku.orders.service import orders_service
from todoku.settings import Settings

orders = orders_service(Settings())

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
LATER: Final = NOW + timedelta(seconds=7)
RESERVED: Final = StockReservedEvent(order_id=ORDER_ID, items=())


def items(*pieces: tuple[str, int]) -> tuple[CancelledItem, ...]:
    return tuple(CancelledItem(product_id=key, quantity=n) for key, n in pieces)


def placed() -> Order:
    """Return an order of three a and one b."""
    command = PlaceOrder(
        order_id=ORDER_ID,
        user_id="user123",
        items=(
            OrderedItem(product_id="a", quantity=3, price=5),
            OrderedItem(product_id="b", quantity=1, price=7),
        ),
        currency="JPY",
        deadline=NOW + timedelta(hours=1),
    )
    return place_order(None, command, NOW)[0]


def cancel(order: Order, change: str, *pieces: tuple[str, int]) -> Order:
    command = CancelOrder(order_id=ORDER_ID, change_id=change, items=items(*pieces))
    return cancel_order(order, command, LATER)[0]


def handled(order: Order, *events: Event) -> Order:
    for event in events:
        after, _ = orders.event_handlers[type(event)](order, event, LATER)
        order = after
    return order


def about(order: Order, change_id: str, kind: type[Any], **more: str) -> Any:
    """Return an event about a change of an order."""
    change = next(each for each in order.changes if each.id == change_id)
    return kind(
        order_id=ORDER_ID, change_id=change_id, items=change.items, whole=change.whole, **more
    )


def states(order: Order) -> dict[str, ChangeState]:
    return {change.id: change.state for change in order.changes}


class TestAsking:
    def test_order_goes_on_without_the_pieces(self) -> None:
        command = CancelOrder(order_id=ORDER_ID, change_id="one", items=items(("a", 1), ("a", 1)))
        order, (event,) = cancel_order(placed(), command, LATER)
        assert (order.status, order.cancellation) == (OrderStatus.PENDING, None)
        assert isinstance(event, CancellationRequestedEvent)
        assert (event.items, event.whole) == (items(("a", 2)), False)
        assert order.due_at == order.deadline, "it is still to be shipped in time"

    @pytest.mark.parametrize("pieces", [("a", 4), ("c", 1), ("a", 0), ("a", -1)])
    def test_pieces_that_are_not_in_the_order_are_refused(self, pieces: tuple[str, int]) -> None:
        with pytest.raises(InvalidCancellation, match=repr(pieces[0])):
            cancel(placed(), "one", pieces)

    def test_pieces_cannot_be_cancelled_twice(self) -> None:
        order = cancel(placed(), "one", ("a", 2))
        with pytest.raises(InvalidCancellation, match="2 to cancel, and 1 left"):
            cancel(order, "two", ("a", 2))

    def test_cancelling_the_last_piece_is_a_cancellation(self) -> None:
        order = cancel(cancel(placed(), "one", ("a", 3)), "two", ("b", 1))
        assert order.status is OrderStatus.CANCELLING
        assert order.cancellation is not None
        assert order.cancellation.id == "two"

    def test_cancelling_the_order_cancels_what_is_left(self) -> None:
        order = cancel(cancel(placed(), "one", ("a", 1)), "all")
        assert order.changes[-1].items == items(("a", 2), ("b", 1))
        assert order.changes[-1].whole

    def test_deadline_cancels_what_is_left(self) -> None:
        late, _ = when_late(cancel(placed(), "one", ("a", 1)), LATER)
        assert late.changes[-1].items == items(("a", 2), ("b", 1))

    def test_order_that_is_cancelled_as_a_whole_has_no_lines_to_cancel(self) -> None:
        with pytest.raises(TooLateToCancel, match="as a whole"):
            cancel(cancel(placed(), "all"), "one", ("a", 1))

    def test_after_a_refused_line_the_order_cannot_be_cancelled(self) -> None:
        order = cancel(placed(), "one", ("a", 1))
        refused = about(order, "one", CancellationRefusedEvent, reason="The carrier was called.")
        with pytest.raises(TooLateToCancel, match="carrier was called"):
            cancel(handled(order, refused), "all")


class TestAnswers:
    def test_confirmed_line_leaves_the_status(self) -> None:
        order = cancel(handled(placed(), RESERVED), "one", ("a", 1))
        order = handled(order, about(order, "one", CancellationConfirmedEvent))
        order = handled(order, about(order, "one", StockReleasedEvent, outcome="RELEASED"))
        assert order.status is OrderStatus.AWAITING_SHIPMENT
        assert states(order) == {"one": ChangeState.CONFIRMED}
        assert order.wanted == {"a": 2, "b": 1}

    def test_refused_line_leaves_a_cancelling_order_cancelling(self) -> None:
        order = cancel(cancel(placed(), "one", ("a", 1)), "all")
        order = handled(order, about(order, "one", CancellationRefusedEvent))
        assert order.status is OrderStatus.CANCELLING
        order = handled(order, about(order, "all", CancellationRefusedEvent))
        assert order.status is OrderStatus.AWAITING_SHIPMENT
        assert order.wanted == {"a": 3, "b": 1}

    def test_completed_order_is_for_what_was_shipped(self) -> None:
        """Also where the confirmation of the change is still to come."""
        order = cancel(placed(), "one", ("a", 1))
        confirmed = about(order, "one", CancellationConfirmedEvent)
        completed = ShipmentCompletedEvent(
            order_id=ORDER_ID,
            shipment_id="s",
            tracking_number="t",
            items=(
                ShippedItem(product_id="a", quantity=2),
                ShippedItem(product_id="b", quantity=1),
            ),
        )
        ended, (event,) = orders.event_handlers[ShipmentCompletedEvent](order, completed, LATER)
        assert isinstance(event, OrderCompletedEvent)
        assert event.total_amount == 17
        assert [(item.product_id, item.quantity) for item in event.items] == [("a", 2), ("b", 1)]
        assert republish_order(handled(ended, confirmed)) == [(event, LATER)]

    @pytest.mark.parametrize("sequence", [*permutations(range(4))])
    def test_order_that_is_cancelled_line_by_line_ends_in_any_sequence(
        self, sequence: tuple[int, ...]
    ) -> None:
        order = cancel(cancel(placed(), "one", ("a", 3)), "two", ("b", 1))
        events = [
            about(order, "one", CancellationConfirmedEvent),
            about(order, "two", CancellationConfirmedEvent),
            about(order, "one", StockReleasedEvent, outcome="RELEASED"),
            about(order, "two", StockReleasedEvent, outcome="RELEASED"),
        ]
        order = handled(order, *(events[n] for n in sequence))
        assert order.status is OrderStatus.CANCELLED
        assert set(states(order).values()) == {ChangeState.CONFIRMED}
