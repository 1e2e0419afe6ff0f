"""Name the event on which stock is reserved.

A step between an order and its stock, such as a payment, is put there by naming its event here; it has
the fields of this one that `reserve_stock` reads: `order_id`, `items` and `shipping_address`.
"""

from typing import TypeAlias

from todoku.contracts import OrderCreatedEvent

StockRequest: TypeAlias = OrderCreatedEvent
