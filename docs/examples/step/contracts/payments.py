"""Events of the payments service."""

from typing import Annotated, ClassVar

from todoku.contracts.order_event import OrderEvent
from todoku.contracts.orders import OrderedItem
from todoku.events import Personal


class PaymentAuthorizedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """The payment for the order is authorized: `total_amount` in minor units of `currency`."""

    subject: ClassVar[str] = "payments.authorized"
    publisher: ClassVar[str] = "payments"

    items: tuple[OrderedItem, ...]
    total_amount: int
    currency: str
    shipping_address: Annotated[str, Personal] = ""


class PaymentDeclinedEvent(OrderEvent, frozen=True, kw_only=True, rename="camel"):
    """The payment for the order is declined."""

    subject: ClassVar[str] = "payments.declined"
    publisher: ClassVar[str] = "payments"

    reason: str
