"""What an order is and may do. Pure: values in, values out.

    PENDING ──▶ AWAITING_SHIPMENT ──▶ COMPLETED
       │                 └──────────▶ SHIPMENT_FAILED
       └──▶ CANCELLED_NO_STOCK

Events about one order come from two services and may overtake each other, so a status only ever
moves forward: what arrives late is kept in the history and changes nothing. Two outcomes that
exclude each other are never both true; hearing both is an error and is parked for a person to see.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec

from todoku.contracts import (
    MAX_SAFE_INTEGER,
    Event,
    OrderCreatedEvent,
    OrderedItem,
    ParkingEvent,
    Personal,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)


class OrderError(Exception):
    """An order cannot do what was asked of it."""


class InvalidOrder(OrderError):
    """This can never become an order; the message says what to change."""


class UnknownOrder(OrderError):
    """There is no order with this id."""


class ContradictoryEvent(OrderError):
    """An event excludes what this order has already heard."""


class OrderStatus(StrEnum):
    """Where an order is on its way."""

    PENDING = "PENDING"
    AWAITING_SHIPMENT = "AWAITING_SHIPMENT"
    COMPLETED = "COMPLETED"
    CANCELLED_NO_STOCK = "CANCELLED_NO_STOCK"
    SHIPMENT_FAILED = "SHIPMENT_FAILED"

    @property
    def terminal(self) -> bool:
        """Whether nothing more will happen to the order."""
        return self in _TERMINAL


_TERMINAL = {OrderStatus.COMPLETED, OrderStatus.CANCELLED_NO_STOCK, OrderStatus.SHIPMENT_FAILED}


class PlaceOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Ask for goods. `order_id` is a UUIDv7 drawn by the edge, so that asking twice is one order."""

    order_id: str
    user_id: Annotated[str, Personal]
    items: tuple[OrderedItem, ...]
    currency: str
    shipping_address: Annotated[str, Personal] = ""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """An order as it stands. `total_amount` is in minor units of `currency`; times are UTC."""

    id: str
    user_id: Annotated[str, Personal]
    items: tuple[OrderedItem, ...]
    total_amount: int
    currency: str
    shipping_address: Annotated[str, Personal]
    status: OrderStatus
    created_at: datetime
    updated_at: datetime
    reason: str | None = None
    shipment_id: str | None = None
    tracking_number: str | None = None


class ParkedMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A message about an order that waits at a service for a person, since `parked_at` (UTC) and
    until it is `closed`. `error` is the class of what went wrong."""

    service: str
    letter_id: str
    order_id: str
    message_type: str
    error: str
    parked_at: datetime
    closed: bool = False


def place_order(
    order: Order | None, command: PlaceOrder, now: datetime
) -> tuple[Order, list[Event]]:
    """Accept an order. Placing one that is already there changes nothing."""
    if order is not None:
        return order, []
    items = one_line_a_product(command.items)
    placed = Order(
        id=command.order_id,
        user_id=command.user_id,
        items=items,
        total_amount=total_amount(items),
        currency=command.currency,
        shipping_address=command.shipping_address,
        status=OrderStatus.PENDING,
        created_at=now,
        updated_at=now,
    )
    return placed, [_accepted(placed)]


def replay_order(
    order: Order | None, event: OrderCreatedEvent, time: datetime
) -> tuple[Order, list[Event]]:
    """Take an order from our own word at its `time`, because our database has lost it."""
    if order is not None:
        return order, []
    return Order(
        id=event.order_id,
        user_id=event.user_id,
        items=event.items,
        total_amount=event.total_amount,
        currency=event.currency,
        shipping_address=event.shipping_address,
        status=OrderStatus.PENDING,
        created_at=time,
        updated_at=time,
    ), []


def republish_order(order: Order | None) -> list[tuple[Event, datetime]]:
    """That the order was accepted, while nobody is known to have decided on it. Later, an inventory
    that has lost its decision would make another, on which others could no longer act."""
    if order is None or order.status is not OrderStatus.PENDING:
        return []
    return [(_accepted(order), order.created_at)]


def one_line_a_product(items: tuple[OrderedItem, ...]) -> tuple[OrderedItem, ...]:
    """Add up the lines of the same product, in the order in which the products first appear."""
    if not items:
        raise InvalidOrder("An order needs at least one item.")
    prices: dict[str, int] = {}
    quantities: dict[str, int] = {}
    for item in items:
        if item.quantity < 1 or item.price < 1:
            raise InvalidOrder(
                f"Product {item.product_id!r}: the quantity and the price must be at least 1."
            )
        if prices.setdefault(item.product_id, item.price) != item.price:
            raise InvalidOrder(
                f"Product {item.product_id!r} has two prices in this order, "
                f"{prices[item.product_id]} and {item.price}: send one price for each product."
            )
        quantities[item.product_id] = quantities.get(item.product_id, 0) + item.quantity
    return tuple(
        OrderedItem(product_id=product_id, quantity=quantities[product_id], price=price)
        for product_id, price in prices.items()
    )


def total_amount(items: tuple[OrderedItem, ...]) -> int:
    """What the items cost together, in minor units."""
    total = sum(item.quantity * item.price for item in items)
    if total > MAX_SAFE_INTEGER or any(item.quantity > MAX_SAFE_INTEGER for item in items):
        raise InvalidOrder(
            f"The order amounts to {total}, more than the {MAX_SAFE_INTEGER} that JSON keeps "
            "exact: split it into several orders."
        )
    return total


def confirm_reservation(
    order: Order | None, event: StockReservedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """The stock is set aside: wait for the shipment. Late if the shipment has been heard of first."""
    order = _known(order, event)
    if order.status is OrderStatus.CANCELLED_NO_STOCK:
        raise _contradiction(order, event)
    return _advance(order, OrderStatus.AWAITING_SHIPMENT, now), []


def cancel_for_lack_of_stock(
    order: Order | None, event: StockReservationFailedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """There was too little stock: the order ends here."""
    order = _known(order, event)
    if order.status is OrderStatus.CANCELLED_NO_STOCK:
        return order, []
    if order.status is not OrderStatus.PENDING:
        raise _contradiction(order, event)
    cancelled = _advance(order, OrderStatus.CANCELLED_NO_STOCK, now)
    return msgspec.structs.replace(cancelled, reason=event.reason), []


def note_shipment(
    order: Order | None, event: ShipmentInitiatedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """A shipment was opened, so the stock is set aside, whether or not that has been heard."""
    order = _known(order, event)
    if order.status is OrderStatus.CANCELLED_NO_STOCK:
        raise _contradiction(order, event)
    advanced = _advance(order, OrderStatus.AWAITING_SHIPMENT, now)
    if advanced.shipment_id == event.shipment_id:
        return advanced, []  # Late: heard before, or after the shipment's outcome.
    return msgspec.structs.replace(advanced, shipment_id=event.shipment_id, updated_at=now), []


def complete(
    order: Order | None, event: ShipmentCompletedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """The carrier has the parcel: the order is done."""
    order = _known(order, event)
    if order.status is OrderStatus.COMPLETED:
        return order, []
    if order.status.terminal:
        raise _contradiction(order, event)
    completed = _advance(order, OrderStatus.COMPLETED, now)
    return msgspec.structs.replace(
        completed, shipment_id=event.shipment_id, tracking_number=event.tracking_number
    ), []


def fail(
    order: Order | None, event: ShipmentFailedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """The carrier refused the parcel: the order has failed."""
    order = _known(order, event)
    if order.status is OrderStatus.SHIPMENT_FAILED:
        return order, []
    if order.status.terminal:
        raise _contradiction(order, event)
    failed = _advance(order, OrderStatus.SHIPMENT_FAILED, now)
    return msgspec.structs.replace(failed, shipment_id=event.shipment_id, reason=event.reason), []


def note_parked(
    message: ParkedMessage | None, event: ParkingEvent, now: datetime
) -> tuple[ParkedMessage, list[Event]]:
    """A message about an order waits somewhere. Late if it has been seen to already."""
    if message is not None:
        return message, []
    return _noted(event), []


def note_closed(
    message: ParkedMessage | None, event: ParkingEvent, now: datetime
) -> tuple[ParkedMessage, list[Event]]:
    """Somebody has seen to the message; that may be heard before the message itself is heard of."""
    return msgspec.structs.replace(message or _noted(event), closed=True), []


def _accepted(order: Order) -> OrderCreatedEvent:
    return OrderCreatedEvent(
        order_id=order.id,
        user_id=order.user_id,
        items=order.items,
        total_amount=order.total_amount,
        currency=order.currency,
        shipping_address=order.shipping_address,
    )


_RANK = {
    OrderStatus.PENDING: 0,
    OrderStatus.AWAITING_SHIPMENT: 1,
    OrderStatus.COMPLETED: 2,
    OrderStatus.CANCELLED_NO_STOCK: 2,
    OrderStatus.SHIPMENT_FAILED: 2,
}


def _advance(order: Order, status: OrderStatus, now: datetime) -> Order:
    """Move forward to `status`; an order that is already there or beyond stays as it is."""
    if _RANK[order.status] >= _RANK[status]:
        return order  # Late: a later event of the saga overtook this one.
    return msgspec.structs.replace(order, status=status, updated_at=now)


def _noted(event: ParkingEvent) -> ParkedMessage:
    return ParkedMessage(
        service=event.publisher,
        letter_id=event.letter_id,
        order_id=event.order_id,
        message_type=event.message_type,
        error=event.error,
        parked_at=event.parked_at,
    )


def _known(order: Order | None, event: Event) -> Order:
    if order is None:
        raise UnknownOrder(f"{type(event).__name__} for order {event.order_id}, which is not here")
    return order


def _contradiction(order: Order, event: Event) -> ContradictoryEvent:
    return ContradictoryEvent(
        f"{type(event).__name__} for order {order.id}, which is {order.status}"
    )
