"""Customers who cancel some of their orders, or a piece of them, at a random moment."""

import asyncio
import json
from collections.abc import Mapping
from random import Random
from typing import Any

from uuid_utils import uuid7

from todoku.lab.http import AsyncHttpClient, encode_request

PAUSE_SECONDS = 0.2
ANSWER_SECONDS_MAX = 15.0
LATER_SECONDS_MAX = 4.0
"""How long after an order was accepted it may be cancelled: parcels wait for up to three seconds."""


class Wishes:
    """Cancels a share of the orders, and one piece of another share; asks until there is an answer.

    `accepted` are the orders of which a cancellation was answered with 202; `too_late` counts the others.
    `wrong` holds every response that the documentation does not list.
    """

    def __init__(
        self, address: tuple[str, int], *, cancelled: float, by_line: float, seed: int
    ) -> None:
        self.accepted: set[str] = set()
        self.too_late = 0
        self.wrong: list[str] = []
        self._address = address
        self._cancelled = cancelled
        self._by_line = by_line
        self._dice = Random(f"wishes {seed}")
        self._tasks: set[asyncio.Task[None]] = set()

    def draw(self, order: Mapping[str, Any]) -> None:
        """Cancel this order or not, as the dice decide."""
        share, later = self._dice.random(), self._dice.uniform(0, LATER_SECONDS_MAX)
        if share >= self._cancelled + self._by_line:
            return
        wish: dict[str, Any] = {}
        if share >= self._cancelled:
            wish["items"] = [{"productId": order["items"][0]["productId"], "quantity": 1}]
        task = asyncio.create_task(self._cancel(order["id"], json.dumps(wish).encode(), later))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def answered(self) -> None:
        """Wait until every request has its answer."""
        await asyncio.gather(*self._tasks)

    async def _cancel(self, order_id: str, body: bytes, later: float) -> None:
        await asyncio.sleep(later)
        request = encode_request(
            "POST", "localhost", f"/orders/{order_id}/cancel", body, key=str(uuid7())
        )
        client = AsyncHttpClient(*self._address)
        while not await self._send(client, order_id, request):
            client.close()
            await asyncio.sleep(PAUSE_SECONDS)
        client.close()

    async def _send(self, client: AsyncHttpClient, order_id: str, request: bytes) -> bool:
        """Send the request; return whether it was answered."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                response = await client.send(request)
        except (OSError, TimeoutError):
            return False
        if response.status == 202:
            self.accepted.add(order_id)
        elif (
            response.status in (409, 422) and b"/problems/request-in-progress" not in response.body
        ):
            self.too_late += 1
        elif response.status in (409, 503):
            return False
        else:
            self.wrong.append(f"{response.status} {response.body[:200]!r} to a cancellation")
        return True
