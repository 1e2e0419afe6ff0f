"""Decide on commands about products: create, change and archive them."""

from datetime import datetime
from typing import Any

import msgspec

from todoku.contracts import Event
from todoku.inventory.domain.publication import changed_event, next_version, opening_entry
from todoku.inventory.domain.stock import (
    Product,
    Stock,
    StockError,
    address_of,
)


class UnknownProduct(StockError):
    """No product has this id."""


class StockNotSettable(StockError):
    """The stock of an existing product changes only through the ledger."""


class ProductChanged(StockError):
    """The product is not the one that the caller has seen: it was changed meanwhile, or does not exist."""


class SetProduct(msgspec.Struct, frozen=True, kw_only=True):
    """Create a product with its opening stock, or change the name and price of an existing one.

    It must have one of the entity tags `if_match`, if there are any; `*` stands for every tag. `only_new` if
    an existing product must not be changed yet.
    """

    product_id: str
    name: str
    price: int
    currency: str | None = None
    stock_quantity: int | None = None
    if_match: tuple[str, ...] | None = None
    only_new: bool = False


class ArchiveProduct(msgspec.Struct, frozen=True, kw_only=True):
    """Archive a product, which is sold no longer then; or, with `archived` false, sell it again.

    `if_match` is as that of `SetProduct`.
    """

    product_id: str
    archived: bool = True
    if_match: tuple[str, ...] | None = None


def set_product(stock: Stock, command: SetProduct, now: datetime) -> tuple[Stock, list[Event]]:
    """Create a product, or change its name and price."""
    product = stock.products.get(command.product_id)
    _require_match(product, command)
    if product is None:
        return _created(command, now)
    if command.stock_quantity not in (None, product.on_hand):
        raise StockNotSettable(
            f"Product {product.id!r} exists and has {product.on_hand} pieces: leave out "
            f"stockQuantity, and add stock with POST {address_of(product.id)}/restock."
        )
    currency = command.currency or product.currency
    return _changed(product, now, name=command.name, price=command.price, currency=currency)


def archive_product(
    stock: Stock, command: ArchiveProduct, now: datetime
) -> tuple[Stock, list[Event]]:
    """Archive a product, or take it back. Nothing changes if that was done before."""
    product = stock.products.get(command.product_id)
    if product is None:
        raise unknown_product(command.product_id)
    _require_match(product, command)
    if product.archived is command.archived:
        return stock, []
    return _changed(product, now, archived=command.archived)


def _created(command: SetProduct, now: datetime) -> tuple[Stock, list[Event]]:
    product = Product(
        id=command.product_id,
        name=command.name,
        price=command.price,
        currency=command.currency or "JPY",
        on_hand=command.stock_quantity or 0,
        reserved=0,
        created_at=now,
        updated_at=now,
        version=next_version(None, now),
        changed_at=now,
    )
    opening = opening_entry(product.id, product.on_hand, now)
    return Stock(products={product.id: product}, entries=(opening,)), [
        changed_event(product, product.on_hand)
    ]


def _changed(product: Product, now: datetime, **values: Any) -> tuple[Stock, list[Event]]:
    """Return a product with these values as its next version, and the event that tells of it."""
    changed = msgspec.structs.replace(
        product, **values, version=next_version(product, now), changed_at=now, updated_at=now
    )
    return Stock(products={product.id: changed}), [changed_event(changed)]


def _require_match(product: Product | None, command: SetProduct | ArchiveProduct) -> None:
    """Raise `ProductChanged` unless the product has one of the entity tags of the command."""
    if command.if_match is None:
        return
    if product is None:
        raise ProductChanged(f"There is no product {command.product_id!r}, so nothing can match.")
    if product.etag not in command.if_match and "*" not in command.if_match:
        changed_at = product.changed_at or product.created_at
        raise ProductChanged(
            f"Product {product.id!r} was changed at {changed_at:%F %T} UTC, and its ETag is "
            f"{product.etag} now: get it again, and decide on what it is now."
        )


def unknown_product(product_id: str) -> UnknownProduct:
    """Return the error that no product has this id."""
    return UnknownProduct(
        f"There is no product {product_id!r}: create it with PUT {address_of(product_id)}."
    )
