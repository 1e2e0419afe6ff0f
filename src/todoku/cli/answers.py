"""What the services answer, as far as the command line reads it.

Statuses are texts and unknown fields are ignored, so that a newer service can be asked too.
"""

from datetime import datetime

import msgspec

from todoku.contracts import OrderedItem, ShippedItem


class Order(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An order as it stands. `total_amount` and prices are in minor units of `currency`."""

    id: str
    user_id: str
    items: tuple[OrderedItem, ...]
    total_amount: int
    currency: str
    shipping_address: str
    status: str
    reason: str | None
    shipment_id: str | None
    tracking_number: str | None
    created_at: datetime
    updated_at: datetime


class OrderEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Something that was said about an order: `time` is when its `source` decided it, `status` where
    the order stood once the orders service had heard it."""

    sequence: int
    type: str
    source: str
    time: datetime
    status: str
    data: msgspec.Raw


class OrderHistory(msgspec.Struct, frozen=True):
    """The events of an order, each kept as the service wrote it."""

    items: list[msgspec.Raw]


class Product(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A product and its stock. `price` is in minor units of `currency`."""

    id: str
    name: str
    price: int
    currency: str
    stock_quantity: int
    reserved_quantity: int
    available_quantity: int
    updated_at: datetime


class Shipment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A parcel for an order; `attempts` counts the calls to the carrier."""

    id: str
    order_id: str
    items: tuple[ShippedItem, ...]
    shipping_address: str
    status: str
    attempts: int
    tracking_number: str | None
    reason: str | None
    created_at: datetime
    updated_at: datetime


class Page(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of a list, each item kept as the service wrote it."""

    items: list[msgspec.Raw]
    next_cursor: str | None


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong, in the body at `pointer` or in a `parameter` of the address."""

    detail: str
    pointer: str = ""
    parameter: str = ""


class ProblemDetails(msgspec.Struct, frozen=True):
    """Why a request was not carried out (RFC 9457)."""

    type: str
    title: str
    detail: str = ""
    errors: tuple[Fault, ...] = ()
