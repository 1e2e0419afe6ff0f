"""Simulate customers who cancel orders at any moment, and orders that are late; check that each request
gets an answer, and that each deadline is kept."""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from todoku.contracts import CancellationRequestedEvent, CancelledItem
from todoku.orders.cancellation import CancelOrder, InvalidCancellation, TooLateToCancel
from todoku.orders.changes import BY_DEADLINE, Change, ChangeState
from todoku.orders.domain import BEHIND_PIVOT, Order, OrderStatus, UnknownOrder
from todoku.orders.store import decode_changes
from todoku.simulated import World

SHARES: Final = (0.0, 0.3, 0.8)
"""How many of the orders of a run are cancelled."""

TWICE_SHARE: Final = 0.3
LINE_SHARE: Final = 0.5
SOON_SECONDS: Final = 4.0

DEADLINE_SHARES: Final = (0.0, 0.5, 0.8)
DEADLINE_SECONDS_MAX: Final = 30.0
GRACE_SECONDS: Final = 5.0
ALIVE_SECONDS: Final = 25.0
"""After the faults, in this time a process that can write has started, and its period of grace is over."""

_CHANGES = "SELECT id, status, changes FROM orders WHERE changes IS NOT NULL"
_DEADLINES = "SELECT id, deadline FROM orders WHERE changes IS NOT NULL"
_REQUESTED = CancellationRequestedEvent.__name__
_CANCELLED = "SELECT id FROM orders WHERE status IN ('CANCELLING', 'CANCELLED')"
_ENDED = """
SELECT id, deadline, (SELECT min(recorded_at) FROM order_events WHERE order_id = orders.id
  AND type IN ('OrderCompletedEvent', 'OrderCancelledEvent'))
FROM orders WHERE deadline IS NOT NULL AND changes IS NULL
"""

Changes = Mapping[str, tuple[OrderStatus, tuple[Change, ...]]]


