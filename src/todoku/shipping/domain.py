"""Define a shipment and its decisions as pure functions: values in, values out.

    INITIATED
    ├─ due ─▶ BOOKING
    │     ├─ Accepted ─▶ COMPLETED
    │     └─ Rejected ─▶ FAILED
    └─ CancellationRequestedEvent ─▶ CANCELLED
    EXPECTED
    ├─ StockReservedEvent ─▶ INITIATED (see above)
    └─ CancellationRequestedEvent ─▶ CANCELLED (see above)

The step from INITIATED to BOOKING is the pivot of the saga: it claims the call to the carrier and is
committed before the call. From then on the shipment only moves forward: a call whose answer was lost is
repeated with the same idempotency key, the id of the shipment, until the carrier accepts or rejects.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Annotated, Final

import msgspec
from msgspec import UNSET

from todoku.contracts import (
    BookingAttemptFailedEvent,
    CancellationConfirmedEvent,
    CancellationRequestedEvent,
    CancelledItem,
    Event,
    Personal,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    StockReservedEvent,
    fact_id,
    holds_of,
)
from todoku.lifecycle import Lifecycle, Stage, Status
from todoku.shipping.holds import ShipmentHold, hold_answer, new_holds

CLAIM_SECONDS = 20
"""How long a claim is valid before the call is repeated; longer than a call may take."""

BACKOFF_SECONDS_MAX = 300
"""The longest pause between two calls whose outcome is unknown."""

PUBLISHED_EVERY: Final = timedelta(seconds=60)
"""How often a failed attempt of one shipment is published at most."""


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
            after=("EXPECTED",),
            on=(StockReservedEvent,),
            publishes=(ShipmentInitiatedEvent,),
            implies={"reservation": ("RESERVED",)},
            begins=True,
        ),
    )
    EXPECTED = (
        "EXPECTED",
        Stage(
            meaning="It was changed or restored before its StockReservedEvent arrived.",
            on=("change",),
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
    CANCELLED = (
        "CANCELLED",
        Stage(
            meaning="It was cancelled before the carrier was called, or before it was open.",
            after=("INITIATED", "EXPECTED"),
            on=(CancellationRequestedEvent,),
            publishes=(CancellationConfirmedEvent,),
            implies={"reservation": (None, "REFUSED", "RESERVED", "RELEASED", "CANCELLED")},
            failure=True,
        ),
    )


SHIPMENT: Final = Lifecycle("shipment", ShipmentStatus)


PAST_PIVOT: Final = (ShipmentStatus.BOOKING, ShipmentStatus.COMPLETED, ShipmentStatus.FAILED)
"""The statuses in which the call to the carrier was claimed."""


class ShipmentChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A change of an order: these pieces were to be cancelled, and this was `confirmed` or refused for a
    `reason`; decided `at` (UTC)."""

    id: str
    items: tuple[CancelledItem, ...]
    whole: bool
    confirmed: bool
    at: datetime
    reason: str | None = None


class Shipment(msgspec.Struct, frozen=True, kw_only=True):
    """A parcel for an order. `due_at` (UTC) is when the carrier is called next; None if it never is again,
    not yet, or not while it is held. `attempts` counts the calls, and one that a restored
    database may have forgotten. `changes` and `holds` are those that were decided on.
    `failure_published_at` is when a failed attempt was published last."""

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
    changes: tuple[ShipmentChange, ...] = ()
    holds: tuple[ShipmentHold, ...] = ()
    failure_published_at: datetime | None = None

    @property
    def held(self) -> bool:
        """Return whether a hold is open: nothing may be booked."""
        return any(hold.is_open for hold in self.holds)

    @property
    def pivot_passed(self) -> bool:
        """Return whether the carrier may have been called. `attempts` tells it, also of a shipment that
        was restored (`replay_initiated`)."""
        return self.attempts > 0 or self.call_is_certain

    @property
    def call_is_certain(self) -> bool:
        """Return whether the call was claimed for certain. A refusal tells it, also where the database was
        restored from a backup and has lost the rest."""
        refused = any(not change.confirmed for change in self.changes)
        return (
            self.status in PAST_PIVOT or refused or any(not hold.confirmed for hold in self.holds)
        )


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

    @property
    def failure(self) -> str | None:
        """Return the kind of failure if the outcome is unknown, for whoever traces the call."""
        return "Unknown" if isinstance(self.answer, Unknown) else None


def initiate_shipment(
    shipment: Shipment | None,
    event: StockReservedEvent,
    now: datetime,
    *,
    pickup_delay: Callable[[str], timedelta],
) -> tuple[Shipment, list[Event]]:
    """Open a shipment for the reserved stock; the carrier is called after `pickup_delay(shipment id)`, or
    when it is no longer held."""
    if shipment is not None and shipment.status is not ShipmentStatus.EXPECTED:
        return shipment, []  # Cancelled; or a duplicate that arrived after the inbox was pruned.
    expected = shipment or expected_shipment(event.order_id, now)
    placed = new_holds(expected.holds, holds_of(event), now)
    # What is known of an expected one stays: holds, cancelled pieces, attempts that a recovery has replayed.
    initiated = msgspec.structs.replace(
        expected,
        items=_not_cancelled(event, shipment),
        shipping_address=event.shipping_address,
        status=ShipmentStatus.INITIATED,
        due_at=now + pickup_delay(expected.id),
        created_at=now,
        updated_at=now,
        holds=expected.holds + placed,
    )
    if initiated.held:
        initiated = msgspec.structs.replace(initiated, due_at=None)
    answers = [hold_answer(event.order_id, hold) for hold in placed]
    return initiated, [initiated_event(initiated), *answers]


