"""The Idempotency-Key header: which keys are taken, and what a repeated request is answered."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing
from typing import Any, Final

import httpx
import pytest
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    SimpleUser,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection

from todoku.inventory.domain import StockNotSettable, TooMuchStock, UnknownProduct
from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.web import Problem
from todoku.web.idempotency import decided, fingerprint, read_key
from todoku.web.problems import (
    BODY_TOO_LARGE,
    INTERNAL_ERROR,
    MALFORMED_REQUEST,
    UNKNOWN_DEAD_LETTER,
)
from web.edge import client, listening, running

orders = orders_service(Settings())
inventory = inventory_service(Settings())

pytestmark = pytest.mark.anyio

ORDER: Final = {
    "userId": "user123",
    "items": [{"productId": "prod001", "quantity": 2, "price": 5000}],
}
KEYBOARD: Final = {"name": "Keyboard", "price": 5000, "stockQuantity": 10}


def key(value: str) -> dict[str, str]:
    return {"Idempotency-Key": value}


@pytest.fixture
async def shop() -> AsyncIterator[httpx.AsyncClient]:
    async with running(orders, orders_api) as app, client(app) as http:
        yield http


@pytest.fixture
async def stock() -> AsyncIterator[httpx.AsyncClient]:
    async with running(inventory, inventory_api) as app, client(app) as http:
        yield http


async def orders_of(http: httpx.AsyncClient) -> list[str]:
    return [order["id"] for order in (await http.get("/orders")).json()["items"]]


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b'"8e03978e-40d5"', "8e03978e-40d5"),
        (b"8e03978e-40d5", "8e03978e-40d5"),
        (b' "a b, c; d" ', "a b, c; d"),
        (rb'"a\"b\\c"', r'a"b\c'),
        (b"ab+/=:_~", "ab+/=:_~"),
        (b'"' + b"k" * 255 + b'"', "k" * 255),
    ],
)
def test_key_is_a_string_with_or_without_quotation_marks(sent: bytes, read: str) -> None:
    assert read_key([sent]) == read


@pytest.mark.parametrize(
    "values",
    [
        [b""],
        [b'""'],
        [b"a", b"b"],
        [b'"a", "b"'],
        [b"a,b"],
        [b"a b"],
        [b'"a'],
        [b'"a\\b"'],
        [b'"a";p=1'],
        [b'a"b'],
        ["é".encode("latin-1")],
        ['"届"'.encode()],
        [b'"a\tb"'],
        [b"k" * 256],
        [b'"' + b"k" * 256 + b'"'],
    ],
)
def test_other_values_are_refused(values: list[bytes]) -> None:
    with pytest.raises(Problem, match="Idempotency-Key"):
        read_key(values)


def test_fingerprint_depends_on_what_is_meant_not_on_how_it_is_written() -> None:
    body = {"a": 1, "b": {"c": 2, "d": 3}}
    one = fingerprint(b"POST /orders ", {}, None, body)
    assert one == fingerprint(b"POST /orders ", {}, None, {"b": {"d": 3, "c": 2}, "a": 1})
    assert one != fingerprint(b"POST /orders ", {}, None, {"a": 1, "b": {"c": 2, "d": 4}})
    assert one != fingerprint(b"PATCH /orders ", {}, None, body)
    assert one != fingerprint(b"POST /orders ", {"x": "1"}, None, body)
    assert one != fingerprint(b"POST /orders ", {}, {"q": 1}, body)


def test_decisions_are_kept_and_what_says_nothing_about_the_command_is_not() -> None:
    assert decided(
        {
            UnknownProduct: UNKNOWN_DEAD_LETTER,
            TooMuchStock: BODY_TOO_LARGE,
            StockNotSettable: INTERNAL_ERROR,
            ValueError: MALFORMED_REQUEST,
        }
    ) == {UnknownProduct}


async def test_repeated_order_is_placed_once_and_answered_as_the_first(
    shop: httpx.AsyncClient,
) -> None:
    first = await shop.post("/orders", json=ORDER, headers=key('"1"'))
    again = await shop.post("/orders", json={**ORDER, "shippingAddress": ""}, headers=key("1"))
    assert first.status_code == again.status_code == 201
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert await orders_of(shop) == [first.json()["id"]]


async def test_orders_without_a_key_and_with_other_keys_are_new(shop: httpx.AsyncClient) -> None:
    for headers in ({}, {}, key("1"), key("2")):
        assert (await shop.post("/orders", json=ORDER, headers=headers)).status_code == 201
    assert len(await orders_of(shop)) == 4


async def test_key_with_another_body_is_422(shop: httpx.AsyncClient) -> None:
    await shop.post("/orders", json=ORDER, headers=key("1"))
    reply = await shop.post("/orders", json={**ORDER, "userId": "bob"}, headers=key("1"))
    assert reply.status_code == 422
    assert reply.json()["type"] == "/problems/idempotency-key-reused"
    assert len(await orders_of(shop)) == 1


async def test_malformed_key_is_400_and_nothing_is_executed(shop: httpx.AsyncClient) -> None:
    reply = await shop.post("/orders", json=ORDER, headers=key("k" * 256))
    assert reply.status_code == 400
    assert reply.json()["type"] == "/problems/invalid-idempotency-key"
    assert await orders_of(shop) == []


async def test_one_of_two_requests_at_once_is_409_or_answered_the_same(
    shop: httpx.AsyncClient,
) -> None:
    replies = await asyncio.gather(
        *(shop.post("/orders", json=ORDER, headers=key("1")) for _ in range(5))
    )
    assert {reply.status_code for reply in replies} == {201, 409}
    for reply in replies:
        if reply.status_code == 409:
            assert reply.json()["type"] == "/problems/request-in-progress"
            assert reply.headers["retry-after"] == "1"
    assert len(await orders_of(shop)) == 1


async def test_refused_order_is_refused_again_and_invalid_body_is_not_kept(
    shop: httpx.AsyncClient,
) -> None:
    item = ORDER["items"][0]
    two_prices = {**ORDER, "items": [item, {**item, "price": 1}]}
    refusals = [await shop.post("/orders", json=two_prices, headers=key("1")) for _ in range(2)]
    assert refusals[0].status_code == 422
    assert refusals[0].json()["type"] == "/problems/invalid-order"
    assert refusals[1].content == refusals[0].content

    invalid = await shop.post("/orders", json={**ORDER, "items": []}, headers=key("2"))
    assert invalid.json()["type"] == "/problems/invalid-body"
    assert (await shop.post("/orders", json=ORDER, headers=key("2"))).status_code == 201


async def test_repeated_cancellation_is_answered_as_the_first(shop: httpx.AsyncClient) -> None:
    order = (await shop.post("/orders", json=ORDER)).json()
    path = f"/orders/{order['id']}/cancel"
    replies = [
        await shop.post(path, json={"reason": "Ordered twice."}, headers=key("1")) for _ in range(2)
    ]
    assert replies[0].status_code == 202
    assert replies[1].content == replies[0].content
    other = await shop.post(path, json={"reason": "No."}, headers=key("1"))
    assert other.json()["type"] == "/problems/idempotency-key-reused"


async def test_repeated_restock_adds_the_stock_once(stock: httpx.AsyncClient) -> None:
    path, more = "/products/prod001/restock", {"quantity": 5}
    unknown = await stock.post(path, json=more, headers=key("0"))
    assert unknown.status_code == 404
    # PUT is idempotent by itself: it takes no key.
    assert (await stock.put("/products/prod001", json=KEYBOARD, headers=key("1"))).is_success
    replies = [await stock.post(path, json=more, headers=key("1")) for _ in range(2)]
    assert [reply.status_code for reply in replies] == [200, 200]
    assert replies[0].json()["stockQuantity"] == 15
    assert replies[1].content == replies[0].content
    assert (await stock.get("/products/prod001")).json()["stockQuantity"] == 15
    # Decided when the product was unknown: so it stays.
    assert (await stock.post(path, json=more, headers=key("0"))).content == unknown.content
    other = await stock.post("/products/prod002/restock", json=more, headers=key("1"))
    assert other.json()["type"] == "/problems/idempotency-key-reused"


class ByHeader(AuthenticationBackend):
    """Authenticates whoever says a name."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, SimpleUser] | None:
        name = conn.headers.get("x-name")
        return (AuthCredentials(), SimpleUser(name)) if name else None


