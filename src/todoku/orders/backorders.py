"""What orders does about an order that waits for stock: pure functions. Who gets pieces is decided by
`inventory.domain.backorders`."""

from datetime import datetime

import msgspec

from todoku.contracts import Event, StockAwaitedEvent
from todoku.orders.domain import Order, OrderStatus, known


def note_stock_awaited(
    order: Order | None, event: StockAwaitedEvent, now: datetime
) -> tuple[Order, list[Event]]:
    """Record that the order waits for stock. It explains the order and decides nothing."""
    order = known(order, event)
    if order.status is not OrderStatus.PENDING or order.stock_awaited_at is not None:
        return order, []  # Late: what it waited for has come, or it is being cancelled.
    return msgspec.structs.replace(order, stock_awaited_at=now), []
