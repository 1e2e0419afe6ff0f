"""The operations about a person, of a real orders service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx
import pytest

from todoku.engine import EngineConfig
from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from web.edge import client, running

pytestmark = pytest.mark.anyio

PERSON: Final = {"userId": "carol%_\t@example.com"}
NEW: Final = {
    **PERSON,
    "currency": "JPY",
    "shippingAddress": "1-1 Chiyoda, Tokyo",
    "items": [{"productId": "p1", "quantity": 1, "price": 100}],
}


@asynccontextmanager
async def orders() -> AsyncIterator[httpx.AsyncClient]:
    service, config = orders_service(Settings()), EngineConfig(audit=True)
    async with running(service, orders_api, config=config) as app, client(app) as http:
        yield http


async def test_export_has_the_orders_of_the_person_and_their_histories() -> None:
    async with orders() as http:
        order_id = (await http.post("/orders", json=NEW)).json()["id"]
        await http.post("/orders", json={**NEW, "userId": "dave"})
        answer = await http.post("/persons/export", json=PERSON)
        assert answer.status_code == 200
        export: dict[str, Any] = answer.json()
        assert export["orderIds"] == [order_id]
        assert [row["user_id"] for row in export["tables"]["orders"]] == [PERSON["userId"]]
        (event,) = export["tables"]["order_events"]
        assert "1-1 Chiyoda, Tokyo" in event["data"]
        assert "dave" not in answer.text


async def test_person_with_an_open_order_is_refused_and_the_order_is_named() -> None:
    async with orders() as http:
        order_id = (await http.post("/orders", json=NEW)).json()["id"]
        answer = await http.post("/persons/erase", json=PERSON)
        assert answer.status_code == 409
        problem: dict[str, Any] = answer.json()
        assert problem["type"] == "/problems/person-has-open-orders"
        assert (problem["orders"], problem["deadLetters"]) == ([order_id], [])
        assert (await http.get(f"/orders/{order_id}")).json()["userId"] == PERSON["userId"]
        listed = (await http.get("/audit?operation=erasePerson")).json()["items"]
        assert [row["outcome"] for row in listed] == ["person-has-open-orders"]
        assert PERSON["userId"] not in str(listed)


async def test_person_of_whom_nothing_is_stored_is_unknown() -> None:
    async with orders() as http:
        answer = await http.post("/persons/erase", json=PERSON)
        assert (answer.status_code, answer.json()["type"]) == (404, "/problems/unknown-person")
        assert (await http.get("/persons/erasures/none")).status_code == 404


async def test_other_services_export_what_they_have_about_orders_and_erase_nobody() -> None:
    service = inventory_service(Settings())
    async with running(service, inventory_api) as app, client(app) as http:
        unknown = {**PERSON, "orderIds": ["0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"]}
        answer = await http.post("/persons/export", json=unknown)
        assert (answer.status_code, answer.json()["tables"]["reservations"]) == (200, [])
        assert (await http.post("/persons/erase", json=PERSON)).status_code == 404
