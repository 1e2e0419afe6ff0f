"""Every event names the event that led to it, from the request to the end of the order."""

from typing import Any

import pytest

from system.test_process import Town, in_town
from todoku.contracts import OrderedItem
from todoku.engine.testing import until
from todoku.inventory.domain import SetProduct
from todoku.orders.cancellation import CancelOrder
from todoku.orders.placing import PlaceOrder
from todoku.orders.store import HistoryEntry, history
from todoku.settings import Span
from todoku.shipping.carriers import booking_effects
from todoku.system import system

ORDER = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"


async def ended(town: Town, status: str) -> list[HistoryEntry]:
    """Return the history of the order when it has ended like this, and nothing is pending."""
    services = ("orders", "inventory", "shipping")
    await until(lambda: town.statuses() == {ORDER: status})
    await until(lambda: not any(town.pending(name) for name in services))
    with town.disks["orders"].database.read() as connection:
        return history(connection, ORDER)


def causes(entries: list[HistoryEntry]) -> dict[str, str | None]:
    """Return the types of the events, each with the type of what led to it."""
    types = {entry.event_id: entry.type for entry in entries}
    return {entry.type: entry.cause and types[entry.cause] for entry in entries}


def with_pickup_after(town: Town, seconds: float) -> None:
    """Let the carrier be called after that time."""
    settings = system.settings(carrier_delay_seconds=Span(seconds, seconds))
    effects = booking_effects(town.courier)
    town.services["shipping"] = system["shipping"].build(settings, effects=effects)


async def place(town: Town) -> Any:
    orders = await town.start("orders")
    inventory = await town.start("inventory")
    product = SetProduct(product_id="prod001", name="n", price=1, stock_quantity=5)
    await inventory.execute(product)
    await town.start("shipping")
    items = (OrderedItem(product_id="prod001", quantity=1, price=1),)
    command = PlaceOrder(order_id=ORDER, user_id="u", items=items, currency="JPY")
    await orders.execute(command)
    return orders


@pytest.mark.parametrize("delay", [0, 3], ids=["due at once", "due later"])
def test_each_event_of_an_order_names_what_led_to_it(delay: int) -> None:
    """Also across the row that waits for the pickup: the kept state tells the cause."""

    async def scenario(town: Town) -> None:
        with_pickup_after(town, delay)
        await place(town)
        assert causes(await ended(town, "COMPLETED")) == {
            "OrderCreatedEvent": None,
            "StockReservedEvent": "OrderCreatedEvent",
            "ShipmentInitiatedEvent": "StockReservedEvent",
            "ShipmentCompletedEvent": "ShipmentInitiatedEvent",
            "OrderCompletedEvent": "ShipmentCompletedEvent",
        }

    in_town(scenario)


def test_cancellation_names_what_led_to_each_answer() -> None:
    async def scenario(town: Town) -> None:
        with_pickup_after(town, 3)
        orders = await place(town)
        await orders.execute(CancelOrder(order_id=ORDER, change_id=ORDER))
        found = causes(await ended(town, "CANCELLED"))
        assert found["CancellationRequestedEvent"] is None
        assert found["CancellationConfirmedEvent"] == "CancellationRequestedEvent"
        assert found["StockReleasedEvent"] == "CancellationConfirmedEvent"
        assert found["OrderCancelledEvent"] == "StockReleasedEvent"

    in_town(scenario)
