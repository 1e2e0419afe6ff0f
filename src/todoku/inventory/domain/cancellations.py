"""Decide what a confirmed cancellation means for the stock of its order: pure functions."""

from datetime import datetime

import msgspec

from todoku.contracts import CancellationConfirmedEvent, Event, ReleaseOutcome, StockReleasedEvent
from todoku.inventory.domain.releases import released_event
from todoku.inventory.domain.reservations import contradiction, moved
from todoku.inventory.domain.stock import (
    Line,
    Reservation,
    ReservationChange,
    ReservationState,
    Stock,
    StockError,
)

CANCELLED_STATES = (ReservationState.RELEASED, ReservationState.CANCELLED)


class InvalidCancellation(StockError):
    """A cancellation names no pieces."""


def release_cancelled(
    stock: Stock, event: CancellationConfirmedEvent, now: datetime
) -> tuple[Stock, list[Event]]:
    """Release what is reserved for a cancelled order; if nothing is, see to it that nothing will be.

    A refusal stays, and is the answer: orders has it, or will have it.
    """
    reservation = stock.reservation
    if reservation is None:
        cancelled = _never_reserved(event, now)
        return Stock(products={}, reservation=cancelled), [
            released_event(cancelled, cancelled.changes[-1])
        ]
    if reservation.state is ReservationState.REFUSED:
        return stock, []
    if any(change.id == event.change_id for change in reservation.changes):
        return stock, []  # A duplicate that arrived after the inbox was pruned.
    released = _released(stock, event, now)
    assert released.reservation is not None
    change = released.reservation.changes[-1]
    return released, [released_event(released.reservation, change)]


def replay_release(
    stock: Stock, event: StockReleasedEvent, time: datetime
) -> tuple[Stock, list[Event]]:
    """Restore a release that the database has lost from its StockReleasedEvent."""
    reservation = stock.reservation
    if reservation is None:
        lost = _never_reserved(event, time)
        if event.outcome != ReleaseOutcome.NEVER_RESERVED:
            lost = msgspec.structs.replace(lost, state=ReservationState.RELEASED)
        return Stock(products={}, reservation=lost), []
    if any(change.id == event.change_id for change in reservation.changes):
        return stock, []  # The backup had it.
    return _released(stock, event, time), []


def _never_reserved(
    event: CancellationConfirmedEvent | StockReleasedEvent, now: datetime
) -> Reservation:
    """Return what keeps an order that is still to come from reserving anything."""
    if not event.items:
        raise InvalidCancellation(f"{type(event).__name__} of order {event.order_id} has no items")
    return Reservation(
        order_id=event.order_id,
        lines=tuple(Line(item.product_id, item.quantity) for item in event.items),
        state=ReservationState.CANCELLED,
        created_at=now,
        updated_at=now,
        changes=(_change(event, now),),
    )


def _released(
    stock: Stock, event: CancellationConfirmedEvent | StockReleasedEvent, now: datetime
) -> Stock:
    reservation = stock.reservation
    assert reservation is not None
    changed = msgspec.structs.replace(
        reservation, changes=(*reservation.changes, _change(event, now)), updated_at=now
    )
    if reservation.state is ReservationState.RESERVED:
        return Stock(
            products=moved(stock.products, reservation.lines, now, reserved=-1),
            reservation=msgspec.structs.replace(changed, state=ReservationState.RELEASED),
        )
    if reservation.changes and reservation.state in CANCELLED_STATES:
        return msgspec.structs.replace(stock, reservation=changed)  # Cancelled twice.
    raise contradiction(reservation, event)


def _change(
    event: CancellationConfirmedEvent | StockReleasedEvent, now: datetime
) -> ReservationChange:
    items = tuple(Line(item.product_id, item.quantity) for item in event.items)
    return ReservationChange(id=event.change_id, items=items, whole=event.whole, at=now)
