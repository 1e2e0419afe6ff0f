"""An event counts only if subject, source, type and id agree: nobody can forge or hide one."""

from typing import Any

import msgspec
import pytest

from engine.virtual import START, until
from system.test_process import Town, in_town, order_id
from todoku.contracts import (
    OrderCreatedEvent,
    ShipmentFailedEvent,
    StockReservedEvent,
    encode,
    seal,
)
from todoku.engine import Process

RESERVED = StockReservedEvent(order_id=order_id(), items=())


def message(event: Any = RESERVED, **changes: Any) -> bytes:
    return msgspec.json.encode(msgspec.json.decode(encode(seal(event, START))) | changes)


async def orders_with_one_order(town: Town) -> Process:
    from system.test_process import place

    process = await town.start("orders")
    await process.execute(place())
    return process


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({}, "inventory.reservation_failed"),
        ({"source": "shipping"}, "inventory.reserved"),
        ({"source": "a b c"}, "inventory.reserved"),
        ({"source": ">"}, "inventory.reserved"),
    ],
    ids=["subject", "source", "spaces", "wildcard"],
)
def test_forged_event_is_parked_and_the_true_one_still_counts(
    changes: dict[str, str], subject: str
) -> None:
    """The forged message has the id of the true event, which must not count as handled by it."""

    async def scenario(town: Town) -> None:
        process = await orders_with_one_order(town)
        town.publish(message(**changes), subject=subject)
        await until(lambda: process.counts.parked == 1)
        assert town.statuses() == {order_id(): "PENDING"}
        assert town.count("orders", "inbox") == 0
        town.publish_events(RESERVED)
        await until(lambda: town.statuses() == {order_id(): "AWAITING_SHIPMENT"})

    in_town(scenario)


def test_failed_shipment_on_the_subject_of_orders_releases_nothing() -> None:
    event = ShipmentFailedEvent(order_id=order_id(), shipment_id="s", reason="r", items=())

    async def scenario(town: Town) -> None:
        inventory = await town.start("inventory")
        town.publish(message(event), subject=OrderCreatedEvent.subject)
        await until(lambda: inventory.counts.parked == 1)
        assert inventory.counts.acknowledged == 0

    in_town(scenario)


@pytest.mark.parametrize("key", [f"urn:uuid:{order_id()}", f"{{{order_id()}}}", "x", "注文"])
def test_order_id_that_is_no_uuid_does_not_stop_inventory(key: str) -> None:
    item = {"productId": "p", "quantity": 2**62, "price": 1}
    event = msgspec.convert(
        {"orderId": key, "userId": "u", "items": [item], "totalAmount": 1}, OrderCreatedEvent
    )

    async def scenario(town: Town) -> None:
        inventory = await town.start("inventory")
        town.publish(message(event), subject=OrderCreatedEvent.subject)
        await until(lambda: inventory.counts.parked + inventory.counts.acknowledged == 1)

    in_town(scenario)
