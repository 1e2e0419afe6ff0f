"""Streams of the events of orders: resumed where they were, and ended with the order or the service."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import httpx
import pytest

from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.orders import live, order_streams
from todoku.orders.feed_cursor import FeedCursor, parse_cursor
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.web import Api, Backend
from web.edge import listening, running_together

pytestmark = pytest.mark.anyio

SECONDS_MAX: Final = 20
POSITIONS: Final = orders_service(Settings()).store.tables.positions


def order(user: str = "user", product: str = "ghost") -> dict[str, Any]:
    """Return an order of a product that inventory does not know: it ends at once."""
    return {"userId": user, "items": [{"productId": product, "quantity": 1, "price": 1}]}


class Shop:
    """Orders and inventory, with a client of orders over HTTP."""

    def __init__(self, http: httpx.AsyncClient, transact: Any = None) -> None:
        self.http = http
        self.transact = transact

    async def place(self, **of: str) -> str:
        reply = await self.http.post("/orders", json=order(**of), headers={"Prefer": "wait=30"})
        assert reply.json()["status"] == "CANCELLED_NO_STOCK"
        order_id: str = reply.json()["id"]
        return order_id

    async def history(self, order_id: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self.http.get(f"/orders/{order_id}/events")).json()[
            "items"
        ]
        return items

    @asynccontextmanager
    async def stream(
        self, path: str = "/orders/stream", last: str | None = None, **query: Any
    ) -> AsyncIterator["Reader"]:
        headers = {} if last is None else {"Last-Event-ID": last}
        async with self.http.stream("GET", path, params=query, headers=headers) as reply:
            assert reply.status_code == 200, await reply.aread()
            assert reply.headers["content-type"].startswith("text/event-stream")
            reader = Reader(reply)
            assert await reader.block() == {"retry": "1000"}
            yield reader


class Reader:
    """Reads the events of a stream."""

    def __init__(self, reply: httpx.Response) -> None:
        self._lines = reply.aiter_lines()
        self.last = ""

    async def block(self) -> dict[str, str]:
        """Return the fields of the next block."""
        fields = {}
        async with asyncio.timeout(SECONDS_MAX):
            while line := await anext(self._lines):
                name, _, value = line.partition(": ")
                fields[name] = value
        self.last = fields.get("id", self.last)
        return fields

    async def events(self, count: int) -> list[dict[str, Any]]:
        """Return the data of the next events."""
        return [json.loads((await self.block())["data"]) for _ in range(count)]

    async def rest(self) -> list[dict[str, str]]:
        """Return all blocks up to the end of the stream."""
        blocks = []
        while True:
            try:
                blocks.append(await self.block())
            except StopAsyncIteration:
                return blocks


@asynccontextmanager
async def running_shop() -> AsyncIterator[Shop]:
    backends: list[Backend] = []

    def api(backend: Backend) -> Api:
        backends.append(backend)
        return orders_api(backend)

    services = [
        (orders_service(Settings()), api),
        (inventory_service(Settings()), inventory_api),
    ]
    async with (
        running_together(services) as apps,
        listening(apps[0]) as (host, port),
    ):
        http = httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=SECONDS_MAX)
        yield Shop(http, backends[0].process.transact)


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    async with running_shop() as shop:
        yield shop
        await shop.http.aclose()


async def test_stream_begins_with_what_happens_from_now_on(shop: Shop) -> None:
    await shop.place()
    async with shop.stream() as stream:
        order_id = await shop.place()
        events = await stream.events(3)
    assert {event["orderId"] for event in events} == {order_id}
    changes = (await shop.http.get("/changes")).json()["items"]
    assert events == changes[3:]


async def test_interrupted_stream_goes_on_without_losing_or_repeating_an_event(shop: Shop) -> None:
    async with shop.stream() as stream:
        await shop.place()
        seen = await stream.events(2)
        last = stream.last
    await shop.place()
    async with shop.stream(last=last) as stream:
        seen += await stream.events(3)
        await shop.place()
        seen += await stream.events(4)
    assert seen == (await shop.http.get("/changes")).json()["items"]


async def test_stream_continues_a_page_of_changes(shop: Shop) -> None:
    await shop.place()
    page = (await shop.http.get("/changes", params={"limit": 2})).json()
    async with shop.stream(after=page["next"]) as stream:
        assert [event["position"] for event in await stream.events(1)] == [3]
        assert (await shop.http.get("/changes", params={"after": stream.last})).json()[
            "items"
        ] == []


@pytest.mark.parametrize(
    "query",
    [
        {"userId": "alice"},
        {"productId": "wanted"},
        {"userId": "alice", "productId": "wanted", "status": ["CANCELLED_NO_STOCK", "PENDING"]},
    ],
)
async def test_stream_has_what_matches_all_filters(shop: Shop, query: dict[str, Any]) -> None:
    async with shop.stream(**query) as stream:
        await shop.place(user="bob", product="other")
        order_id = await shop.place(user="alice", product="wanted")
        events = await stream.events(3)
    assert {event["orderId"] for event in events} == {order_id}


async def test_stream_of_a_status_has_events_that_led_to_it(shop: Shop) -> None:
    async with shop.stream(status="CANCELLED_NO_STOCK") as stream:
        await shop.place()
        [first, second] = await stream.events(2)
    assert [first["type"], second["type"]] == ["StockReservationFailedEvent", "OrderCancelledEvent"]


async def test_client_of_a_stream_in_which_little_matches_learns_where_it_is(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order_streams, "SKIPPED_MAX", 3)
    async with shop.stream(userId="nobody") as stream:
        await shop.place()
        assert await stream.block() == {"id": stream.last}
    cursor = parse_cursor(stream.last)
    assert cursor is not None
    assert cursor.position == 3


async def test_stream_that_is_far_behind_reads_the_database(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the last events are kept in memory for those that are behind."""
    monkeypatch.setattr(live, "PAGE", 2)
    start = (await shop.http.get("/changes")).json()["next"]
    async with shop.stream():  # Keeps the reader running.
        for _ in range(4):
            await shop.place()
        async with shop.stream(after=start) as stream:
            events = await stream.events(12)
            await shop.place()
            events += await stream.events(3)
    assert [event["position"] for event in events] == list(range(1, 16))


