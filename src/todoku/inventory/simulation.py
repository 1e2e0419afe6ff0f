"""Simulate the stock: products, restocks and refused commands; check that it adds up."""

import asyncio
from collections import Counter
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Final

from todoku.database import ConstraintViolated
from todoku.engine import IdempotencyKey, key_id
from todoku.inventory.domain import (
    RESERVATION,
    ReservationState,
    Restock,
    SetProduct,
    Stock,
    StockNotSettable,
    UnknownProduct,
)
from todoku.simulated import Scheduled, SimulatedService, World

KEYED_SHARE: Final = 0.25
LATE_PRODUCT: Final = "late"

PRODUCTS: Final = ("prod0", "prod1", "prod2")
"""The products that simulated orders name."""

_STOCK_OFF = """
SELECT id, stock_quantity, reserved_quantity, ledger, live FROM (
  SELECT id, stock_quantity, reserved_quantity,
    (SELECT coalesce(sum(quantity), 0) FROM stock_ledger WHERE product_id = p.id) AS ledger,
    (SELECT coalesce(sum(quantity - cancelled), 0) FROM reservations
      WHERE product_id = p.id AND state = 'RESERVED') AS live
  FROM products AS p)
WHERE stock_quantity <> ledger OR reserved_quantity <> live
  OR reserved_quantity NOT BETWEEN 0 AND stock_quantity
"""
_RESERVATIONS = (
    "SELECT order_id, product_id, quantity, state FROM reservations ORDER BY order_id, product_id"
)
_PRODUCTS = "SELECT id FROM products"
_LEDGER = "SELECT id, product_id, quantity, note FROM stock_ledger ORDER BY id"

Rows = Sequence[tuple[Any, ...]]


