"""Simulate customers who name the prices that they saw, and check what their orders pay."""

import asyncio
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec

from todoku.contracts import OrderedItem
from todoku.orders.catalogue import GRACE, ReplacedPrice
from todoku.orders.placing import PlaceOrder
from todoku.orders.pricing import (
    PriceChanged,
    ProductNotSold,
    UnknownPrice,
    UnpricedItem,
    WrongCurrency,
)
from todoku.simulated import World

PRICE_REFUSALS: Final = (PriceChanged, ProductNotSold, UnknownPrice, WrongCurrency)
TRIES_MAX: Final = 30
"""How often a customer looks at the prices before giving up."""

LOOK_AGAIN_SECONDS: Final = 2.0
TRUSTED_SHARE: Final = 0.1
REFUSED_SHARE: Final = 0.2
LEFT_OUT_SHARE: Final = 0.2
WRONG_SHARE: Final = 0.1
OLD_SHARE: Final = 0.4
OLD_SECONDS_MAX: Final = 25.0
"""How long ago a customer saw the prices."""

RECENT_SECONDS: Final = 5.0
"""How long a transaction takes at most that has read the copy before."""

UNSEEN_PRICE: Final = 100

_PRICES = "SELECT id, price FROM products WHERE archived = 0"
_PRODUCTS = "SELECT id, version, name, price, currency, archived FROM products ORDER BY id"
_COPY = "SELECT product_id, version, name, price, currency, archived, replaced FROM catalogue"
_ORDERS = "SELECT id, currency, created_at FROM orders"
_ITEMS = "SELECT product_id, price FROM order_items WHERE order_id = ?"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Copy = Mapping[str, tuple[Any, ...]]
"""The rows of the copy of the catalogue by product."""


class Prices:
    """Draws the prices that customers name; compares what orders pay with the copy of the catalogue, and
    the copy with the catalogue."""

    def __init__(self, world: World) -> None:
        self._world = world
        dice = world.random("price policy")
        self._trusted = dice.random() < TRUSTED_SHARE
        self._refused = dice.random() < REFUSED_SHARE
        self._checked: set[str] = set()
        self._copies: list[tuple[float, Copy]] = [(-math.inf, {})]
        """What orders knew since when: at first nothing."""

    def settings(self) -> Mapping[str, object]:
        """Return the settings of this run."""
        return {
            "prices": "request" if self._trusted else "catalogue",
            "unknown_products": "refuse" if self._refused else "accept",
        }

    async def name_prices(self, command: PlaceOrder, number: int, attempt: int) -> PlaceOrder:
        """Look at the prices, wait for a while or not, and return the order with what was seen. Who was
        refused leaves out what the shop does not have."""
        dice = self._world.random(f"prices#{number}.{attempt}")
        seen = dict(self._world.rows_of("inventory", _PRICES))
        if attempt == 0 and dice.random() < OLD_SHARE:
            await asyncio.sleep(dice.uniform(0, OLD_SECONDS_MAX))
        sold = [item for item in command.items if not attempt or item.product_id in seen]
        items = tuple(_named(item, seen, dice, attempt) for item in sold or command.items)
        return msgspec.structs.replace(command, items=items)

    def restored(self) -> None:
        """Begin anew with the copy that the restored database has."""
        self._copies = [(_now(), self._read())]

    def check_commit(self) -> None:
        """Check I1: a new order pays a price of the copy, or one that was replaced a moment ago."""
        copy, now = self._read(), _now()
        # The last one from before is what a transaction may have read that was open for that long.
        old = [each for each in self._copies if each[0] <= now - RECENT_SECONDS][-1:]
        self._copies = [*old, *(each for each in self._copies if each[0] > now - RECENT_SECONDS)]
        self._copies.append((now, copy))
        for order_id, currency, created_at in self._world.rows(_ORDERS):
            if order_id not in self._checked:
                self._checked.add(order_id)
                self._check_order(order_id, currency, _EPOCH + timedelta(microseconds=created_at))

    def check_end(self) -> None:
        """Check R5: the copy has the last version of each product."""
        copy = self._read()
        for row in self._world.rows_of("inventory", _PRODUCTS):
            known = copy.get(row[0], ())[:6]
            if known != row:
                self._world.fail("R5", f"orders has {known} of the catalogue instead of {row}")

    def _check_order(self, order_id: str, currency: str, at: datetime) -> None:
        if self._trusted:
            return
        copies = [copy for _, copy in self._copies]
        for product_id, price in self._world.rows(_ITEMS, order_id):
            entries = [copy.get(product_id) for copy in copies]
            if None in entries and not self._refused:
                continue  # It was not in the catalogue.
            if not any(entry and _fits(entry, price, currency, at) for entry in entries):
                problem = (
                    f"order {order_id} pays {price} {currency} for {product_id}, not {entries}"
                )
                self._world.fail("I1", problem, order_id)

    def _read(self) -> Copy:
        return {row[0]: row for row in self._world.rows(_COPY)}


def _fits(entry: tuple[Any, ...], price: int, currency: str, at: datetime) -> bool:
    """Return whether a product that is sold has this price, or had it until a moment before."""
    _, _, _, valid, valid_in, archived, replaced = entry
    if archived:
        return False
    if (price, currency) == (valid, valid_in):
        return True
    prices = msgspec.json.decode(replaced or b"[]", type=list[ReplacedPrice])
    return any(
        (each.price, each.currency) == (price, currency) and abs(at - each.at) < GRACE
        for each in prices
    )


def _named(
    item: OrderedItem | UnpricedItem, seen: Mapping[str, int], dice: Random, attempt: int
) -> OrderedItem | UnpricedItem:
    """Return the item as the customer orders it: with the price that was seen, mostly."""
    way = dice.random()
    if way < LEFT_OUT_SHARE:
        return UnpricedItem(product_id=item.product_id, quantity=item.quantity)
    price = seen.get(item.product_id, UNSEEN_PRICE)
    if attempt == 0 and way < LEFT_OUT_SHARE + WRONG_SHARE:
        price += 1
    return OrderedItem(product_id=item.product_id, quantity=item.quantity, price=price)


def _now() -> float:
    return asyncio.get_running_loop().time()
