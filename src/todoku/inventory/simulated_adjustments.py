"""Simulate staff: restocks and corrections, repeated with their keys, and entered again after a restore."""

import asyncio
from contextlib import suppress
from random import Random
from typing import Any, Final

from todoku.contracts import StockAdjustedEvent, fact_id
from todoku.engine import IdempotencyKey, key_id
from todoku.inventory.domain import (
    CorrectStock,
    Restock,
    SetProduct,
    Stock,
    StockInUse,
    UnknownProduct,
    takes_pieces,
)
from todoku.simulated import World

KEYED_SHARE: Final = 0.25
LATE_PRODUCT: Final = "late"
REFUSALS: Final = (UnknownProduct, StockInUse)

_ENTERED = (
    "SELECT adjustment_id FROM stock_ledger WHERE adjustment_id IS NOT NULL AND reason <> 'OPENING'"
)

Adjusts = Restock | CorrectStock


class SimulatedAdjustments:
    """Adjusts the stock of these products; each adjustment that was confirmed must be entered once."""

    def __init__(self, world: World, products: tuple[str, ...]) -> None:
        self._world = world
        self._products = products
        self._sent: dict[str, Adjusts] = {}
        self._confirmed: set[str] = set()
        self._committed: set[str] = set()
        self._restores = 0

    def restored(self) -> None:
        """Note that the database was restored."""
        self._restores += 1

    def check_commit(self) -> None:
        """Check I2: no adjustment is entered twice."""
        entered = self._entered()
        self._committed.update(entered)
        if len(entered) != len(set(entered)):
            self._world.fail("I2", f"an adjustment was entered twice: {sorted(entered)}")

    def check_end(self) -> None:
        """Check I2: every confirmed adjustment is in the ledger, and every entered one was published."""
        entered = set(self._entered())
        for lost in sorted(self._confirmed - entered):
            self._world.fail("I2", f"{self._sent[lost]} was confirmed and is not in the ledger")
        for adjustment_id in sorted(entered & self._sent.keys()):
            # A restore may take events out of the stream.
            if not self._restores and not self._is_stored(adjustment_id):
                problem = f"{self._sent[adjustment_id]} was entered and never published"
                self._world.fail("I2", problem)

    async def enter_again(self, *, recovered: bool) -> None:
        """Enter the adjustments again that are lost and not in the stream: the others come back. What takes
        pieces out is left for when the service has `recovered`."""
        for adjustment_id in sorted(self._committed & self._sent.keys()):
            command = self._sent[adjustment_id]
            if self._is_stored(adjustment_id) or (takes_pieces(command) and not recovered):
                continue
            while adjustment_id not in self._entered():
                try:
                    await self._world.execute(command)
                except StockInUse:  # Orders came in another sequence now.
                    self._confirmed.discard(adjustment_id)
                    break
                except UnknownProduct:
                    pass  # It is lost, too, and entered again.
                await asyncio.sleep(1)

    async def restock(self, random: Random) -> None:
        """Add a few pieces."""
        await self._adjust(Restock, random.randint(1, 3), random)

    async def correct(self, random: Random) -> None:
        """Correct the stock, mostly downwards: also by more than there is."""
        await self._adjust(CorrectStock, random.choice((-9, -3, -2, -1, 0, 1)), random)

    async def restock_too_early(self) -> None:
        """Restock a product before it exists: that is refused, also when it is repeated afterwards."""
        command = Restock(product_id=LATE_PRODUCT, quantity=1, adjustment_id="too early")
        key = _key("too early")
        first = await self._until_answered(command, key)
        product = SetProduct(product_id=LATE_PRODUCT, name=LATE_PRODUCT, price=100)
        await self._world.execute_until_answered(product)
        await self._repeat(command, key, first)

    async def _adjust(self, kind: type[Adjusts], quantity: int, random: Random) -> None:
        adjustment_id = self._world.new_id(random)
        command = kind(
            product_id=random.choice(self._products),
            quantity=quantity,
            adjustment_id=adjustment_id,
        )
        self._sent[adjustment_id] = command
        if random.random() < KEYED_SHARE:
            key = _key(adjustment_id)
            first = await self._until_answered(command, key)
            if isinstance(first, Stock):
                self._confirmed.add(adjustment_id)
            await self._repeat(command, key, first)
            return
        with suppress(*REFUSALS):
            if await self._world.execute(command):
                self._confirmed.add(adjustment_id)

    async def _repeat(self, command: Adjusts, key: IdempotencyKey, first: Any) -> None:
        """Send a command again, and check that it gets the first answer."""
        restores = self._restores
        again = await self._until_answered(command, key)
        if repr(again) != repr(first) and self._restores == restores == 0:
            problem = f"{command} was answered in two ways: {first!r}, then {again!r}"
            self._world.fail("I2", problem)

    async def _until_answered(self, command: Adjusts, key: IdempotencyKey) -> Any:
        """Return the result or the refusal of a command."""
        while True:
            try:
                answer = await self._world.execute(command, key)
            except REFUSALS as refusal:
                return refusal
            if answer is not None:
                return answer
            await asyncio.sleep(1)

    def _is_stored(self, adjustment_id: str) -> bool:
        """Return whether the stream has the event of an adjustment."""
        fact = f"{StockAdjustedEvent.__name__} {adjustment_id}"
        return self._world.is_stored(fact_id(self._sent[adjustment_id].product_id, fact))

    def _entered(self) -> list[str]:
        return [adjustment_id for (adjustment_id,) in self._world.rows(_ENTERED)]


def _key(name: str) -> IdempotencyKey:
    return IdempotencyKey(key_id("anonymous", name), name, frozenset(REFUSALS))