class SimulatedInventory(SimulatedService):
    """Sets products and restocks them; checks I2 and I4."""

    @property
    def restorable(self) -> bool:
        return True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._ledger: Rows = []
        self._reservations: Mapping[str, tuple[ReservationState, Rows]] = {}
        self._restocks: list[str] = []
        self._opening: dict[str, SetProduct] = {}
        self._sent: dict[str, Restock] = {}
        self._entered: set[str] = set()
        self._restores = 0

    def clients(self) -> Iterable[Coroutine[Any, Any, None]]:
        return [self._set_products(), self._restock_too_early()]

    def scheduled(self) -> Mapping[str, Scheduled]:
        return {
            "impossible-command": Scheduled(
                action=self._send_impossible_command, mean_seconds=(0.0, 30.0), family="poison"
            ),
            "restock": Scheduled(
                action=self._restock, mean_seconds=(0.0, 4.0, 15.0), family="trade"
            ),
        }

    def restored(self, published: Collection[tuple[str, str]]) -> None:
        self._restores += 1
        self._ledger = self.world.rows(_LEDGER)
        self._reservations = self._read_reservations()

    async def enter_again(self) -> None:
        """Enter the products and restocks that were in the database and are not any more."""
        known = {product_id for (product_id,) in self.world.rows(_PRODUCTS)}
        for product_id in sorted(self._opening.keys() - known):
            with suppress(StockNotSettable):
                await self.world.execute_until_answered(self._opening[product_id])
        for note in sorted(self._entered & self._sent.keys()):
            while note not in self._notes():
                await self.world.execute(self._sent[note])
                await asyncio.sleep(1)

    def check_commit(self) -> None:
        """Check I2 and I4: the ledger adds up and only grows; a reservation is decided and ended once."""
        for product_id, on_hand, reserved, ledger, live in self.world.rows(_STOCK_OFF):
            problem = (
                f"product {product_id}: {on_hand} on hand with {ledger} in the ledger, "
                f"{reserved} reserved with {live} in live reservations"
            )
            self.world.fail("I2", problem)
        self._check_ledger()
        self._check_reservations()

    def check_end(self) -> None:
        """Check I2: every confirmed restock is in the ledger, and exactly once if no operator had to enter
        it again."""
        entered = Counter(self._notes())
        for note in self._restocks:
            if entered[note] < 1 or (entered[note] > 1 and not self._restores):
                problem = f"{note} was confirmed and is in the ledger {entered[note]} times"
                self.world.fail("I2", problem)

    def _check_ledger(self) -> None:
        ledger = self.world.rows(_LEDGER)
        if ledger[: len(self._ledger)] != self._ledger:
            self.world.fail("I2", "entries of the ledger were changed or lost")
        self._ledger = ledger
        self._entered.update(note for _, _, _, note in ledger if note is not None)

    def _notes(self) -> list[str | None]:
        return [note for _, _, _, note in self.world.rows(_LEDGER)]

    def _check_reservations(self) -> None:
        reservations = self._read_reservations()
        for order_id, (before, lines_before) in self._reservations.items():
            now, lines = reservations.get(order_id, (None, ()))
            moved = now is not before and now not in RESERVATION.reachable(before)
            arrived = before is not ReservationState.EXPECTED
            if (lines != lines_before and arrived) or moved:
                problem = f"reservation of {order_id} was {before} and is {now} now"
                self.world.fail("I4", problem, order_id)
        self._reservations = reservations

    def _read_reservations(self) -> dict[str, tuple[ReservationState, Rows]]:
        lines: dict[str, list[tuple[Any, ...]]] = {}
        states: dict[str, ReservationState] = {}
        for order_id, product_id, quantity, state in self.world.rows(_RESERVATIONS):
            lines.setdefault(order_id, []).append((product_id, quantity))
            states[order_id] = ReservationState(state)
        return {order_id: (states[order_id], lines[order_id]) for order_id in lines}

    async def _set_products(self) -> None:
        random = self.world.random("stock")
        for product_id in PRODUCTS:
            command = SetProduct(
                product_id=product_id,
                name=product_id,
                price=100,
                stock_quantity=random.randint(0, 3 * self.world.orders),
            )
            self._opening[product_id] = command
            with suppress(StockNotSettable):  # A retry, and sold or restocked meanwhile.
                await self.world.execute_until_answered(command)

    async def _send_impossible_command(self, _: Random) -> None:
        """Send a command that the tables refuse: it must not affect any other."""
        with suppress(ConstraintViolated):
            command = SetProduct(product_id="free", name="free", price=-1)
            if await self.world.execute(command):
                self.world.fail("I1", "a product that the tables refuse was confirmed")

    async def _restock(self, random: Random) -> None:
        command = Restock(
            product_id=random.choice(PRODUCTS),
            quantity=random.randint(1, 3),
            note=f"restock {random.getrandbits(32):08x}",
        )
        note = str(command.note)
        self._sent[note] = command
        if random.random() < KEYED_SHARE:
            await self._restock_with_key(command, note)
            return
        with suppress(UnknownProduct):
            if await self.world.execute(command):
                self._restocks.append(note)

    async def _restock_with_key(self, command: Restock, note: str) -> None:
        """Restock, and repeat it until it is answered; then once more, with the same answer."""
        key = IdempotencyKey(key_id("anonymous", note), note, frozenset({UnknownProduct}))
        first = await self._until_answered(command, key)
        if isinstance(first, Stock):
            self._restocks.append(note)
        await self._repeat(command, key, first)

    async def _restock_too_early(self) -> None:
        """Restock a product before it exists: that is refused, also when it is repeated afterwards."""
        command = Restock(product_id=LATE_PRODUCT, quantity=1, note="too early")
        key = IdempotencyKey(key_id("anonymous", "too early"), "", frozenset({UnknownProduct}))
        first = await self._until_answered(command, key)
        product = SetProduct(product_id=LATE_PRODUCT, name=LATE_PRODUCT, price=100)
        await self.world.execute_until_answered(product)
        await self._repeat(command, key, first)

    async def _repeat(self, command: Restock, key: IdempotencyKey, first: Any) -> None:
        """Send a command again, and check that it gets the first answer."""
        restores = self._restores
        again = await self._until_answered(command, key)
        if repr(again) != repr(first) and self._restores == restores == 0:
            problem = f"{command.note} was answered in two ways: {first!r}, then {again!r}"
            self.world.fail("I2", problem)

    async def _until_answered(self, command: Restock, key: IdempotencyKey) -> Any:
        """Return the result or the refusal of a command."""
        while True:
            try:
                answer = await self.world.execute(command, key)
            except UnknownProduct as refusal:
                return refusal
            if answer is not None:
                return answer
            await asyncio.sleep(1)
