"""Tell which pauses keep an order from going on: pure functions."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final

import msgspec

from todoku.contracts import (
    ActivePause,
    OrderCreatedEvent,
    Personal,
    ShipmentInitiatedEvent,
    StockReservedEvent,
)

ORDERS: Final = OrderCreatedEvent.publisher
INVENTORY: Final = StockReservedEvent.publisher
SHIPPING: Final = ShipmentInitiatedEvent.publisher

Pauses = Mapping[str, Sequence[ActivePause]]
"""What is paused, by service."""


class PauseOfOrderView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A pause that keeps the order from going on: of `target` at `service`, by whom, `since` when, and why.
    GET /pauses/{id} of that service shows it."""

    service: str
    id: str
    target: str
    by: Annotated[str, Personal]
    since: datetime
    reason: str


def stopping_restock(pauses: Pauses) -> tuple[PauseOfOrderView, ...]:
    """Return the pauses that keep inventory from serving the orders that wait for stock."""
    return _views(INVENTORY, pauses.get(INVENTORY, ()))


def stopping_release(pauses: Pauses) -> tuple[PauseOfOrderView, ...]:
    """Return the pauses that keep holds from expiring."""
    return _views(ORDERS, pauses.get(ORDERS, ()))


def stopping_booking(pauses: Pauses, product_ids: Collection[str]) -> tuple[PauseOfOrderView, ...]:
    """Return the pauses that keep shipping from booking an order with these products."""
    found = pauses.get(SHIPPING, ())
    return _views(SHIPPING, [each for each in found if each.stops_bookings(product_ids)])


def _views(service: str, pauses: Iterable[ActivePause]) -> tuple[PauseOfOrderView, ...]:
    return tuple(
        PauseOfOrderView(
            service=service,
            id=each.id,
            target=each.target,
            by=each.paused_by,
            since=each.paused_at,
            reason=each.reason,
        )
        for each in pauses
    )
