"""The event types of the built-in services, by their names on the wire."""

from typing import Final

from todoku.contracts.anchors import (
    InventoryAuditAnchoredEvent,
    OrdersAuditAnchoredEvent,
    ShippingAuditAnchoredEvent,
)
from todoku.contracts.backorders import StockAwaitedEvent
from todoku.contracts.holds import (
    HoldConfirmedEvent,
    HoldRefusedEvent,
    HoldReleasedEvent,
    HoldRequestedEvent,
)
from todoku.contracts.inventory import (
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    ProductChangedEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.contracts.keys import OrdersApiKeyChangedEvent
from todoku.contracts.orders import (
    CancellationRequestedEvent,
    OrderCancelledEvent,
    OrderCompletedEvent,
    OrderCreatedEvent,
)
from todoku.contracts.pauses import InventoryPausesChangedEvent, ShippingPausesChangedEvent
from todoku.contracts.persons import PersonErasedEvent
from todoku.contracts.shipping import (
    BookingAttemptFailedEvent,
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
)
from todoku.contracts.stock import (
    LowStockThresholdChangedEvent,
    StockAdjustedEvent,
    StockLowEvent,
)
from todoku.events import Event, EventRegistry

EVENTS: Final[dict[str, type[Event]]] = {
    event.__name__: event
    for event in (
        OrderCreatedEvent,
        StockReservedEvent,
        StockReservationFailedEvent,
        ShipmentInitiatedEvent,
        BookingAttemptFailedEvent,
        ShipmentCompletedEvent,
        ShipmentFailedEvent,
        CancellationRequestedEvent,
        CancellationConfirmedEvent,
        CancellationRefusedEvent,
        StockReleasedEvent,
        HoldRequestedEvent,
        HoldReleasedEvent,
        HoldConfirmedEvent,
        HoldRefusedEvent,
        OrderCompletedEvent,
        OrderCancelledEvent,
        ProductChangedEvent,
        StockAwaitedEvent,
        StockAdjustedEvent,
        StockLowEvent,
        LowStockThresholdChangedEvent,
        InventoryMessageParkedEvent,
        InventoryMessageClosedEvent,
        ShippingMessageParkedEvent,
        ShippingMessageClosedEvent,
        InventoryPausesChangedEvent,
        ShippingPausesChangedEvent,
        OrdersApiKeyChangedEvent,
        OrdersAuditAnchoredEvent,
        InventoryAuditAnchoredEvent,
        ShippingAuditAnchoredEvent,
        PersonErasedEvent,
    )
}
"""Every built-in event type, by its name on the wire."""

decode = EventRegistry(EVENTS.values()).decode
"""Decode a message of a built-in event type."""
