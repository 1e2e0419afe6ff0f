"""Restore shipments from their own events, and republish what other services may have lost: pure functions.

What was decided about cancellations is restored in `cancellation.py`, about holds in `holding.py`.
"""

from datetime import datetime

import msgspec

from todoku.contracts import (
    BookingAttemptFailedEvent,
    Event,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
)
from todoku.shipping.cancellation import answer_event
from todoku.shipping.domain import (
    Shipment,
    ShipmentStatus,
    complete,
    completed_event,
    expected_shipment,
    fail,
    failed_event,
    initiated_event,
    pause_after,
)
from todoku.shipping.holds import hold_answer


def replay_initiated(
    shipment: Shipment | None, event: ShipmentInitiatedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Restore from its own event that a shipment was open.

    The claim of a call is in no event, so this one may be forgotten: it counts as claimed, unless a
    confirmation that follows says that it was not. A cancellation is refused, and the call is made again,
    with the same key. A shipment that the database has lost is expected: its StockReservedEvent follows.
    """
    shipment = shipment or expected_shipment(event.order_id, time)
    if shipment.attempts or shipment.status not in (
        ShipmentStatus.EXPECTED,
        ShipmentStatus.INITIATED,
    ):
        return shipment, []
    return msgspec.structs.replace(shipment, attempts=1), []


def replay_failed_attempt(
    shipment: Shipment | None, event: BookingAttemptFailedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Restore from its own event that calls to the carrier had no outcome, and how many.

    The status stays: the call is claimed again when the shipment is due, with the same key.
    """
    shipment = shipment or expected_shipment(event.order_id, time)
    if shipment.status.terminal or shipment.attempts > event.attempts:
        return shipment, []  # The backup had it, or what came after it.
    return msgspec.structs.replace(
        shipment,
        attempts=event.attempts,
        reason=event.error,
        failure_published_at=event.next_attempt_at - pause_after(event.attempts),
    ), []


def replay_completed(
    shipment: Shipment | None, event: ShipmentCompletedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Restore a completed shipment that the database has lost from its ShipmentCompletedEvent."""
    if shipment is not None and shipment.status.terminal:
        return shipment, []  # It has ended: the backup had it.
    shipment = _from_ending(shipment, event, time)
    completed, _ = complete(shipment, event.tracking_number, time)
    return completed, []


def replay_failed(
    shipment: Shipment | None, event: ShipmentFailedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Restore a failed shipment that the database has lost from its ShipmentFailedEvent."""
    if shipment is not None and shipment.status.terminal:
        return shipment, []  # It has ended: the backup had it.
    failed, _ = fail(_from_ending(shipment, event, time), event.reason, time)
    return failed, []


def _from_ending(
    shipment: Shipment | None, event: ShipmentCompletedEvent | ShipmentFailedEvent, time: datetime
) -> Shipment:
    """Return the shipment; of one that is lost, what its last event describes. Its address is no longer
    needed."""
    if shipment is not None and shipment.status is not ShipmentStatus.EXPECTED:
        return shipment
    return Shipment(
        id=event.shipment_id,
        order_id=event.order_id,
        items=event.items,
        shipping_address="",
        status=ShipmentStatus.BOOKING,
        attempts=1,
        due_at=time,
        created_at=time,
        updated_at=time,
        changes=shipment.changes if shipment else (),
        holds=shipment.holds if shipment else (),
    )


def republish_shipment(shipment: Shipment | None) -> list[tuple[Event, datetime]]:
    """Return the latest event of a shipment, which implies the earlier ones, and what was decided about
    its changes and holds; each with its time."""
    if shipment is None:
        return []
    decided: list[tuple[Event, datetime]] = [
        (answer_event(shipment.order_id, change), change.at) for change in shipment.changes
    ]
    decided += [(hold_answer(shipment.order_id, hold), hold.at) for hold in shipment.holds]
    match shipment.status:
        case ShipmentStatus.COMPLETED:
            return [*decided, (completed_event(shipment), shipment.updated_at)]
        case ShipmentStatus.FAILED:
            return [*decided, (failed_event(shipment), shipment.updated_at)]
        case ShipmentStatus.INITIATED | ShipmentStatus.BOOKING:
            return [*decided, (initiated_event(shipment), shipment.created_at)]
        case _:
            return decided
