"""Decide when a product is low: its available pieces fall to its threshold, or below."""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from todoku.contracts import Event, StockLowEvent
from todoku.inventory.domain.products import unknown_product
from todoku.inventory.domain.stock import Product, Stock


class SetLowStockThreshold(msgspec.Struct, frozen=True, kw_only=True):
    """Tell at how many available pieces a product is low; None for never. The edge generates the
    `change_id`, a UUIDv7."""

    product_id: str
    change_id: str
    threshold: int | None


def set_low_stock_threshold(
    stock: Stock, command: SetLowStockThreshold, now: datetime
) -> tuple[Stock, list[Event]]:
    """Set the threshold of a product, which may be low from now on."""
    product = stock.products.get(command.product_id)
    if product is None:
        raise unknown_product(command.product_id)
    changed = msgspec.structs.replace(
        product, low_stock_threshold=command.threshold, updated_at=now
    )
    after = {product.id: changed}
    return Stock(products=after), fallen_low(stock.products, after, command.change_id)


def fallen_low(
    before: Mapping[str, Product], after: Mapping[str, Product], cause_id: str
) -> list[Event]:
    """Return an event for each product that has become low, because of this order or change.

    A product that is low already is not told of again before its available pieces rise above the threshold.
    """
    return [
        StockLowEvent(
            product_id=product.id,
            cause_id=cause_id,
            threshold=product.low_stock_threshold,
            available_quantity=product.available,
        )
        for product in after.values()
        if product.low_stock_threshold is not None
        and product.available <= product.low_stock_threshold
        and not before[product.id].low
    ]
