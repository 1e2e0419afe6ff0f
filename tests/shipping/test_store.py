"""A shipment is stored as it was decided, also one that was expected before."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

from todoku.contracts import (
    Event,
    ReservedItem,
    ShipmentInitiatedEvent,
    StockReservedEvent,
    fact_id,
)
from todoku.database import Database, migrate
from todoku.engine import StateCache
from todoku.shipping.domain import Shipment, initiate_shipment
from todoku.shipping.recovery import replay_initiated
from todoku.shipping.store import ShippingStore

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
NOW: Final = datetime(2026, 1, 5, tzinfo=UTC)
RESERVED: Final = StockReservedEvent(
    order_id=ORDER_ID,
    items=(ReservedItem(product_id="prod001", quantity=2),),
    shipping_address="1-1 Chiyoda",
)
INITIATED: Final = ShipmentInitiatedEvent(
    order_id=ORDER_ID, shipment_id=fact_id(ORDER_ID, "Shipment")
)


def test_shipment_that_was_expected_is_stored_with_its_parcel_and_its_address() -> None:
    with Database.in_memory() as database:
        migrate(database, "todoku.shipping")
        decide(database, INITIATED, lambda shipment: replay_initiated(shipment, INITIATED, NOW))
        opened = decide(
            database,
            RESERVED,
            lambda shipment: initiate_shipment(
                shipment, RESERVED, NOW, pickup_delay=lambda _: timedelta(0)
            ),
        )
        assert stored(database, RESERVED) == opened
        assert (opened.shipping_address, len(opened.items)) == ("1-1 Chiyoda", 1)


def decide(database: Database, event: Event, decision: Any) -> Shipment:
    """Load what an event is about, decide, and save it, as a batch of the writer does."""
    store = ShippingStore()
    with database.transaction() as connection:
        unit_of_work = store.load(connection, [event], StateCache(0))
        after, _ = decision(unit_of_work.view(event))
        unit_of_work.put(event, after)
        store.save(connection, unit_of_work, NOW)
    decided: Shipment = after
    return decided


def stored(database: Database, event: Event) -> Shipment | None:
    with database.read() as connection:
        return ShippingStore().load(connection, [event], StateCache(0)).view(event)
