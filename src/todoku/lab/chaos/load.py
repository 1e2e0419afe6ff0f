"""Customers who place orders over HTTP, and remember which were accepted."""

import asyncio
import itertools
import json
import random
import threading
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

from todoku.lab.chaos.stack import POLL_SECONDS, Stack

ANSWER_SECONDS_MAX = 15.0
PAUSE_SECONDS = 0.1
"""How long a customer waits after a request that was not answered with success."""

PLENTIFUL = [f"chaos-plentiful-{n}" for n in range(8)]
SCARCE = "chaos-scarce"
ABSENT = "chaos-absent"
STOCK = {**dict.fromkeys(PLENTIFUL, 10**9), SCARCE: 100, ABSENT: 0}
"""What the customers order, and how much there is of it in the beginning."""

SHARES = {"one product": 60, "several products": 20, "something scarce": 10, "partly absent": 10}
"""What is ordered how often, in percent."""


def prepare_products(stack: Stack) -> None:
    """Set up the products that customers order, where they are not there yet."""
    for product, stock in STOCK.items():
        body = {"name": product, "price": 100}
        try:
            stack.get("inventory", f"/products/{product}")
        except OSError:
            _put(f"{stack.url('inventory')}/products/{product}", {**body, "stockQuantity": stock})


def _put(url: str, body: dict[str, Any]) -> None:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="PUT"
    )
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS_MAX):
        pass


class Load:
    """Customers who place orders, one after the other and all at once, while this context lasts.

    `accepted` holds the ids of the orders that were answered with 2xx; `refused` counts those that
    were answered with 503, and `unadvised` those of them without Retry-After; `unknown` counts those
    of which nobody was told what became of them, `unreached` those that could not even be sent;
    `wrong` holds every other answer. What fails is not tried again: the next order is a new one.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        customers: int = 8,
        orders_per_second: float | None = 300.0,
        seed: int = 0,
        answer_seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> None:
        self.accepted: set[str] = set()
        self.refused = 0
        self.unadvised = 0
        self.unknown = 0
        self.unreached = 0
        self.wrong: list[str] = []
        self._address = (stack.settings.own_host, stack.settings.port("orders"))
        self._customers = customers
        self._interval_seconds = customers / orders_per_second if orders_per_second else 0.0
        self._orders = _orders(random.Random(seed))
        self._answer_seconds_max = answer_seconds_max
        self._cut_off = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._place_orders()))

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def until_accepted(self, more: int, seconds_max: float = 60.0) -> None:
        """Wait until that many more orders have been accepted than now."""
        goal = len(self.accepted) + more
        patience_ends = time.monotonic() + seconds_max
        while len(self.accepted) < goal:
            if time.monotonic() > patience_ends:
                raise TimeoutError(f"{len(self.accepted)} orders accepted, {goal} expected: {self}")
            time.sleep(POLL_SECONDS)

    def cut_off(self) -> None:
        """Believe no answer until `reconnect`: a machine without power gives none. One whose disk alone
        is cut off goes on for milliseconds, in which the kernel may call lost data synced."""
        self._cut_off = True

    def reconnect(self) -> None:
        """Believe answers again."""
        self._cut_off = False

    def go_on_for(self, seconds: float) -> None:
        """Let the customers order for a while."""
        time.sleep(seconds)

    def __str__(self) -> str:
        return (
            f"{len(self.accepted)} accepted, {self.refused} refused, {self.unknown} unknown,"
            f" {self.unreached} unreached, {len(self.wrong)} wrong {self.wrong[:3]}"
        )

    async def _place_orders(self) -> None:
        await asyncio.gather(*(self._shop() for _ in range(self._customers)))

    async def _shop(self) -> None:
        """One customer: order, take the answer, order again."""
        connection = _Connection(self._address)
        while not self._stopping.is_set():
            began = time.monotonic()
            if not await self._order(connection):
                await connection.close()
                await asyncio.sleep(PAUSE_SECONDS)
            await asyncio.sleep(max(0.0, began + self._interval_seconds - time.monotonic()))
        await connection.close()

    async def _order(self, connection: "_Connection") -> bool:
        """Place one order; whether it was accepted."""
        body = next(self._orders)
        try:
            async with asyncio.timeout(self._answer_seconds_max):
                status, headers, answer = await connection.post("/orders", body)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            self._note_silence(connection)
            return False
        return self._note_answer(status, headers, answer)

    def _note_silence(self, connection: "_Connection") -> None:
        if connection.is_open:
            self.unknown += 1
        else:
            self.unreached += 1

    def _note_answer(self, status: int, headers: bytes, answer: bytes) -> bool:
        if self._cut_off:
            self.unknown += 1
        elif status == 201:
            self.accepted.add(json.loads(answer)["id"])
            return True
        elif status == 503 and b"/problems/outcome-unknown" in answer:
            self.unknown += 1
        elif status == 503:
            self.refused += 1
            self.unadvised += b"retry-after:" not in headers.lower()
        else:
            self.wrong.append(f"{status} {answer[:200]!r}")
        return False


class _Connection:
    """A connection of HTTP/1.1 that is kept open, and opened again when it was closed."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._address = address
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def is_open(self) -> bool:
        """Whether something may have been sent on it."""
        return self._streams is not None

    async def post(self, path: str, body: bytes) -> tuple[int, bytes, bytes]:
        """Send a body; the status, the headers and the body of the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(
            b"POST %s HTTP/1.1\r\nHost: todoku\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (path.encode(), len(body), body)
        )
        headers = await reader.readuntil(b"\r\n\r\n")
        length = int(headers.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        return int(headers[9:12]), headers, await reader.readexactly(length)

    async def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


def _orders(dice: random.Random) -> Iterator[bytes]:
    """Bodies of `POST /orders`, without end."""
    for number in itertools.count():
        (kind,) = dice.choices(list(SHARES), weights=list(SHARES.values()))
        items = [
            {"productId": product, "quantity": dice.randint(1, 3), "price": 100}
            for product in _products(kind, dice)
        ]
        yield json.dumps({"userId": f"customer-{number % 1000}", "items": items}).encode()


def _products(kind: str, dice: random.Random) -> list[str]:
    match kind:
        case "one product":
            return [dice.choice(PLENTIFUL)]
        case "several products":
            return dice.sample(PLENTIFUL, 3)
        case "something scarce":
            return [SCARCE, dice.choice(PLENTIFUL)]
        case _:
            return [dice.choice(PLENTIFUL), ABSENT]
