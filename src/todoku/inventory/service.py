"""The story of the inventory service: it sets stock aside, and ships or releases it."""

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
    recall_refusal,
    recall_reservation,
    release_stock,
    reserve_stock,
    restock,
    retell_reservation,
    set_product,
)
from todoku.inventory.store import InventoryStore

inventory = Service(
    name=StockReservedEvent.publisher,
    store=InventoryStore(),
    commands={SetProduct: set_product, Restock: restock},
    once={Restock},
    reactions={
        OrderCreatedEvent: reserve_stock,
        ShipmentCompletedEvent: deduct_stock,
        ShipmentFailedEvent: release_stock,
    },
    says_parked=InventoryMessageParkedEvent,
    says_closed=InventoryMessageClosedEvent,
    recalls={
        StockReservedEvent: recall_reservation,
        StockReservationFailedEvent: recall_refusal,
        ShipmentCompletedEvent: deduct_stock,
        ShipmentFailedEvent: release_stock,
    },
    retells=retell_reservation,
)
