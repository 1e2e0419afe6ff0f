"""What stock is, and how it is set aside, shipped and given back. Pure: values in, values out.

A reservation is all or nothing and is decided once: `RESERVED` or `REFUSED`. A reserved one ends as
`SHIPPED` (the pieces left the house) or `RELEASED` (they may be sold again). Stock on hand changes
only together with an entry in the ledger.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated

import msgspec

from todoku.contracts import (
    MAX_SAFE_INTEGER,
    Event,
    FailedItem,
    OrderCreatedEvent,
    Personal,
    ReservedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)


class StockError(Exception):
    """Stock cannot do what was asked of it."""


class UnknownProduct(StockError):
    """There is no product with this id."""


class StockNotSettable(StockError):
    """The stock of an existing product changes only through the ledger."""


class TooMuchStock(StockError):
    """More pieces than can be counted exactly."""


class StockLost(StockError):
    """Stock that was promised is not in the books: they are older than the promise."""


class UnknownReservation(StockError):
    """There is no reservation for this order."""


class ContradictoryEvent(StockError):
    """An event excludes what has already happened to this reservation."""


class ReservationState(StrEnum):
    """What has become of the request to set stock aside for an order."""

    RESERVED = "RESERVED"
    REFUSED = "REFUSED"
    SHIPPED = "SHIPPED"
    RELEASED = "RELEASED"


class LedgerReason(StrEnum):
    """Why the stock on hand changed."""

    OPENING = "OPENING"
    RESTOCK = "RESTOCK"
    SHIPMENT = "SHIPMENT"


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is sold. `on_hand` pieces lie in the house, `reserved` of them for orders.

    `price` is in minor units of `currency` (ISO 4217); times are UTC.
    """

    id: str
    name: str
    price: int
    currency: str
    on_hand: int
    reserved: int
    created_at: datetime
    updated_at: datetime

    @property
    def available(self) -> int:
        """Pieces that can still be promised to somebody."""
        return self.on_hand - self.reserved

    def moved(self, now: datetime, *, on_hand: int = 0, reserved: int = 0) -> "Product":
        """This product after `on_hand` and `reserved` have changed by so many pieces."""
        product = msgspec.structs.replace(
            self,
            on_hand=self.on_hand + on_hand,
            reserved=self.reserved + reserved,
            updated_at=now,
        )
        assert 0 <= product.reserved <= product.on_hand, product
        return product


class Line(msgspec.Struct, frozen=True):
    """A number of pieces of one product."""

    product_id: str
    quantity: int


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for an order, and what became of it. `shipping_address` is kept because it was
    said with it; None if it is not known any more."""

    order_id: str
    lines: tuple[Line, ...]
    state: ReservationState
    created_at: datetime
    updated_at: datetime
    shipping_address: Annotated[str | None, Personal] = None


class LedgerEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A change of the stock on hand, by `quantity` pieces, positive or negative."""

    product_id: str
    quantity: int
    reason: LedgerReason
    at: datetime
    order_id: str | None = None
    note: str | None = None


class Stock(msgspec.Struct, frozen=True, kw_only=True):
    """What one decision sees and leaves: the products it touches, the order's reservation if there
    is one, and the ledger entries that the decision adds."""

    products: Mapping[str, Product]
    reservation: Reservation | None = None
    entries: tuple[LedgerEntry, ...] = ()


class SetProduct(msgspec.Struct, frozen=True, kw_only=True):
    """Create a product with its opening stock, or change an existing one's name and price."""

    product_id: str
    name: str
    price: int
    currency: str | None = None
    stock_quantity: int | None = None


class Restock(msgspec.Struct, frozen=True, kw_only=True):
    """Put `quantity` more pieces of a product into the house."""

    product_id: str
    quantity: int
    note: str | None = None


def reserve_stock(
    stock: Stock, event: OrderCreatedEvent, now: datetime
) -> tuple[Stock, list[Event]]:
    """Set aside every item of the order, or refuse the whole."""
    if stock.reservation is not None:
        return stock, []  # A repeat that outlived the inbox: the answer was said and received.
    lines = _one_line_a_product(event)
    shortages = _shortages(stock.products, lines)
    state = ReservationState.REFUSED if shortages else ReservationState.RESERVED
    reservation = Reservation(
        order_id=event.order_id,
        lines=lines,
        state=state,
        created_at=now,
        updated_at=now,
        shipping_address=event.shipping_address,
    )
    if shortages:
        refused = msgspec.structs.replace(stock, reservation=reservation)
        return refused, [
            StockReservationFailedEvent(
                order_id=event.order_id, reason=_explain(shortages), failed_items=shortages
            )
        ]
    reserved = Stock(
        products=_moved(stock.products, lines, now, reserved=+1), reservation=reservation
    )
    return reserved, [_reserved(reservation, event.shipping_address)]


