"""What the orders service says."""

from typing import Annotated, ClassVar

import msgspec

from todoku.contracts.envelope import Event, Personal


class OrderedItem(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """One line of an order; `price` is the unit price in minor units of the order's currency."""

    product_id: str
    quantity: int
    price: int


class OrderCreatedEvent(Event, frozen=True, kw_only=True, rename="camel"):
    """An order was accepted. `total_amount` is in minor units of `currency` (ISO 4217)."""

    subject: ClassVar[str] = "orders.created"
    publisher: ClassVar[str] = "orders"

    user_id: Annotated[str, Personal]
    items: tuple[OrderedItem, ...]
    total_amount: int
    currency: str = "JPY"
    shipping_address: Annotated[str, Personal] = ""
