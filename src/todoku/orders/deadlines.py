"""Decide what becomes of an order whose deadline has passed: its cancellation is requested."""

from datetime import datetime, timedelta

import msgspec

from todoku.contracts import Event
from todoku.orders.cancellation import cancelling
from todoku.orders.changes import (
    BY_DEADLINE,
    cancelled_items,
    deadline_change_id,
    requested_event,
)
from todoku.orders.domain import Order


def when_late(
    order: Order, now: datetime, *, deadline_after: timedelta | None = None
) -> tuple[Order, list[Event]]:
    """Request the cancellation of an order that is still open after its deadline.

    Shipping decides, as for any other request: the order may still end well. One that has no deadline,
    because it was accepted before there were any, gets one that is `deadline_after` now.
    """
    if order.status.terminal or order.cancellation is not None:
        # A process of an older version has ended it, or it was cancelled meanwhile.
        return msgspec.structs.replace(order, due_at=None), []
    if order.deadline is None:
        deadline = None if deadline_after is None else now + deadline_after
        return msgspec.structs.replace(order, deadline=deadline, due_at=deadline), []
    late = cancelling(
        order,
        change_id=deadline_change_id(order.id),
        items=cancelled_items(order.left),
        reason=f"Its deadline has passed: {order.deadline:%Y-%m-%d %H:%M:%S} UTC.",
        by=BY_DEADLINE,
        now=now,
    )
    return late, [requested_event(late.id, late.changes[-1])]