def replay_reservation(
    stock: Stock, event: StockReservedEvent, time: datetime
) -> tuple[Stock, list[Event]]:
    """Set aside what we once said was set aside, because our database has lost it."""
    if stock.reservation is not None:
        return stock, []
    lines = tuple(Line(item.product_id, item.quantity) for item in event.items)
    if shortages := _shortages(stock.products, lines):
        raise StockLost(
            f"Order {event.order_id} was promised stock that is no longer in the books: "
            f"{_explain(shortages)}. Restock what came in after the backup, then try again."
        )
    return Stock(
        products=_moved(stock.products, lines, time, reserved=+1),
        reservation=Reservation(
            order_id=event.order_id,
            lines=lines,
            state=ReservationState.RESERVED,
            created_at=time,
            updated_at=time,
            shipping_address=event.shipping_address,
        ),
    ), []


def replay_refusal(
    stock: Stock, event: StockReservationFailedEvent, time: datetime
) -> tuple[Stock, list[Event]]:
    """Refuse what we once refused, because our database has lost it."""
    if stock.reservation is not None:
        return stock, []
    refused = Reservation(
        order_id=event.order_id,
        lines=tuple(Line(item.product_id, item.requested_quantity) for item in event.failed_items),
        state=ReservationState.REFUSED,
        created_at=time,
        updated_at=time,
    )
    return Stock(products={}, reservation=refused), []


def republish_reservation(stock: Stock) -> list[tuple[Event, datetime]]:
    """What was decided about an order, while that still holds: what was shipped or released would be
    shipped again by a shipping service that has lost it. Nor is a parcel sent to nowhere."""
    reservation = stock.reservation
    if reservation is None:
        return []
    match reservation.state, reservation.shipping_address:
        case ReservationState.REFUSED, _:
            return [(_refused(stock.products, reservation), reservation.created_at)]
        case ReservationState.RESERVED, str(address):
            return [(_reserved(reservation, address), reservation.created_at)]
        case _:
            return []


def deduct_stock(
    stock: Stock, event: ShipmentCompletedEvent, now: datetime
) -> tuple[Stock, list[Event]]:
    """The parcel is with the carrier: its pieces have left the house."""
    reservation = _known(stock, event)
    if reservation.state is ReservationState.SHIPPED:
        return stock, []  # A repeat that outlived the inbox.
    if reservation.state is not ReservationState.RESERVED:
        raise _contradiction(reservation, event)
    return Stock(
        products=_moved(stock.products, reservation.lines, now, on_hand=-1, reserved=-1),
        reservation=_ended(reservation, ReservationState.SHIPPED, now),
        entries=tuple(
            LedgerEntry(
                product_id=line.product_id,
                quantity=-line.quantity,
                reason=LedgerReason.SHIPMENT,
                at=now,
                order_id=reservation.order_id,
            )
            for line in reservation.lines
        ),
    ), []


def release_stock(
    stock: Stock, event: ShipmentFailedEvent, now: datetime
) -> tuple[Stock, list[Event]]:
    """The parcel will not go: its pieces may be sold again."""
    reservation = _known(stock, event)
    if reservation.state is ReservationState.RELEASED:
        return stock, []  # A repeat that outlived the inbox.
    if reservation.state is not ReservationState.RESERVED:
        raise _contradiction(reservation, event)
    return Stock(
        products=_moved(stock.products, reservation.lines, now, reserved=-1),
        reservation=_ended(reservation, ReservationState.RELEASED, now),
    ), []


def set_product(stock: Stock, command: SetProduct, now: datetime) -> tuple[Stock, list[Event]]:
    """Create a product, or rename and reprice it."""
    product = stock.products.get(command.product_id)
    if product is None:
        return _created(command, now), []
    if command.stock_quantity not in (None, product.on_hand):
        raise StockNotSettable(
            f"Product {product.id!r} exists and has {product.on_hand} pieces: leave out "
            f"stockQuantity, and add stock with POST /products/{product.id}/restock."
        )
    changed = msgspec.structs.replace(
        product,
        name=command.name,
        price=command.price,
        currency=command.currency or product.currency,
        updated_at=now,
    )
    return Stock(products={product.id: changed}), []


