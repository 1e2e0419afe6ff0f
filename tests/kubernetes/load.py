"""Customers in a pod: place orders, and repeat with its Idempotency-Key each request that got no answer.

Arguments: the name of the release, orders a second, customers. Writes a JSON line each second, and goes on
until the file /data/stop exists. Then waits until every order has ended, and compares those that exist with
those that were placed.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from uuid_utils import uuid7

from todoku.lab.http import AsyncHttpClient, HttpClient, HttpFailed, Response, encode_request
from todoku.orders.domain import OrderStatus

KEY: Final = Path("/key/key")
STOP: Final = Path("/data/stop")
PRODUCTS: Final = [f"load-{number}" for number in range(8)]
PRICE: Final = 100
ANSWER_SECONDS_MAX: Final = 10.0
PAUSE_SECONDS: Final = 0.1
SETTLE_SECONDS_MAX: Final = 120.0
PREPARE_SECONDS_MAX: Final = 60.0
PAGE: Final = 200
TERMINAL: Final = {status.value for status in OrderStatus if status.terminal}

CREATED, CONFLICT, BAD_GATEWAY, UNAVAILABLE = 201, 409, 502, 503
REPEATED: Final = {CONFLICT, BAD_GATEWAY, UNAVAILABLE}
"""Answers after which a request is sent again: 409 while the first one is being executed."""


class Customers:
    """All customers, and what they know: the id of the order that each key got."""

    def __init__(self, host: str, credential: str) -> None:
        self.orders: dict[str, str] = {}
        self.errors: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.repeated = 0
        self.placed = 0
        self._host = host
        self._credential = credential
        self._accepted_at = time.monotonic()
        self._longest = 0.0

    def take_longest_gap(self) -> float:
        """Return the longest time without an accepted order since the last call."""
        self._note_gap()
        longest, self._longest = self._longest, 0.0
        return round(longest, 2)

    async def run_customer(self, number: int, interval_seconds: float) -> None:
        """Place one order after the other until the load ends."""
        client = AsyncHttpClient(self._host, 8080)
        while not STOP.exists():
            began = time.monotonic()
            self.placed += 1
            key = str(uuid7())
            item = {"productId": PRODUCTS[self.placed % len(PRODUCTS)], "quantity": 1}
            body = {"userId": f"customer-{number}", "items": [item | {"price": PRICE}]}
            request = encode_request(
                "POST",
                self._host,
                "/orders",
                json.dumps(body).encode(),
                key=key,
                credential=self._credential,
            )
            attempts = 1
            while not await self._send(client, key, request):
                attempts += 1
                client.close()
                await asyncio.sleep(PAUSE_SECONDS)
            self.repeated += attempts > 1
            await asyncio.sleep(max(0.0, began + interval_seconds - time.monotonic()))
        client.close()

    async def _send(self, client: AsyncHttpClient, key: str, request: bytes) -> bool:
        """Send a request, and count what happens; return whether it is answered for good."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS_MAX):
                response = await client.send(request)
        except TimeoutError:
            self.errors["no answer" if client.sent else "no connection"] += 1
            return False
        except OSError:
            self.errors["connection closed" if client.sent else "connection refused"] += 1
            return False
        if b"connection: close" in response.head:
            client.close()
        return self._read(key, response)

    def _read(self, key: str, response: Response) -> bool:
        if response.status == CREATED:
            self.orders[key] = json.loads(response.body)["id"]
            self._note_gap()
            self._accepted_at = time.monotonic()
            return True
        if response.status in REPEATED:
            problem = json.loads(response.body).get("type", "") if response.body else ""
            self.errors[f"{response.status} {problem.rpartition('/')[2]}".strip()] += 1
            return False
        self.wrong.append(f"{response.status} {response.body[:200]!r}")
        return True

    def _note_gap(self) -> None:
        self._longest = max(self._longest, time.monotonic() - self._accepted_at)


async def main(release: str, rate: float, customers: int) -> None:
    """Run the load, then look at what exists."""
    credential = KEY.read_text().strip()
    make_products(f"{release}-inventory", credential)
    load = Customers(f"{release}-orders", credential)
    running = asyncio.gather(*(load.run_customer(n, customers / rate) for n in range(customers)))
    second = 0
    while not running.done():
        await asyncio.wait([running], timeout=1.0)
        second += 1
        gap = load.take_longest_gap()
        write(second=second, accepted=len(load.orders), gap=gap, errors=load.errors)
    await running
    exist, settled_seconds = wait_until_ended(f"{release}-orders", credential)
    known = set(load.orders.values())
    write(
        result={
            "accepted": len(load.orders),
            "orders": len(exist),
            "lost": len(known - exist.keys()),
            "beyond": len(exist.keys() - known),
            "shared": len(load.orders) - len(known),
            "statuses": Counter(exist.values()),
            "not_ended": sum(status not in TERMINAL for status in exist.values()),
            "settled_seconds": settled_seconds,
            "repeated": load.repeated,
            "errors": load.errors,
            "wrong": load.wrong[:10],
        }
    )


def make_products(host: str, credential: str) -> None:
    """Create the products. Names and services may be reachable a moment later than their pods are ready."""
    deadline = time.monotonic() + PREPARE_SECONDS_MAX
    for product in PRODUCTS:
        body = {"name": product, "price": PRICE, "stockQuantity": 10**7}
        while True:
            try:
                with HttpClient(host, 8081, credential=credential) as client:
                    client.request("PUT", f"/products/{product}", body, allowed=(200, 201))
                break
            except HttpFailed as error:
                if time.monotonic() > deadline:
                    raise
                print(error, file=sys.stderr)
                time.sleep(PAUSE_SECONDS)


def wait_until_ended(host: str, credential: str) -> tuple[dict[str, str], float]:
    """Return the status of each order that exists, and the seconds until all had ended."""
    began = time.monotonic()
    while True:
        exist = list_orders(host, credential)
        seconds = time.monotonic() - began
        if seconds > SETTLE_SECONDS_MAX or all(each in TERMINAL for each in exist.values()):
            return exist, round(seconds, 1)


def list_orders(host: str, credential: str) -> dict[str, str]:
    """Return the status of each order by its id."""
    exist: dict[str, str] = {}
    path: str | None = f"/orders?limit={PAGE}"
    with HttpClient(host, 8080, keep_open=True, credential=credential) as client:
        while path:
            page = json.loads(client.get(path))
            exist |= {order["id"]: order["status"] for order in page["items"]}
            cursor = page["nextCursor"]
            path = f"/orders?limit={PAGE}&cursor={cursor}" if cursor else None
    return exist


def write(**fields: Any) -> None:
    """Write a line for the program that reads the log of this pod."""
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    os.chdir("/data")
    asyncio.run(main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))
