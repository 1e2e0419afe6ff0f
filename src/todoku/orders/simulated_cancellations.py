"""Simulate customers who cancel orders at any moment, and check that each of them gets an answer."""

import asyncio
from collections.abc import Mapping
from typing import Final

import msgspec

from todoku.orders.cancellation import CancelOrder, TooLateToCancel
from todoku.orders.changes import Change, ChangeState
from todoku.orders.domain import BEHIND_PIVOT, Order, OrderStatus
from todoku.simulated import World

SHARES: Final = (0.0, 0.3, 0.8)
"""How many of the orders of a run are cancelled."""

TWICE_SHARE: Final = 0.3
SOON_SECONDS: Final = 4.0

_CHANGES = "SELECT id, status, changes FROM orders WHERE changes IS NOT NULL"
_CANCELLED = "SELECT id FROM orders WHERE status IN ('CANCELLING', 'CANCELLED')"

_decode = msgspec.json.Decoder(tuple[Change, ...]).decode

Changes = Mapping[str, tuple[OrderStatus, tuple[Change, ...]]]


class Cancellations:
    """Cancels some of the orders, and checks I3 and I4 for them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._share = world.random("cancellations").choice(SHARES)
        self._asked: set[str] = set()
        self._requests: dict[str, str] = {}
        self._seen: dict[str, tuple[Change, ...]] = {}

    async def ask(self, number: int, order_id: str) -> None:
        """Ask once or twice to cancel an order: at once, soon, or at any time."""
        random = self._world.random(f"cancel#{number}")
        if random.random() >= self._share:
            return
        seconds = random.choice((0.0, SOON_SECONDS, self._world.seconds))
        await asyncio.sleep(random.uniform(0, seconds))
        if self._world.happen("cancel", f"cancel#{number}") is None:
            return
        self._world.note("cancel", order_id)
        self._asked.add(order_id)
        times = 2 if random.random() < TWICE_SHARE else 1
        commands = [
            CancelOrder(order_id=order_id, change_id=self._world.new_id(random), by="customer")
            for _ in range(times)
        ]
        await asyncio.gather(*map(self._ask, commands))

    def check_commit(self) -> None:
        """Check I4: changes are only added, and decided once; nothing is cancelled that nobody asked for."""
        for order_id, (_, changes) in self._read().items():
            before = self._seen.get(order_id, ())
            if any(not _follows(old, new) for old, new in zip(before, changes, strict=False)):
                self._fail("I4", order_id, "was decided twice")
            if len(changes) < len(before):
                self._fail("I4", order_id, "is lost")
            self._seen[order_id] = changes
        for (order_id,) in self._world.rows(_CANCELLED):
            if order_id not in self._asked:
                self._fail("I4", order_id, "was not asked for")

    def check_end(self) -> None:
        """Check I3 and I4: every request has its answer, and the order ended as it says."""
        found = self._read()
        for order_id, change_id in self._requests.items():
            status, changes = found.get(order_id, (None, ()))
            state = {change.id: change.state for change in changes}.get(change_id)
            if state is None:
                self._fail("I1", order_id, "was accepted and is missing")
            elif state is ChangeState.REQUESTED:
                self._fail("I3", order_id, "was never answered")
            elif (status in BEHIND_PIVOT) is (state is ChangeState.CONFIRMED):
                self._fail("I4", order_id, f"is {state}, and the order is {status}")

    async def _ask(self, command: CancelOrder) -> None:
        try:
            order: Order = await self._world.execute_until_answered(command)
        except TooLateToCancel:
            return
        cancellation = order.cancellation
        if cancellation is None:
            self._fail("I1", command.order_id, "was accepted and is not in the reply")
            return
        first = self._requests.setdefault(command.order_id, cancellation.id)
        if first != cancellation.id:
            self._fail("I1", command.order_id, "was answered with two different requests")

    def _read(self) -> Changes:
        return {
            order_id: (OrderStatus(status), _decode(changes))
            for order_id, status, changes in self._world.rows(_CHANGES)
        }

    def _fail(self, invariant: str, order_id: str, problem: str) -> None:
        self._world.fail(invariant, f"the cancellation of {order_id} {problem}", order_id)


def _follows(old: Change, new: Change) -> bool:
    """Return whether the same change may have become this."""
    return old.id == new.id and old.state in (ChangeState.REQUESTED, new.state)
