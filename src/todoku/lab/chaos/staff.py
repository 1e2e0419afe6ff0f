"""Staff who watch the shelves, and restock what runs short."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
from uuid_utils import uuid7

from todoku.lab.chaos.background import in_background
from todoku.lab.http import HttpFailed
from todoku.lab.stack import Stack

LOOK_SECONDS: Final = 0.5
SHORT_BELOW: Final = 10
RESTOCKED: Final = 60
"""Fewer than are ordered in some seconds: a product runs short again and again."""

MORE_THAN_WANTED: Final = 1_000_000
ANSWER_SECONDS_MAX: Final = 60.0


class _Product(msgspec.Struct, frozen=True, rename="camel"):
    available_quantity: int


class Staff:
    """Restocks these products when few pieces are left. `restocked` counts the restocks.

    A request is sent with one key until it is answered.
    """

    def __init__(self, stack: Stack, products: Sequence[str]) -> None:
        self.restocked = 0
        self._inventory = stack.client.service("inventory")
        self._products = products

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Restock while this context lasts; at its end, each product gets more than all waiting orders
        want."""
        with in_background(self._work):
            yield
        for product in self._products:
            self._restock(product, MORE_THAN_WANTED)

    def _work(self, stopping: threading.Event) -> None:
        while not stopping.wait(LOOK_SECONDS):
            for product in self._products:
                if self._is_short(product):
                    self._restock(product, RESTOCKED)

    def _is_short(self, product: str) -> bool:
        try:
            found = self._inventory.get(f"/products/{product}")
        except HttpFailed:
            return False
        return msgspec.json.decode(found, type=_Product).available_quantity < SHORT_BELOW

    def _restock(self, product: str, quantity: int) -> None:
        key, gives_up = str(uuid7()), time.monotonic() + ANSWER_SECONDS_MAX
        while True:
            try:
                self._inventory.request(
                    "POST", f"/products/{product}/restock", {"quantity": quantity}, key=key
                )
            except HttpFailed:
                if time.monotonic() > gives_up:
                    raise
                time.sleep(LOOK_SECONDS)
            else:
                self.restocked += 1
                return