async def test_each_caller_has_keys_of_its_own() -> None:
    middleware = [Middleware(AuthenticationMiddleware, backend=ByHeader())]
    async with running(orders, orders_api, middleware=middleware) as app, client(app) as http:
        ids = []
        for name in ("alice", "bob", "alice"):
            headers = {"x-name": name, **key("1")}
            ids.append((await http.post("/orders", json=ORDER, headers=headers)).json()["id"])
    assert ids[0] == ids[2] != ids[1]


class CuttingProxy:
    """A TCP proxy that closes every third connection before the answer reaches the client."""

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._connections = 0
        self.cut = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        cut = self._connections % 3 == 0
        from_server, to_server = await asyncio.open_connection(*self._target)
        with closing(writer), closing(to_server):
            to_server.write(await reader.read(65_536))
            answer = await from_server.read(65_536)  # The service has executed it by now.
            if cut:
                self.cut += 1
                writer.transport.abort()
                return
            writer.write(answer)
            await writer.drain()


async def test_client_behind_a_proxy_that_cuts_every_third_answer_places_each_order_once() -> None:
    async with running(orders, orders_api) as app, listening(app) as (host, port):
        proxy = CuttingProxy(host, port)
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        address = "http://{}:{}".format(*server.sockets[0].getsockname())
        limits = httpx.Limits(max_keepalive_connections=0)
        async with server, httpx.AsyncClient(base_url=address, limits=limits) as http:
            placed = [await place(http, f"order-{n}") for n in range(20)]
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}") as http:
            assert sorted(await orders_of(http)) == sorted(placed)
    assert proxy.cut >= 6


async def place(http: httpx.AsyncClient, name: str) -> str:
    """Send an order until it is answered; return its id."""
    while True:
        try:
            reply = await http.post("/orders", json={**ORDER, "userId": name}, headers=key(name))
        except httpx.TransportError:
            continue
        answer: dict[str, Any] = reply.json()
        assert reply.status_code == 201, answer
        return str(answer["id"])
