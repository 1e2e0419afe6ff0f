"""Staff who hold some of the orders at a random moment, and release them a little later."""

import asyncio
import json
from collections.abc import Mapping
from random import Random
from typing import Any, Final

import msgspec
from uuid_utils import uuid7

from todoku.lab.chaos.wishes import ANSWER_SECONDS_MAX, PAUSE_SECONDS
from todoku.lab.http import AsyncHttpClient, Response, encode_request

LATER_SECONDS_MAX: Final = 2.0
HELD_SECONDS_MAX: Final = 4.0

IN_PROGRESS: Final = b"/problems/request-in-progress"
WISH: Final = json.dumps({"holder": "chaos", "reason": "A test."}).encode()


class Holders:
    """Holds a share of the orders, and releases each of these holds; asks until there is an answer.

    `accepted` are the orders of which a hold was answered with 202; `too_late` counts the others. `wrong`
    holds every response that the documentation does not list.
    """

    def __init__(self, address: tuple[str, int], *, share: float, seed: int) -> None:
        self.accepted: set[str] = set()
        self.too_late = 0
        self.wrong: list[str] = []
        self._address = address
        self._share = share
        self._dice = Random(f"holders {seed}")
        self._tasks: set[asyncio.Task[None]] = set()

    def draw(self, order: Mapping[str, Any]) -> None:
        """Hold this order or not, as the dice decide."""
        if self._dice.random() >= self._share:
            return
        later = self._dice.uniform(0, LATER_SECONDS_MAX), self._dice.uniform(0, HELD_SECONDS_MAX)
        task = asyncio.create_task(self._hold(order["id"], *later))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def answered(self) -> None:
        """Wait until every request has its answer."""
        await asyncio.gather(*self._tasks)

    async def _hold(self, order_id: str, later: float, held: float) -> None:
        await asyncio.sleep(later)
        path = f"/orders/{order_id}/holds"
        answer = await self._send(path, WISH)
        if answer.status == 409:
            self.too_late += 1
            return
        if not self._expected(answer, "a hold"):
            return
        self.accepted.add(order_id)
        await asyncio.sleep(held)
        hold_id = msgspec.json.decode(answer.body)["id"]
        self._expected(await self._send(f"{path}/{hold_id}/release", b""), "a release")

    async def _send(self, path: str, body: bytes) -> Response:
        """Send a request with one key until it is answered."""
        request = encode_request("POST", "localhost", path, body, key=str(uuid7()))
        client = AsyncHttpClient(*self._address)
        while True:
            try:
                async with asyncio.timeout(ANSWER_SECONDS_MAX):
                    answer = await client.send(request)
                if answer.status != 503 and IN_PROGRESS not in answer.body:
                    return answer
            except (OSError, TimeoutError):
                pass
            finally:
                client.close()
            await asyncio.sleep(PAUSE_SECONDS)

    def _expected(self, answer: Response, what: str) -> bool:
        if answer.status == 202:
            return True
        self.wrong.append(f"{answer.status} {answer.body[:200]!r} to {what}")
        return False
