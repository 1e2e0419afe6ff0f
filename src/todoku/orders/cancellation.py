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
from todoku.orders.changes import (
    BY_DEADLINE,
    Change,
    ChangeState,
    cancelled_items,
    change_of,
    deadline_change_id,
    requested_event,
)
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
    in_status,
    known,
)

CANCEL = "cancel"
"""The cause that leads to CANCELLING."""

CANCELLED_ON_REQUEST = "The order was cancelled on request."
"""The reason of an order whose cancellation was requested without one."""


class TooLateToCancel(OrderError):
    """The order has ended, or its cancellation was refused."""


class InvalidCancellation(OrderError):
    """The pieces to cancel are not in the order, or not any more; the message names which."""


class CancelOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Cancel an order, or these `items` of it. The edge generates `change_id`, a UUIDv7; `by` is who asks."""

    order_id: str
    change_id: str
    items: tuple[CancelledItem, ...] = ()
    reason: str | None = None
    by: Annotated[str | None, Personal] = None


def cancel_order(
    order: Order | None, command: CancelOrder, now: datetime
) -> tuple[Order, list[Event]]:
    """Request the cancellation. Asking again for that of the whole order changes nothing, and is answered
    with the same request."""
    if order is None:
        raise UnknownOrder(f"No order has the id {command.order_id}.")
    if any(change.id == command.change_id for change in order.changes):
        # The same command, executed again after a commit whose result was unknown.
        return order, []
    earlier = order.cancellation
    if earlier is not None and earlier.state is not ChangeState.REFUSED and not command.items:
        return order, []
    refused = next((c for c in order.changes if c.state is ChangeState.REFUSED), None)
    if earlier is not None or refused is not None or order.status.terminal:
        raise TooLateToCancel(_why_too_late(order, refused or earlier))
    changed = cancelling(
        order,
        change_id=command.change_id,
        items=_wanted(order, command.items),
        reason=command.reason,
        by=command.by,
        now=now,
    )
    return changed, [requested_event(order.id, changed.changes[-1])]


def _wanted(order: Order, items: tuple[CancelledItem, ...]) -> tuple[CancelledItem, ...]:
    """Return the items, merged; everything that is left if there are none."""
    left = order.left
    wanted: dict[str, int] = {}
    for item in items:
        wanted[item.product_id] = wanted.get(item.product_id, 0) + item.quantity
    for product_id, quantity in wanted.items():
        if not 1 <= quantity <= left.get(product_id, 0):
            raise InvalidCancellation(
                f"Product {product_id!r}: {quantity} to cancel, and {left.get(product_id, 0)} left in "
                f"order {order.id}."
            )
    return cancelled_items(wanted or left)


def cancelling(
    order: Order,
    *,
    change_id: str,
    items: tuple[CancelledItem, ...],
    reason: str | None,
    by: str | None,
    now: datetime,
) -> Order:
    """Return the order with a new request to cancel these items. Cancelling the last piece is cancelling
    the order."""
    change = Change(
        id=change_id,
        items=items,
        whole={item.product_id: item.quantity for item in items} == order.left,
        state=ChangeState.REQUESTED,
        requested_at=now,
        reason=reason,
        by=by,
    )
    return _cancelling(order, change, now)


def replay_request(
    order: Order | None, event: CancellationRequestedEvent, time: datetime
) -> tuple[Order, list[Event]]:
    """Restore a request that the database has lost from its own event, published at `time`.

    Raises `UnknownOrder` if it arrives before the event of its order: the recovery replays it again.
    """
    order = known(order, event)
    if _find(order, event) is not None:
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
    if event.whole and order.status in BEHIND_PIVOT:
        raise contradiction(order, event)
    return _confirmed(_with_request(order, event, now), event, now), []


def refuse_cancellation(
    order: Order | None, event: CancellationRefusedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """Record that it was too late: the order goes on as if nobody had asked."""
    order = known(order, event)
    # Checked first, so that a contradiction leaves no trace of the change. Only the refusal of a whole
    # order leads back: it may be cancelling while the refusal of a line arrives.
    advanced = advance(order, event, now) if event.whole else order
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
    """End the order if nothing is left of it: nothing is reserved for it any more. This implies that
    shipping has confirmed."""
    order = _confirmed(_with_request(known(order, event), event, now), event, now)
    if not event.whole:
        return order, []
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
    if earlier is not None and earlier.state is ChangeState.REFUSED:
        return (
            f"The cancellation of order {order.id} was refused: {earlier.refusal} "
            f"The order is {order.status}."
        )
    if earlier is not None and not order.status.terminal:
        return f"Order {order.id} is cancelled as a whole: it is {order.status}."
    return f"Order {order.id} has ended: it is {order.status}."


def _find(order: Order, event: ChangeEvent) -> Change | None:
    return next((change for change in order.changes if change.id == event.change_id), None)


def _cancelling(order: Order, change: Change, now: datetime) -> Order:
    """Return the order with a new change; with that of all that is left, it is cancelling."""
    if not change.whole:
        return msgspec.structs.replace(order, updated_at=now, changes=(*order.changes, change))
    status = ORDER.next_status(order.status, CANCEL)
    assert status is OrderStatus.CANCELLING, order
    return in_status(order, status, now, due_at=None, changes=(*order.changes, change))


def _with_request(order: Order, event: ChangeEvent, now: datetime) -> Order:
    """Return the order with the change that an answer is about; it is missing if the database was restored
    from a backup and the stream holds the request no longer."""
    if _find(order, event) is not None:
        return order
    change = change_of(event, now)
    if change.id == deadline_change_id(order.id):
        at = now if order.deadline is None else max(now, order.deadline)
        change = msgspec.structs.replace(change, by=BY_DEADLINE, requested_at=at)
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
