"""Tests of the deadline of an order, without any I/O."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Final

import msgspec
import pytest
from msgspec import UNSET

from todoku.contracts import (
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    Event,
    OrderCreatedEvent,
    OrderedItem,
    ShipmentCompletedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
    fact_id,
)
from todoku.orders.cancellation import CancelOrder, cancel_order
from todoku.orders.deadlines import when_late
from todoku.orders.domain import Order, OrderStatus
from todoku.orders.placing import InvalidDeadline, Placement, PlaceOrder, place_order
from todoku.orders.recovery import replay_order
from todoku.orders.service import command_handlers, orders_service
from todoku.settings import Settings

orders = orders_service(Settings())

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
NOW: Final = datetime(2030, 1, 1, 12, tzinfo=UTC)
DEADLINE: Final = NOW + timedelta(hours=1)
LATE: Final = DEADLINE + timedelta(seconds=1)

RESERVED: Final = StockReservedEvent(order_id=ORDER_ID, items=())
NO_STOCK: Final = StockReservationFailedEvent(order_id=ORDER_ID, reason="none", failed_items=())
COMPLETED: Final = ShipmentCompletedEvent(
    order_id=ORDER_ID, shipment_id="s", tracking_number="t", items=()
)


def command(deadline: datetime | None = DEADLINE) -> PlaceOrder:
    items = (OrderedItem(product_id="a", quantity=2, price=5),)
    return PlaceOrder(
        order_id=ORDER_ID, user_id="user", items=items, currency="JPY", deadline=deadline
    )


def placed(*events: Event) -> Order:
    order, _ = place_order(None, command(), NOW)
    for event in events:
        after, _ = orders.event_handlers[type(event)](order, event, NOW)
        order = after
    return order


class TestPlacing:
    def test_order_has_its_own_deadline_in_utc(self) -> None:
        tokyo = timezone(timedelta(hours=9))
        order, (event,) = place_order(None, command(DEADLINE.astimezone(tokyo)), NOW)
        assert (order.deadline, order.due_at) == (DEADLINE, DEADLINE)
        assert order.deadline is not None
        assert order.deadline.tzinfo is UTC
        assert isinstance(event, OrderCreatedEvent)
        assert event.deadline == DEADLINE

    def test_order_without_a_deadline_gets_that_of_the_settings(self) -> None:
        place = command_handlers(Settings())[PlaceOrder]
        order, _ = place(Placement(None, {}), command(None), NOW)
        assert order.deadline == order.due_at == NOW + timedelta(days=7)

    @pytest.mark.parametrize(
        ("deadline", "why"),
        [
            (NOW, "in the past"),
            (NOW - timedelta(days=1), "in the past"),
            (NOW + timedelta(days=3_651), "more than ten years ahead"),
            (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), "more than ten years"),
            (datetime.min.replace(tzinfo=timezone(timedelta(hours=12))), "in the past"),
        ],
    )
    def test_deadline_that_cannot_be_kept_is_refused(self, deadline: datetime, why: str) -> None:
        with pytest.raises(InvalidDeadline, match=why):
            place_order(None, command(deadline), NOW)


class TestLate:
    @pytest.mark.parametrize("events", [(), (RESERVED,)])
    def test_open_order_asks_for_its_cancellation(self, events: tuple[Event, ...]) -> None:
        late, (event,) = when_late(placed(*events), LATE)
        assert (late.status, late.due_at) == (OrderStatus.CANCELLING, None)
        assert isinstance(event, CancellationRequestedEvent)
        assert (event.requested_by, event.change_id) == ("deadline", fact_id(ORDER_ID, "Deadline"))
        assert event.reason == "Its deadline has passed: 2030-01-01 13:00:00 UTC."

    def test_two_processes_ask_with_the_same_request(self) -> None:
        assert when_late(placed(), LATE)[1] == when_late(placed(), LATE + timedelta(days=1))[1]

    @pytest.mark.parametrize("event", [NO_STOCK, COMPLETED])
    def test_order_that_has_ended_is_never_late(self, event: Event) -> None:
        ended = placed(event)
        assert ended.due_at is None
        # As a process of an older version leaves it.
        left = msgspec.structs.replace(ended, due_at=DEADLINE)
        assert when_late(left, LATE) == (ended, [])

    def test_order_that_is_cancelling_is_not_late(self) -> None:
        cancel = CancelOrder(order_id=ORDER_ID, change_id="change")
        order, _ = cancel_order(placed(), cancel, NOW)
        assert order.due_at is None
        refused = CancellationRefusedEvent(
            order_id=ORDER_ID, change_id="change", items=(), whole=True
        )
        order, _ = orders.event_handlers[CancellationRefusedEvent](order, refused, NOW)
        assert order.due_at is None, "what was refused once is refused at the deadline, too"


class TestRestoring:
    def test_replay_restores_the_deadline(self) -> None:
        order, (event,) = place_order(None, command(), NOW)
        assert isinstance(event, OrderCreatedEvent)
        assert replay_order(None, event, NOW) == (order, [])

    def test_order_from_before_is_due_and_gets_a_deadline(self) -> None:
        order, (event,) = place_order(None, command(None), NOW)
        assert isinstance(event, OrderCreatedEvent)
        assert event.deadline is UNSET
        replayed, _ = replay_order(None, event, NOW)
        assert replayed == msgspec.structs.replace(order, due_at=NOW)
        after, events = when_late(replayed, LATE, deadline_after=timedelta(days=7))
        assert (after.deadline, after.due_at) == (LATE + timedelta(days=7),) * 2
        assert (after.status, events) == (OrderStatus.PENDING, [])
