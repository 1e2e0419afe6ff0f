"""How products are shown over HTTP."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import msgspec

from todoku.inventory.domain import Product
from todoku.inventory.problems import UNKNOWN_PRODUCT
from todoku.web import Call, Problem, Reply
from todoku.web.fields import is_product_id

ETAG: Final = {"ETag": "The version of the product; stock movements do not change it."}


class ProductView(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A product and its stock: `stockQuantity` pieces are on hand, `reservedQuantity` of them are
    reserved for orders, and `availableQuantity` can still be ordered. `version` grows whenever the name, the
    price or the currency is set, or the product is archived, which is `archived` then and sold no longer.
    With `lowStockThreshold` available pieces or fewer, a `StockLowEvent` is published; null for never."""

    id: str
    name: str
    price: int
    currency: str
    stock_quantity: int
    reserved_quantity: int
    available_quantity: int
    updated_at: datetime
    version: int
    archived: bool
    low_stock_threshold: int | None


def product_reply(
    product: Product, status: int = 200, headers: Mapping[str, str] | None = None
) -> Reply:
    """Return the reply with a product."""
    return Reply(status, view_of(product), {"ETag": product.etag, **(headers or {})})


def product_id_of(call: Call) -> str:
    """Return the product's id from the path. Raises `Problem` if it cannot be an id."""
    product_id = call.path["productId"]
    if not is_product_id(product_id):
        raise unknown_product(product_id)
    return product_id


def unknown_product(product_id: str) -> Problem:
    """Return the problem that no product has this id."""
    return Problem(UNKNOWN_PRODUCT, f"No product has the id {product_id!r}: see GET /products.")


def view_of(product: Product) -> ProductView:
    """Return the view of a product."""
    return ProductView(
        id=product.id,
        name=product.name,
        price=product.price,
        currency=product.currency,
        stock_quantity=product.on_hand,
        reserved_quantity=product.reserved,
        available_quantity=product.available,
        updated_at=product.updated_at,
        version=product.version,
        archived=product.archived,
        low_stock_threshold=product.low_stock_threshold,
    )
