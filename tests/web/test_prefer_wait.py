"""`Prefer: wait=N`: the response comes when the order has ended, or after N seconds."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import httpx
import pytest

from todoku.broker.memory import MemoryBroker
from todoku.engine import Process, SteadyClock, Topology
from todoku.engine.testing import running as running_process
from todoku.engine.waiters import Waiters
from todoku.inventory.http import inventory_api
from todoku.inventory.service import inventory_service
from todoku.orders.http import orders_api
from todoku.orders.service import orders_service
from todoku.settings import Settings
from todoku.web.prefer_wait import WAIT_SECONDS_MAX, read_wait
from web.edge import client, empty_database, listening, run_inline, running, running_together

orders = orders_service(Settings())
inventory = inventory_service(Settings())

pytestmark = pytest.mark.anyio

ORDER: Final = {
    "userId": "user123",
    "items": [{"productId": "ghost", "quantity": 1, "price": 1}],
}
"""An order of a product that inventory does not know: it ends as soon as inventory runs."""


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (b"wait=10", 10),
        (b'respond-async, Wait = "7" ; x=1, wait=2', 7),
        (b"wait=0", 0),
        (b"wait=100000", WAIT_SECONDS_MAX),
        (b"wait", None),
        (b"wait=soon", None),
        (b"wait=-1", None),
        (b"await=3", None),
        (b"wait=99999999999999999999", None),
        (b"", None),
    ],
)
async def test_wait_is_read_from_the_header_and_what_is_malformed_is_ignored(
    sent: bytes, seconds: int | None
) -> None:
    wait = read_wait([sent], {})
    assert (wait and wait.seconds) == seconds


@asynccontextmanager
async def shop() -> AsyncIterator[httpx.AsyncClient]:
    services = [(orders, orders_api), (inventory, inventory_api)]
    async with running_together(services) as apps, client(apps[0]) as http:
        yield http


async def place(http: httpx.AsyncClient, wait: str) -> httpx.Response:
    return await http.post("/orders", json=ORDER, headers={"Prefer": wait})


async def test_response_comes_when_the_order_has_ended() -> None:
    async with shop() as http:
        began = time.monotonic()
        reply = await place(http, "wait=30")
        assert time.monotonic() - began < 20
    assert reply.status_code == 201
    assert reply.headers["preference-applied"] == "wait=30"
    assert reply.json()["status"] == "CANCELLED_NO_STOCK"
    assert reply.headers["location"] == f"/orders/{reply.json()['id']}"


async def test_response_comes_after_the_time_if_the_order_has_not_ended() -> None:
    async with running(orders, orders_api) as app, client(app) as http:
        for wait in ("wait=0", "wait=1"):
            reply = await place(http, wait)
            assert reply.status_code == 201
            assert reply.headers["preference-applied"] == wait
            assert reply.json()["status"] == "PENDING"
        assert "preference-applied" not in (await place(http, "return=minimal")).headers


async def test_repeated_request_waits_for_the_order_of_the_first() -> None:
    async with shop() as http:
        headers = {"Idempotency-Key": "1", "Prefer": "wait=30"}
        replies = [await http.post("/orders", json=ORDER, headers=headers) for _ in range(2)]
    assert replies[0].json() == replies[1].json()
    assert replies[1].json()["status"] == "CANCELLED_NO_STOCK"


async def test_wait_ends_when_the_server_stops() -> None:
    async with running(orders, orders_api) as app, AsyncExitStack() as stack:
        host, port = await stack.enter_async_context(listening(app))
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", timeout=50) as http:
            began = time.monotonic()
            waiting = asyncio.create_task(place(http, "wait=40"))
            while not (await http.get("/orders")).json()["items"]:
                pass
            await stack.aclose()
            reply = await waiting
    assert time.monotonic() - began < 20
    assert reply.status_code == 201
    assert reply.json()["status"] == "PENDING"


async def test_too_many_waits_are_answered_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Waiters, "add", lambda *_: None)
    async with running(orders, orders_api) as app, client(app) as http:
        reply = await place(http, "wait=40")
    assert reply.status_code == 201
    assert "preference-applied" not in reply.headers


async def test_waiters_are_bounded_and_forgotten() -> None:
    waiters = Waiters(count_max=2)
    first, second = waiters.add("a"), waiters.add("a")
    assert first is not None
    assert second is not None
    assert waiters.add("b") is None
    waiters.tell(["b", "a"])
    await asyncio.gather(first, second)
    assert len(waiters) == 0
    third = waiters.add("b")
    assert third is not None
    third.cancel()
    await asyncio.wait([third])
    assert len(waiters) == 0
    waiters.tell(["a", "b"])


class Shared:
    """A database that two replicas write to, one at a time."""

    exclusive = False

    def __init__(self, database: Any) -> None:
        self._database = database

    def version(self, _: Any) -> None:
        return None

    def timeline(self) -> None:
        return None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)


async def test_order_that_another_replica_ends_ends_the_wait() -> None:
    broker, topology = MemoryBroker(), Topology([orders, inventory])
    async with AsyncExitStack() as stack:
        database: Any = Shared(stack.enter_context(empty_database(orders.store.metadata)))
        replicas = [
            Process(
                orders,
                database,
                broker.session(f"orders-{n}"),
                topology,
                owner=f"orders-{n}",
                clock=SteadyClock(),
                run_write=run_inline,
                run_read=run_inline,
            )
            for n in range(2)
        ]
        for replica in replicas:
            await stack.enter_async_context(running_process(replica))
        ended = replicas[0].wait_for_end("an order")
        assert ended is not None
        replicas[1].endings.tell(["an order"])
        async with asyncio.timeout(10):
            await ended