def restock(stock: Stock, command: Restock, now: datetime) -> tuple[Stock, list[Event]]:
    """Take more pieces into the house."""
    product = stock.products.get(command.product_id)
    if product is None:
        raise UnknownProduct(
            f"There is no product {command.product_id!r}: create it with "
            f"PUT /products/{command.product_id}."
        )
    if product.on_hand + command.quantity > MAX_SAFE_INTEGER:
        raise TooMuchStock(
            f"Product {product.id!r} has {product.on_hand} pieces; {command.quantity} more would "
            f"pass the {MAX_SAFE_INTEGER} that JSON keeps exact."
        )
    entry = LedgerEntry(
        product_id=product.id,
        quantity=command.quantity,
        reason=LedgerReason.RESTOCK,
        at=now,
        note=command.note,
    )
    return Stock(
        products={product.id: product.moved(now, on_hand=command.quantity)}, entries=(entry,)
    ), []


def _created(command: SetProduct, now: datetime) -> Stock:
    product = Product(
        id=command.product_id,
        name=command.name,
        price=command.price,
        currency=command.currency or "JPY",
        on_hand=command.stock_quantity or 0,
        reserved=0,
        created_at=now,
        updated_at=now,
    )
    opening = LedgerEntry(
        product_id=product.id, quantity=product.on_hand, reason=LedgerReason.OPENING, at=now
    )
    return Stock(products={product.id: product}, entries=(opening,))


def _one_line_a_product(event: OrderCreatedEvent) -> tuple[Line, ...]:
    quantities: dict[str, int] = {}
    for item in event.items:
        assert item.quantity >= 1, event
        quantities[item.product_id] = quantities.get(item.product_id, 0) + item.quantity
    assert quantities, event
    return tuple(Line(product_id, quantity) for product_id, quantity in quantities.items())


def _reserved(reservation: Reservation, shipping_address: str) -> StockReservedEvent:
    return StockReservedEvent(
        order_id=reservation.order_id,
        items=tuple(
            ReservedItem(product_id=line.product_id, quantity=line.quantity)
            for line in reservation.lines
        ),
        shipping_address=shipping_address,
    )


def _refused(
    products: Mapping[str, Product], reservation: Reservation
) -> StockReservationFailedEvent:
    """A refusal as far as it is known later: of which products there was too little is not kept, so
    all are named, with what there is of them now if that is less than was asked for."""
    items = tuple(
        FailedItem(
            product_id=line.product_id,
            requested_quantity=line.quantity,
            available_quantity=min(_available(products, line.product_id), line.quantity - 1),
        )
        for line in reservation.lines
    )
    return StockReservationFailedEvent(
        order_id=reservation.order_id, reason="insufficient stock", failed_items=items
    )


def _available(products: Mapping[str, Product], product_id: str) -> int:
    """Pieces that can still be promised; none of what is no product."""
    product = products.get(product_id)
    return 0 if product is None else product.available


def _shortages(products: Mapping[str, Product], lines: Iterable[Line]) -> tuple[FailedItem, ...]:
    return tuple(
        FailedItem(
            product_id=line.product_id,
            requested_quantity=line.quantity,
            available_quantity=available,
        )
        for line in lines
        if line.quantity > (available := _available(products, line.product_id))
    )


def _explain(shortages: tuple[FailedItem, ...]) -> str:
    """The first few shortages in words; the event lists them all."""
    named = "; ".join(
        f"{item.product_id}: {item.requested_quantity} requested, {item.available_quantity} available"
        for item in shortages[:3]
    )
    more = f"; and {len(shortages) - 3} more" if len(shortages) > 3 else ""
    return f"insufficient stock ({named}{more})"


def _moved(
    products: Mapping[str, Product],
    lines: Iterable[Line],
    now: datetime,
    *,
    on_hand: int = 0,
    reserved: int = 0,
) -> dict[str, Product]:
    """The products of the lines, moved in the given directions (-1, 0, +1) by the lines' pieces."""
    return {
        line.product_id: products[line.product_id].moved(
            now, on_hand=on_hand * line.quantity, reserved=reserved * line.quantity
        )
        for line in lines
    }


def _ended(reservation: Reservation, state: ReservationState, now: datetime) -> Reservation:
    return msgspec.structs.replace(reservation, state=state, updated_at=now)


def _known(stock: Stock, event: Event) -> Reservation:
    if stock.reservation is None:
        raise UnknownReservation(
            f"{type(event).__name__} for order {event.order_id}, for which nothing was ever reserved"
        )
    return stock.reservation


def _contradiction(reservation: Reservation, event: Event) -> ContradictoryEvent:
    return ContradictoryEvent(
        f"{type(event).__name__} for order {reservation.order_id}, "
        f"whose reservation is {reservation.state}"
    )
