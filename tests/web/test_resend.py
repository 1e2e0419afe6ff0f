"""Operation that publishes events again, with real orders and inventory."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

import httpx
import pytest

from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from web.edge import client, running, running_together

inventory = inventory_service(Settings())
orders = orders_service(Settings())

pytestmark = pytest.mark.anyio

PATH: Final = "/events/send-again"
UNKNOWN: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
NEW_ORDER: Final = {
    "userId": "alice",
    "items": [{"productId": "none", "quantity": 1, "price": 1}],
}


@pytest.fixture
async def alone() -> AsyncIterator[httpx.AsyncClient]:
    """Orders without subscribers."""
    async with running(orders, orders_api) as app:
        yield client(app)


@pytest.fixture
async def both() -> AsyncIterator[Sequence[httpx.AsyncClient]]:
    async with running_together([(orders, orders_api), (inventory, inventory_api)]) as apps:
        yield [client(app) for app in apps]


async def test_response_lists_republished_event_types_of_each_order(
    alone: httpx.AsyncClient,
) -> None:
    placed = (await alone.post("/orders", json=NEW_ORDER)).json()["id"]
    reply = await alone.post(PATH, json={"orderIds": [placed.upper(), UNKNOWN]})
    assert reply.status_code == 202
    assert reply.json() == {
        "owed": 0,
        "orders": [
            {"orderId": placed, "eventTypes": ["OrderCreatedEvent"]},
            {"orderId": UNKNOWN, "eventTypes": []},
        ],
    }


async def test_republished_event_leaves_order_and_history_unchanged(
    both: Sequence[httpx.AsyncClient],
) -> None:
    at_orders, at_inventory = both
    placed = (await at_orders.post("/orders", json=NEW_ORDER)).json()["id"]

    async def order() -> Any:
        return (await at_orders.get(f"/orders/{placed}")).json()

    async with asyncio.timeout(10):
        while (await order())["status"] != "CANCELLED_NO_STOCK":  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.001)
    before = await order(), (await at_orders.get(f"/orders/{placed}/events")).json()
    reply = await at_inventory.post(PATH, json={"orderIds": [placed]})
    assert reply.json()["orders"][0]["eventTypes"] == ["StockReservationFailedEvent"]
    async with asyncio.timeout(10):  # A republished event is confirmed again.
        while (await at_inventory.post(PATH, json={})).json()["owed"]:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert before == (await order(), (await at_orders.get(f"/orders/{placed}/events")).json())


async def test_request_without_orders_resends_all_pending_deliveries(
    alone: httpx.AsyncClient,
) -> None:
    reply = await alone.post(PATH, json={})
    assert (reply.status_code, reply.json()) == (202, {"owed": 0, "orders": []})


@pytest.mark.parametrize(
    "body",
    [{"orderIds": []}, {"orderIds": ["no-uuid"]}, {"orderIds": [UNKNOWN] * 201}, {"orders": []}],
)
async def test_invalid_order_ids_are_refused(alone: httpx.AsyncClient, body: Any) -> None:
    reply = await alone.post(PATH, json=body)
    assert (reply.status_code, reply.json()["type"]) == (422, "/problems/invalid-body")
