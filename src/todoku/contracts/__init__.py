"""The events on the wire: the only thing the services share."""

from todoku.contracts.anchors import (
    InventoryAuditAnchoredEvent,
    OrdersAuditAnchoredEvent,
    ShippingAuditAnchoredEvent,
)
from todoku.contracts.backorders import WAIT, StockAwaitedEvent, waits_for_stock
from todoku.contracts.changes import CancelledItem, ChangeEvent
from todoku.contracts.holds import (
    HoldConfirmedEvent,
    HoldEvent,
    HoldOutcome,
    HoldRefusedEvent,
    HoldReleasedEvent,
    HoldRequestedEvent,
    PlacedHold,
    holds_of,
)
from todoku.contracts.inventory import (
    FailedItem,
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    ProductChangedEvent,
    ReleaseOutcome,
    ReservedItem,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.contracts.keys import OrdersApiKeyChangedEvent
from todoku.contracts.order_event import MAX_SAFE_INTEGER, OrderEvent
from todoku.contracts.orders import (
    CancellationRequestedEvent,
    OrderCancelledEvent,
    OrderCompletedEvent,
    OrderCreatedEvent,
    OrderedItem,
)
from todoku.contracts.parked import TYPES_NOT_ABOUT_ORDERS, may_be_about_order, parking_event
from todoku.contracts.parking import ParkingEvent
from todoku.contracts.pauses import (
    ActivePause,
    InventoryPausesChangedEvent,
    PausesEvent,
    ShippingPausesChangedEvent,
)
from todoku.contracts.pausing import pauses_event
from todoku.contracts.persons import PersonErasedEvent
from todoku.contracts.product_event import ProductEvent
from todoku.contracts.shipping import (
    BookingAttemptFailedEvent,
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
)
from todoku.contracts.stock import (
    LowStockThresholdChangedEvent,
    StockAdjustedEvent,
    StockLowEvent,
)
from todoku.contracts.wire import EVENTS, decode
from todoku.events import (
    CONTENT_TYPE,
    NO_CONTEXT,
    Context,
    Envelope,
    Event,
    InContext,
    Personal,
    UndecodableEvent,
    UnknownEventType,
    encode,
    fact_id,
    read_envelope,
    seal,
)

__all__ = [
    "CONTENT_TYPE",
    "EVENTS",
    "MAX_SAFE_INTEGER",
    "NO_CONTEXT",
    "TYPES_NOT_ABOUT_ORDERS",
    "WAIT",
    "ActivePause",
    "BookingAttemptFailedEvent",
    "CancellationConfirmedEvent",
    "CancellationRefusedEvent",
    "CancellationRequestedEvent",
    "CancelledItem",
    "ChangeEvent",
    "Context",
    "Envelope",
    "Event",
    "FailedItem",
    "HoldConfirmedEvent",
    "HoldEvent",
    "HoldOutcome",
    "HoldRefusedEvent",
    "HoldReleasedEvent",
    "HoldRequestedEvent",
    "InContext",
    "InventoryAuditAnchoredEvent",
    "InventoryMessageClosedEvent",
    "InventoryMessageParkedEvent",
    "InventoryPausesChangedEvent",
    "LowStockThresholdChangedEvent",
    "OrderCancelledEvent",
    "OrderCompletedEvent",
    "OrderCreatedEvent",
    "OrderEvent",
    "OrderedItem",
    "OrdersApiKeyChangedEvent",
    "OrdersAuditAnchoredEvent",
    "ParkingEvent",
    "PausesEvent",
    "PersonErasedEvent",
    "Personal",
    "PlacedHold",
    "ProductChangedEvent",
    "ProductEvent",
    "ReleaseOutcome",
    "ReservedItem",
    "ShipmentCompletedEvent",
    "ShipmentFailedEvent",
    "ShipmentInitiatedEvent",
    "ShippedItem",
    "ShippingAuditAnchoredEvent",
    "ShippingMessageClosedEvent",
    "ShippingMessageParkedEvent",
    "ShippingPausesChangedEvent",
    "StockAdjustedEvent",
    "StockAwaitedEvent",
    "StockLowEvent",
    "StockReleasedEvent",
    "StockReservationFailedEvent",
    "StockReservedEvent",
    "UndecodableEvent",
    "UnknownEventType",
    "decode",
    "encode",
    "fact_id",
    "holds_of",
    "may_be_about_order",
    "parking_event",
    "pauses_event",
    "read_envelope",
    "seal",
    "waits_for_stock",
]
