"""Decide on adjustments of the stock on hand: what is delivered, counted, damaged or lost.

Each adjustment has an id. It is in the ledger and in its event, so that it is entered once: a restored
database replays the event, and finds the id if the ledger has it.
"""

from datetime import datetime
from typing import Annotated, Final

import msgspec

from todoku.contracts import MAX_SAFE_INTEGER, Event, Personal, StockAdjustedEvent
from todoku.inventory.domain.low_stock import fallen_low
from todoku.inventory.domain.products import unknown_product
from todoku.inventory.domain.stock import (
    LedgerEntry,
    LedgerReason,
    Product,
    Stock,
    StockError,
    StockLost,
    address_of,
)

DELIVERY: Final = "DELIVERY"
COUNT: Final = "COUNT"
CODES: Final = (DELIVERY, COUNT, "DAMAGE", "LOSS", "RETURN", "OTHER")
"""The usual reasons; any other code is taken as well."""


class TooMuchStock(StockError):
    """The number of pieces would exceed what JSON keeps exact."""


class StockInUse(StockError):
    """Fewer pieces would be on hand than are reserved."""


class Adjustment(msgspec.Struct, frozen=True, kw_only=True):
    """Change the stock on hand. The edge generates the `adjustment_id`, a UUIDv7; `by` is who asks."""

    product_id: str
    adjustment_id: str
    quantity: int
    code: str = ""
    note: str | None = None
    by: Annotated[str | None, Personal] = None


class Restock(Adjustment, frozen=True, kw_only=True):
    """Add `quantity` pieces to the stock of a product."""

    code: str = DELIVERY


class CorrectStock(Adjustment, frozen=True, kw_only=True):
    """Change the stock of a product by `quantity` pieces, positive or negative."""

    code: str = COUNT


def takes_pieces(command: object) -> bool:
    """Return whether a command takes pieces out of the stock. In a restored database they may be reserved
    by an event that is still to be replayed."""
    return isinstance(command, CorrectStock) and command.quantity < 0


def restock(stock: Stock, command: Restock, now: datetime) -> tuple[Stock, list[Event]]:
    """Add stock to a product, with an entry in the ledger."""
    return _adjusted(stock, command, LedgerReason.RESTOCK, now)


def correct_stock(stock: Stock, command: CorrectStock, now: datetime) -> tuple[Stock, list[Event]]:
    """Change the stock of a product to what there is, with an entry in the ledger."""
    return _adjusted(stock, command, LedgerReason.CORRECTION, now)


def replay_adjustment(
    stock: Stock, event: StockAdjustedEvent, time: datetime
) -> tuple[Stock, list[Event]]:
    """Enter an adjustment that the database has lost from its StockAdjustedEvent.

    A reservation may be replayed before the restock that made it possible, and a correction before a
    release. What does not fit yet is parked, and retried when everything else is replayed.
    """
    if event.adjustment_id in stock.adjusted:
        return stock, []  # The backup had it, or an operator has entered it again.
    product = stock.products.get(event.product_id)
    if product is None:
        raise StockLost(
            f"The stock of product {event.product_id!r} was changed by {event.quantity:+} pieces, and the "
            "product is missing from the database: create it again, then retry."
        )
    if product.available + event.quantity < 0:
        raise StockLost(
            f"{-event.quantity} pieces of product {product.id!r} were taken out of the stock, and the "
            f"database has {product.on_hand}, {product.reserved} of them reserved. Restock what arrived "
            "after the backup, then retry."
        )
    return _entered(
        product,
        LedgerEntry(
            product_id=product.id,
            quantity=event.quantity,
            reason=LedgerReason(event.kind),
            at=time,
            note=event.reason,
            adjustment_id=event.adjustment_id,
            code=event.code,
            by=event.by,
        ),
    ), []


def _adjusted(
    stock: Stock, command: Adjustment, reason: LedgerReason, now: datetime
) -> tuple[Stock, list[Event]]:
    product = stock.products.get(command.product_id)
    if product is None:
        raise unknown_product(command.product_id)
    if command.adjustment_id in stock.adjusted:
        return stock, []  # It was entered already, and published.
    _require_exact(product, command.quantity)
    _require_unused(product, command.quantity)
    entry = LedgerEntry(
        product_id=product.id,
        quantity=command.quantity,
        reason=reason,
        at=now,
        note=command.note,
        adjustment_id=command.adjustment_id,
        code=command.code,
        by=command.by,
    )
    after = _entered(product, entry)
    low = fallen_low(stock.products, after.products, command.adjustment_id)
    return after, [
        StockAdjustedEvent(
            product_id=product.id,
            adjustment_id=command.adjustment_id,
            quantity=command.quantity,
            kind=reason.value,
            code=command.code,
            reason=command.note,
            by=command.by,
        ),
        *low,
    ]


def _entered(product: Product, entry: LedgerEntry) -> Stock:
    moved = product.moved(entry.at, on_hand=entry.quantity)
    return Stock(products={product.id: moved}, entries=(entry,))


def _require_exact(product: Product, quantity: int) -> None:
    if product.on_hand + quantity > MAX_SAFE_INTEGER:
        raise TooMuchStock(
            f"Product {product.id!r} has {product.on_hand} pieces; adding {quantity} would "
            f"exceed {MAX_SAFE_INTEGER}, the largest number that JSON keeps exact: add fewer."
        )


def _require_unused(product: Product, quantity: int) -> None:
    if product.available + quantity < 0:
        raise StockInUse(
            f"Product {product.id!r} has {product.on_hand} pieces, and {product.reserved} of them are "
            f"reserved for orders: at most {product.available} can be taken out. See GET "
            f"{address_of(product.id)}/reservations, and cancel orders first if pieces are missing."
        )
