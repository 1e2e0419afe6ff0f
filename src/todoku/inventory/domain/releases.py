"""Make the events of releases from what a reservation keeps about them."""

from datetime import datetime

from todoku.contracts import CancelledItem, Event, ReleaseOutcome, StockReleasedEvent
from todoku.inventory.domain.stock import Reservation, ReservationChange, ReservationState

NEVER_RESERVED = (
    ReservationState.CANCELLED,
    ReservationState.EXPECTED,
    ReservationState.WAITING,
)


def republish_releases(reservation: Reservation) -> list[tuple[Event, datetime]]:
    """Return the event of each cancellation, with the time of its decision."""
    return [(released_event(reservation, change), change.at) for change in reservation.changes]


def released_event(reservation: Reservation, change: ReservationChange) -> StockReleasedEvent:
    """Return the event that tells that nothing is reserved for cancelled pieces any more."""
    never = reservation.state in NEVER_RESERVED
    return StockReleasedEvent(
        order_id=reservation.order_id,
        change_id=change.id,
        items=tuple(
            CancelledItem(product_id=line.product_id, quantity=line.quantity)
            for line in change.items
        ),
        whole=change.whole,
        outcome=ReleaseOutcome.NEVER_RESERVED if never else ReleaseOutcome.RELEASED,
    )
