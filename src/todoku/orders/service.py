"""The story of the orders service: it takes orders and follows them to their end."""

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
    note_closed,
    note_parked,
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
        InventoryMessageClosedEvent: note_closed,
        ShippingMessageParkedEvent: note_parked,
        ShippingMessageClosedEvent: note_closed,
    },
    replay_handlers={OrderCreatedEvent: replay_order},
    republish=republish_order,
)
