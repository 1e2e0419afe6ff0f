"""Define the events that the orders service publishes."""

from datetime import datetime
from typing import Annotated, ClassVar

import msgspec
from msgspec import UNSET, UnsetType

from todoku.contracts.changes import ChangeEvent
from todoku.contracts.holds import PlacedHold
from todoku.contracts.order_event import OrderEvent
from todoku.events import Personal


class OrderedItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One line of an order; `price` is the unit price in minor units of the order's currency."""

    product_id: str
    quantity: int
    price: int


class OrderCreatedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """An order was accepted. `total_amount` is in minor units of `currency` (ISO 4217).

    Its cancellation is requested if it is still open at its `deadline` (UTC), which is absent in events
    from before version 0.2. `holds` are those of the request that placed it; absent if there are none.
    `on_shortage` is `wait` if the order waits for stock that is missing; then it has `created_at` (UTC), by
    which it queues. Both are absent if it is cancelled instead.
    """

    subject: ClassVar[str] = "orders.created"
    publisher: ClassVar[str] = "orders"

    user_id: Annotated[str, Personal]
    items: tuple[OrderedItem, ...]
    total_amount: int
    currency: str = "JPY"
    shipping_address: Annotated[str, Personal] = ""
    deadline: Annotated[datetime, msgspec.Meta(tz=True)] | UnsetType = UNSET
    holds: tuple[PlacedHold, ...] | UnsetType = UNSET
    on_shortage: str | UnsetType = UNSET
    created_at: Annotated[datetime, msgspec.Meta(tz=True)] | UnsetType = UNSET


class CancellationRequestedEvent(ChangeEvent, frozen=True, kw_only=True, rename="camel"):
    """Pieces of an order are to be cancelled; shipping decides whether that is still possible.

    `requested_by` is who asked for it, None if that is unknown.
    """

    subject: ClassVar[str] = "orders.cancellation_requested"
    publisher: ClassVar[str] = "orders"

    reason: str = ""
    requested_by: Annotated[str | None, Personal] = None


class OrderCompletedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """An order ended as it should: the carrier accepted its parcel. What was cancelled before is not in it.

    `total_amount` is in minor units of `currency` (ISO 4217).
    """

    subject: ClassVar[str] = "orders.completed"
    publisher: ClassVar[str] = "orders"

    user_id: Annotated[str, Personal]
    items: tuple[OrderedItem, ...]
    total_amount: int
    currency: str = "JPY"
    shipment_id: str | None = None
    tracking_number: str | None = None


class OrderCancelledEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """An order ended without a delivery: nothing is shipped, and what was reserved is released.

    `status` is the one in which it ended, such as `CANCELLED`, `CANCELLED_NO_STOCK` or
    `SHIPMENT_FAILED`; later versions may add others. `total_amount` is in minor units of `currency` (ISO
    4217).
    """

    subject: ClassVar[str] = "orders.cancelled"
    publisher: ClassVar[str] = "orders"

    user_id: Annotated[str, Personal]
    status: str
    reason: str
    items: tuple[OrderedItem, ...]
    total_amount: int
    currency: str = "JPY"
    shipment_id: str | None = None
