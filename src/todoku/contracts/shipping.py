"""Define the events that the shipping service publishes."""

from datetime import datetime
from typing import Annotated, ClassVar

import msgspec

from todoku.contracts.changes import ChangeEvent
from todoku.contracts.order_event import OrderEvent
from todoku.contracts.parking import ParkingEvent
from todoku.events import Personal


class ShippedItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A number of pieces of one product in a shipment."""

    product_id: str
    quantity: int


class ShipmentInitiatedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """A shipment was opened for the order; the carrier has not been called yet."""

    subject: ClassVar[str] = "shipping.initiated"
    publisher: ClassVar[str] = "shipping"

    shipment_id: str
    shipping_address: Annotated[str, Personal] = ""


class BookingAttemptFailedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """An attempt to book the parcel with the carrier failed: its outcome is unknown, so it is repeated.

    At most one a minute is published for each order. `attempts` counts all of them so far; `error` is at
    most 500 characters, without secrets; the carrier is called again at `next_attempt_at`.
    """

    subject: ClassVar[str] = "shipping.booking_attempt_failed"
    publisher: ClassVar[str] = "shipping"

    shipment_id: str
    attempts: int
    error: str
    next_attempt_at: Annotated[datetime, msgspec.Meta(tz=True)]

    @property
    def fact(self) -> str:
        """Return the name of the fact: an order may have several of them."""
        return f"{type(self).__name__} {self.attempts}"


class ShipmentCompletedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """The carrier has accepted the parcel."""

    subject: ClassVar[str] = "shipping.completed"
    publisher: ClassVar[str] = "shipping"

    shipment_id: str
    tracking_number: str
    items: tuple[ShippedItem, ...]


class ShipmentFailedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """The carrier has rejected the parcel; the stock that was reserved for it may be released."""

    subject: ClassVar[str] = "shipping.failed"
    publisher: ClassVar[str] = "shipping"

    shipment_id: str
    reason: str
    items: tuple[ShippedItem, ...]


class CancellationConfirmedEvent(ChangeEvent, frozen=True, kw_only=True, rename="camel"):
    """The cancelled pieces will not be shipped: the carrier was not called for them, and never will be."""

    subject: ClassVar[str] = "shipping.cancellation_confirmed"
    publisher: ClassVar[str] = "shipping"


class CancellationRefusedEvent(ChangeEvent, frozen=True, kw_only=True, rename="camel"):
    """It is too late to cancel these pieces: the call to the carrier was claimed."""

    subject: ClassVar[str] = "shipping.cancellation_refused"
    publisher: ClassVar[str] = "shipping"

    reason: str = ""


class ShippingMessageParkedEvent(ParkingEvent, frozen=True, kw_only=True, rename="camel"):
    """Shipping has parked a message about the order; it needs manual action."""

    subject: ClassVar[str] = "shipping.message_parked"
    publisher: ClassVar[str] = "shipping"


class ShippingMessageClosedEvent(ParkingEvent, frozen=True, kw_only=True, rename="camel"):
    """A message that was parked at shipping is resolved: retried, edited or discarded."""

    subject: ClassVar[str] = "shipping.message_closed"
    publisher: ClassVar[str] = "shipping"
