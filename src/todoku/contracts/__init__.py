"""The events on the wire: the only thing the services share."""

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
from todoku.contracts.order_event import MAX_SAFE_INTEGER, OrderEvent
from todoku.contracts.orders import (
    CancellationRequestedEvent,
    OrderCancelledEvent,
    OrderCompletedEvent,
    OrderCreatedEvent,
    OrderedItem,
)
from todoku.contracts.parked import may_be_about_order, parking_event
from todoku.contracts.parking import ParkingEvent
from todoku.contracts.product_event import ProductEvent
from todoku.contracts.shipping import (
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
)
from todoku.contracts.stock import StockAdjustedEvent
from todoku.contracts.wire import EVENTS, decode
from todoku.events import (
    CONTENT_TYPE,
    Envelope,
    Event,
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
    "CancellationConfirmedEvent",
    "CancellationRefusedEvent",
    "CancellationRequestedEvent",
    "CancelledItem",
    "ChangeEvent",
    "Envelope",
    "Event",
    "FailedItem",
    "HoldConfirmedEvent",
    "HoldEvent",
    "HoldOutcome",
    "HoldRefusedEvent",
    "HoldReleasedEvent",
    "HoldRequestedEvent",
    "InventoryMessageClosedEvent",
    "InventoryMessageParkedEvent",
    "OrderCancelledEvent",
    "OrderCompletedEvent",
    "OrderCreatedEvent",
    "OrderEvent",
    "OrderedItem",
    "ParkingEvent",
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
    "ShippingMessageClosedEvent",
    "ShippingMessageParkedEvent",
    "StockAdjustedEvent",
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
    "read_envelope",
    "seal",
]