@pytest.mark.parametrize("last", ["x", "0.0.0.0", "a" * 200])
async def test_what_is_no_id_of_an_event_is_refused(shop: Shop, last: str) -> None:
    order_id = await shop.place()
    for path in ("/orders/stream", f"/orders/{order_id}/stream"):
        reply = await shop.http.get(path, headers={"Last-Event-ID": last})
        assert reply.status_code == 400
        assert reply.json()["errors"][0]["parameter"] == "Last-Event-ID"


async def test_id_of_an_event_from_before_a_restore_is_gone(shop: Shop) -> None:
    order_id = await shop.place()
    for path, last in (
        ("/orders/stream", str(FeedCursor(7, 1, "00000000"))),
        (f"/orders/{order_id}/stream", "00000000-0000-8000-8000-000000000000"),
    ):
        reply = await shop.http.get(path, headers={"Last-Event-ID": last})
        assert reply.status_code == 410
        assert reply.json()["type"] == "/problems/feed-restarted"


async def test_stream_of_an_order_has_its_history_and_ends_with_it(shop: Shop) -> None:
    order_id = await shop.place()
    async with shop.stream(f"/orders/{order_id}/stream") as stream:
        blocks = await stream.rest()
    history = await shop.history(order_id)
    assert [json.loads(block["data"]) for block in blocks] == history
    assert [block["id"] for block in blocks] == [event["id"] for event in history]


async def test_stream_of_an_order_goes_on_behind_the_last_event(shop: Shop) -> None:
    order_id = await shop.place()
    first, *_, last = await shop.history(order_id)
    path = f"/orders/{order_id}/stream"
    async with shop.stream(path, last=first["id"]) as stream:
        assert [json.loads(b["data"])["sequence"] for b in await stream.rest()] == [2, 3]
    assert (await shop.http.get(path, headers={"Last-Event-ID": last["id"]})).status_code == 204


async def test_stream_of_an_order_has_what_happens_to_it() -> None:
    """Inventory starts only after the stream has begun."""
    services = [(orders_service(Settings()), orders_api)]
    async with (
        running_together(services) as apps,
        listening(apps[0]) as (host, port),
        httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=SECONDS_MAX) as http,
    ):
        placed = (await http.post("/orders", json=order())).json()["id"]
        async with Shop(http).stream(f"/orders/{placed}/stream") as stream:
            assert [event["type"] for event in await stream.events(1)] == ["OrderCreatedEvent"]
            await http.post(f"/orders/{placed}/cancel", json={})
            [event] = await stream.events(1)
    assert event["type"] == "CancellationRequestedEvent"
    assert event["status"] == "CANCELLING"


async def test_unknown_order_has_no_stream(shop: Shop) -> None:
    reply = await shop.http.get("/orders/00000000-0000-7000-8000-000000000000/stream")
    assert reply.status_code == 404


async def test_too_many_streams_are_refused_until_one_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_streams, "STREAMS_MAX", 1)
    async with running_shop() as shop:
        async with shop.stream():
            reply = await shop.http.get("/orders/stream")
            assert reply.status_code == 503
            assert reply.json()["type"] == "/problems/too-many-streams"
            assert reply.headers["retry-after"] == "5"
        async with asyncio.timeout(SECONDS_MAX):
            while (await shop.http.head("/orders/stream")).status_code == 503:
                pass
        await shop.http.aclose()


async def test_stream_ends_when_the_service_stops() -> None:
    """The server stops without a limit on how long it waits for responses."""
    async with AsyncExitStack() as client:
        async with running_shop() as shop:
            await client.enter_async_context(shop.http)
            stream = await client.enter_async_context(shop.stream())
        assert await stream.rest() == []


async def test_stream_is_told_that_the_database_was_restored(shop: Shop) -> None:
    async with shop.stream() as stream:
        assert shop.transact is not None
        await shop.transact(lambda connection: POSITIONS.begin_recovery(connection, 7))
        await shop.place()
        [block] = await stream.rest()
    assert block["event"] == "restarted"
    assert json.loads(block["data"])["type"] == "/problems/feed-restarted"
