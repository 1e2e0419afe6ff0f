"""The events on the wire: the only thing the services share."""

from todoku.contracts.envelope import (
    CONTENT_TYPE,
    MAX_SAFE_INTEGER,
    Envelope,
    Event,
    Personal,
    fact_id,
)
from todoku.contracts.inventory import (
    FailedItem,
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    ReservedItem,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.contracts.orders import (
    OrderCancelledEvent,
    OrderCompletedEvent,
    OrderCreatedEvent,
    OrderedItem,
)
from todoku.contracts.parking import ParkingEvent
from todoku.contracts.shipping import (
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippedItem,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
)
from todoku.contracts.wire import (
    EVENTS,
    UndecodableEvent,
    UnknownEventType,
    decode,
    encode,
    read_envelope,
    seal,
)

__all__ = [
    "CONTENT_TYPE",
    "EVENTS",
    "MAX_SAFE_INTEGER",
    "Envelope",
    "Event",
    "FailedItem",
    "InventoryMessageClosedEvent",
    "InventoryMessageParkedEvent",
    "OrderCancelledEvent",
    "OrderCompletedEvent",
    "OrderCreatedEvent",
    "OrderedItem",
    "ParkingEvent",
    "Personal",
    "ReservedItem",
    "ShipmentCompletedEvent",
    "ShipmentFailedEvent",
    "ShipmentInitiatedEvent",
    "ShippedItem",
    "ShippingMessageClosedEvent",
    "ShippingMessageParkedEvent",
    "StockReservationFailedEvent",
    "StockReservedEvent",
    "UndecodableEvent",
    "UnknownEventType",
    "decode",
    "encode",
    "fact_id",
    "read_envelope",
    "seal",
]
