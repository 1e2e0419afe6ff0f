"""Define a shipment and its decisions as pure functions: values in, values out.

    INITIATED
    └─ due ─▶ BOOKING
          ├─ Accepted ─▶ COMPLETED
          └─ Rejected ─▶ FAILED

The step from INITIATED to BOOKING is the pivot of the saga: it claims the call to the carrier and is
committed before the call. From then on the shipment only moves forward: a call whose answer was lost is
repeated with the same idempotency key, the id of the shipment, until the carrier accepts or rejects.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Final

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
from todoku.lifecycle import Lifecycle, Stage, Status

CLAIM_SECONDS = 20
"""How long a claim is valid before the call is repeated; longer than a call may take."""

BACKOFF_SECONDS_MAX = 300
"""The longest pause between two calls whose outcome is unknown."""


class ShipmentError(Exception):
    """A command or an event cannot be applied to a shipment."""


class UnknownShipment(ShipmentError):
    """The order has no shipment."""


class Accepted(msgspec.Struct, frozen=True, tag=True):
    """The carrier accepted the parcel."""

    tracking_number: str


class Rejected(msgspec.Struct, frozen=True, tag=True):
    """The carrier rejected the parcel for good."""

    reason: str


class Unknown(msgspec.Struct, frozen=True, tag=True):
    """The outcome of the call is unknown: repeat it with the same key."""

    reason: str


Answer = Accepted | Rejected | Unknown


class ShipmentStatus(Status):
    """The status of a shipment. The step to BOOKING is the pivot of the saga."""

    INITIATED = (
        "INITIATED",
        Stage(
            meaning="It is open; the carrier has not been called.",
            on=(StockReservedEvent,),
            publishes=(ShipmentInitiatedEvent,),
            implies={"reservation": ("RESERVED",)},
        ),
    )
    BOOKING = (
        "BOOKING",
        Stage(
            meaning="The call to the carrier is claimed.",
            after=("INITIATED",),
            on=("due",),
            implies={"reservation": ("RESERVED",)},
        ),
    )
    COMPLETED = (
        "COMPLETED",
        Stage(
            meaning="The carrier accepted the parcel.",
            after=("BOOKING",),
            on=(Accepted,),
            publishes=(ShipmentCompletedEvent,),
            implies={"reservation": ("RESERVED", "SHIPPED")},
        ),
    )
    FAILED = (
        "FAILED",
        Stage(
            meaning="The carrier rejected the parcel.",
            after=("BOOKING",),
            on=(Rejected,),
            publishes=(ShipmentFailedEvent,),
            implies={"reservation": ("RESERVED", "RELEASED")},
            failure=True,
        ),
    )


SHIPMENT: Final = Lifecycle("shipment", ShipmentStatus)


class Shipment(msgspec.Struct, frozen=True, kw_only=True):
    """A parcel for an order. `due_at` (UTC) is when the carrier is called next; None once it has ended."""

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
    """The parcel that a carrier is asked to ship."""

    order_id: str
    items: tuple[ShippedItem, ...]
    shipping_address: Annotated[str, Personal]


class BookParcel(msgspec.Struct, frozen=True, kw_only=True):
    """An effect: call the carrier, with the id of the shipment as the idempotency key."""

    shipment_id: str
    order_id: str
    parcel: Parcel
    attempt: int


class RecordAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Record the answer of the carrier about a shipment."""

    order_id: str
    answer: Answer


def initiate_shipment(
    shipment: Shipment | None,
    event: StockReservedEvent,
    now: datetime,
    *,
    pickup_delay: Callable[[str], timedelta],
) -> tuple[Shipment, list[Event]]:
    """Open a shipment for the reserved stock; the carrier is called after `pickup_delay(shipment id)`."""
    if shipment is not None:
        return shipment, []  # A duplicate that arrived after the inbox was pruned.
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
    return initiated, [_initiated_event(initiated)]


