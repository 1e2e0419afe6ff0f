"""Client of a running system: sets up products, reads orders and metrics."""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from urllib.parse import urlencode

import msgspec

from todoku.lab.http import ANSWER_SECONDS_MAX, HttpClient, HttpFailed
from todoku.orders.domain import OrderStatus
from todoku.settings import Settings
from todoku.system import load_system
from todoku.tls import own_context

PAGE_ITEMS = 200

KEY_SECONDS_MAX = 10.0
KEY_POLL_SECONDS = 0.02

ADDED_AT_ONCE = 32
"""How many products are created at the same time."""


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
    """The services of a system, each request on a new connection. Methods raise `HttpFailed`.

    Where a credential is required and none is given, it is the key in the settings' `bootstrap_key_file`.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        credential: str | None = None,
        timeout_seconds: float = ANSWER_SECONDS_MAX,
    ) -> None:
        self._settings = settings
        self._credential = credential
        self._timeout_seconds = timeout_seconds

    @property
    def credential(self) -> str | None:
        """The API key or access token of each request, if there is one."""
        if self._credential is None and self._settings.auth == "required":
            file = self._settings.bootstrap_key_file
            if file is not None and file.exists():
                self._credential = file.read_text(encoding="utf-8").strip()
        return self._credential

    def service(self, service: str, *, keep_open: bool = False) -> HttpClient:
        """Return a client of one service."""
        return HttpClient(
            self._settings.own_host,
            self._settings.port(service),
            timeout_seconds=self._timeout_seconds,
            keep_open=keep_open,
            tls=own_context(self._settings),
            credential=self.credential,
        )

    def is_ready(self, service: str) -> bool:
        """Return whether a service reports that it is ready."""
        try:
            return bool(self.service(service).get("/readyz"))
        except HttpFailed:
            return False

    def await_credential(self) -> None:
        """Wait until the services know the credential: a key reaches them by an event."""
        if self.credential is None:
            return
        deadline = time.monotonic() + KEY_SECONDS_MAX
        for service in load_system(self._settings).names:
            while True:
                try:
                    self.metrics(service)
                    break
                except HttpFailed as failed:
                    if failed.status != 401 or time.monotonic() > deadline:
                        raise
                time.sleep(KEY_POLL_SECONDS)

    def metrics(self, service: str) -> Mapping[str, float]:
        """Return the metrics of a service; labels are part of a name."""
        text = self.service(service).get("/metrics").decode()
        lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, _, value in lines}

    def add_products(self, stock: Mapping[str, int]) -> None:
        """Create the products that do not exist yet, with this stock; many at once, in batches of the
        service."""

        def add(product_id: str) -> None:
            product = {"name": product_id, "price": 100, "stockQuantity": stock[product_id]}
            with self.service("inventory") as inventory:
                # 409: an earlier run has created it, and orders have reserved some of it.
                inventory.request(
                    "PUT", f"/products/{product_id}", product, allowed=(200, 201, 409)
                )

        with ThreadPoolExecutor(min(len(stock), ADDED_AT_ONCE) or 1) as threads:
            list(threads.map(add, stock))

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
