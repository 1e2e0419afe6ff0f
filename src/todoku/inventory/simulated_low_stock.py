"""Simulate thresholds: check that a product that becomes low is told of, and that no threshold is lost."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Final

import msgspec

from todoku.contracts import LowStockThresholdChangedEvent, StockLowEvent, fact_id
from todoku.inventory.domain import SetLowStockThreshold, UnknownProduct
from todoku.simulated import Scheduled, World

_TOLD = f"SELECT event_id, body FROM outbox WHERE subject = '{StockLowEvent.subject}'"
_LOW = """
SELECT id FROM products WHERE stock_quantity - reserved_quantity <= low_stock_threshold
"""
_THRESHOLDS = "SELECT id, low_stock_threshold FROM products"
THRESHOLD_MAX: Final = 4


class _Told(msgspec.Struct):
    subject: str


class SimulatedLowStock:
    """Sets thresholds of products one after the other, and checks them and their events."""

    def __init__(self, world: World, products: Sequence[str]) -> None:
        self._world = world
        self._products = products
        self._told: set[Any] = set()
        self._low: set[str] = set()
        self._set: dict[str, SetLowStockThreshold] = {}
        """The last threshold of each product that was confirmed."""
        self._unanswered: set[str] = set()
        """The products with a change of which it is not known whether it was done."""
        self._not_answered: dict[str, set[int]] = {}
        """The thresholds of attempts without an answer: a process that hung may set them last."""
        self._one_at_a_time = asyncio.Lock()
        self._restored = False

    def scheduled(self) -> Mapping[str, Scheduled]:
        """Return when thresholds are set."""
        return {
            "threshold": Scheduled(action=self._set_any, mean_seconds=(0.0, 6.0), family="trade")
        }

    def restored(self) -> None:
        """Check no more which products become low: what is replayed is not published again."""
        self._restored = True

    async def set_threshold(self, product_id: str) -> None:
        """Set the first threshold of a product."""
        await self._change(product_id, self._world.random(f"threshold of {product_id}"))

    def check_commit(self) -> None:
        """Check I2: of a product that this commit has made low, an event tells."""
        if self._restored:
            return
        low = {product_id for (product_id,) in self._world.rows(_LOW)}
        if fallen := low - self._low:
            for untold in sorted(fallen - self._tell()):
                self._world.fail("I2", f"product {untold} became low, and nobody is told")
        self._low = low

    def check_end(self) -> None:
        """Check I2: each product has the last threshold that was confirmed; after a restore, if the stream
        has its event."""
        found = dict(self._world.rows(_THRESHOLDS))
        for product_id, last in self._set.items():
            known = product_id not in self._unanswered
            expected = known and (not self._restored or self._is_stored(last))
            possible = {last.threshold} | self._not_answered.get(product_id, set())
            if expected and found.get(product_id) not in possible:
                problem = (
                    f"product {product_id} has the threshold {found.get(product_id)}: {last.threshold} "
                    "was confirmed"
                )
                self._world.fail("I2", problem)

    async def _set_any(self, random: Random) -> None:
        await self._change(random.choice(self._products), random)

    async def _change(self, product_id: str, random: Random) -> None:
        """Set a threshold, each attempt as a change of its own, unless the database has no such product."""
        threshold = random.randint(0, THRESHOLD_MAX)
        async with self._one_at_a_time:
            self._unanswered.add(product_id)
            with suppress(UnknownProduct):
                self._set[product_id] = await self._until_answered(product_id, threshold, random)
                self._unanswered.discard(product_id)

    async def _until_answered(
        self, product_id: str, threshold: int, random: Random
    ) -> SetLowStockThreshold:
        """Send a change until it is confirmed; return it."""
        while True:
            command = SetLowStockThreshold(
                product_id=product_id, change_id=self._world.new_id(random), threshold=threshold
            )
            if await self._world.execute(command):
                return command
            self._not_answered.setdefault(product_id, set()).add(threshold)
            await asyncio.sleep(1)

    def _is_stored(self, change: SetLowStockThreshold) -> bool:
        fact = f"{LowStockThresholdChangedEvent.__name__} {change.change_id}"
        return self._world.is_stored(fact_id(change.product_id, fact))

    def _tell(self) -> set[str]:
        """Return the products of which events tell that are new."""
        rows = dict(self._world.rows(_TOLD))
        new = rows.keys() - self._told
        self._told |= new
        return {msgspec.json.decode(rows[event_id], type=_Told).subject for event_id in new}
