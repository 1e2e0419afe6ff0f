"""What the inventory service says."""

from typing import Annotated, ClassVar

import msgspec

from todoku.contracts.envelope import Event, Personal
from todoku.contracts.parking import ParkingEvent


class ReservedItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A number of pieces of one product, set aside for an order."""

    product_id: str
    quantity: int


class FailedItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A product of which there was too little; an unknown product has none available."""

    product_id: str
    requested_quantity: int
    available_quantity: int


class StockReservedEvent(Event, frozen=True, kw_only=True, rename="camel"):
    """Every item of the order is set aside."""

    subject: ClassVar[str] = "inventory.reserved"
    publisher: ClassVar[str] = "inventory"

    items: tuple[ReservedItem, ...]
    shipping_address: Annotated[str, Personal] = ""


class StockReservationFailedEvent(Event, frozen=True, kw_only=True, rename="camel"):
    """Nothing is set aside for the order, because of `failed_items`."""

    subject: ClassVar[str] = "inventory.reservation_failed"
    publisher: ClassVar[str] = "inventory"

    reason: str
    failed_items: tuple[FailedItem, ...]


class InventoryMessageParkedEvent(ParkingEvent, frozen=True, kw_only=True, rename="camel"):
    """The inventory could not deal with a message about the order; it waits for a person."""

    subject: ClassVar[str] = "inventory.message_parked"
    publisher: ClassVar[str] = "inventory"


class InventoryMessageClosedEvent(ParkingEvent, frozen=True, kw_only=True, rename="camel"):
    """Somebody has seen to a message that was parked at the inventory."""

    subject: ClassVar[str] = "inventory.message_closed"
    publisher: ClassVar[str] = "inventory"
