"""Decide whether an order can still be cancelled: pure functions.

Shipping owns the pivot of the saga. Before it, a cancellation is confirmed, and no carrier is ever called;
from then on it is refused. A cancellation may arrive before its order: then the shipment that will never
be is stored as CANCELLED, so that the StockReservedEvent that follows is late.
"""

from datetime import datetime

import msgspec

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    Event,
    ShippedItem,
    fact_id,
)
from todoku.shipping.domain import (
    SHIPMENT,
    Shipment,
    ShipmentChange,
    ShipmentError,
    ShipmentStatus,
    answer_event,
)

CARRIER_CALLED = "The carrier was already called."


class InvalidCancellation(ShipmentError):
    """A cancellation names no pieces."""


class ContradictoryEvent(ShipmentError):
    """An event contradicts the status of the shipment."""


def decide_cancellation(
    shipment: Shipment | None, event: CancellationRequestedEvent, now: datetime
) -> tuple[Shipment, list[Event]]:
    """Confirm the cancellation if the carrier was not called yet, else refuse it."""
    if not event.items:
        raise InvalidCancellation(f"{type(event).__name__} of order {event.order_id} has no items")
    if shipment is None:
        change = _change(event, now, confirmed=True)
        return _never_initiated(event, change), [answer_event(event.order_id, change)]
    if _find(shipment, event) is not None:
        return shipment, []  # A duplicate that arrived after the inbox was pruned.
    change = _change(event, now, confirmed=not shipment.pivot_passed)
    return _with_change(shipment, change), [answer_event(event.order_id, change)]


def replay_confirmation(
    shipment: Shipment | None, event: CancellationConfirmedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Restore from its own event that a cancellation was confirmed: the carrier must never be called."""
    change = _change(event, time, confirmed=True)
    if shipment is None:
        return _never_initiated(event, change), []
    if _find(shipment, event) is not None:
        return shipment, []  # The backup had it.
    if shipment.pivot_passed:
        raise ContradictoryEvent(
            f"{type(event).__name__} for order {event.order_id} contradicts its shipment, which is "
            f"{shipment.status}"
        )
    return _with_change(shipment, change), []


def replay_refusal(
    shipment: Shipment | None, event: CancellationRefusedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Restore from its own event that a cancellation was refused: the carrier was called then.

    A shipment that the database has lost is expected: the StockReservedEvent that opens it follows.
    """
    change = _change(event, time, confirmed=False)
    if shipment is None:
        return _shipment(event, ShipmentStatus.EXPECTED, change), []
    if _find(shipment, event) is not None:
        return shipment, []  # The backup had it.
    return _with_change(shipment, change), []


Cancelled = CancellationRequestedEvent | CancellationConfirmedEvent | CancellationRefusedEvent


def _find(shipment: Shipment, event: Cancelled) -> ShipmentChange | None:
    return next((change for change in shipment.changes if change.id == event.change_id), None)


def _change(event: Cancelled, now: datetime, *, confirmed: bool) -> ShipmentChange:
    return ShipmentChange(
        id=event.change_id,
        items=event.items,
        whole=event.whole,
        confirmed=confirmed,
        at=now,
        reason=None if confirmed else CARRIER_CALLED,
    )


def _with_change(shipment: Shipment, change: ShipmentChange) -> Shipment:
    changes = (*shipment.changes, change)
    if not change.confirmed:
        return msgspec.structs.replace(shipment, changes=changes)
    status = SHIPMENT.next_status(shipment.status, CancellationRequestedEvent)
    assert status is ShipmentStatus.CANCELLED, shipment
    return msgspec.structs.replace(
        shipment, changes=changes, status=status, due_at=None, updated_at=change.at
    )


def _never_initiated(event: Cancelled, change: ShipmentChange) -> Shipment:
    """Return what keeps an order that is still to come from being shipped."""
    shipment = _shipment(event, ShipmentStatus.CANCELLED, change)
    items = tuple(
        ShippedItem(product_id=item.product_id, quantity=item.quantity) for item in event.items
    )
    return msgspec.structs.replace(shipment, items=items)


def _shipment(event: Cancelled, status: ShipmentStatus, change: ShipmentChange) -> Shipment:
    return Shipment(
        id=fact_id(event.order_id, "Shipment"),
        order_id=event.order_id,
        items=(),
        shipping_address="",
        status=status,
        attempts=0,
        due_at=None,
        created_at=change.at,
        updated_at=change.at,
        changes=(change,),
    )
