"""Define the inventory service: which function handles which command and event."""

from todoku.contracts import (
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    OrderCreatedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.engine import Service
from todoku.inventory.domain import (
    Restock,
    SetProduct,
    deduct_stock,
    release_stock,
    replay_refusal,
    replay_reservation,
    republish_reservation,
    reserve_stock,
    restock,
    set_product,
)
from todoku.inventory.store import InventoryStore

inventory = Service(
    name=StockReservedEvent.publisher,
    store=InventoryStore(),
    commands={SetProduct: set_product, Restock: restock},
    once={Restock},
    event_handlers={
        OrderCreatedEvent: reserve_stock,
        ShipmentCompletedEvent: deduct_stock,
        ShipmentFailedEvent: release_stock,
    },
    parked_event=InventoryMessageParkedEvent,
    resolved_event=InventoryMessageClosedEvent,
    replay_handlers={
        StockReservedEvent: replay_reservation,
        StockReservationFailedEvent: replay_refusal,
        ShipmentCompletedEvent: deduct_stock,
        ShipmentFailedEvent: release_stock,
    },
    republish=republish_reservation,
)