def _not_cancelled(event: StockReservedEvent, expected: Shipment | None) -> tuple[ShippedItem, ...]:
    """Return the reserved items without what was cancelled before they were known here, unless inventory
    has subtracted it already."""
    items = tuple(
        ShippedItem(product_id=item.product_id, quantity=item.quantity) for item in event.items
    )
    subtracted = () if event.changes is UNSET else event.changes
    for change in expected.changes if expected else ():
        if change.confirmed and change.id not in subtracted:
            items = without(items, change.items)
    return items


def without(
    items: tuple[ShippedItem, ...], cancelled: tuple[CancelledItem, ...]
) -> tuple[ShippedItem, ...]:
    """Return the items without the cancelled pieces."""
    pieces = {item.product_id: item.quantity for item in cancelled}
    left = (
        msgspec.structs.replace(item, quantity=item.quantity - pieces.get(item.product_id, 0))
        for item in items
    )
    return tuple(item for item in left if item.quantity > 0)


def expected_shipment(order_id: str, now: datetime) -> Shipment:
    """Return the shipment of an order whose StockReservedEvent is still to come."""
    return Shipment(
        id=fact_id(order_id, "Shipment"),
        order_id=order_id,
        items=(),
        shipping_address="",
        status=ShipmentStatus.EXPECTED,
        attempts=0,
        due_at=None,
        created_at=now,
        updated_at=now,
    )


def when_due(shipment: Shipment, now: datetime) -> tuple[Shipment, list[BookParcel]]:
    """Claim the call to the carrier, for the first time or after a claim that got no answer."""
    if shipment.due_at is None:
        return shipment, []  # The answer of the carrier arrived, or it is held.
    if shipment.held and shipment.status is ShipmentStatus.INITIATED:
        # A process of an older version has opened it.
        return msgspec.structs.replace(shipment, due_at=None), []
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
        # Late: the call was repeated, and the answer of the other one is recorded.
        return shipment, []
    match command.answer:
        case Accepted(tracking_number):
            return complete(shipment, tracking_number, now)
        case Rejected(reason):
            return fail(shipment, reason, now)
        case Unknown(reason):
            return _retry_later(shipment, reason, now)


def complete(
    shipment: Shipment, tracking_number: str, now: datetime
) -> tuple[Shipment, list[Event]]:
    """Complete the shipment: the carrier accepted the parcel."""
    completed = msgspec.structs.replace(
        shipment,
        status=ShipmentStatus.COMPLETED,
        tracking_number=tracking_number,
        reason=None,
        due_at=None,
        updated_at=now,
    )
    return completed, [completed_event(completed)]


def fail(shipment: Shipment, reason: str, now: datetime) -> tuple[Shipment, list[Event]]:
    """Fail the shipment: the carrier rejected the parcel."""
    failed = msgspec.structs.replace(
        shipment, status=ShipmentStatus.FAILED, reason=reason, due_at=None, updated_at=now
    )
    return failed, [failed_event(failed)]


def initiated_event(shipment: Shipment) -> ShipmentInitiatedEvent:
    return ShipmentInitiatedEvent(
        order_id=shipment.order_id,
        shipment_id=shipment.id,
        shipping_address=shipment.shipping_address,
    )


def completed_event(shipment: Shipment) -> ShipmentCompletedEvent:
    assert shipment.tracking_number is not None
    return ShipmentCompletedEvent(
        order_id=shipment.order_id,
        shipment_id=shipment.id,
        tracking_number=shipment.tracking_number,
        items=shipment.items,
    )


def failed_event(shipment: Shipment) -> ShipmentFailedEvent:
    assert shipment.reason is not None
    return ShipmentFailedEvent(
        order_id=shipment.order_id,
        shipment_id=shipment.id,
        reason=shipment.reason,
        items=shipment.items,
    )


def pause_after(attempts: int) -> timedelta:
    """Return how long to wait before the next call, after so many whose outcome is unknown."""
    return timedelta(seconds=min(2**attempts, BACKOFF_SECONDS_MAX))


def _retry_later(shipment: Shipment, reason: str, now: datetime) -> tuple[Shipment, list[Event]]:
    next_attempt_at = now + pause_after(shipment.attempts)
    failed = msgspec.structs.replace(
        shipment, reason=reason, due_at=next_attempt_at, updated_at=now
    )
    published_at = shipment.failure_published_at
    # The clock may have been set back since.
    if published_at is not None and abs(now - published_at) < PUBLISHED_EVERY:
        return failed, []
    event = BookingAttemptFailedEvent(
        order_id=shipment.order_id,
        shipment_id=shipment.id,
        attempts=shipment.attempts,
        error=reason,
        next_attempt_at=next_attempt_at,
    )
    return msgspec.structs.replace(failed, failure_published_at=now), [event]
