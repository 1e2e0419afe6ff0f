"""Decide on commands about products: create, change and restock them."""

from datetime import datetime

import msgspec

from todoku.contracts import MAX_SAFE_INTEGER, Event
from todoku.inventory.domain.stock import LedgerEntry, LedgerReason, Product, Stock, StockError


class UnknownProduct(StockError):
    """No product has this id."""


class StockNotSettable(StockError):
    """The stock of an existing product changes only through the ledger."""


class TooMuchStock(StockError):
    """The number of pieces would exceed what JSON keeps exact."""


class SetProduct(msgspec.Struct, frozen=True, kw_only=True):
    """Create a product with its opening stock, or change the name and price of an existing one."""

    product_id: str
    name: str
    price: int
    currency: str | None = None
    stock_quantity: int | None = None


class Restock(msgspec.Struct, frozen=True, kw_only=True):
    """Add `quantity` pieces to the stock of a product."""

    product_id: str
    quantity: int
    note: str | None = None


def set_product(stock: Stock, command: SetProduct, now: datetime) -> tuple[Stock, list[Event]]:
    """Create a product, or change its name and price."""
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
    """Add stock to a product, with an entry in the ledger."""
    product = stock.products.get(command.product_id)
    if product is None:
        raise UnknownProduct(
            f"There is no product {command.product_id!r}: create it with "
            f"PUT /products/{command.product_id}."
        )
    if product.on_hand + command.quantity > MAX_SAFE_INTEGER:
        raise TooMuchStock(
            f"Product {product.id!r} has {product.on_hand} pieces; adding {command.quantity} would "
            f"exceed {MAX_SAFE_INTEGER}, the largest number that JSON keeps exact: add fewer."
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
