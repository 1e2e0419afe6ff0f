"""Name the events on which stock is reserved.

A step between an order and its stock, such as a payment, is put there by naming its event here, with
the version of the saga that adds the step. The event passes on the fields of the first one that
`reserve_stock` reads: without its holds an order would be shipped although it is held.
"""

from collections.abc import Iterable, Mapping
from typing import Final, TypeAlias

from todoku.contracts import OrderCreatedEvent, OrderEvent

StockRequest: TypeAlias = OrderCreatedEvent

STOCK_REQUESTS: Final[Mapping[int, type[OrderEvent]]] = {1: OrderCreatedEvent}
"""The event on which stock is reserved, by the version of the saga that begins to use it."""

PASSED_ON: Final = (
    *("items", "shipping_address", "total_amount", "currency"),
    *("holds", "on_shortage", "created_at"),
)
"""The fields of OrderCreatedEvent that an event on which stock is reserved has, too."""


def require_passed_on(events: Iterable[type[OrderEvent]]) -> None:
    """Raise `TypeError` for an event that does not pass on what `reserve_stock` reads."""
    for event in events:
        if missing := [name for name in PASSED_ON if name not in event.__struct_fields__]:
            raise TypeError(
                f"{event.__name__} has no {', '.join(missing)}: pass on what OrderCreatedEvent has."
            )


require_passed_on(STOCK_REQUESTS.values())
