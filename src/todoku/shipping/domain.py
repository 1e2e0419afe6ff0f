"""What a shipment is, from the reserved stock to the carrier's word. Pure: values in, values out.

    INITIATED ──due──▶ BOOKING ──▶ COMPLETED
                        └───────▶ FAILED

The step from INITIATED to BOOKING is the saga's pivot: it claims the right to call the carrier and is
committed before the call. From then on the shipment only goes forward: a call whose answer was lost is
made again with the same key, which is the shipment's id, until the carrier says yes or no.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated

import msgspec

from todoku.contracts import (
    Event,
    Personal,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    StockReservedEvent,
    fact_id,
)

CLAIM_SECONDS = 20
"""How long a claim to call the carrier stands before the call is made again; longer than a call may take."""

BACKOFF_SECONDS_MAX = 300
"""The longest pause between two calls to a carrier that does not give a clear answer."""


class ShipmentError(Exception):
    """A shipment cannot do what was asked of it."""


class UnknownShipment(ShipmentError):
    """There is no shipment with this id."""


class ShipmentStatus(StrEnum):
    """Where a shipment is on its way."""

    INITIATED = "INITIATED"
    BOOKING = "BOOKING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"


class Shipment(msgspec.Struct, frozen=True, kw_only=True):
    """A parcel for an order. `due_at` (UTC) is when it wants attention next; none once it has ended."""

    id: str
    order_id: str
    items: tuple[ShippedItem, ...]
    shipping_address: Annotated[str, Personal]
    status: ShipmentStatus
    attempts: int
    due_at: datetime | None
    created_at: datetime
    updated_at: datetime
    tracking_number: str | None = None
    reason: str | None = None


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """What a carrier is asked to take."""

    order_id: str
    items: tuple[ShippedItem, ...]
    shipping_address: Annotated[str, Personal]


class Accepted(msgspec.Struct, frozen=True, tag=True):
    """The carrier takes the parcel."""

    tracking_number: str


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """The carrier will never take the parcel."""

    reason: str


class Unknown(msgspec.Struct, frozen=True, tag=True):
    """The carrier did not say: ask again with the same key."""

    reason: str


Answer = Accepted | Rejected | Unknown


class BookParcel(msgspec.Struct, frozen=True, kw_only=True):
    """An effect to have outside: call the carrier, with the shipment's id as the idempotency key."""

    shipment_id: str
    order_id: str
    parcel: Parcel
    attempt: int


class RecordAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Note what the carrier said about a shipment."""

    order_id: str
    answer: Answer


def initiate_shipment(
    shipment: Shipment | None,
    event: StockReservedEvent,
    now: datetime,
    *,
    pickup_delay: Callable[[str], timedelta],
) -> tuple[Shipment, list[Event]]:
    """Open a shipment for what was reserved; the carrier is called after `pickup_delay` of its id."""
    if shipment is not None:
        return shipment, []  # A repeat that outlived the inbox.
    shipment_id = fact_id(event.order_id, "Shipment")
    initiated = Shipment(
        id=shipment_id,
        order_id=event.order_id,
        items=tuple(
            ShippedItem(product_id=item.product_id, quantity=item.quantity) for item in event.items
        ),
        shipping_address=event.shipping_address,
        status=ShipmentStatus.INITIATED,
        attempts=0,
        due_at=now + pickup_delay(shipment_id),
        created_at=now,
        updated_at=now,
    )
    return initiated, [_initiated(initiated)]


def replay_completed(
    shipment: Shipment | None, event: ShipmentCompletedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Take from our own word that the carrier has the parcel: our database has lost it."""
    if shipment is not None and shipment.due_at is None:
        return shipment, []  # It has ended: the backup had it.
    completed, _ = _complete(shipment or _recalled(event, time), event.tracking_number, time)
    return completed, []


