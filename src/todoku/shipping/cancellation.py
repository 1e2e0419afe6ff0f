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
)
from todoku.shipping.domain import (
    PAST_PIVOT,
    SHIPMENT,
    Shipment,
    ShipmentChange,
    ShipmentError,
    ShipmentStatus,
    expected_shipment,
    without,
)
from todoku.shipping.holds import CARRIER_CALLED


class InvalidCancellation(ShipmentError):
    """A cancellation names no pieces."""


class ContradictoryEvent(ShipmentError):
    """An event contradicts the status of the shipment."""


def decide_cancellation(
    shipment: Shipment | None, event: CancellationRequestedEvent, now: datetime
) -> tuple[Shipment, list[Event]]:
    """Confirm that the pieces are cancelled if the carrier was not called yet, else refuse it."""
    if not event.items:
        raise InvalidCancellation(f"{type(event).__name__} of order {event.order_id} has no items")
    if _find(shipment, event) is not None:
        assert shipment is not None
        return shipment, []  # A duplicate that arrived after the inbox was pruned.
    shipment = shipment or expected_shipment(event.order_id, now)
    change = _change(event, now, confirmed=not shipment.pivot_passed)
    return _with_change(shipment, change), [answer_event(event.order_id, change)]


def replay_confirmation(
    shipment: Shipment | None, event: CancellationConfirmedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Restore from its own event that pieces were cancelled: the carrier must never be called for them.

    That a call may be forgotten (`replay_initiated`) is no contradiction: none was claimed before this.
    """
    if _find(shipment, event) is not None:
        assert shipment is not None
        return shipment, []  # The backup had it.
    shipment = shipment or expected_shipment(event.order_id, time)
    if event.whole and shipment.call_is_certain:
        raise ContradictoryEvent(
            f"{type(event).__name__} for order {event.order_id} contradicts its shipment, which is "
            f"{shipment.status}"
        )
    return _with_change(shipment, _change(event, time, confirmed=True)), []


def replay_refusal(
    shipment: Shipment | None, event: CancellationRefusedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Restore from its own event that a cancellation was refused: the carrier was called then.

    A shipment that the database has lost is expected: the StockReservedEvent that opens it follows.
    """
    if _find(shipment, event) is not None:
        assert shipment is not None
        return shipment, []  # The backup had it.
    shipment = shipment or expected_shipment(event.order_id, time)
    return _with_change(shipment, _change(event, time, confirmed=False)), []


def answer_event(
    order_id: str, change: ShipmentChange
) -> CancellationConfirmedEvent | CancellationRefusedEvent:
    """Return the event that tells what was decided about a change."""
    if change.confirmed:
        return CancellationConfirmedEvent(
            order_id=order_id, change_id=change.id, items=change.items, whole=change.whole
        )
    return CancellationRefusedEvent(
        order_id=order_id,
        change_id=change.id,
        items=change.items,
        whole=change.whole,
        reason=change.reason or "",
    )


Cancelled = CancellationRequestedEvent | CancellationConfirmedEvent | CancellationRefusedEvent


def _find(shipment: Shipment | None, event: Cancelled) -> ShipmentChange | None:
    changes = shipment.changes if shipment else ()
    return next((change for change in changes if change.id == event.change_id), None)


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
    """Return the shipment with a change that is decided: without its pieces, or cancelled."""
    noted = msgspec.structs.replace(shipment, changes=(*shipment.changes, change))
    if not change.confirmed:
        return noted
    if not change.whole:
        left = without(noted.items, change.items)
        # Restored from its ending, a shipment has no other pieces than were shipped.
        items = noted.items if shipment.status in PAST_PIVOT else left
        return msgspec.structs.replace(noted, items=items, updated_at=change.at)
    status = SHIPMENT.next_status(shipment.status, CancellationRequestedEvent)
    assert status is ShipmentStatus.CANCELLED, shipment
    return msgspec.structs.replace(
        noted, status=status, attempts=0, due_at=None, updated_at=change.at
    )
