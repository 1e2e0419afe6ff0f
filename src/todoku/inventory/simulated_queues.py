"""Check the queues of orders that wait for stock, after every commit."""

from collections import Counter
from collections.abc import Iterator, Mapping

import msgspec

from todoku.inventory.domain import Queue
from todoku.inventory.queues import read_queue
from todoku.simulated import World

_PRODUCTS = "SELECT id, stock_quantity - reserved_quantity, queue FROM products"
_DUE = "SELECT product_id FROM due_queues"
_WAITING = """
SELECT order_id, product_id, quantity - cancelled, queued_at FROM reservations
WHERE state = 'WAITING' AND quantity > cancelled
"""
_RESERVED = """
SELECT order_id, product_id FROM reservations WHERE state = 'RESERVED' AND quantity > cancelled
"""
_CORRECTIONS = "SELECT count(*) FROM stock_ledger WHERE reason = 'CORRECTION'"


class _Seen(msgspec.Struct):
    """The queues after a commit: what is available, who waits for how many pieces and where."""

    available: Mapping[str, int] = {}
    queues: Mapping[str, Queue] = {}
    due: frozenset[str] = frozenset()
    waiting: Mapping[str, Mapping[str, int]] = {}
    places: Mapping[str, tuple[int, str]] = {}
    reserved: frozenset[tuple[str, str]] = frozenset()
    corrections: int = 0


class SimulatedQueues:
    """Checks that each queue counts right, that nobody waits whose stock is free, and that new orders take
    nothing that others wait for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._before = _Seen()
        self._restored = False

    def restored(self) -> None:
        """Note that the database was restored: what is replayed keeps to no queue."""
        self._restored = True

    def open_work(self) -> Iterator[str]:
        """Return which walks are due."""
        for product_id in sorted(self._before.due):
            yield f"the queue of {product_id} is to be walked"

    def check_commit(self) -> None:
        """Check I2 and I3."""
        seen = self._look()
        for product_id, wanted in _wanted(seen).items():
            queue = seen.queues.get(product_id, Queue())
            if queue.pieces != wanted or (queue.due_at is None) is (product_id in seen.due):
                problem = (
                    f"orders wait for {wanted} pieces of {product_id}, and its queue is {queue}"
                )
                self._world.fail("I2", problem)
        if not seen.due:
            self._check_served(seen)
        if not self._restored and seen.corrections == self._before.corrections:
            self._check_overtaken(seen)
        self._before = seen

    def _look(self) -> _Seen:
        waiting: dict[str, dict[str, int]] = {}
        places: dict[str, tuple[int, str]] = {}
        for order_id, product_id, pieces, queued_at in self._world.rows(_WAITING):
            waiting.setdefault(order_id, {})[product_id] = pieces
            places[order_id] = queued_at, order_id
        rows = self._world.rows(_PRODUCTS)
        ((corrections,),) = self._world.rows(_CORRECTIONS)
        return _Seen(
            available={product_id: available for product_id, available, _ in rows},
            queues={
                product_id: queue
                for product_id, _, kept in rows
                if (queue := read_queue(kept)) is not None
            },
            due=frozenset(product_id for (product_id,) in self._world.rows(_DUE)),
            waiting=waiting,
            places=places,
            reserved=frozenset((order, product) for order, product in self._world.rows(_RESERVED)),
            corrections=corrections,
        )

    def _check_served(self, seen: _Seen) -> None:
        """While no walk is due, an order waits because stock is missing, or behind one that does."""
        stops: dict[str, tuple[int, str]] = {}
        for order_id in sorted(seen.waiting, key=seen.places.__getitem__):
            lines = seen.waiting[order_id]
            short = [key for key, pieces in lines.items() if pieces > seen.available[key]]
            if not short and not any(key in stops for key in lines):
                self._world.fail("I3", f"{order_id} waits, and all its stock is free", order_id)
            for key in short:
                stops.setdefault(key, seen.places[order_id])

    def _check_overtaken(self, seen: _Seen) -> None:
        """Of a product that others waited for, a new order has left what they want."""
        before = self._before
        for order_id, product_id in seen.reserved - before.reserved:
            queue = before.queues.get(product_id)
            if order_id in before.waiting or queue is None or queue.flows:
                continue
            still = sum(
                lines.get(product_id, 0)
                for other, lines in seen.waiting.items()
                if other in before.waiting
            )
            if still > seen.available[product_id]:
                problem = f"{order_id} has taken pieces of {product_id} that others wait for"
                self._world.fail("I3", problem, order_id)


def _wanted(seen: _Seen) -> Mapping[str, int]:
    """Return how many pieces of each product orders wait for."""
    wanted: Counter[str] = Counter(dict.fromkeys(seen.available, 0))
    for lines in seen.waiting.values():
        wanted.update(lines)
    return wanted
