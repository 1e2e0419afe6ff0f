"""Events of the payments service."""

from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import UNSET, Meta, UnsetType

from todoku.contracts.order_event import OrderEvent
from todoku.contracts.orders import OrderedItem, PlacedHold
from todoku.events import Personal


class PaymentAuthorizedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """The payment for the order is authorized: `total_amount` in minor units of `currency`.

    The other fields are those of OrderCreatedEvent, which inventory and shipping need.
    """

    subject: ClassVar[str] = "payments.authorized"
    publisher: ClassVar[str] = "payments"

    items: tuple[OrderedItem, ...]
    total_amount: int
    currency: str
    shipping_address: Annotated[str, Personal] = ""
    holds: tuple[PlacedHold, ...] | UnsetType = UNSET
    on_shortage: str | UnsetType = UNSET
    created_at: Annotated[datetime, Meta(tz=True)] | UnsetType = UNSET


class PaymentDeclinedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """The payment for the order is declined."""

    subject: ClassVar[str] = "payments.declined"
    publisher: ClassVar[str] = "payments"

    reason: str
