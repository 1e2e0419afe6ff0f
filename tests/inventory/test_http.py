"""HTTP operations of the inventory service."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from todoku.contracts import MAX_SAFE_INTEGER
from todoku.inventory import store
from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.settings import Settings
from todoku.web import Backend, application
from web.edge import RecordingProcess, client, empty_database, run_inline, running

inventory = inventory_service(Settings())

pytestmark = pytest.mark.anyio

KEYBOARD = {"name": "Super Keyboard", "price": 5000, "stockQuantity": 10}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client of inventory with a real engine and database."""
    async with running(inventory, inventory_api) as app, client(app) as http:
        yield http


def assert_problem(reply: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = reply.json()
    assert problem["type"] == f"/problems/{slug}"
    return problem


async def test_new_product_is_created_with_initial_stock(http: httpx.AsyncClient) -> None:
    reply = await http.put("/products/prod001", json=KEYBOARD)
    assert reply.status_code == 201
    assert reply.headers["location"] == "/products/prod001"
    product = reply.json()
    assert product == {
        "id": "prod001",
        "name": "Super Keyboard",
        "price": 5000,
        "currency": "JPY",
        "stockQuantity": 10,
        "reservedQuantity": 0,
        "availableQuantity": 10,
        "updatedAt": product["updatedAt"],
        "version": product["version"],
        "archived": False,
        "lowStockThreshold": None,
    }
    assert reply.headers["etag"] == f'"{product["version"]}"'
    assert (await http.get("/products/prod001")).json() == product


async def test_product_can_be_created_without_stock(http: httpx.AsyncClient) -> None:
    product = {"name": "キーボード", "price": 1, "currency": "EUR"}
    reply = await http.put("/products/keyboard", json=product)
    assert reply.status_code == 201
    assert reply.json()["stockQuantity"] == 0
    assert reply.json()["currency"] == "EUR"
    assert reply.json()["name"] == "キーボード"


async def test_update_changes_name_and_price_and_keeps_stock(
    http: httpx.AsyncClient,
) -> None:
    await http.put("/products/prod001", json=KEYBOARD)
    reply = await http.put("/products/prod001", json={"name": "Keyboard", "price": 6000})
    assert reply.status_code == 200
    assert "location" not in reply.headers
    product = reply.json()
    assert (product["name"], product["price"], product["stockQuantity"]) == ("Keyboard", 6000, 10)
    assert (await http.put("/products/prod001", json=KEYBOARD)).status_code == 200


async def test_setting_stock_of_existing_product_is_refused(http: httpx.AsyncClient) -> None:
    await http.put("/products/prod001", json=KEYBOARD)
    reply = await http.put("/products/prod001", json={**KEYBOARD, "stockQuantity": 11})
    problem = assert_problem(reply, 409, "stock-not-settable")
    assert "POST /products/prod001/restock" in problem["detail"]
    assert (await http.get("/products/prod001")).json()["stockQuantity"] == 10


async def test_restock_adds_pieces(http: httpx.AsyncClient) -> None:
    await http.put("/products/prod001", json=KEYBOARD)
    reply = await http.post("/products/prod001/restock", json={"quantity": 5, "reason": "4711"})
    assert reply.status_code == 200
    assert reply.json()["stockQuantity"] == 15
    assert (await http.get("/products/prod001")).json() == reply.json()


async def test_stock_above_maximum_is_refused(http: httpx.AsyncClient) -> None:
    await http.put("/products/prod001", json={**KEYBOARD, "stockQuantity": MAX_SAFE_INTEGER})
    reply = await http.post("/products/prod001/restock", json={"quantity": 1})
    assert_problem(reply, 409, "too-much-stock")


async def test_unknown_product_returns_404(http: httpx.AsyncClient) -> None:
    assert_problem(await http.get("/products/none"), 404, "unknown-product")
    reply = await http.post("/products/none/restock", json={"quantity": 1})
    problem = assert_problem(reply, 404, "unknown-product")
    assert "PUT /products/none" in problem["detail"]


@pytest.mark.parametrize("product_id", ["%00", "a%20", "p" * 256, "%E3%80%80", "a%0A"])
async def test_invalid_product_id_is_unknown_and_cannot_be_created(
    http: httpx.AsyncClient, product_id: str
) -> None:
    assert_problem(await http.get(f"/products/{product_id}"), 404, "unknown-product")
    reply = await http.post(f"/products/{product_id}/restock", json={"quantity": 1})
    assert_problem(reply, 404, "unknown-product")
    reply = await http.put(f"/products/{product_id}", json=KEYBOARD)
    assert_problem(reply, 400, "invalid-parameter")


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"name": ""}, "#/name"),
        ({"name": "n" * 201}, "#/name"),
        ({"name": "\0"}, "#/name"),
        ({"price": -1}, "#/price"),
        ({"price": 1.5}, "#/price"),
        ({"price": MAX_SAFE_INTEGER + 1}, "#/price"),
        ({"currency": "yen"}, "#/currency"),
        ({"stockQuantity": -1}, "#/stockQuantity"),
        ({"stockQuantity": True}, "#/stockQuantity"),
        ({"reservedQuantity": 1}, "#/reservedQuantity"),
    ],
)
async def test_invalid_product_body_returns_422_with_pointer(
    http: httpx.AsyncClient, change: dict[str, Any], pointer: str
) -> None:
    reply = await http.put("/products/prod001", json={**KEYBOARD, **change})
    problem = assert_problem(reply, 422, "invalid-body")
    assert problem["errors"][0]["pointer"] == pointer
    assert_problem(await http.get("/products/prod001"), 404, "unknown-product")


