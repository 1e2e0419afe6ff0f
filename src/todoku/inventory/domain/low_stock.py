"""Decide when a product is low: its available pieces fall to its threshold, or below.

Each change of a threshold is an event, which a restored database replays.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from todoku.contracts import Event, LowStockThresholdChangedEvent, StockLowEvent
from todoku.inventory.domain.products import unknown_product
from todoku.inventory.domain.stock import Product, Stock, StockLost


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
    version = product.threshold_version + 1
    after = _with_threshold(product, command.threshold, version, now)
    return after, [
        LowStockThresholdChangedEvent(
            product_id=product.id,
            change_id=command.change_id,
            version=version,
            threshold=command.threshold,
        ),
        *fallen_low(stock.products, after.products, command.change_id),
    ]


def replay_threshold(
    stock: Stock, event: LowStockThresholdChangedEvent, time: datetime
) -> tuple[Stock, list[Event]]:
    """Set a threshold that the database may have lost from its LowStockThresholdChangedEvent. An older event
    may be delivered again after it."""
    product = stock.products.get(event.product_id)
    if product is None:
        raise StockLost(
            f"The threshold of product {event.product_id!r} was set to {event.threshold}, and the product is "
            "missing from the database: create it again, then retry."
        )
    if event.version <= product.threshold_version:
        return stock, []
    return _with_threshold(product, event.threshold, event.version, time), []


def _with_threshold(product: Product, threshold: int | None, version: int, now: datetime) -> Stock:
    changed = msgspec.structs.replace(
        product, low_stock_threshold=threshold, threshold_version=version, updated_at=now
    )
    return Stock(products={product.id: changed})


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
