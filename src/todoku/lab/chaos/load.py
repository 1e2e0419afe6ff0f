"""Places orders over HTTP while the system breaks, and records which were accepted."""

import asyncio
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from enum import Enum, auto

from uuid_utils import uuid7

from todoku.lab.chaos.holders import Holders
from todoku.lab.chaos.wishes import Wishes
from todoku.lab.http import AsyncHttpClient, Response, encode_request
from todoku.lab.stack import POLL_SECONDS, Stack
from todoku.lab.system_client import SystemClient

ANSWER_SECONDS_MAX = 15.0
PAUSE_SECONDS = 0.1
"""How long a customer waits after a request without a success."""

UNKNOWN_PROBLEMS = (b'"/problems/outcome-unknown"', b'"/problems/request-in-progress"')

PLENTIFUL = [f"chaos-plentiful-{n}" for n in range(8)]
SCARCE = "chaos-scarce"
ABSENT = "chaos-absent"
SHORT = [f"chaos-short-{n}" for n in range(len(PLENTIFUL))]
STOCK = {**dict.fromkeys(PLENTIFUL, 10**9), **dict.fromkeys(SHORT, 30), SCARCE: 100, ABSENT: 0}
"""The products that are ordered, and their stock at the beginning."""

WAITING_SHARE = 0.5
"""How many of the orders wait for stock, where some products run short."""

SHARES = {"one product": 60, "several products": 20, "something scarce": 10, "partly absent": 10}
"""How often each kind of order is placed, in percent."""

SERVED = ("one product", "several products")
"""The kinds that staff can serve by restocking."""


class Outcome(Enum):
    """What a customer knows after a request."""

    ACCEPTED = auto()
    UNKNOWN = auto()
    NOT_EXECUTED = auto()
    WRONG = auto()


def prepare_products(stack: Stack) -> None:
    """Create the products that do not exist yet."""
    SystemClient(stack.settings).add_products(STOCK)