@pytest.mark.parametrize(
    ("delivery", "pointer"),
    [
        ({}, "#/quantity"),
        ({"quantity": 0}, "#/quantity"),
        ({"quantity": -1}, "#/quantity"),
        ({"quantity": 1, "reason": "r" * 201}, "#/reason"),
        ({"quantity": 1, "note": "n"}, "#/note"),
    ],
)
async def test_invalid_restock_body_returns_422_with_pointer(
    http: httpx.AsyncClient, delivery: dict[str, Any], pointer: str
) -> None:
    await http.put("/products/prod001", json=KEYBOARD)
    reply = await http.post("/products/prod001/restock", json=delivery)
    assert assert_problem(reply, 422, "invalid-body")["errors"][0]["pointer"] == pointer
    assert (await http.get("/products/prod001")).json()["stockQuantity"] == 10


async def test_product_pages_are_ordered_by_id(http: httpx.AsyncClient) -> None:
    ids = ["a", "b", "c.1", "d-2", "e_3"]
    for product_id in reversed(ids):
        await http.put(f"/products/{product_id}", json=KEYBOARD)
    found, url = [], "/products?limit=2"
    while url:
        reply = await http.get(url)
        found += [product["id"] for product in reply.json()["items"]]
        url = reply.links.get("next", {}).get("url", "")
    assert found == ids


@pytest.mark.parametrize("query", ["limit=0", "limit=1000", "cursor=x", "cursor=AAAA", "page=2"])
async def test_invalid_parameter_is_refused(http: httpx.AsyncClient, query: str) -> None:
    assert_problem(await http.get(f"/products?{query}"), 400, "invalid-parameter")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/products/prod001", KEYBOARD),
        ("POST", "/products/prod001/restock", {"quantity": 1}),
    ],
)
async def test_command_timeout_says_how_to_look_up_the_result(
    method: str, path: str, body: dict[str, Any]
) -> None:
    process = RecordingProcess(lambda _: asyncio.Event().wait())
    with empty_database(store.metadata) as database:
        backend = Backend(
            process=process, database=database, run_read=run_inline, response_timeout_seconds=0.01
        )
        async with client(application(inventory_api(backend), backend)) as http:
            reply = await http.request(method, path, json=body)
    problem = assert_problem(reply, 503, "outcome-unknown")
    assert "GET /products/prod001" in problem["detail"]
