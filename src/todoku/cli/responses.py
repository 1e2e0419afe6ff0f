"""The services' HTTP responses, with the fields that the command line reads.

Statuses are strings and unknown fields are ignored, so that newer services work too.
"""

from datetime import datetime

import msgspec

from todoku.contracts import CancelledItem, OrderedItem, ShippedItem


class Parked(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A dead letter about an order: a message that needs manual action at a service."""

    service: str
    letter_id: str
    event_type: str
    error: str
    since: datetime


class Change(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The cancellation of these items, `whole` if that is all of the order, and what was decided about it."""

    items: tuple[CancelledItem, ...]
    whole: bool
    state: str
    by: str | None
    reason: str | None
    requested_at: datetime
    decided_at: datetime | None
    refusal: str | None = None


class OrderHold(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A hold of an order: who holds it and why, and what became of it."""

    id: str
    holder: str
    reason: str
    state: str
    requested_at: datetime
    expires_at: datetime | None
    decided_at: datetime | None
    refusal: str | None
    released_at: datetime | None
    released_by: str | None


class Line(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How many pieces of a product of the order were cancelled."""

    product_id: str
    cancelled: int


class PauseOfOrder(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A pause that keeps an order from going on."""

    service: str
    target: str
    by: str
    since: datetime
    reason: str


class Waiting(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What an open order waits for: a word, and since when. Of a parcel that is not booked, how many attempts
    have failed, as of `reported_at`; of a parked message, its dead letter."""

    what: str
    since: datetime
    service: str | None = None
    letter_id: str | None = None
    attempts: int | None = None
    last_error: str | None = None
    next_attempt_at: datetime | None = None
    reported_at: datetime | None = None
    pauses: tuple[PauseOfOrder, ...] = ()


class Order(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An order. `total_amount` and prices are in minor units of `currency`."""

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
    deadline: datetime | None = None
    lines: tuple[Line, ...] = ()
    changes: tuple[Change, ...] = ()
    waiting_for: Waiting | None = None
    holds: tuple[OrderHold, ...] = ()


class OrderEvent(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """An event of an order: `time` is when its `source` published it, `status` the order's status after
    the orders service had consumed it."""

    sequence: int
    type: str
    source: str
    time: datetime
    status: str
    data: msgspec.Raw


class OrderHistory(msgspec.Struct, frozen=True):
    """The events of an order, each as raw JSON."""

    items: list[msgspec.Raw]


class Product(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A product and its stock. `price` is in minor units of `currency`. Services before version 0.2 know
    no `version`."""

    id: str
    name: str
    price: int
    currency: str
    stock_quantity: int
    reserved_quantity: int
    available_quantity: int
    updated_at: datetime
    version: int | None = None
    archived: bool = False
    low_stock_threshold: int | None = None


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A change of the stock on hand. An adjustment has a `code`; a shipment has its order."""

    quantity: int
    kind: str
    at: datetime
    order_id: str | None = None
    code: str | None = None
    reason: str | None = None
    by: str | None = None


class Hold(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The pieces of a product that an order holds."""

    order_id: str
    quantity: int
    state: str
    since: datetime


class Publishing(msgspec.Struct, frozen=True):
    """How many products are being published."""

    products: int


class Shipment(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A parcel for an order; `attempts` counts the calls to the carrier. `last_error` and
    `next_attempt_at` are those of an open shipment; services before version 0.2 do not say them."""

    id: str
    order_id: str
    items: tuple[ShippedItem, ...]
    shipping_address: str
    status: str
    attempts: int
    tracking_number: str | None
    reason: str | None
    last_error: str | None = None
    next_attempt_at: datetime | None = None
    created_at: datetime
    updated_at: datetime


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A message that a service could not process; `group` is shared by all with the same error. `key` is the
    id of what it is about: an order, or something else."""

    id: str
    state: str
    order_id: str | None
    event_type: str | None
    error: str | None
    group: str | None
    attempts: int
    parked_at: datetime
    key: str | None = None


class Attempt(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One attempt to process a message: its error, if it failed, and who requested it, if anyone."""

    at: datetime
    error: str | None
    asked_by: str | None


class DeadLetterDetails(DeadLetter, frozen=True, kw_only=True, rename="camel"):
    """A dead letter in full. `body` is the message if that is JSON, else `body_base64` is."""

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


class PauseDetails(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A pause of a service or of one thing that it does; `rate` is that of the resume."""

    id: str
    state: str
    target: str
    paused_at: datetime
    paused_by: str
    reason: str
    rate: int | None


class AuditedRequest(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A row of the audit log of a service: who asked for what, and what came of it."""

    service: str
    at: datetime
    operation: str
    outcome: str
    actor: str | None
    key_id: str | None
    subject: str | None
    about: str | None
    source: str | None
    times: int


class Exported(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What is read of the export of a person."""

    order_ids: list[str]


class Erased(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What orders has erased: the ids of the erasures, and the number of orders."""

    erasures: list[str]
    orders: int


class CreatedKey(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A new API key: `key` has its secret."""

    id: str
    key: str
    owner: str


class KeyDetails(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What a service knows of an API key."""

    id: str
    owner: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class KeyList(msgspec.Struct, frozen=True):
    """The API keys that a service knows, each as raw JSON."""

    items: list[msgspec.Raw]


class CallerDetails(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Who a service takes the caller for."""

    auth: str
    actor: str | None
    key_id: str | None
    scopes: tuple[str, ...]
    issuer: str | None = None


class ScheduledRetries(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The number of scheduled retries, and the time of the last one."""

    scheduled: int
    last_at: datetime


class RepublishedOrder(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The events that a service republished for an order."""

    order_id: str
    event_types: tuple[str, ...]


class Resent(msgspec.Struct, frozen=True, kw_only=True):
    """What a service sends again: all pending deliveries (`owed`), or the events of these orders."""

    owed: int
    orders: tuple[RepublishedOrder, ...]


class Page(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One page of a list, each item as raw JSON."""

    items: list[msgspec.Raw]
    next_cursor: str | None


class Total(msgspec.Struct, frozen=True):
    """How many items a list has; a text such as `1000+` means at least so many."""

    total: int | str


class FieldError(msgspec.Struct, frozen=True):
    """One error, in the body at `pointer` or in the query `parameter`."""

    detail: str
    pointer: str = ""
    parameter: str = ""


class ProblemDetails(msgspec.Struct, frozen=True):
    """An error response (RFC 9457)."""

    type: str
    title: str
    detail: str = ""
    errors: tuple[FieldError, ...] = ()
