"""Define the orders service: which function handles which command and event."""

from todoku.contracts import (
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    OrderCreatedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.engine import Service
from todoku.orders.domain import (
    PlaceOrder,
    cancel_for_lack_of_stock,
    complete,
    confirm_reservation,
    fail,
    note_parked,
    note_resolved,
    note_shipment,
    place_order,
    replay_order,
    republish_order,
)
from todoku.orders.store import OrdersStore

orders = Service(
    name=OrderCreatedEvent.publisher,
    store=OrdersStore(),
    commands={PlaceOrder: place_order},
    event_handlers={
        StockReservedEvent: confirm_reservation,
        StockReservationFailedEvent: cancel_for_lack_of_stock,
        ShipmentInitiatedEvent: note_shipment,
        ShipmentCompletedEvent: complete,
        ShipmentFailedEvent: fail,
        InventoryMessageParkedEvent: note_parked,
        InventoryMessageClosedEvent: note_resolved,
        ShippingMessageParkedEvent: note_parked,
        ShippingMessageClosedEvent: note_resolved,
    },
    replay_handlers={OrderCreatedEvent: replay_order},
    republish=republish_order,
)
