"""Simulate the stock: products, adjustments and refused commands; check that it adds up."""

from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from random import Random
from typing import Any, Final

from todoku.contracts import StockAdjustedEvent
from todoku.database import ConstraintViolated
from todoku.inventory.domain import (
    RESERVATION,
    ReservationState,
    SetProduct,
    StockNotSettable,
)
from todoku.inventory.simulated_adjustments import SimulatedAdjustments
from todoku.inventory.simulated_catalogue import SimulatedCatalogue
from todoku.inventory.simulated_low_stock import SimulatedLowStock
from todoku.inventory.simulated_queues import SimulatedQueues
from todoku.simulated import Scheduled, SimulatedService, World

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
_LEDGER = "SELECT id, product_id, quantity, adjustment_id FROM stock_ledger ORDER BY id"

Rows = Sequence[tuple[Any, ...]]


class SimulatedInventory(SimulatedService):
    """Sets products and adjusts their stock; checks I2 and I4."""

    @property
    def restorable(self) -> bool:
        return True

    @property
    def unpublished_before(self) -> Collection[str]:
        return (StockAdjustedEvent.subject,)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._ledger: Rows = []
        self._reservations: Mapping[str, tuple[ReservationState, Rows]] = {}
        self._opening: dict[str, SetProduct] = {}
        self._adjustments = SimulatedAdjustments(world, PRODUCTS)
        self._low_stock = SimulatedLowStock(world, PRODUCTS)
        self._queues = SimulatedQueues(world)
        self._catalogue = SimulatedCatalogue(world, PRODUCTS)

    def clients(self) -> Iterable[Coroutine[Any, Any, None]]:
        return [self._set_products(), self._adjustments.restock_too_early()]

    def scheduled(self) -> Mapping[str, Scheduled]:
        return {
            "impossible-command": Scheduled(
                action=self._send_impossible_command, mean_seconds=(0.0, 30.0), family="poison"
            ),
            "restock": Scheduled(
                action=self._adjustments.restock, mean_seconds=(0.0, 4.0, 15.0), family="trade"
            ),
            "correction": Scheduled(
                action=self._adjustments.correct, mean_seconds=(0.0, 4.0, 15.0), family="trade"
            ),
            **self._low_stock.scheduled(),
            **self._catalogue.scheduled(),
        }

    def restored(self, published: Collection[tuple[str, str]]) -> None:
        self._adjustments.restored()
        self._low_stock.restored()
        self._queues.restored()
        self._catalogue.restored()
        self._ledger = self.world.rows(_LEDGER)
        self._reservations = self._read_reservations()

    async def enter_again(self, *, recovered: bool) -> None:
        """Enter the products and adjustments that were in the database and are not any more; what takes
        pieces out only when the service has recovered: it is refused until then."""
        known = {product_id for (product_id,) in self.world.rows(_PRODUCTS)}
        for product_id in sorted(self._opening.keys() - known):
            with suppress(StockNotSettable):
                await self.world.execute_until_answered(self._opening[product_id])
        await self._adjustments.enter_again(recovered=recovered)

    def check_commit(self) -> None:
        """Check I2 and I4: the ledger adds up and only grows; a reservation is decided and ended once."""
        for product_id, on_hand, reserved, ledger, live in self.world.rows(_STOCK_OFF):
            problem = (
                f"product {product_id}: {on_hand} on hand with {ledger} in the ledger, "
                f"{reserved} reserved with {live} in live reservations"
            )
            self.world.fail("I2", problem)
        self._adjustments.check_commit()
        self._low_stock.check_commit()
        self._queues.check_commit()
        self._catalogue.check_commit()
        self._check_ledger()
        self._check_reservations()

    def open_work(self) -> Iterable[str]:
        return self._queues.open_work()

    def check_end(self) -> None:
        self._adjustments.check_end()
        self._low_stock.check_end()

    def _check_ledger(self) -> None:
        ledger = self.world.rows(_LEDGER)
        # Of several processes, one may commit an entry after another one's with a higher id.
        if not set(self._ledger) <= set(ledger):
            self.world.fail("I2", "entries of the ledger were changed or lost")
        self._ledger = ledger

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
            await self._low_stock.set_threshold(product_id)

    async def _send_impossible_command(self, _: Random) -> None:
        """Send a command that the tables refuse: it must not affect any other."""
        with suppress(ConstraintViolated):
            command = SetProduct(product_id="free", name="free", price=-1)
            if await self.world.execute(command):
                self.world.fail("I1", "a product that the tables refuse was confirmed")