class Cancellations:
    """Cancels some of the orders, and checks I3 and I4 for them."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._share = world.random("cancellations").choice(SHARES)
        self._asked: set[str] = set()
        self._requests: dict[str, tuple[str, str]] = {}
        self._whole: dict[str, str] = {}
        self._seen: dict[str, tuple[Change, ...]] = {}
        self._deadline_share = world.random("deadlines").choice(DEADLINE_SHARES)
        self._alive: dict[str, float] = {}
        self._restored = False

    def draw_deadline(self, number: int, *, certain: bool) -> datetime | None:
        """Return the deadline of a new order; None for the usual one, which no run reaches. It is `certain`
        that one which waits for stock has a near one."""
        random = self._world.random(f"deadline#{number}")
        if random.random() >= self._deadline_share and not certain:
            return None
        seconds = self._loop_time() + random.uniform(1, DEADLINE_SECONDS_MAX)
        return self._world.start + timedelta(seconds=seconds)

    async def ask(self, number: int, order: Order) -> None:
        """Ask once or twice to cancel an order or pieces of it: at once, soon, or at any time."""
        random = self._world.random(f"cancel#{number}")
        if random.random() >= self._share:
            return
        seconds = random.choice((0.0, SOON_SECONDS, self._world.seconds))
        await asyncio.sleep(random.uniform(0, seconds))
        if self._world.happen("cancel", f"cancel#{number}") is None:
            return
        self._world.note("cancel", order.id)
        self._asked.add(order.id)
        times = 2 if random.random() < TWICE_SHARE else 1
        commands = [self._draw(order, random) for _ in range(times)]
        await asyncio.gather(*map(self._ask, commands))

    def _draw(self, order: Order, random: Random) -> CancelOrder:
        lines = random.sample(order.items, 1) if random.random() < LINE_SHARE else ()
        return CancelOrder(
            order_id=order.id,
            change_id=self._world.new_id(random),
            items=tuple(
                CancelledItem(product_id=line.product_id, quantity=random.randint(1, line.quantity))
                for line in lines
            ),
            by="customer",
        )

    def restored(self, published: Collection[tuple[str, str]]) -> None:
        """A request must come back if the stream has it."""
        self._restored = True
        found = self._read()
        self._seen = {order_id: changes for order_id, (_, changes) in found.items()}
        requests = Counter(order_id for order_id, _ in self._requests.values())
        for change_id, (order_id, _) in list(self._requests.items()):
            _, changes = found.get(order_id, (None, ()))
            # Which of several requests the stream has is not known here.
            is_published = (order_id, _REQUESTED) in published and requests[order_id] == 1
            if change_id not in {change.id for change in changes} and not is_published:
                del self._requests[change_id]
                self._whole.pop(order_id, None)

    def check_commit(self) -> None:
        """Check I4: changes are only added, and decided once; nothing is cancelled that nobody asked for."""
        by_deadline = self._read_late()
        for order_id, (_, changes) in self._read().items():
            before = self._seen.get(order_id, ())
            if any(not _follows(old, new) for old, new in zip(before, changes, strict=False)):
                self._fail("I4", order_id, "was decided twice")
            if len(changes) < len(before):
                self._fail("I4", order_id, "is lost")
            self._seen[order_id] = changes
        self._check_asked(by_deadline, recovering=self._restored)
        for order_id, _, ended_at in self._world.rows(_ENDED):
            if ended_at is not None:
                able_since = max(self._world.seconds, self._world.able_since)
                self._alive.setdefault(order_id, self._loop_time() - able_since)

    def check_end(self) -> None:
        """Check I3 and I4: every request has its answer, the order ended as it says, and no order was left
        open after its deadline."""
        self._check_late()
        self._check_asked(self._read_late(), recovering=False)
        found = self._read()
        for order_id, change_id in self._requests.values():
            status, changes = found.get(order_id, (None, ()))
            change = {change.id: change for change in changes}.get(change_id)
            shipped = status in BEHIND_PIVOT
            if change is None:
                self._fail("I1", order_id, "was accepted and is missing")
            elif change.state is ChangeState.REQUESTED:
                self._fail("I3", order_id, "was never answered")
            elif shipped is (change.state is ChangeState.CONFIRMED) and (
                change.whole or not shipped
            ):
                self._fail("I4", order_id, f"is {change.state}, and the order is {status}")

    async def _ask(self, command: CancelOrder) -> None:
        try:
            order: Order = await self._world.execute_until_answered(command)
        except (TooLateToCancel, InvalidCancellation):
            return
        except UnknownOrder:
            if not self._restored:
                raise
            return
        made = next((each for each in order.changes if each.id == command.change_id), None)
        change = made or order.cancellation
        if change is None or (command.items and made is None):
            self._fail("I1", command.order_id, "was accepted and is not in the reply")
            return
        self._requests[change.id] = command.order_id, change.id
        if command.items or self._restored:
            return
        if self._whole.setdefault(order.id, change.id) != change.id:
            self._fail("I1", command.order_id, "was answered with two different requests")

    def _check_asked(self, by_deadline: set[str], *, recovering: bool) -> None:
        """Check I4: nothing is cancelled that nobody asked for. While a database is recovering, an order may
        be replayed as cancelled before it is known again who asked for it."""
        known = self._read()
        for (order_id,) in self._world.rows(_CANCELLED):
            if recovering and order_id not in known:
                continue
            if order_id not in self._asked and order_id not in by_deadline:
                self._fail("I4", order_id, "was not asked for")

    def _read_late(self) -> set[str]:
        """Return the orders that are cancelled because of their deadline; check that it has passed."""
        deadlines = dict(self._world.rows(_DEADLINES))
        late: set[str] = set()
        for order_id, (_, changes) in self._read().items():
            requests = [each.requested_at for each in changes if each.by == BY_DEADLINE]
            if requests and requests[0] < _instant(deadlines[order_id]):
                self._fail("I4", order_id, "was requested before its deadline")
            late |= {order_id} if requests else set()
        return late

    def _check_late(self) -> None:
        """By the clock of its process, no order is open long after its deadline where nothing fails."""
        if self._restored:
            return
        for order_id, deadline, ended_at in self._world.rows(_ENDED):
            if ended_at is None:
                continue  # Its ending was not published, which another check tells.
            alive = self._alive.get(order_id, 0.0)
            late = timedelta(microseconds=ended_at - deadline)
            if alive > ALIVE_SECONDS and late > timedelta(seconds=ALIVE_SECONDS):
                self._fail(
                    "I3", order_id, f"was never requested: it ended {late} after its deadline"
                )

    def _loop_time(self) -> float:
        return asyncio.get_running_loop().time()

    def _read(self) -> Changes:
        return {
            order_id: (OrderStatus(status), decode_changes(changes))
            for order_id, status, changes in self._world.rows(_CHANGES)
        }

    def _fail(self, invariant: str, order_id: str, problem: str) -> None:
        self._world.fail(invariant, f"the cancellation of {order_id} {problem}", order_id)


def _instant(microseconds: int) -> datetime:
    return datetime.fromtimestamp(0, UTC) + timedelta(microseconds=microseconds)


def _follows(old: Change, new: Change) -> bool:
    """Return whether the same change may have become this."""
    return old.id == new.id and old.state in (ChangeState.REQUESTED, new.state)
