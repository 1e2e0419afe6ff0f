"""The orders of a load, and how they end."""

import time
from collections.abc import Callable, Collection, Iterator
from random import Random
from typing import TypeVar

import msgspec

from todoku.lab.bench.options import BenchOptions
from todoku.lab.system_client import OrderState, SystemClient

SEED = 20_260_105
"""The same orders in every bench, so that two can be compared."""

STOCK = 10**12
"""More of each product than any load can order."""

USERS = 1_000
PRICE = 100

LOOK_SECONDS = 0.02
LOOK_AGAIN_COUNT = 100

T = TypeVar("T")


def product_ids(count: int) -> list[str]:
    """Return the ids of the products that a load orders."""
    return [f"bench-{n:04}" for n in range(count)]


def bodies(options: BenchOptions, count: int) -> Iterator[str]:
    """Yield bodies of `POST /orders`, always the same for the same options."""
    random = Random(SEED)
    products = product_ids(options.products)
    hot = products[:1] if options.hot else []
    for _ in range(count):
        others = random.sample(products[len(hot) :], options.items - len(hot))
        order = {
            "userId": f"bench-user-{random.randrange(USERS)}",
            "items": [
                {"productId": each, "quantity": 1, "price": PRICE} for each in (*hot, *others)
            ],
            "shippingAddress": "1-1 Chiyoda, Tokyo",
        }
        yield msgspec.json.encode(order).decode()


def read_endings(
    client: SystemClient,
    ids: Collection[str],
    *,
    patience_seconds: float,
    when_last_ended: Callable[[], T],
) -> tuple[dict[str, OrderState], T]:
    """Return the state of each order once all have ended or `patience_seconds` are over.

    `when_last_ended` is called when the newest has ended, before the others are read; its result is
    returned too.
    """
    deadline = time.monotonic() + patience_seconds
    _poll(client, [max(ids)], deadline)
    noted = when_last_ended()
    wanted = set(ids)
    found = {each.id: each for each in client.orders_since(min(ids)) if each.id in wanted}
    late = [order_id for order_id in ids if order_id not in found or not found[order_id].ended]
    found.update(_poll(client, late, deadline))
    return found, noted


def _poll(client: SystemClient, ids: Collection[str], deadline: float) -> dict[str, OrderState]:
    """Read these orders, each until it has ended or the deadline has passed."""
    found: dict[str, OrderState] = {}
    left = list(ids)
    while left:
        for order_id in left[:LOOK_AGAIN_COUNT]:
            found[order_id] = client.order(order_id)
        left = [each for each in left if each not in found or not found[each].ended]
        if time.monotonic() > deadline:
            break
        time.sleep(LOOK_SECONDS)
    return found
