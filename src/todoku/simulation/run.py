"""One simulated run: chaos, then healing, then the promise is held against what is left."""

import asyncio
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from random import Random
from typing import Any
from uuid import UUID

import msgspec
from sqlalchemy import select

from todoku.audit import Report, audit
from todoku.broker.memory import Hostility, MemoryBroker
from todoku.contracts import OrderedItem
from todoku.engine import MailboxFull, Topology
from todoku.host import assemble
from todoku.inventory.domain import SetProduct
from todoku.orders.domain import Order, OrderStatus, PlaceOrder
from todoku.orders.store import orders
from todoku.settings import Settings, Span
from todoku.shipping.domain import Accepted
from todoku.simulation.loop import VirtualClock, run
from todoku.simulation.world import Crashed, MumblingCarrier, Node

_STATUSES = select(orders.c.id, orders.c.status)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one run does. The same plan gives the same run, to the byte."""

    seed: int
    orders: int = 5
    chaos_seconds: float = 60.0
    settle_seconds: float = 600.0


class Failure(msgspec.Struct, frozen=True):
    """A broken promise."""

    invariant: str
    problem: str


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went: what broke, what was done to the system, and how long it took to settle."""

    plan: Plan
    failures: tuple[Failure, ...]
    statuses: dict[str, int]
    faults: dict[str, int]
    events_sent: int
    settled_after_seconds: float | None


def simulate(plan: Plan) -> Result:
    """Run the plan in virtual time."""
    return run(_Run(plan).go())


