"""Simulate customers who place and cancel orders and staff who hold them, and check what becomes of them."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Coroutine, Iterable, Mapping
from random import Random
from typing import Any, Final

import msgspec

from todoku.contracts import WAIT, BookingAttemptFailedEvent, OrderCreatedEvent, OrderedItem
from todoku.engine import IdempotencyKey, IdempotencyKeyReused, key_id
from todoku.lifecycle import name_of
from todoku.orders.domain import ORDER, Order, OrderStatus
from todoku.orders.holding import InvalidHold
from todoku.orders.placing import InvalidDeadline, PlaceOrder
from todoku.orders.simulated_cancellations import GRACE_SECONDS, Cancellations
from todoku.orders.simulated_copy import Copier
from todoku.orders.simulated_holds import Holds
from todoku.orders.simulated_keys import Keys
from todoku.orders.simulated_prices import (
    LOOK_AGAIN_SECONDS,
    PRICE_REFUSALS,
    TRIES_MAX,
    UNSEEN_PRICE,
    Prices,
)
from todoku.simulated import Scheduled, SimulatedService, World

PRODUCTS: Final = ("prod0", "prod1", "prod2")
UNKNOWN_PRODUCT: Final = "prod3"
UNKNOWN_SHARE: Final = 0.1
REPEATED_SHARE: Final = 0.25
KEYED_SHARE: Final = 0.4
REUSED_SHARE: Final = 0.3
WAIT_SHARES: Final = (0.0, 0.5, 0.8)
LATER_SECONDS_MAX: Final = 60.0
"""How long after its answer a request is repeated with its key."""

REFUSALS: Final = (*PRICE_REFUSALS, InvalidDeadline, InvalidHold)
"""The last two if the deadline or a hold has passed, by a clock that may be wrong: the customer tries again
without them."""

_ORDERS = "SELECT id, status, total_amount FROM orders ORDER BY id"
_TOTAL = "SELECT total_amount FROM orders WHERE id = ?"
_TWICE = "SELECT user_id, count(*) FROM orders GROUP BY user_id HAVING count(*) > 1"
_PAUSES_ELSEWHERE = "SELECT service, pauses FROM pauses_elsewhere ORDER BY service"
_PAUSED = "SELECT id FROM pauses WHERE resumed_at IS NULL ORDER BY paused_at, id"
_EVENT_IDS = "SELECT event_id FROM order_events"
_HISTORY = "SELECT order_id, type FROM order_events"
_UNEXPLAINED = f"""
SELECT DISTINCT id FROM orders JOIN order_events ON order_id = id
WHERE type = '{BookingAttemptFailedEvent.__name__}' AND booking_failure IS NULL
AND NOT ({ORDER.check("order_events.status", terminal=True)})
"""
_SHARED_PLACES = """
SELECT order_id, group_concat(type, ' and ') FROM order_events
GROUP BY order_id, sequence HAVING count(*) > 1
"""


class SimulatedOrders(SimulatedService):
    """Places orders, cancels and holds some; checks I1, I3, I4 and the histories of orders."""

    @property
    def restorable(self) -> bool:
        return True

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._accepted: dict[str, Order] = {}
        self._statuses: dict[str, OrderStatus] = {}
        self._cancellations = Cancellations(world)
        self._copier = Copier(world)
        self._holds = Holds(world)
        self._keys = Keys(world)
        self._prices = Prices(world)
        self._answers: dict[str, Order] = {}
        self._to_come_back: dict[str, Order] = {}
        self._restores = 0
        self._wait_share = world.random("shortages").choice(WAIT_SHARES)

    def settings(self) -> Mapping[str, object]:
        return {"order_deadline_grace_seconds": GRACE_SECONDS, **self._prices.settings()}

    def clients(self) -> Iterable[Coroutine[Any, Any, None]]:
        return [self._place_order(number) for number in range(1, self.world.orders + 1)]

    def scheduled(self) -> Mapping[str, Scheduled]:
        return {**self._copier.scheduled(), **self._keys.scheduled()}

    def published_elsewhere(self) -> Iterable[str]:
        return [event_id for (event_id,) in self.world.rows(_EVENT_IDS)]

    def restored(self, published: Collection[tuple[str, str]]) -> None:
        """An accepted order must come back if the stream has it."""
        self._restores += 1
        rows = {order_id: OrderStatus(status) for order_id, status, _ in self.world.rows(_ORDERS)}
        for order_id in self._accepted.keys() - rows.keys():
            order = self._accepted.pop(order_id)
            if (order_id, OrderCreatedEvent.__name__) in published:
                self._to_come_back[order_id] = order
        self._statuses = rows
        self._cancellations.restored(published)
        self._copier.restored()
        self._holds.restored(published)
        self._keys.restored()
        self._prices.restored()

    def check_commit(self) -> None:
        """Check I1 and I4: accepted orders exist; a status only moves forward, and never from an end."""
        rows = {
            order_id: (OrderStatus(status), total)
            for order_id, status, total in self.world.rows(_ORDERS)
        }
        for order_id, order in self._accepted.items():
            _, total = rows.get(order_id, (None, None))
            if total != order.total_amount:
                problem = f"order {order_id} was accepted and is missing or changed"
                self.world.fail("I1", problem, order_id)
        for order_id, (now, _) in rows.items():
            before = self._statuses.get(order_id, now)
            if now is not before and now not in ORDER.reachable(before):
                problem = f"order {order_id} was {before} and is {now} now"
                self.world.fail("I4", problem, order_id)
            self._statuses[order_id] = now
        self._cancellations.check_commit()
        self._holds.check_commit()
        self._keys.check_commit()
        self._prices.check_commit()

    def _check_pauses_elsewhere(self) -> None:
        """Check R8: orders know what is paused elsewhere, and that a pause has ended."""
        for service, known in self.world.rows(_PAUSES_ELSEWHERE):
            told = [pause["id"] for pause in msgspec.json.decode(known)]
            paused = [pause_id for (pause_id,) in self.world.rows_of(service, _PAUSED)]
            if told != paused:
                problem = f"orders take {told} for the pauses of {service}, which has {paused}"
                self.world.fail("R8", problem)

    def open_work(self) -> Iterable[str]:
        return [
            f"order {order_id} is {status}"
            for order_id, status in self._statuses.items()
            if not status.terminal
        ]

    def check_end(self) -> None:
        """Check R5: every event is in the history of its order, also one that changes nothing, and has a
        place of its own there. Check I1: one order a request, however often it was sent; and restored
        orders came back."""
        for user_id, orders in self.world.rows(_TWICE):
            if not self._restores:  # Keys are not in the stream.
                self.world.fail("I1", f"{user_id} placed one order, and {orders} exist")
        self._check_pauses_elsewhere()
        for order_id in sorted(self._to_come_back.keys() - self._statuses.keys()):
            problem = f"order {order_id} was accepted, is in the stream and did not come back"
            self.world.fail("I1", problem, order_id)
        for order_id, types in self.world.rows(_SHARED_PLACES):
            self.world.fail("R5", f"{types} have one place in the history of {order_id}", order_id)
        for (order_id,) in self.world.rows(_UNEXPLAINED):
            self.world.fail("R5", f"{order_id} does not tell that its carrier failed", order_id)
        self._cancellations.check_end()
        self._copier.check_end()
        self._holds.check_end()
        self._keys.check_end()
        self._prices.check_end()
        histories: dict[str, set[str]] = defaultdict(set)
        for order_id, name in self.world.rows(_HISTORY):
            histories[order_id].add(name)
        for order_id, status in self._statuses.items():
            expected = {
                name_of(cause) for cause in ORDER.history(status) if isinstance(cause, type)
            }
            if status.terminal and (missing := expected - histories[order_id]):
                problem = f"orders never consumed {', '.join(sorted(missing))}"
                self.world.fail("R5", problem, order_id)

    def outcome(self) -> Mapping[str, int]:
        return Counter(str(status) for status in self._statuses.values())

    async def _place_order(self, number: int) -> None:
        """Place one order, and retry with the same id, or the same key, until it is answered."""
        random = self.world.random(f"order#{number}")
        await asyncio.sleep(random.uniform(0, self.world.seconds * 0.8))
        if self.world.happen("order", f"order#{number}") is None:
            return
        command = self._draw_order(number, random)
        waits = self.world.random(f"shortage#{number}").random() < self._wait_share
        command = msgspec.structs.replace(command, on_shortage=WAIT if waits else None)
        self.world.note("order", f"{command.order_id} by {command.user_id}")
        times = 2 if random.random() < REPEATED_SHARE else 1
        keyed = random.random() < KEYED_SHARE
        place = self._place_with_key if keyed else self._place_without_key
        for attempt in range(TRIES_MAX):
            named = await self._prices.name_prices(command, number, attempt)
            if attempt == 0 or waits:
                named = msgspec.structs.replace(
                    named,
                    deadline=self._cancellations.draw_deadline(number, certain=waits),
                    holds=self._holds.draw_with_order(number),
                )
            try:
                await place(number, named, random, times, attempt)
            except REFUSALS:
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
            else:
                return

    async def _place_without_key(
        self, number: int, command: PlaceOrder, random: Random, times: int, _: int
    ) -> None:
        replies = (self.world.execute_until_answered(command) for _ in range(times))
        restores = self._restores
        for order in await _orders_of(replies):
            if restores == self._restores:
                self._check_reply(order)
        await self._ask(number, order)

    async def _place_with_key(
        self, number: int, command: PlaceOrder, random: Random, times: int, attempt: int
    ) -> None:
        """Place an order as over HTTP, where each attempt has another id; send it again later, and with
        another order. With other prices it is another request, which has another key."""
        key = _key_of(command, attempt)
        attempts = (self._repeat(command, key, random) for _ in range(times))
        restores = self._restores
        answers = await _orders_of(attempts)
        for order in answers:
            if restores == self._restores:
                self._check_reply(order)
                self._check_same(order, key)
        await self._ask(number, answers[0])
        await asyncio.sleep(random.uniform(0, LATER_SECONDS_MAX))
        again = await self._repeat(command, key, random)
        if not self._restores:
            self._check_same(again, key)
        if random.random() < REUSED_SHARE:
            await self._reuse(command, attempt, random)

    async def _ask(self, number: int, order: Order) -> None:
        """Cancel the order or hold it, perhaps both at once."""
        if self._holds.happen:
            cancellation = self._cancellations.ask(number, order)
            await asyncio.gather(cancellation, self._holds.ask(number, order))
        else:
            await self._cancellations.ask(number, order)

    async def _repeat(self, command: PlaceOrder, key: IdempotencyKey, random: Random) -> Order:
        """Send a request until it is answered."""
        while True:
            attempt = msgspec.structs.replace(command, order_id=self.world.new_id(random))
            order: Order | None = await self.world.execute(attempt, key)
            if order is not None:
                return order
            await asyncio.sleep(1)

    async def _reuse(self, command: PlaceOrder, attempt: int, random: Random) -> None:
        """Send another order with a key that was used."""
        other = msgspec.structs.replace(command, items=(*command.items, *command.items))
        try:
            order = await self._repeat(other, _key_of(other, attempt), random)
        except IdempotencyKeyReused:
            return
        if self._restores:
            return  # Keys are not in the stream.
        problem = f"the key of {command.user_id} was taken for another order, {order.id}"
        self.world.fail("I1", problem, order.id)

    def _draw_order(self, number: int, random: Random) -> PlaceOrder:
        products = random.sample(PRODUCTS, random.randint(1, 3))
        if random.random() < UNKNOWN_SHARE:
            products.append(UNKNOWN_PRODUCT)
        return PlaceOrder(
            order_id=self.world.new_id(random),
            user_id=f"user{number}",
            items=tuple(
                OrderedItem(
                    product_id=product_id, quantity=random.randint(1, 3), price=UNSEEN_PRICE
                )
                for product_id in products
            ),
            currency="JPY",
        )

    def _check_reply(self, order: Order) -> None:
        """Check I1 when a client learns that its order is accepted."""
        if list(self.world.rows(_TOTAL, order.id)) != [(order.total_amount,)]:
            problem = f"order {order.id} was accepted and is not in the database"
            self.world.fail("I1", problem, order.id)
        first = self._accepted.setdefault(order.id, order)
        if (first.items, first.created_at) != (order.items, order.created_at):
            problem = f"order {order.id} was answered with two different contents"
            self.world.fail("I1", problem, order.id)

    def _check_same(self, order: Order, key: IdempotencyKey) -> None:
        """Check I1: every request with a key gets the answer of the first."""
        if self._answers.setdefault(key.id, order) != order:
            problem = f"the key of order {order.id} was answered in two ways"
            self.world.fail("I1", problem, order.id)


async def _orders_of(attempts: Iterable[Coroutine[Any, Any, Order]]) -> list[Order]:
    """Return the order as each attempt got it. Clocks and prices differ: one may be refused where another
    one is accepted; raise that only if all are."""
    replies = await asyncio.gather(*attempts, return_exceptions=True)
    orders = [reply for reply in replies if isinstance(reply, Order)]
    refusals = [reply for reply in replies if isinstance(reply, BaseException)]
    for refusal in refusals:
        if not orders or not isinstance(refusal, REFUSALS):
            raise refusal
    return orders


def _key_of(command: PlaceOrder, attempt: int) -> IdempotencyKey:
    """Return the key with which a customer places the only order, for these prices."""
    key = key_id("anonymous", command.user_id, attempt + 1)
    return IdempotencyKey(key, repr(command.items), frozenset(REFUSALS))
