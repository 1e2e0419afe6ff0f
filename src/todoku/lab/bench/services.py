"""What the bench asks of the services over HTTP, before and after the load."""

import http.client
import time
from collections.abc import Callable, Collection, Iterator
from datetime import datetime
from typing import TypeVar
from urllib.parse import urlencode

import msgspec

from todoku.orders.domain import OrderStatus
from todoku.settings import Settings

ANSWER_SECONDS_MAX = 40.0
STOCK = 10**12
PAGE_ITEMS = 200
LOOK_SECONDS = 0.02
LOOK_AGAIN_COUNT = 100

T = TypeVar("T")


class ServiceRefused(Exception):
    """A service does not answer, or not as it should."""


class Ending(msgspec.Struct, frozen=True, rename="camel"):
    """Where an order stands, and since when by the clock of the orders service."""

    id: str
    status: OrderStatus
    updated_at: datetime


class _Page(msgspec.Struct, frozen=True, rename="camel"):
    items: list[Ending]
    next_cursor: str | None


class Services:
    """The services of a system, on a new connection each time. Methods raise `ServiceRefused`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def stock_up(self, product_ids: Collection[str]) -> None:
        """Have these products, with more pieces than any load can order."""
        new = {"name": "Bench", "price": 100, "stockQuantity": STOCK}
        for product_id in product_ids:
            # 409: an earlier bench made it and has ordered from it; there is enough left.
            self._ask("inventory", "PUT", f"/products/{product_id}", new, allowed=(200, 201, 409))

    def counted(self, service: str) -> dict[str, float]:
        """The counters of a service, as its metrics give them."""
        text = self._ask(service, "GET", "/metrics").decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def order(self, order_id: str) -> Ending:
        """An order as it stands."""
        return msgspec.json.decode(self._ask("orders", "GET", f"/orders/{order_id}"), type=Ending)

    def orders_since(self, oldest_id: str) -> Iterator[Ending]:
        """Orders from the newest back to one, whoever has placed them."""
        query: dict[str, object] = {"limit": PAGE_ITEMS}
        while True:
            answer = self._ask("orders", "GET", f"/orders?{urlencode(query)}")
            page = msgspec.json.decode(answer, type=_Page)
            yield from page.items
            if page.next_cursor is None or page.items[-1].id < oldest_id:
                return
            query["cursor"] = page.next_cursor

    def _ask(
        self,
        service: str,
        method: str,
        path: str,
        body: object = None,
        *,
        allowed: Collection[int] = (200,),
    ) -> bytes:
        connection = http.client.HTTPConnection(
            self._settings.own_host, self._settings.port(service), timeout=ANSWER_SECONDS_MAX
        )
        content = None if body is None else msgspec.json.encode(body)
        try:
            connection.request(method, path, content, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            url = self._settings.http_url(service)
            raise ServiceRefused(
                f"the {service} service at {url} does not answer: {error}"
            ) from error
        finally:
            connection.close()
        if response.status not in allowed:
            raise ServiceRefused(f"{service} answers {response.status} to {method} {path}")
        return answer


def endings(
    services: Services,
    ids: Collection[str],
    *,
    patience_seconds: float,
    when_last_ended: Callable[[], T],
) -> tuple[dict[str, Ending], T]:
    """Where each of these orders stands, once all have ended or patience is over.

    `when_last_ended` is called when the newest has ended, before all the others are read; its result
    is passed on.
    """
    deadline = time.monotonic() + patience_seconds
    _ended(services, [max(ids)], deadline)
    noted = when_last_ended()
    wanted = set(ids)
    found = {e.id: e for e in services.orders_since(min(ids)) if e.id in wanted}
    late = [
        order_id for order_id in ids if order_id not in found or not _has_ended(found[order_id])
    ]
    found.update(_ended(services, late, deadline))
    return found, noted


def _ended(services: Services, ids: Collection[str], deadline: float) -> dict[str, Ending]:
    """These orders, each asked for until it has ended or the time is over."""
    found: dict[str, Ending] = {}
    left = list(ids)
    while left:
        for order_id in left[:LOOK_AGAIN_COUNT]:
            found[order_id] = services.order(order_id)
        left = [i for i in left if i not in found or not _has_ended(found[i])]
        if time.monotonic() > deadline:
            break
        time.sleep(LOOK_SECONDS)
    return found


def _has_ended(ending: Ending) -> bool:
    return ending.status.terminal