class OrderLoad:
    """Customers who place orders concurrently, each one after the other, while this context lasts.

    `accepted` holds the ids of orders answered with 201. `refused` counts responses 503, `unadvised`
    those of them without Retry-After. `unknown` counts orders whose outcome is unknown by now,
    `unreached` requests that could not be sent. `wrong` holds every other response. A request whose
    outcome is unknown is sent again with its idempotency key until it is answered (`repeated` counts
    these orders); without `repeats`, and after a refusal, the next order is a new one. `cancelled_share`
    of the orders are cancelled at a random moment, and one piece of `line_share` of them; `held_share` are
    held for a while. With `short`, half of the products are those that run short, and half of the orders
    wait for stock.
    """

    def __init__(
        self,
        stack: Stack,
        *,
        customers: int = 8,
        orders_per_second: float | None = 300.0,
        seed: int = 0,
        answer_seconds_max: float = ANSWER_SECONDS_MAX,
        repeats: bool = True,
        cancelled_share: float = 0.0,
        line_share: float = 0.0,
        held_share: float = 0.0,
        short: bool = False,
    ) -> None:
        self.accepted: set[str] = set()
        self.refused = 0
        self.unadvised = 0
        self.unknown = 0
        self.repeated = 0
        self.unreached = 0
        self.wrong: list[str] = []
        self._address = (stack.settings.own_host, stack.settings.port("orders"))
        self._customers = customers
        self._interval_seconds = customers / orders_per_second if orders_per_second else 0.0
        self._bodies = _bodies(random.Random(seed), short=short)
        self._answer_seconds_max = answer_seconds_max
        self._repeats = repeats
        self.wishes = Wishes(
            self._address, cancelled=cancelled_share, by_line=line_share, seed=seed
        )
        self.holders = Holders(self._address, share=held_share, seed=seed)
        self._disconnected = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._place_orders()))

    def __enter__(self) -> "OrderLoad":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def until_accepted(self, more: int, seconds_max: float = 60.0) -> None:
        """Wait until that many more orders have been accepted than now."""
        goal = len(self.accepted) + more
        deadline = time.monotonic() + seconds_max
        while len(self.accepted) < goal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.accepted)} orders accepted, {goal} expected: {self}")
            time.sleep(POLL_SECONDS)

    def disconnect(self) -> None:
        """Count every response as unknown until `reconnect`, as of a machine without power.

        If only its disk is cut off, it still answers for milliseconds, in which the kernel may report
        lost data as synced.
        """
        self._disconnected = True

    def reconnect(self) -> None:
        """Count responses as they are again."""
        self._disconnected = False

    def go_on_for(self, seconds: float) -> None:
        """Let the customers order for a while."""
        time.sleep(seconds)

    def __str__(self) -> str:
        return (
            f"{len(self.accepted)} accepted, {self.refused} refused, {self.unknown} unknown,"
            f" {self.unreached} unreached, {self.repeated} repeated, {len(self.wrong)} wrong {self.wrong[:3]}"
        )

    async def _place_orders(self) -> None:
        await asyncio.gather(*(self._run_customer() for _ in range(self._customers)))
        await asyncio.gather(self.wishes.answered(), self.holders.answered())

    async def _run_customer(self) -> None:
        client = AsyncHttpClient(*self._address)
        unanswered: bytes | None = None
        while not self._stopping.is_set():
            began = time.monotonic()
            request = unanswered or self._next_request()
            outcome = await self._send(client, request)
            unanswered = self._note(request, outcome, repeated=unanswered is not None)
            if outcome is not Outcome.ACCEPTED:
                client.close()
                await asyncio.sleep(PAUSE_SECONDS)
            await asyncio.sleep(max(0.0, began + self._interval_seconds - time.monotonic()))
        client.close()

    def _next_request(self) -> bytes:
        body = next(self._bodies)
        return encode_request("POST", "localhost", "/orders", body, key=str(uuid7()))

    def _note(self, request: bytes, outcome: Outcome, *, repeated: bool) -> bytes | None:
        """Count orders whose outcome is unknown; return the request to send again, if any."""
        if outcome is Outcome.ACCEPTED and repeated:
            self.unknown -= 1
            self.repeated += 1
        if outcome is Outcome.UNKNOWN and not repeated:
            self.unknown += 1
        if outcome in (Outcome.ACCEPTED, Outcome.WRONG):
            return None
        open_still = repeated or outcome is Outcome.UNKNOWN
        return request if self._repeats and open_still else None

    async def _send(self, client: AsyncHttpClient, request: bytes) -> Outcome:
        """Send a request, and count its response."""
        try:
            async with asyncio.timeout(self._answer_seconds_max):
                response = await client.send(request)
        except (OSError, TimeoutError):
            if client.sent:
                return Outcome.UNKNOWN
            self.unreached += 1
            return Outcome.NOT_EXECUTED
        return Outcome.UNKNOWN if self._disconnected else self._read(response)

    def _read(self, response: Response) -> Outcome:
        if response.status == 201:
            order = json.loads(response.body)
            self.accepted.add(order["id"])
            self.wishes.draw(order)
            self.holders.draw(order)
            return Outcome.ACCEPTED
        if any(problem in response.body for problem in UNKNOWN_PROBLEMS):
            return Outcome.UNKNOWN
        if response.status == 503:
            self.refused += 1
            self.unadvised += b"retry-after:" not in response.head
            return Outcome.NOT_EXECUTED
        self.wrong.append(f"{response.status} {response.body[:200]!r}")
        return Outcome.WRONG


def _bodies(dice: random.Random, *, short: bool) -> Iterator[bytes]:
    """Yield bodies of `POST /orders` without end."""
    common = [*PLENTIFUL, *SHORT] if short else PLENTIFUL
    for number in itertools.count():
        (kind,) = dice.choices(list(SHARES), weights=list(SHARES.values()))
        items = [
            {"productId": product, "quantity": dice.randint(1, 3), "price": 100}
            for product in _products(kind, common, dice)
        ]
        body: dict[str, object] = {"userId": f"customer-{number % 1000}", "items": items}
        if short and kind in SERVED and dice.random() < WAITING_SHARE:
            body["onShortage"] = "wait"
        yield json.dumps(body).encode()


def _products(kind: str, common: list[str], dice: random.Random) -> list[str]:
    match kind:
        case "one product":
            return [dice.choice(common)]
        case "several products":
            return dice.sample(common, 3)
        case "something scarce":
            return [SCARCE, dice.choice(common)]
        case _:
            return [dice.choice(common), ABSENT]
