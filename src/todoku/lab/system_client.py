"""Client of a running system: sets up products, reads orders and metrics."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from urllib.parse import urlencode

import msgspec

from todoku.lab.http import ANSWER_SECONDS_MAX, HttpClient, HttpFailed
from todoku.orders.domain import OrderStatus
from todoku.settings import Settings
from todoku.tls import own_context

PAGE_ITEMS = 200


class OrderState(msgspec.Struct, frozen=True, rename="camel"):
    """The status of an order, and when it changed last by the clock of the orders service."""

    id: str
    status: OrderStatus
    updated_at: datetime

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status.terminal


class _Page(msgspec.Struct, frozen=True, rename="camel"):
    items: list[OrderState]
    next_cursor: str | None


class SystemClient:
    """The services of a system, each request on a new connection. Methods raise `HttpFailed`."""

    def __init__(self, settings: Settings, *, timeout_seconds: float = ANSWER_SECONDS_MAX) -> None:
        self._settings = settings
        self._timeout_seconds = timeout_seconds

    def service(self, service: str, *, keep_open: bool = False) -> HttpClient:
        """Return a client of one service."""
        return HttpClient(
            self._settings.own_host,
            self._settings.port(service),
            timeout_seconds=self._timeout_seconds,
            keep_open=keep_open,
            tls=own_context(self._settings),
        )

    def is_ready(self, service: str) -> bool:
        """Return whether a service reports that it is ready."""
        try:
            return bool(self.service(service).get("/readyz"))
        except HttpFailed:
            return False

    def metrics(self, service: str) -> Mapping[str, float]:
        """Return the metrics of a service; labels are part of a name."""
        text = self.service(service).get("/metrics").decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def add_products(self, stock: Mapping[str, int]) -> None:
        """Create the products that do not exist yet, with this stock."""
        inventory = self.service("inventory")
        for product_id, quantity in stock.items():
            product = {"name": product_id, "price": 100, "stockQuantity": quantity}
            # 409: an earlier run has created it, and orders have reserved some of it.
            inventory.request("PUT", f"/products/{product_id}", product, allowed=(200, 201, 409))

    def order(self, order_id: str) -> OrderState:
        """Return an order."""
        body = self.service("orders").get(f"/orders/{order_id}")
        return msgspec.json.decode(body, type=OrderState)

    def orders_since(self, oldest_id: str) -> Iterator[OrderState]:
        """Yield the orders of all users, from the newest back to one."""
        orders = self.service("orders")
        query: dict[str, object] = {"limit": PAGE_ITEMS}
        while True:
            page = msgspec.json.decode(orders.get(f"/orders?{urlencode(query)}"), type=_Page)
            yield from page.items
            if page.next_cursor is None or page.items[-1].id < oldest_id:
                return
            query["cursor"] = page.next_cursor
