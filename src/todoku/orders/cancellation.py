"""Decide on the cancellation of an order: it is requested here, and others decide whether it succeeds.

    orders      CancellationRequestedEvent     ─▶ shipping
    shipping    CancellationConfirmedEvent          ─▶ inventory, orders
                CancellationRefusedEvent            ─▶ orders
    inventory   StockReleasedEvent                  ─▶ orders

Shipping decides, because it owns the pivot. The order ends on the answer of inventory: StockReleasedEvent,
or the StockReservationFailedEvent of an order whose stock was refused before. So what shipping confirms
and what inventory refuses may race without any ending being taken back.
"""

from datetime import datetime
from typing import Annotated

import msgspec

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    ChangeEvent,
    Event,
    Personal,
    ReleaseOutcome,
    StockReleasedEvent,
)
from todoku.orders.changes import Change, ChangeState, change_of, requested_event
from todoku.orders.domain import (
    BEHIND_PIVOT,
    ORDER,
    Order,
    OrderError,
    OrderStatus,
    UnknownOrder,
    advance,
    cancelled_event,
    contradiction,
    known,
)

CANCEL = "cancel"
"""The cause that leads to CANCELLING."""

CANCELLED_ON_REQUEST = "The order was cancelled on request."
"""The reason of an order whose cancellation was requested without one."""


class TooLateToCancel(OrderError):
    """The order has ended, or its cancellation was refused."""


class CancelOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Cancel an order. The edge generates `change_id`, a UUIDv7; `by` is who asks."""

    order_id: str
    change_id: str
    reason: str | None = None
    by: Annotated[str | None, Personal] = None


def cancel_order(
    order: Order | None, command: CancelOrder, now: datetime
) -> tuple[Order, list[Event]]:
    """Request the cancellation. Asking again changes nothing, and is answered with the same request."""
    if order is None:
        raise UnknownOrder(f"No order has the id {command.order_id}.")
    earlier = order.cancellation
    if earlier is not None and earlier.state is not ChangeState.REFUSED:
        return order, []
    if earlier is not None or order.status.terminal:
        raise TooLateToCancel(_why_too_late(order, earlier))
    changed = cancelling(
        order, change_id=command.change_id, reason=command.reason, by=command.by, now=now
    )
    return changed, [requested_event(order.id, changed.changes[-1])]


def cancelling(
    order: Order, *, change_id: str, reason: str | None, by: str | None, now: datetime
) -> Order:
    """Return the order with a new request to cancel all of it."""
    change = Change(
        id=change_id,
        items=tuple(
            CancelledItem(product_id=item.product_id, quantity=item.quantity)
            for item in order.items
        ),
        whole=True,
        state=ChangeState.REQUESTED,
        requested_at=now,
        reason=reason,
        by=by,
    )
    return _cancelling(order, change, now)


def replay_request(
    order: Order | None, event: CancellationRequestedEvent, time: datetime
) -> tuple[Order | None, list[Event]]:
    """Restore a request that the database has lost from its own event, published at `time`.

    Of an order that neither the backup nor the stream has, there is nothing to restore.
    """
    if order is None or _find(order, event) is not None:
        return order, []
    change = change_of(event, time)
    if order.status.terminal:
        return _with_change(order, change), []
    return _cancelling(order, change, time), []


def confirm_cancellation(
    order: Order | None, event: CancellationConfirmedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """Record that nothing will be shipped; the order ends when inventory has answered."""
    order = known(order, event)
    if order.status in BEHIND_PIVOT:
        raise contradiction(order, event)
    return _confirmed(_with_request(order, event, now), event, now), []


def refuse_cancellation(
    order: Order | None, event: CancellationRefusedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """Record that it was too late: the order goes on as if nobody had asked."""
    order = known(order, event)
    # Checked first, so that a contradiction leaves no trace of the change.
    advanced = advance(order, event, now)
    change = _find(order, event) or change_of(event, now)
    if change.state is ChangeState.CONFIRMED:
        raise contradiction(order, event)
    if change.state is ChangeState.REFUSED:
        return order, []  # A duplicate that arrived after the inbox was pruned.
    refused = _decided(change, ChangeState.REFUSED, now, refusal=event.reason)
    return _with_change(advanced, refused, now), []


def end_cancelled(
    order: Order | None, event: StockReleasedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """End the order: nothing is reserved for it any more. This implies that shipping has confirmed."""
    order = _confirmed(_with_request(known(order, event), event, now), event, now)
    if _ended_before_inventory(order, event):
        return order, []  # Late: a step between orders and inventory has ended it.
    cancellation = _find(order, event)
    assert cancellation is not None
    cancelled = advance(order, event, now, reason=cancellation.reason or CANCELLED_ON_REQUEST)
    if cancelled is order:
        return order, []
    return cancelled, [cancelled_event(cancelled)]


def _ended_before_inventory(order: Order, event: StockReleasedEvent) -> bool:
    """Return whether the order has ended in a status that allows a reservation that never was."""
    allowed = order.status.stage.implies.get("reservation", ())
    return (
        order.status.terminal
        and order.status is not OrderStatus.CANCELLED
        and event.outcome == ReleaseOutcome.NEVER_RESERVED
        and "CANCELLED" in allowed
    )


def _why_too_late(order: Order, earlier: Change | None) -> str:
    if earlier is not None:
        return (
            f"The cancellation of order {order.id} was refused: {earlier.refusal} "
            f"The order is {order.status}."
        )
    return f"Order {order.id} has ended: it is {order.status}."


def _find(order: Order, event: ChangeEvent) -> Change | None:
    return next((change for change in order.changes if change.id == event.change_id), None)


def _cancelling(order: Order, change: Change, now: datetime) -> Order:
    """Return the order with a new cancellation."""
    status = ORDER.next_status(order.status, CANCEL)
    assert status is OrderStatus.CANCELLING, order
    return msgspec.structs.replace(
        order, status=status, updated_at=now, due_at=None, changes=(*order.changes, change)
    )


def _with_request(order: Order, event: ChangeEvent, now: datetime) -> Order:
    """Return the order with the change that an answer is about; it is missing if the database was restored
    from a backup and the stream holds the request no longer."""
    if _find(order, event) is not None:
        return order
    change = change_of(event, now)
    return _with_change(order, change) if order.status.terminal else _cancelling(order, change, now)


def _confirmed(order: Order, event: ChangeEvent, now: datetime) -> Order:
    """Return the order with the change confirmed; the same order if it was confirmed before."""
    change = _find(order, event)
    assert change is not None
    if change.state is ChangeState.REFUSED:
        raise contradiction(order, event)
    if change.state is ChangeState.CONFIRMED:
        return order
    return _with_change(order, _decided(change, ChangeState.CONFIRMED, now), now)


def _decided(
    change: Change, state: ChangeState, now: datetime, refusal: str | None = None
) -> Change:
    return msgspec.structs.replace(change, state=state, decided_at=now, refusal=refusal)


def _with_change(order: Order, change: Change, now: datetime | None = None) -> Order:
    """Return the order with this change, in the place of the one with its id or as the last.

    The time at which an order has ended stays.
    """
    others = {each.id: each for each in order.changes}
    changes = tuple((others | {change.id: change}).values())
    updated_at = order.updated_at if now is None or order.status.terminal else now
    return msgspec.structs.replace(order, changes=changes, updated_at=updated_at)
