"""Restore orders from their own events, and republish what other services may have lost: pure functions.

The requests of cancellations are restored in `cancellation.py`, holds in `holding.py`.
"""

from datetime import datetime

import msgspec
from msgspec import UNSET

from todoku.contracts import (
    Event,
    OrderCancelledEvent,
    OrderCompletedEvent,
    OrderCreatedEvent,
    holds_of,
)
from todoku.orders.changes import ChangeState, requested_event
from todoku.orders.domain import (
    ORDER,
    Order,
    OrderStatus,
    cancelled_event,
    completed_event,
    contradiction,
    created_event,
    in_status,
)
from todoku.orders.holding import republish_holds
from todoku.orders.holds import closed_by_ending, replayed_holds


def replay_order(
    order: Order | None, event: OrderCreatedEvent, time: datetime
) -> tuple[Order, list[Event]]:
    """Restore an order that the database has lost from its OrderCreatedEvent, published at `time`."""
    if order is not None:
        return order, []
    deadline = None if event.deadline is UNSET else event.deadline
    return Order(
        id=event.order_id,
        user_id=event.user_id,
        items=event.items,
        total_amount=event.total_amount,
        currency=event.currency,
        shipping_address=event.shipping_address,
        status=OrderStatus.PENDING,
        created_at=time,
        updated_at=time,
        deadline=deadline,
        due_at=deadline or time,  # One from before deadlines gets its own when it is due.
        on_shortage=None if event.on_shortage is UNSET else event.on_shortage,
        holds=replayed_holds(holds_of(event), time),
        status_since=time,
    ), []


def replay_completed_order(
    order: Order | None, event: OrderCompletedEvent, time: datetime
) -> tuple[Order, list[Event]]:
    """Restore from its own event, published at `time`, that an order was completed.

    Its tracking number is in this event, so that the shipping events that follow are late.
    """
    order = order or _from_ending(event, time)
    ended = _end_again(order, OrderStatus.COMPLETED, event, time)
    if ended is order:
        return order, []
    return msgspec.structs.replace(
        ended, shipment_id=event.shipment_id, tracking_number=event.tracking_number
    ), []


def replay_cancelled_order(
    order: Order | None, event: OrderCancelledEvent, time: datetime
) -> tuple[Order, list[Event]]:
    """Restore from its own event, published at `time`, that an order ended without a delivery."""
    order = order or _from_ending(event, time)
    ended = _end_again(order, OrderStatus(event.status), event, time)
    if ended is order:
        return order, []
    return msgspec.structs.replace(ended, shipment_id=event.shipment_id, reason=event.reason), []


def _end_again(order: Order, ending: OrderStatus, event: Event, time: datetime) -> Order:
    """Return the order in the status in which it ended before; the same order if the backup has it."""
    if order.status is ending:
        return order
    if ending not in ORDER.reachable(order.status):
        raise contradiction(order, event)
    holds = closed_by_ending(order.holds, time)
    return in_status(order, ending, time, due_at=None, holds=holds)


def _from_ending(event: OrderCompletedEvent | OrderCancelledEvent, time: datetime) -> Order:
    """Return an order as far as its last event describes it; its address is not in there."""
    return Order(
        id=event.order_id,
        user_id=event.user_id,
        items=event.items,
        total_amount=event.total_amount,
        currency=event.currency,
        shipping_address="",
        status=OrderStatus.PENDING,
        created_at=time,
        updated_at=time,
    )


def republish_order(order: Order | None) -> list[tuple[Event, datetime]]:
    """Return the OrderCreatedEvent while the order is PENDING, what is still to be cancelled
    or held and what is released, and the last event of an order that has ended; each with the time it was
    decided.

    After PENDING, an inventory that has lost its decision would make another one from the
    OrderCreatedEvent, which contradicts what the other services did since.
    """
    if order is None:
        return []
    if order.status is OrderStatus.COMPLETED:
        return [(completed_event(order), order.updated_at)]
    if order.status.terminal:
        return [(cancelled_event(order), order.updated_at)]
    created: list[tuple[Event, datetime]] = [(created_event(order), order.created_at)]
    requests = [
        (requested_event(order.id, change), change.requested_at)
        for change in order.changes
        if change.state is ChangeState.REQUESTED
    ]
    return created * (order.status is OrderStatus.PENDING) + requests + republish_holds(order)