class _Run:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.random = Random(plan.seed)
        self.clock = VirtualClock()
        self.hostility = Hostility(Random(self.random.random()))
        self.broker = MemoryBroker(hostility=self.hostility)
        self.carrier = MumblingCarrier(
            Random(self.random.random()), success_rate=self.random.choice((0.0, 0.5, 0.9, 1.0))
        )
        settings = Settings(carrier_delay_seconds=Span(0, self.random.choice((0, 2))))
        services = assemble(settings, self.carrier)
        topology = Topology(services)
        self.nodes = {
            service.name: Node(service, self.broker, topology, Random(self.random.random()))
            for service in services
        }
        self.accepted: dict[str, Order] = {}
        self.ended: dict[str, OrderStatus] = {}
        self.failures: list[Failure] = []
        self.faults: Counter[str] = Counter()

    async def go(self) -> Result:
        """The whole run."""
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        async with asyncio.TaskGroup() as group:
            for node in self.nodes.values():
                await node.start()
            await self._stock()
            self._let_loose()
            shoppers = [group.create_task(self._shop(n)) for n in range(self.plan.orders)]
            pests = [
                group.create_task(pest())
                for pest in (self._crash, self._outage, self._wipe, self._forget_durable)
            ]
            keeper = group.create_task(self._keep_alive())
            watch = group.create_task(self._watch())
            await asyncio.sleep(self.plan.chaos_seconds)
            for pest in pests:
                pest.cancel()
            self._heal()
            await asyncio.wait(shoppers)
            settled_after = await self._settle()
            keeper.cancel()
            watch.cancel()
            result = self._judge(settled_after)
            for node in self.nodes.values():
                node.crash()
        return result

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A task ended with an error that nobody waits for; dying at a failpoint is no error."""
        error = context.get("exception")
        if not isinstance(error, Crashed):
            self._fail("I3", f"{context['message']}: {error!r}")

    async def _stock(self) -> None:
        for n in range(3):
            await self._process("inventory").ask(
                SetProduct(
                    product_id=f"prod{n}",
                    name=f"Product {n}",
                    price=100,
                    stock_quantity=self.random.randint(0, 2 * self.plan.orders),
                )
            )

    def _process(self, name: str) -> Any:
        process = self.nodes[name].process
        assert process is not None
        return process

    def _let_loose(self) -> None:
        """Draw how badly this run goes: some runs are calm in some respects."""
        for fault in (
            "drop_delivery",
            "duplicate_delivery",
            "delay_delivery",
            "reorder_deliveries",
            "drop_ack",
            "drop_notify",
            "duplicate_notify",
            "delay_notify",
            "lose_answer",
            "refuse_publish",
        ):
            setattr(self.hostility, fault, self.random.choice((0.0, 0.1, 0.4)))
        self.hostility.delay_seconds_max = self.random.choice((0.5, 5.0, 20.0))
        self.carrier.mumbling = self.random.choice((0.0, 0.3))
        for node in self.nodes.values():
            node.crash_probability = self.random.choice((0.0, 0.01, 0.05))

    def _heal(self) -> None:
        for name, value in vars(Hostility(Random(0))).items():
            if isinstance(value, float) and name != "delay_seconds_max":
                setattr(self.hostility, name, 0.0)
        self.carrier.mumbling = 0.0
        for node in self.nodes.values():
            node.crash_probability = 0.0
        self.broker.start()

    async def _shop(self, number: int) -> None:
        """Place one order, and ask again with the same id until it is answered."""
        await asyncio.sleep(self.random.uniform(0, self.plan.chaos_seconds * 0.8))
        milliseconds = int((self.clock.now().timestamp()) * 1000)
        order_id = _uuid7(milliseconds, self.random)
        command = PlaceOrder(
            order_id=order_id,
            user_id=f"user{number}",
            items=tuple(
                OrderedItem(product_id=f"prod{n}", quantity=self.random.randint(1, 3), price=100)
                for n in self.random.sample(range(4), self.random.randint(1, 3))
            ),
            currency="JPY",
        )
        while order_id not in self.accepted:
            process = self.nodes["orders"].process
            try:
                if process is not None:
                    async with asyncio.timeout(5):
                        self.accepted[order_id] = await process.ask(command)
            except (TimeoutError, MailboxFull):
                pass
            if order_id not in self.accepted:
                await asyncio.sleep(1)

    async def _crash(self) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(1 / 20))
            node = self.nodes[self.random.choice(tuple(self.nodes))]
            self.faults["kill"] += 1
            node.crash()

    async def _outage(self) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(1 / 30))
            self.faults["broker outage"] += 1
            self.broker.stop()
            await asyncio.sleep(self.random.uniform(0, 10))
            if self.random.random() < 0.3:
                self.faults["broker wiped while down"] += 1
                self.broker.wipe()
            self.broker.start()

    async def _wipe(self) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(1 / 60))
            self.faults["stream wiped"] += 1
            self.broker.wipe()

    async def _forget_durable(self) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(1 / 60))
            name = self.random.choice(tuple(self.nodes))
            if self.broker.consumed(name) is not None:
                self.faults["durable deleted"] += 1
                self.broker.delete_durable(name)

    async def _keep_alive(self) -> None:
        """What `todoku up` does: start again what has died."""
        while True:
            await asyncio.sleep(self.random.uniform(0.1, 2.0))
            for node in self.nodes.values():
                if node.process is None:
                    await node.start()

    async def _watch(self) -> None:
        """Safety, all the time: what has ended stays as it ended."""
        while True:
            await asyncio.sleep(1)
            self._look_at_endings()

    def _look_at_endings(self) -> None:
        with self.nodes["orders"].database.read() as connection:
            statuses = dict(connection.execute(_STATUSES).tuples().all())
        for order_id in self.accepted:
            status = statuses.get(order_id)
            if status is None:
                self._fail("I1", f"order {order_id} was accepted and is gone")
            elif order_id in self.ended and self.ended[order_id] != status:
                self._fail(
                    "I4", f"order {order_id} had ended as {self.ended[order_id]}, not {status}"
                )
            elif OrderStatus(status).terminal:
                self.ended[order_id] = OrderStatus(status)

    async def _settle(self) -> float | None:
        """Wait until all is settled; how long it took in seconds, None if it took too long."""
        loop = asyncio.get_running_loop()
        healed = loop.time()
        while loop.time() - healed < self.plan.settle_seconds:
            await asyncio.sleep(1)
            if self._audit().settled:
                return loop.time() - healed
        return None

    def _audit(self) -> Report:
        with ExitStack() as stack:
            connections = {
                name: stack.enter_context(node.database.read()) for name, node in self.nodes.items()
            }
            return audit(connections, self.clock.now(), overdue_after=timedelta(0))

    def _judge(self, settled_after: float | None) -> Result:
        report = self._audit()
        for finding in report.findings:
            self._fail(finding.invariant, f"{finding.subject}: {finding.problem}")
        if settled_after is None:
            self._fail("I3", f"not settled in time: backlog {report.backlog}, {report.orders}")
        if report.parked:
            self._fail("I3", f"messages were parked: {report.parked}")
        for name, node in self.nodes.items():
            for error in node.errors:
                self._fail("I3", f"a process of {name} failed: {error!r}")
        self._look_at_endings()
        self._judge_bookings()
        faults = self.faults + self.hostility.injected + self.carrier.mumbled
        for node in self.nodes.values():
            faults += Counter({f"crash {point}": n for point, n in node.crashes.items()})
        return Result(
            plan=self.plan,
            failures=tuple(dict.fromkeys(self.failures)),
            statuses=report.orders,
            faults=dict(sorted(faults.items())),
            events_sent=self.broker.last_sequence,
            settled_after_seconds=settled_after,
        )

    def _judge_bookings(self) -> None:
        """I4: an order has one booking at the carrier at most, and one exactly if it is completed."""
        booked = Counter(
            self.carrier.orders[key]
            for key, answer in self.carrier.answers.items()
            if isinstance(answer, Accepted)
        )
        for order_id, status in self.ended.items():
            expected = 1 if status is OrderStatus.COMPLETED else 0
            if booked[order_id] != expected:
                self._fail("I4", f"order {order_id} is {status} with {booked[order_id]} bookings")

    def _fail(self, invariant: str, problem: str) -> None:
        self.failures.append(Failure(invariant, problem))


def _uuid7(milliseconds: int, random: Random) -> str:
    """A UUIDv7 of the simulated world."""
    value = (milliseconds & (2**48 - 1)) << 80 | random.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))
