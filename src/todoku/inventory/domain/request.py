"""Name the events on which stock is reserved.

A step between an order and its stock, such as a payment, is put there by naming its event here, with
the version of the saga that adds the step. The event has the fields of the first one that
`reserve_stock` reads: `order_id`, `items`, `shipping_address`, `total_amount` and `currency`. It may
have `holds`, which go to shipping with the order.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias

from todoku.contracts import OrderCreatedEvent, OrderEvent

StockRequest: TypeAlias = OrderCreatedEvent

STOCK_REQUESTS: Final[Mapping[int, type[OrderEvent]]] = {1: OrderCreatedEvent}
"""The event on which stock is reserved, by the version of the saga that begins to use it."""
