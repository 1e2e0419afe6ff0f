"""Tests of the load generator against a server that answers on command."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from todoku.lab.bench.load import LoadGenerator, LoadPlan, LoadResult, id_of

Decide = Callable[[str], Awaitable[tuple[int, dict[str, Any]]]]


class Shop:
    """Accepts orders over HTTP; `decide` returns each response."""

    def __init__(self, decide: Decide) -> None:
        self._decide = decide
        self._serving: list[asyncio.Task[Any] | None] = []
        self.open = 0
        self.open_max = 0
        self.placed = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        """Serve on a free port, until every client has hung up."""
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            await asyncio.gather(*filter(None, self._serving))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._serving.append(asyncio.current_task())
        while head := await reader.readline():
            length = 0
            while (line := await reader.readline()) != b"\r\n":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            await reader.readexactly(length)
            self.open += 1
            self.open_max = max(self.open_max, self.open)
            self.placed += head.startswith(b"POST")
            status, answer = await self._decide(head.decode())
            self.open -= 1
            body = json.dumps(answer, separators=(",", ":")).encode()
            writer.write(
                b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body
            )
        writer.close()


def new_id(n: int) -> str:
    return f"0198c2f0-7b1a-7c3e-9d55-{n:012x}"


def plan(port: int, **changes: Any) -> LoadPlan:
    usual: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "connections": 4,
        "rate": None,
        "seconds": None,
        "orders": 20,
        "bodies": ("{}",),
        "terminal": ("COMPLETED",),
        "result": "",
    }
    return LoadPlan(**{**usual, **changes})


async def place(shop: Shop, **changes: Any) -> LoadResult:
    async with shop.listening() as port:
        return await asyncio.wait_for(LoadGenerator(plan(port, **changes)).run(), 30)


async def at_once(head: str) -> tuple[int, dict[str, Any]]:
    return (201, {"id": new_id(1)}) if head.startswith("POST") else (200, {"status": "COMPLETED"})


def test_orders_are_limited_to_one_in_flight_per_connection() -> None:
    shop = Shop(at_once)
    load = asyncio.run(place(shop))
    assert (shop.placed, len(load.ids), load.refused) == (20, 20, {})
    assert set(load.ids) == {new_id(1)}
    assert shop.open_max <= 4 + 1  # and the one that watches


def test_refused_orders_are_counted() -> None:
    answers = iter([503] * 3 + [201] * 17)

    async def busy_at_first(head: str) -> tuple[int, dict[str, Any]]:
        if not head.startswith("POST"):
            return await at_once(head)
        return next(answers), {"id": new_id(1), "status": 503}

    load = asyncio.run(place(Shop(busy_at_first)))
    assert (len(load.ids), load.refused) == (17, {503: 3})


def test_open_loop_latency_includes_wait_for_connection() -> None:
    """The first of ten orders, due 10 ms after each other, keeps the only connection busy until after
    the last is due: so each has waited since it was due, and not since it was sent."""

    async def run() -> LoadResult:
        hold = asyncio.Event()

        async def slow_at_first(head: str) -> tuple[int, dict[str, Any]]:
            if head.startswith("POST"):
                await hold.wait()
            return await at_once(head)

        shop = Shop(slow_at_first)
        asyncio.get_running_loop().call_later(0.3, hold.set)
        return await place(shop, rate=100.0, orders=10, connections=1)

    load = asyncio.run(run())
    assert load.sent == pytest.approx([n / 100 for n in range(10)])
    ends = [sent + took for sent, took in zip(load.sent, load.answered, strict=True)]
    assert min(ends) > 0.2
    assert load.answered == sorted(load.answered, reverse=True)


def test_lost_connection_is_replaced_and_counted() -> None:
    """The server hangs up on the first order; the others go on."""

    class Moody(Shop):
        hung_up = 0

        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            if self.hung_up == 0:
                self.hung_up += 1
                await reader.readline()
                writer.close()
            else:
                await super().serve(reader, writer)

    shop = Moody(at_once)
    load = asyncio.run(place(shop))
    assert shop.hung_up == 1
    assert (len(load.ids), load.refused) == (19, {0: 1})


def test_watched_order_is_polled_until_it_ends() -> None:
    looks = iter(["PENDING", "PENDING"])

    async def run() -> LoadResult:
        async def decide(head: str) -> tuple[int, dict[str, Any]]:
            if head.startswith("POST"):
                await asyncio.sleep(0.05)  # long enough to be seen while others are placed
                return 201, {"id": new_id(1)}
            return 200, {"status": next(looks, "COMPLETED")}

        return await place(Shop(decide), orders=8, connections=1)

    load = asyncio.run(run())
    assert load.watched
    assert next(looks, None) is None
    assert all(took > 0.05 for _, took in load.watched)


def test_id_is_read_without_decoding_the_order() -> None:
    order = json.dumps({"id": new_id(7), "items": [{"productId": "id"}]}, separators=(",", ":"))
    assert id_of(order.encode()) == new_id(7).encode()
