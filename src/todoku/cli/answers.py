"""What the services answer, as far as the command line reads it.

Statuses are texts and unknown fields are ignored, so that a newer service can be asked too.
"""

from datetime import datetime

import msgspec

from todoku.contracts import OrderedItem, ShippedItem


class Parked(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message about an order that waits at a service for a person."""

    service: str
    letter_id: str
    event_type: str
    error: str
    since: datetime


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
    parked: tuple[Parked, ...] = ()


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


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that a service could not deal with; `group` names all that failed alike."""

    id: str
    state: str
    order_id: str | None
    event_type: str | None
    error: str | None
    group: str | None
    attempts: int
    parked_at: datetime


class Attempt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One try at a message: how it failed, if it did, and who asked for it, if anybody did."""

    at: datetime
    error: str | None
    asked_by: str | None


class DeadLetterDetails(DeadLetter, frozen=True, kw_only=True, rename="camel"):
    """All about a dead letter. `body` is the message where it is JSON, else `body_base64`."""

    subject: str
    body: msgspec.Raw
    body_base64: str | None
    traceback: str | None
    history: tuple[Attempt, ...]
    retry_at: datetime | None
    closed_at: datetime | None
    closed_by: str | None
    reason: str | None
    replaces: str | None
    replaced_by: str | None


class ScheduledRetries(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How many parked messages are tried again, and when the last of them."""

    scheduled: int
    last_at: datetime


class SaidAgain(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a service has said again about an order."""

    order_id: str
    event_types: tuple[str, ...]


class SentAgain(msgspec.Struct, frozen=True, kw_only=True):
    """What a service sends again: so many awaited receipts' worth, or about these orders."""

    owed: int
    orders: tuple[SaidAgain, ...]


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