def replay_completed(
    shipment: Shipment | None, event: ShipmentCompletedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Restore a completed shipment that the database has lost from its ShipmentCompletedEvent."""
    if shipment is not None and shipment.due_at is None:
        return shipment, []  # It has ended: the backup had it.
    completed, _ = _complete(shipment or _from_ending(event, time), event.tracking_number, time)
    return completed, []


def replay_failed(
    shipment: Shipment | None, event: ShipmentFailedEvent, time: datetime
) -> tuple[Shipment, list[Event]]:
    """Restore a failed shipment that the database has lost from its ShipmentFailedEvent."""
    if shipment is not None and shipment.due_at is None:
        return shipment, []  # It has ended: the backup had it.
    failed, _ = _fail(shipment or _from_ending(event, time), event.reason, time)
    return failed, []


def _from_ending(event: ShipmentCompletedEvent | ShipmentFailedEvent, time: datetime) -> Shipment:
    """Return a shipment as far as its last event describes it; its address is no longer needed."""
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
    """Return the latest event of a shipment, with its time; it implies the earlier ones."""
    if shipment is None:
        return []
    match shipment.status:
        case ShipmentStatus.COMPLETED:
            return [(_completed_event(shipment), shipment.updated_at)]
        case ShipmentStatus.FAILED:
            return [(_failed_event(shipment), shipment.updated_at)]
        case _:
            return [(_initiated_event(shipment), shipment.created_at)]


def when_due(shipment: Shipment, now: datetime) -> tuple[Shipment, list[BookParcel]]:
    """Claim the call to the carrier, for the first time or after a claim that got no answer."""
    if shipment.due_at is None:
        return shipment, []  # The answer of the carrier arrived.
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
    """Apply the answer of the carrier; the first one that accepts or rejects counts."""
    if shipment is None:
        raise UnknownShipment(
            f"answer of the carrier for order {command.order_id}: the shipping database has no "
            "shipment for it"
        )
    if shipment.status is not ShipmentStatus.BOOKING:
        return (
            shipment,
            [],
        )  # Late: the call was repeated, and the answer of the other one is recorded.
    match command.answer:
        case Accepted(tracking_number):
            return _complete(shipment, tracking_number, now)
        case Rejected(reason):
            return _fail(shipment, reason, now)
        case Unknown(reason):
            return _retry_later(shipment, reason, now), []


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
    return completed, [_completed_event(completed)]


def _fail(shipment: Shipment, reason: str, now: datetime) -> tuple[Shipment, list[Event]]:
    failed = msgspec.structs.replace(
        shipment, status=ShipmentStatus.FAILED, reason=reason, due_at=None, updated_at=now
    )
    return failed, [_failed_event(failed)]


def _initiated_event(shipment: Shipment) -> ShipmentInitiatedEvent:
    return ShipmentInitiatedEvent(
        order_id=shipment.order_id,
        shipment_id=shipment.id,
        shipping_address=shipment.shipping_address,
    )


def _completed_event(shipment: Shipment) -> ShipmentCompletedEvent:
    assert shipment.tracking_number is not None
    return ShipmentCompletedEvent(
        order_id=shipment.order_id,
        shipment_id=shipment.id,
        tracking_number=shipment.tracking_number,
        items=shipment.items,
    )


def _failed_event(shipment: Shipment) -> ShipmentFailedEvent:
    assert shipment.reason is not None
    return ShipmentFailedEvent(
        order_id=shipment.order_id,
        shipment_id=shipment.id,
        reason=shipment.reason,
        items=shipment.items,
    )


def _retry_later(shipment: Shipment, reason: str, now: datetime) -> Shipment:
    pause = min(2**shipment.attempts, BACKOFF_SECONDS_MAX)
    return msgspec.structs.replace(
        shipment, reason=reason, due_at=now + timedelta(seconds=pause), updated_at=now
    )
