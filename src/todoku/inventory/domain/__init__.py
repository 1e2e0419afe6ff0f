"""Define stock and reservations as pure functions: values in, values out.

`stock` has the entities, `products` the decisions on commands, `reservations` those on events,
`cancellations` those on cancellations.
"""

from todoku.inventory.domain.cancellations import (
    InvalidCancellation,
    release_cancelled,
    replay_release,
)
from todoku.inventory.domain.products import (
    Restock,
    SetProduct,
    StockNotSettable,
    TooMuchStock,
    UnknownProduct,
    restock,
    set_product,
)
from todoku.inventory.domain.request import STOCK_REQUESTS, StockRequest
from todoku.inventory.domain.reservations import (
    ContradictoryEvent,
    StockLost,
    UnknownReservation,
    deduct_stock,
    release_stock,
    replay_refusal,
    replay_reservation,
    republish_reservation,
    reserve_stock,
)
from todoku.inventory.domain.stock import (
    RESERVATION,
    LedgerEntry,
    LedgerReason,
    Line,
    Product,
    Reservation,
    ReservationChange,
    ReservationState,
    Stock,
    StockError,
)

__all__ = [
    "RESERVATION",
    "STOCK_REQUESTS",
    "ContradictoryEvent",
    "InvalidCancellation",
    "LedgerEntry",
    "LedgerReason",
    "Line",
    "Product",
    "Reservation",
    "ReservationChange",
    "ReservationState",
    "Restock",
    "SetProduct",
    "Stock",
    "StockError",
    "StockLost",
    "StockNotSettable",
    "StockRequest",
    "TooMuchStock",
    "UnknownProduct",
    "UnknownReservation",
    "deduct_stock",
    "release_cancelled",
    "release_stock",
    "replay_refusal",
    "replay_release",
    "replay_reservation",
    "republish_reservation",
    "reserve_stock",
    "restock",
    "set_product",
]
