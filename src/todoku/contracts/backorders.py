"""Define what the inventory service publishes about orders that wait for stock."""

from datetime import datetime
from typing import Annotated, ClassVar, Final

import msgspec
from msgspec import UNSET, UnsetType

from todoku.contracts.holds import PlacedHold
from todoku.contracts.inventory import FailedItem, ReservedItem
from todoku.contracts.order_event import OrderEvent
from todoku.events import Personal

WAIT: Final = "wait"
"""An order with this `on_shortage` waits for stock that is missing."""


def waits_for_stock(event: object) -> bool:
    """Return whether the order waits for stock that is missing, as far as this event passes that on."""
    return getattr(event, "on_shortage", UNSET) == WAIT


class StockAwaitedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """The order waits in the queues of its products, at the place of `queued_at` (UTC) and of its id.

    Nothing is reserved for it before all of its `items` are there. `missing` are those of which there was too
    little. The other fields are those of the order.
    """

    subject: ClassVar[str] = "inventory.stock_awaited"
    publisher: ClassVar[str] = "inventory"

    items: tuple[ReservedItem, ...]
    missing: tuple[FailedItem, ...]
    queued_at: Annotated[datetime, msgspec.Meta(tz=True)]
    shipping_address: Annotated[str, Personal] = ""
    total_amount: int | UnsetType = UNSET
    currency: str | UnsetType = UNSET
    holds: tuple[PlacedHold, ...] | UnsetType = UNSET
