"""Define what stock consists of: products, reservations, and the ledger of the stock on hand.

    RESERVED
    ├─ ShipmentCompletedEvent ─▶ SHIPPED
    └─ ShipmentFailedEvent, CancellationConfirmedEvent ─▶ RELEASED
    REFUSED
    EXPECTED
    ├─ enough stock ─▶ RESERVED (see above)
    ├─ not enough stock ─▶ REFUSED (see above)
    ├─ stock awaited ─▶ WAITING
    │     ├─ enough stock ─▶ RESERVED (see above)
    │     └─ cancelled first ─▶ CANCELLED
    └─ cancelled first ─▶ CANCELLED (see above)
    WAITING
    ├─ enough stock ─▶ RESERVED (see above)
    └─ cancelled first ─▶ CANCELLED (see above)
    CANCELLED

A reservation is all or nothing, of what is not cancelled, and is decided once. Stock on hand changes only
together with an entry in the ledger.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final
from urllib.parse import quote

import msgspec

from todoku.contracts import (
    NO_CONTEXT,
    CancellationConfirmedEvent,
    Context,
    Personal,
    PlacedHold,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockAwaitedEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.inventory.domain.queue import Place, Queue
from todoku.lifecycle import Lifecycle, Stage, Status


class StockError(Exception):
    """A command or an event cannot be applied to the stock."""


class StockLost(StockError):
    """The database is older than what is replayed, and lacks what that needs."""


class ReservationState(Status):
    """The state of a reservation, which is the request to reserve stock for an order."""

    RESERVED = (
        "RESERVED",
        Stage(
            meaning="Every item of the order is reserved, except for what was cancelled.",
            after=("EXPECTED", "WAITING"),
            on=("enough stock",),
            publishes=(StockReservedEvent,),
            begins=True,
        ),
    )
    REFUSED = (
        "REFUSED",
        Stage(
            meaning="Not enough stock; nothing is reserved.",
            after=("EXPECTED",),
            on=("not enough stock",),
            publishes=(StockReservationFailedEvent,),
            failure=True,
            begins=True,
        ),
    )
    EXPECTED = (
        "EXPECTED",
        Stage(
            meaning="Pieces of the order were cancelled before it arrived.",
            on=("change",),
        ),
    )
    WAITING = (
        "WAITING",
        Stage(
            meaning="Not enough stock; the order waits for it, and nothing is reserved.",
            after=("EXPECTED",),
            on=("stock awaited",),
            publishes=(StockAwaitedEvent,),
            begins=True,
        ),
    )
    SHIPPED = (
        "SHIPPED",
        Stage(
            meaning="The pieces are deducted from the stock on hand.",
            after=("RESERVED",),
            on=(ShipmentCompletedEvent,),
            implies={"shipment": ("COMPLETED",)},
        ),
    )
    RELEASED = (
        "RELEASED",
        Stage(
            meaning="The pieces are available again.",
            after=("RESERVED",),
            on=(ShipmentFailedEvent, CancellationConfirmedEvent),
            implies={"shipment": ("FAILED", "CANCELLED")},
            failure=True,
        ),
    )
    CANCELLED = (
        "CANCELLED",
        Stage(
            meaning="The order was cancelled before it arrived; nothing is reserved.",
            after=("EXPECTED", "WAITING"),
            begins=True,
            on=("cancelled first",),
            publishes=(StockReleasedEvent,),
            implies={"shipment": ("CANCELLED",)},
            failure=True,
        ),
    )


RESERVATION: Final = Lifecycle("reservation", ReservationState)

NOT_ARRIVED: Final = (ReservationState.EXPECTED, ReservationState.CANCELLED)
"""The states in which nothing is known of an order but what was cancelled of it."""


class LedgerReason(StrEnum):
    """Why the stock on hand changed."""

    OPENING = "OPENING"
    RESTOCK = "RESTOCK"
    CORRECTION = "CORRECTION"
    SHIPMENT = "SHIPMENT"


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """A product: `on_hand` pieces in stock, `reserved` of them for orders.

    `price` is in minor units of `currency` (ISO 4217); times are UTC. `version` grows with every change of
    what the catalogue says; the last one was at `changed_at`, None if that is unknown. `updated_at` is when
    anything changed, the stock too. With `low_stock_threshold` available pieces or fewer it is low;
    `threshold_version` grows with every change of that number.
    It has a `queue` while orders wait for it.
    """

    id: str
    name: str
    price: int
    currency: str
    on_hand: int
    reserved: int
    created_at: datetime
    updated_at: datetime
    version: int = 1
    changed_at: datetime | None = None
    archived: bool = False
    low_stock_threshold: int | None = None
    threshold_version: int = 0
    queue: Queue | None = None

    @property
    def free(self) -> int:
        """Return how many pieces a new order may take: those that nobody before it waits for."""
        if self.queue is None or self.queue.flows:
            return self.available
        return max(0, self.available - self.queue.pieces)

    @property
    def low(self) -> bool:
        """Return whether so few pieces are available that staff want to know."""
        threshold = self.low_stock_threshold
        return threshold is not None and self.available <= threshold

    @property
    def etag(self) -> str:
        """Return the entity tag (RFC 9110) of what the catalogue says: stock movements do not change it."""
        return f'"{self.version}"'

    @property
    def available(self) -> int:
        """Return the number of pieces that can still be reserved."""
        return self.on_hand - self.reserved

    def moved(self, now: datetime, *, on_hand: int = 0, reserved: int = 0) -> "Product":
        """Return this product with `on_hand` and `reserved` changed by these numbers of pieces. If more are
        available then, whoever waits for it may be served."""
        product = msgspec.structs.replace(
            self,
            on_hand=self.on_hand + on_hand,
            reserved=self.reserved + reserved,
            updated_at=now,
        )
        assert 0 <= product.reserved <= product.on_hand, product
        if product.queue is not None and product.available > self.available:
            return msgspec.structs.replace(product, queue=product.queue.woken(now))
        return product


def address_of(product_id: str) -> str:
    """Return the path of a product, with its id percent-encoded."""
    return f"/products/{quote(product_id, safe='')}"


class Line(msgspec.Struct, frozen=True, omit_defaults=True):
    """A number of pieces of one product; `cancelled` of them are not wanted any more."""

    product_id: str
    quantity: int
    cancelled: int = 0

    @property
    def pieces(self) -> int:
        """Return how many pieces are still wanted."""
        return self.quantity - self.cancelled


class ReservationChange(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A confirmed change of an order: which pieces were cancelled, and when (UTC) this was decided here."""

    id: str
    items: tuple[Line, ...]
    whole: bool
    at: datetime


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """What an order requested, and the state of that request.

    The address and the amount (in minor units of `currency`) are kept for republishing; None if unknown.
    So are the changes, the cancellations that were applied to it, and the holds that came with the order. One
    that waits for stock is in its queues since `queued_at`, and keeps the context of the order.
    """

    order_id: str
    lines: tuple[Line, ...]
    state: ReservationState
    created_at: datetime
    updated_at: datetime
    shipping_address: Annotated[str | None, Personal] = None
    total_amount: int | None = None
    currency: str | None = None
    changes: tuple[ReservationChange, ...] = ()
    holds: tuple[PlacedHold, ...] = ()
    queued_at: datetime | None = None
    context: Context = NO_CONTEXT


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the stock on hand, by `quantity` pieces, positive or negative.

    What is entered once has an `adjustment_id`: the opening stock, and what staff have changed, which also
    has the `code` of its reason, and `by` whom it was made.
    """

    product_id: str
    quantity: int
    reason: LedgerReason
    at: datetime
    order_id: str | None = None
    note: str | None = None
    adjustment_id: str | None = None
    code: str | None = None
    by: Annotated[str | None, Personal] = None


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """How far all products are published: those up to the id `after`; the next ones are published at
    `due_at` (UTC), or None if all are."""

    after: str = ""
    due_at: datetime | None = None


class Walk(msgspec.Struct, frozen=True, kw_only=True):
    """The next part of the queue of a product: the orders that wait there, in the sequence of their places,
    up to `end`; None if it is the last part."""

    product_id: str
    waiting: tuple[Reservation, ...]
    end: Place | None


class Stock(msgspec.Struct, frozen=True, kw_only=True):
    """The state that one decision reads and returns: the products it touches, the reservation of the
    order if there is one, the ledger entries that the decision adds, and the publication of the catalogue
    if it is about that.

    `adjusted` are the ids of those adjustments, among the ones that the batch is about, that the ledger has.
    `walk` is the part of a queue that is walked, and `served` the reservations that follow from it.
    """

    products: Mapping[str, Product]
    reservation: Reservation | None = None
    entries: tuple[LedgerEntry, ...] = ()
    publication: Publication | None = None
    adjusted: frozenset[str] = frozenset()
    walk: Walk | None = None
    served: tuple[Reservation, ...] = ()

    @property
    def updated_at(self) -> datetime | None:
        """Return when the reservation changed last."""
        return self.reservation.updated_at if self.reservation else None

    def restamped(self, at: datetime) -> "Stock":
        """Return this stock with a reservation that changed at this time."""
        assert self.reservation is not None
        reservation = msgspec.structs.replace(self.reservation, updated_at=at)
        return msgspec.structs.replace(self, reservation=reservation)
