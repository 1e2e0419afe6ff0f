"""Define stock and reservations as pure functions: values in, values out.

`stock` has the entities, `products` and `adjustments` the decisions on commands, `publication` how the
catalogue is published, `reservations` the decisions on events, `cancellations` those on cancellations.
"""

from todoku.inventory.domain.adjustments import (
    CODES,
    CorrectStock,
    Restock,
    StockInUse,
    TooMuchStock,
    correct_stock,
    replay_adjustment,
    restock,
    takes_pieces,
)
from todoku.inventory.domain.backorders import replay_waiting, serve_queue
from todoku.inventory.domain.cancellations import (
    InvalidCancellation,
    release_cancelled,
    replay_release,
)
from todoku.inventory.domain.low_stock import (
    SetLowStockThreshold,
    replay_threshold,
    set_low_stock_threshold,
)
from todoku.inventory.domain.products import (
    ArchiveProduct,
    ProductChanged,
    SetProduct,
    StockNotSettable,
    UnknownProduct,
    archive_product,
    set_product,
)
from todoku.inventory.domain.publication import (
    PAGE,
    PublishCatalogue,
    opening_id,
    publish_catalogue,
    publish_page,
    replay_product,
)
from todoku.inventory.domain.queue import Place, Queue
from todoku.inventory.domain.queue_places import place_of
from todoku.inventory.domain.request import STOCK_REQUESTS, StockRequest
from todoku.inventory.domain.reservations import (
    ContradictoryEvent,
    UnknownReservation,
    deduct_stock,
    release_stock,
    replay_refusal,
    replay_reservation,
    republish_reservation,
    reserve_stock,
)
from todoku.inventory.domain.stock import (
    NOT_ARRIVED,
    RESERVATION,
    LedgerEntry,
    LedgerReason,
    Line,
    Product,
    Publication,
    Reservation,
    ReservationChange,
    ReservationState,
    Stock,
    StockError,
    StockLost,
    Walk,
    address_of,
)

__all__ = [
    "CODES",
    "NOT_ARRIVED",
    "PAGE",
    "RESERVATION",
    "STOCK_REQUESTS",
    "ArchiveProduct",
    "ContradictoryEvent",
    "CorrectStock",
    "InvalidCancellation",
    "LedgerEntry",
    "LedgerReason",
    "Line",
    "Place",
    "Product",
    "ProductChanged",
    "Publication",
    "PublishCatalogue",
    "Queue",
    "Reservation",
    "ReservationChange",
    "ReservationState",
    "Restock",
    "SetLowStockThreshold",
    "SetProduct",
    "Stock",
    "StockError",
    "StockInUse",
    "StockLost",
    "StockNotSettable",
    "StockRequest",
    "TooMuchStock",
    "UnknownProduct",
    "UnknownReservation",
    "Walk",
    "address_of",
    "archive_product",
    "correct_stock",
    "deduct_stock",
    "opening_id",
    "place_of",
    "publish_catalogue",
    "publish_page",
    "release_cancelled",
    "release_stock",
    "replay_adjustment",
    "replay_product",
    "replay_refusal",
    "replay_release",
    "replay_reservation",
    "replay_threshold",
    "replay_waiting",
    "republish_reservation",
    "reserve_stock",
    "restock",
    "serve_queue",
    "set_low_stock_threshold",
    "set_product",
    "takes_pieces",
]
