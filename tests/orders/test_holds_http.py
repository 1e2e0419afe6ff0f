"""HTTP operations of holds."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.orders.settings import OrdersSettings
from todoku.settings import Settings
from web.edge import client, running

pytestmark = pytest.mark.anyio

ORDER = {"userId": "user123", "items": [{"productId": "prod001", "quantity": 2, "price": 5000}]}
FRAUD = {"holder": "fraud-review", "reason": "Three orders in an hour."}
LATER = (datetime.now(UTC) + timedelta(days=2)).isoformat()

orders = orders_service(Settings(own_settings=(OrdersSettings(holders="fraud-review,address"),)))


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with running(orders, orders_api) as app, client(app) as http:
        yield http


async def place(http: httpx.AsyncClient, **more: Any) -> str:
    reply = await http.post("/orders", json=ORDER | more)
    assert reply.status_code == 201, reply.text
    placed: str = reply.json()["id"]
    return placed


async def hold(http: httpx.AsyncClient, order_id: str, **more: Any) -> dict[str, Any]:
    reply = await http.post(f"/orders/{order_id}/holds", json=FRAUD | more)
    assert reply.status_code == 202, reply.text
    held: dict[str, Any] = reply.json()
    return held


def assert_problem(reply: httpx.Response, status: int, slug: str) -> None:
    assert (reply.status_code, reply.json()["type"]) == (status, f"/problems/{slug}"), reply.text


async def test_order_is_held_and_released(http: httpx.AsyncClient) -> None:
    order_id = await place(http)
    held = await hold(http, order_id, expiresAt=LATER)
    assert (held["state"], held["holder"], held["releasedAt"]) == (
        "requested",
        "fraud-review",
        None,
    )
    for address in (f"/orders/{order_id}", f"/orders/{order_id}/holds"):
        shown = (await http.get(address)).json()
        assert shown.get("holds", shown.get("items")) == [held]
    release = f"/orders/{order_id}/holds/{held['id']}/release"
    released = await http.post(release, headers={"X-Actor": "alice"})
    assert (released.status_code, released.json()["state"]) == (202, "released")
    assert (await http.post(release)).json() == released.json(), "released twice"
    history = (await http.get(f"/orders/{order_id}/events")).json()["items"]
    assert [event["type"] for event in history][1:] == ["HoldRequestedEvent", "HoldReleasedEvent"]


async def test_order_is_placed_with_holds(http: httpx.AsyncClient) -> None:
    address = {"holder": "address", "reason": "No number.", "expiresAt": LATER}
    order_id = await place(http, holds=[FRAUD, address])
    items = (await http.get(f"/orders/{order_id}/holds")).json()["items"]
    assert [(each["holder"], each["state"]) for each in items] == [
        ("fraud-review", "requested"),
        ("address", "requested"),
    ]


async def test_request_that_is_repeated_with_its_key_is_one_hold(http: httpx.AsyncClient) -> None:
    order_id = await place(http)
    address, headers = f"/orders/{order_id}/holds", {"Idempotency-Key": '"one"'}
    first = await http.post(address, json=FRAUD, headers=headers)
    await hold(http, order_id, holder="address")
    release = f"{address}/{first.json()['id']}/release"
    released = await http.post(release, headers={"Idempotency-Key": '"two"'})
    again = await http.post(address, json=FRAUD, headers=headers)
    assert (again.status_code, again.json()) == (202, first.json())
    again = await http.post(release, headers={"Idempotency-Key": '"two"'})
    assert again.json() == released.json()
    assert len((await http.get(address)).json()["items"]) == 2


async def test_list_has_only_held_orders(http: httpx.AsyncClient) -> None:
    held, _, released = [await place(http) for _ in range(3)]
    await hold(http, held)
    hold_id = (await hold(http, released))["id"]
    await http.post(f"/orders/{released}/holds/{hold_id}/release")
    reply = await http.get("/orders", params={"held": "true", "count": "true"})
    assert [each["id"] for each in reply.json()["items"]] == [held]
    assert reply.json()["total"] == 1
    both = {"held": "true", "userId": "user123", "status": "PENDING"}
    assert [each["id"] for each in (await http.get("/orders", params=both)).json()["items"]] == [
        held
    ]


@pytest.mark.parametrize(
    ("body", "slug"),
    [
        (FRAUD | {"holder": "stranger"}, "unknown-holder"),
        (FRAUD | {"holder": ""}, "invalid-body"),
        ({"holder": "fraud-review"}, "invalid-body"),
        (FRAUD | {"expiresAt": "2020-01-01T00:00:00Z"}, "invalid-hold"),
        (FRAUD | {"expiresAt": "2020-01-01T00:00:00"}, "invalid-body"),
    ],
)
async def test_hold_that_is_invalid_is_refused(
    http: httpx.AsyncClient, body: dict[str, Any], slug: str
) -> None:
    order_id = await place(http)
    assert_problem(await http.post(f"/orders/{order_id}/holds", json=body), 422, slug)
    assert_problem(await http.post("/orders", json=ORDER | {"holds": [body]}), 422, slug)


async def test_unknown_orders_and_holds_are_refused(http: httpx.AsyncClient) -> None:
    order_id = await place(http)
    for unknown in (str(uuid.uuid4()), "not-a-uuid"):
        address = f"/orders/{unknown}/holds"
        assert_problem(await http.post(address, json=FRAUD), 404, "unknown-order")
        assert_problem(await http.get(address), 404, "unknown-order")
        release = f"/orders/{order_id}/holds/{unknown}/release"
        assert_problem(await http.post(release), 404, "unknown-hold")


async def test_too_many_holds_are_refused(http: httpx.AsyncClient) -> None:
    order_id = await place(http, holds=[FRAUD] * 50)
    assert_problem(await http.post(f"/orders/{order_id}/holds", json=FRAUD), 409, "too-many-holds")
