"""Simulate staff who hold orders at any moment, also in the request that places them, and release them; check
that each hold is decided, and that nothing is booked while one is open."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from random import Random
from typing import Final

from todoku.contracts import HoldRequestedEvent
from todoku.orders.domain import BEHIND_PIVOT, Order, OrderStatus, UnknownOrder
from todoku.orders.holding import (
    HoldOrder,
    InvalidHold,
    NewHold,
    ReleaseHold,
    TooLateToHold,
    UnknownHold,
)
from todoku.orders.holds import BY_ENDING, Hold, HoldState
from todoku.orders.store import decode_holds
from todoku.simulated import World

SHARES: Final = (0.0, 0.0, 0.3, 0.8)
"""How many of the orders of a run are held."""

WITH_ORDER_SHARE: Final = 0.4
RELEASED_SHARE: Final = 0.7
TWICE_SHARE: Final = 0.3
SOON_SECONDS: Final = 4.0
EXPIRES_SECONDS_MAX: Final = 20.0
EXPIRES_AFTER_FAULTS: Final = 10.0
"""Every hold expires: a restored database may have forgotten a release, and nobody repeats it."""

PAST_PIVOT: Final = ("BOOKING", "COMPLETED", "FAILED")

_HOLDS = "SELECT id, status, holds FROM orders WHERE holds IS NOT NULL"
_SHIPMENTS = "SELECT order_id, status FROM shipments"
_REQUESTED = HoldRequestedEvent.__name__

Found = Mapping[str, tuple[OrderStatus, tuple[Hold, ...]]]


class Holds:
    """Holds some of the orders, and checks I1, I3 and I4 for them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._share = world.random("holds").choice(SHARES)
        self._requests: dict[str, str] = {}
        self._seen: dict[str, tuple[Hold, ...]] = {}
        self._restored = False

    @property
    def happen(self) -> bool:
        """Return whether orders are held in this run."""
        return self._share > 0

    def draw_with_order(self, number: int) -> tuple[NewHold, ...]:
        """Return the holds of the request that places an order."""
        random = self._world.random(f"holds with order#{number}")
        if random.random() >= self._share * WITH_ORDER_SHARE:
            return ()
        return tuple(self._draw(random) for _ in range(random.randint(1, 2)))

    async def ask(self, number: int, order: Order) -> None:
        """Hold an order, perhaps, and release its holds: at once, soon, or at any time."""
        self._requests |= {hold.id: order.id for hold in order.holds}
        random = self._world.random(f"hold#{number}")
        asked = [self._release(order.id, hold.id, random) for hold in order.holds]
        if random.random() < self._share:
            asked.append(self._hold(number, order, random))
        await asyncio.gather(*asked)

    def restored(self, published: Collection[tuple[str, str]]) -> None:
        """A hold must come back if the stream has its request."""
        self._restored = True
        found = self._read()
        self._seen = {order_id: holds for order_id, (_, holds) in found.items()}
        requests = Counter(self._requests.values())
        for hold_id, order_id in list(self._requests.items()):
            _, holds = found.get(order_id, (None, ()))
            # Which of several requests the stream has is not known here.
            is_published = (order_id, _REQUESTED) in published and requests[order_id] == 1
            if hold_id not in {hold.id for hold in holds} and not is_published:
                del self._requests[hold_id]

    def check_commit(self) -> None:
        """Check I4: holds are only added, and what became of one is final; while shipping has confirmed one
        that is open, nothing is booked."""
        found = self._read()
        for order_id, (_, holds) in found.items():
            before = self._seen.get(order_id, ())
            if any(not _follows(old, new) for old, new in zip(before, holds, strict=False)):
                self._fail("I4", order_id, "was decided twice")
            if len(holds) < len(before):
                self._fail("I4", order_id, "is lost")
            self._seen[order_id] = holds
        holding = {order_id for order_id, (_, holds) in found.items() if _holding(holds)}
        if not holding or self._restored:
            return
        for order_id, status in self._world.rows_of("shipping", _SHIPMENTS):
            if order_id in holding and status in PAST_PIVOT:
                self._fail("I4", order_id, f"is open, and its shipment is {status}")

    def check_end(self) -> None:
        """Check I1, I3 and I4: every hold is there, decided and closed, and agrees with the ending."""
        found = self._read()
        for hold_id, order_id in self._requests.items():
            _, holds = found.get(order_id, (None, ()))
            if hold_id not in {hold.id for hold in holds}:
                self._fail("I1", order_id, "was accepted and is missing")
        for order_id, (status, holds) in found.items():
            for hold in holds:
                self._check_ended(order_id, status, hold)

    def _check_ended(self, order_id: str, status: OrderStatus, hold: Hold) -> None:
        shipped = status in BEHIND_PIVOT
        if hold.decided_at is None:
            self._fail("I3", order_id, "was never answered")
        if hold.is_open:
            self._fail("I3", order_id, f"is still open, and the order is {status}")
        if hold.refusal is not None and hold.with_order:
            self._fail("I4", order_id, "came with its order, and was too late")
        if hold.refusal is not None and not shipped:
            self._fail("I4", order_id, f"was refused, and the order is {status}")
        held = hold.released_by == BY_ENDING and hold.refusal is None
        if held and shipped and not self._restored:
            self._fail("I4", order_id, f"was open when the order became {status}")

    async def _hold(self, number: int, order: Order, random: Random) -> None:
        for _ in range(random.randint(1, 2)):
            seconds = random.choice((0.0, SOON_SECONDS, self._world.seconds))
            await asyncio.sleep(random.uniform(0, seconds))
            if self._world.happen("hold", f"hold#{number}") is None:
                return
            self._world.note("hold", order.id)
            hold_id = self._world.new_id(random)
            command = HoldOrder(
                order_id=order.id, hold_id=hold_id, hold=self._draw(random), by="staff"
            )
            try:
                held: Order = await self._world.execute_until_answered(command)
            except (TooLateToHold, InvalidHold):
                return
            except UnknownOrder:
                if not self._restored:
                    raise
                return
            if hold_id not in {hold.id for hold in held.holds}:
                self._fail("I1", order.id, "was accepted and is not in the reply")
            self._requests[hold_id] = order.id
            await self._release(order.id, hold_id, random)

    async def _release(self, order_id: str, hold_id: str, random: Random) -> None:
        """Release a hold, perhaps, or leave it to its expiry."""
        if random.random() >= RELEASED_SHARE:
            return
        await asyncio.sleep(random.uniform(0, random.choice((0.0, SOON_SECONDS, 20.0))))
        times = 2 if random.random() < TWICE_SHARE else 1
        command = ReleaseHold(order_id=order_id, hold_id=hold_id, by="staff")
        replies = (self._world.execute_until_answered(command) for _ in range(times))
        try:
            answers: Sequence[Order] = await asyncio.gather(*replies)
        except (UnknownOrder, UnknownHold):
            if not self._restored:
                raise
            return
        for order in answers:
            if any(hold.id == hold_id and hold.is_open for hold in order.holds):
                self._fail("I1", order_id, "was released and is still open")

    def _draw(self, random: Random) -> NewHold:
        now = asyncio.get_running_loop().time()
        soon = now + random.uniform(1, EXPIRES_SECONDS_MAX)
        late = max(now, self._world.seconds) + EXPIRES_AFTER_FAULTS
        at = self._world.start + timedelta(seconds=soon if random.random() < 0.5 else late)
        return NewHold(holder=random.choice(("fraud", "address")), reason="?", expires_at=at)

    def _read(self) -> Found:
        return {
            order_id: (OrderStatus(status), decode_holds(holds))
            for order_id, status, holds in self._world.rows(_HOLDS)
        }

    def _fail(self, invariant: str, order_id: str, problem: str) -> None:
        self._world.fail(invariant, f"a hold of {order_id} {problem}", order_id)


def _holding(holds: Sequence[Hold]) -> bool:
    return any(hold.state is HoldState.CONFIRMED for hold in holds)


def _follows(old: Hold, new: Hold) -> bool:
    """Return whether the same hold may have become this."""
    decided = old.decided_at in (None, new.decided_at) and old.refusal in (None, new.refusal)
    corrected = old.released_by == BY_ENDING and new.state is HoldState.REFUSED
    final = old.is_open or old.state is new.state or corrected
    return old.id == new.id and decided and final
