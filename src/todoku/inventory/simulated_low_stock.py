"""Simulate thresholds: check that a product that becomes low is told of."""

from contextlib import suppress
from typing import Any, Final

import msgspec

from todoku.contracts import StockLowEvent
from todoku.inventory.domain import SetLowStockThreshold, UnknownProduct
from todoku.simulated import World

_TOLD = f"SELECT event_id, body FROM outbox WHERE subject = '{StockLowEvent.subject}'"
_LOW = """
SELECT id FROM products WHERE stock_quantity - reserved_quantity <= low_stock_threshold
"""
THRESHOLD_MAX: Final = 4


class _Told(msgspec.Struct):
    subject: str


class SimulatedLowStock:
    """Sets a threshold of a product, and checks its events."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._told: set[Any] = set()
        self._low: set[str] = set()
        self._restored = False

    def restored(self) -> None:
        """Check nothing any more: what is replayed is not published again."""
        self._restored = True

    async def set_threshold(self, product_id: str) -> None:
        """Set a threshold, unless a restored database has lost the product."""
        random = self._world.random(f"threshold of {product_id}")
        command = SetLowStockThreshold(
            product_id=product_id,
            change_id=self._world.new_id(random),
            threshold=random.randint(0, THRESHOLD_MAX),
        )
        with suppress(UnknownProduct):
            await self._world.execute_until_answered(command)

    def check_commit(self) -> None:
        """Check I2: of a product that this commit has made low, an event tells."""
        if self._restored:
            return
        low = {product_id for (product_id,) in self._world.rows(_LOW)}
        if fallen := low - self._low:
            for untold in sorted(fallen - self._tell()):
                self._world.fail("I2", f"product {untold} became low, and nobody is told")
        self._low = low

    def _tell(self) -> set[str]:
        """Return the products of which events tell that are new."""
        rows = dict(self._world.rows(_TOLD))
        new = rows.keys() - self._told
        self._told |= new
        return {msgspec.json.decode(rows[event_id], type=_Told).subject for event_id in new}
