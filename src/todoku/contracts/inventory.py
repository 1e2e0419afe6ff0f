"""Define the events that the inventory service publishes."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, ClassVar

import msgspec
from msgspec import UNSET, UnsetType

from todoku.contracts.changes import ChangeEvent
from todoku.contracts.holds import PlacedHold
from todoku.contracts.order_event import OrderEvent
from todoku.contracts.parking import ParkingEvent
from todoku.contracts.product_event import ProductEvent
from todoku.events import Personal


class ReservedItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A number of pieces of one product, reserved for an order."""

    product_id: str
    quantity: int


class FailedItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A product of which there was too little; an unknown product has none available."""

    product_id: str
    requested_quantity: int
    available_quantity: int


class StockReservedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """Every item of the order is reserved.

    `total_amount`, in minor units of `currency` (ISO 4217), is what the order costs; both are absent in
    events from before version 0.2, and for orders that were accepted by them. `changes` are the ids of
    the changes that are subtracted from `items` already; absent if there are none. `holds` are those of the
    request that placed the order, as OrderCreatedEvent had them.
    """

    subject: ClassVar[str] = "inventory.reserved"
    publisher: ClassVar[str] = "inventory"

    items: tuple[ReservedItem, ...]
    shipping_address: Annotated[str, Personal] = ""
    total_amount: int | UnsetType = UNSET
    currency: str | UnsetType = UNSET
    changes: tuple[str, ...] | UnsetType = UNSET
    holds: tuple[PlacedHold, ...] | UnsetType = UNSET


class StockReservationFailedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """Nothing is reserved for the order, because of `failed_items`."""

    subject: ClassVar[str] = "inventory.reservation_failed"
    publisher: ClassVar[str] = "inventory"

    reason: str
    failed_items: tuple[FailedItem, ...]


class ReleaseOutcome(StrEnum):
    """Whether cancelled pieces were reserved before."""

    RELEASED = "RELEASED"
    NEVER_RESERVED = "NEVER_RESERVED"


class StockReleasedEvent(ChangeEvent, frozen=True, kw_only=True, rename="camel"):
    """Nothing is reserved for the cancelled pieces any more.

    `outcome` is `RELEASED` if they were reserved before, else `NEVER_RESERVED` (`ReleaseOutcome`); later
    versions may add others. An order whose stock was refused gets no such event: its refusal is
    published already.
    """

    subject: ClassVar[str] = "inventory.released"
    publisher: ClassVar[str] = "inventory"

    outcome: str


class InventoryMessageParkedEvent(ParkingEvent, frozen=True, kw_only=True, rename="camel"):
    """Inventory has parked a message about the order; it needs manual action."""

    subject: ClassVar[str] = "inventory.message_parked"
    publisher: ClassVar[str] = "inventory"


class InventoryMessageClosedEvent(ParkingEvent, frozen=True, kw_only=True, rename="camel"):
    """A message that was parked at inventory is resolved: retried, edited or discarded."""

    subject: ClassVar[str] = "inventory.message_closed"
    publisher: ClassVar[str] = "inventory"


class ProductChangedEvent(ProductEvent, frozen=True, kw_only=True, rename="camel"):
    """What the catalogue says about a product since `changed_at` (UTC); of two such events, the one with
    the higher `version` is valid.

    `price` is that of one piece in minor units of `currency` (ISO 4217). A product that is `archived` is
    sold no longer. `opening_stock` is the number of pieces with which the product was created, absent
    afterwards. The same version may be published again.
    """

    subject: ClassVar[str] = "inventory.product_changed"
    publisher: ClassVar[str] = "inventory"

    version: int
    name: str
    price: int
    currency: str
    changed_at: Annotated[datetime, msgspec.Meta(tz=True)]
    archived: bool = False
    opening_stock: int | UnsetType = UNSET

    @property
    def fact(self) -> str:
        """Return the name of the fact: a product has many versions."""
        return f"{type(self).__name__} {self.version}"
