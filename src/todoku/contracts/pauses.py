"""Define what a service publishes when a pause begins or ends there. Each service has its own event with
these fields; `todoku.orders` shows in it why an order does not go on."""

from collections.abc import Collection
from datetime import datetime
from typing import Annotated, ClassVar, Final

import msgspec

from todoku.events import Event, Personal

SERVICE_TARGET: Final = "service"
CARRIER_TARGET: Final = "carrier"
PRODUCT_KIND: Final = "product"

PAUSES_MAX: Final = 100
"""How many pauses an event has at most: the first ones."""


class ActivePause(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A pause of `target` that nobody has resumed: since when (UTC), by whom, and why.

    `target` is `service`, or what a service does, as shipping has `carrier`, or `product:ID`; later versions
    may add others.
    """

    id: str
    target: str
    paused_at: Annotated[datetime, msgspec.Meta(tz=True)]
    paused_by: Annotated[str, Personal]
    reason: str

    def stops_bookings(self, product_ids: Collection[str]) -> bool:
        """Return whether, at shipping, it stops the booking of an order with these products."""
        if self.target in (SERVICE_TARGET, CARRIER_TARGET):
            return True
        kind, _, product_id = self.target.partition(":")
        return kind == PRODUCT_KIND and product_id in product_ids


class PausesEvent(Event, frozen=True, kw_only=True, rename="camel"):
    """All `pauses` of the service that nobody has resumed, the oldest first. Of two such events the one with
    the higher `version` is valid; the same may be published again under another one."""

    key_field: ClassVar[str] = "service"

    service: str
    version: int
    pauses: tuple[ActivePause, ...]

    @property
    def fact(self) -> str:
        """Return the name of the fact: pauses begin and end many times."""
        return f"{type(self).__name__} {self.version}"


class InventoryPausesChangedEvent(PausesEvent, frozen=True, kw_only=True, rename="camel"):
    """What is paused at inventory."""

    subject: ClassVar[str] = "inventory.pauses_changed"
    publisher: ClassVar[str] = "inventory"


class ShippingPausesChangedEvent(PausesEvent, frozen=True, kw_only=True, rename="camel"):
    """What is paused at shipping."""

    subject: ClassVar[str] = "shipping.pauses_changed"
    publisher: ClassVar[str] = "shipping"