def replay_failed(
    shipment: Shipment | None, event: ShipmentFailedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Take from our own word that the carrier refused the parcel: our database has lost it."""
    if shipment is not None and shipment.due_at is None:
        return shipment, []  # It has ended: the backup had it.
    failed, _ = _fail(shipment or _recalled(event, time), event.reason, time)
    return failed, []


def _recalled(event: ShipmentCompletedEvent | ShipmentFailedEvent, time: datetime) -> Shipment:
    """A shipment as far as its ending tells; the address is no longer needed."""
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
    )


def republish_shipment(shipment: Shipment | None) -> list[tuple[Event, datetime]]:
    """The last word about a shipment; those before it follow from it."""
    if shipment is None:
        return []
    match shipment.status:
        case ShipmentStatus.COMPLETED:
            return [(_completed(shipment), shipment.updated_at)]
        case ShipmentStatus.FAILED:
            return [(_failed(shipment), shipment.updated_at)]
        case _:
            return [(_initiated(shipment), shipment.created_at)]


def when_due(shipment: Shipment, now: datetime) -> tuple[Shipment, list[BookParcel]]:
    """Claim the call to the carrier, for the first time or again after a claim without an answer."""
    if shipment.due_at is None or shipment.due_at > now:
        return shipment, []  # Somebody else was quicker: a replica, or the carrier's answer.
    claimed = msgspec.structs.replace(
        shipment,
        status=ShipmentStatus.BOOKING,
        attempts=shipment.attempts + 1,
        due_at=now + timedelta(seconds=CLAIM_SECONDS),
        updated_at=now,
    )
    return claimed, [
        BookParcel(
            shipment_id=claimed.id,
            order_id=claimed.order_id,
            parcel=Parcel(
                order_id=claimed.order_id,
                items=claimed.items,
                shipping_address=claimed.shipping_address,
            ),
            attempt=claimed.attempts,
        )
    ]


def record_answer(
    shipment: Shipment | None, command: RecordAnswer, now: datetime
) -> tuple[Shipment, list[Event]]:
    """Take the carrier's word; the first clear one counts."""
    if shipment is None:
        raise UnknownShipment(f"an answer for order {command.order_id}, which has no shipment")
    if shipment.status is not ShipmentStatus.BOOKING:
        return shipment, []  # Late: the same call was made twice and its first answer is recorded.
    match command.answer:
        case Accepted(tracking_number):
            return _complete(shipment, tracking_number, now)
        case Rejected(reason):
            return _fail(shipment, reason, now)
        case Unknown(reason):
            return _ask_again(shipment, reason, now), []


def _complete(
    shipment: Shipment, tracking_number: str, now: datetime
) -> tuple[Shipment, list[Event]]:
    completed = msgspec.structs.replace(
        shipment,
        status=ShipmentStatus.COMPLETED,
        tracking_number=tracking_number,
        reason=None,
        due_at=None,
        updated_at=now,
    )
    return completed, [_completed(completed)]


def _fail(shipment: Shipment, reason: str, now: datetime) -> tuple[Shipment, list[Event]]:
    failed = msgspec.structs.replace(
        shipment, status=ShipmentStatus.FAILED, reason=reason, due_at=None, updated_at=now
    )
    return failed, [_failed(failed)]


def _initiated(shipment: Shipment) -> ShipmentInitiatedEvent:
    return ShipmentInitiatedEvent(
        order_id=shipment.order_id,
        shipment_id=shipment.id,
        shipping_address=shipment.shipping_address,
    )


def _completed(shipment: Shipment) -> ShipmentCompletedEvent:
    assert shipment.tracking_number is not None
    return ShipmentCompletedEvent(
        order_id=shipment.order_id,
        shipment_id=shipment.id,
        tracking_number=shipment.tracking_number,
        items=shipment.items,
    )


def _failed(shipment: Shipment) -> ShipmentFailedEvent:
    assert shipment.reason is not None
    return ShipmentFailedEvent(
        order_id=shipment.order_id,
        shipment_id=shipment.id,
        reason=shipment.reason,
        items=shipment.items,
    )


def _ask_again(shipment: Shipment, reason: str, now: datetime) -> Shipment:
    pause = min(2**shipment.attempts, BACKOFF_SECONDS_MAX)
    return msgspec.structs.replace(
        shipment, reason=reason, due_at=now + timedelta(seconds=pause), updated_at=now
    )
