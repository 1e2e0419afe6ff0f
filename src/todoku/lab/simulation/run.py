"""One simulated run: chaos, then healing, then the promise is held against what is left."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from logging import CRITICAL
from random import Random
from typing import Any
from uuid import UUID

import msgspec
import structlog

from todoku.audit import audit
from todoku.broker.memory import MemoryBroker
from todoku.broker.port import Outgoing
from todoku.contracts import EVENTS, OrderedItem
from todoku.database import ConstraintViolated, Database
from todoku.engine import EngineConfig, MailboxFull, ProcessFailed, Topology
from todoku.host import assemble
from todoku.inventory.domain import Restock, SetProduct, StockNotSettable, UnknownProduct
from todoku.lab.simulation import poison
from todoku.lab.simulation.faults import Faults, Occurrence
from todoku.lab.simulation.loop import START, Stuck, VirtualClock, VirtualLoop, run
from todoku.lab.simulation.promise import Failure, Promise
from todoku.lab.simulation.trace import Trace
from todoku.lab.simulation.world import (
    CLOCK_JUMP_SECONDS_MAX,
    TUNING,
    Crashed,
    Disk,
    FaultInjector,
    MumblingCarrier,
    Node,
)
from todoku.orders.domain import PlaceOrder
from todoku.settings import Settings, Span
from todoku.shipping.carriers import SimulatedCarrier

PRODUCTS = ("prod0", "prod1", "prod2")
UNKNOWN_PRODUCT = "prod3"

PATIENCE_SECONDS = 5.0
"""How long somebody who asks waits for an answer before asking again."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What one run does. The same plan gives the same run, to the byte.

    `only` names the orders and the faults that may happen (`order#1`, `kill#2`); None allows all that
    the seed leads to. After `chaos_seconds` nothing strikes any more, and all must be settled within
    `settle_seconds`; where clocks have jumped, by so much later as they may have jumped.
    """

    seed: int
    orders: int = 5
    chaos_seconds: float = 60.0
    settle_seconds: float = 120.0
    only: tuple[str, ...] | None = None


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """How a run went: what broke, what was done to the system, and how long it took to settle.

    `occurred` has the orders and faults in the order in which they came; their labels are a
    `Plan.only` of the same run. `events` counts what happened in it, and `digest` is the same
    where all of that is.
    """

    plan: Plan
    failures: tuple[Failure, ...]
    statuses: dict[str, int]
    faults: dict[str, int]
    occurred: tuple[Occurrence, ...]
    events: int
    settled_after_seconds: float | None
    digest: str


def simulate(plan: Plan) -> Result:
    """Run the plan in virtual time."""
    return replay(plan)[0]


def replay(plan: Plan) -> tuple[Result, Trace]:
    """Run the plan in virtual time; with it, what happened."""
    loop = VirtualLoop()
    simulation = _Run(plan, loop.time)
    with _quiet():
        try:
            run(loop, simulation.go())
        except Stuck as stuck:
            simulation.promise.fail("I3", str(stuck))
        finally:
            simulation.close()
    return simulation.result(), simulation.trace


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the services' logs: they are for operators, and a run has its trace."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


class _Run:
    """The world of one run, and those who act in it."""

    def __init__(self, plan: Plan, now: Callable[[], float]) -> None:
        self.plan = plan
        self.trace = Trace(now)
        self._now = now
        self._faults = Faults(plan.seed, plan.only, self.trace, now)
        self._disks = {
            name: Disk(name, self._faults) for name in ("orders", "inventory", "shipping")
        }
        self.promise = Promise({name: disk.bare() for name, disk in self._disks.items()})
        for disk in self._disks.values():
            disk.committed = self.promise.committed
        self._broker = MemoryBroker(
            messages_max=self._stream_limit(), hostility=FaultInjector(self._faults)
        )
        self._carrier = self._hire_carrier()
        tuning = self._draw_tuning()
        self._services = assemble(self._draw_settings(), self._carrier)
        self._topology = Topology(self._services)
        self._nodes = {
            service.name: Node(
                service,
                self._disks[service.name],
                self._broker,
                self._topology,
                self._faults,
                self.promise,
                self.trace,
                tuning,
                Random(f"{plan.seed} restarts of {service.name}"),
            )
            for service in self._services
        }
        self._events = [event for event in EVENTS.values() if self._topology.readers(event)]
        self._poison_owed: list[Outgoing] = []
        self._poison_sent: list[tuple[int, Outgoing]] = []
        self._restocks: list[str] = []
        self._settled_after_seconds: float | None = None

    async def go(self) -> None:
        """Chaos, healing, and the final judgement. Ends at the first broken promise."""
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        self._leave_unreadable_rows()
        lives = [self._begin(node.live()) for node in self._nodes.values()]
        traders = [self._begin(self._stock())]
        traders += [self._begin(self._shop(n)) for n in range(1, self.plan.orders + 1)]
        pests = self._let_loose()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.promise.broken.wait(), self.plan.chaos_seconds)
        for pest in pests:
            pest.cancel()
        self._heal()
        await self._settle(traders)
        self._judge()
        for task in (*lives, *traders):
            task.cancel()
        for node in self._nodes.values():
            node.crash("the end")

    def close(self) -> None:
        """Let go of the databases."""
        for disk in self._disks.values():
            disk.close()

    def result(self) -> Result:
        """How it went."""
        return Result(
            plan=self.plan,
            failures=tuple(self.promise.failures),
            statuses=self.promise.statuses(),
            faults=dict(sorted(self._faults.counts.items())),
            occurred=tuple(self._faults.occurred),
            events=len(self.trace),
            settled_after_seconds=self._settled_after_seconds,
            digest=self.trace.digest(),
        )

    # The world.

    def _stream_limit(self) -> int | None:
        dice = self._faults.strike("small-stream")
        return dice.choice((4, 12)) if dice else None

    def _hire_carrier(self) -> MumblingCarrier:
        dice = Random(f"{self.plan.seed} carrier")
        carrier = SimulatedCarrier(
            success_rate=dice.choice((0.0, 0.5, 0.9, 1.0)), seed=dice.randrange(2**32)
        )
        return MumblingCarrier(carrier, self._faults, self.promise, self.trace)

    def _draw_settings(self) -> Settings:
        dice = Random(f"{self.plan.seed} settings")
        return Settings(carrier_delay_seconds=Span(0, dice.choice((0, 2))))

    def _draw_tuning(self) -> EngineConfig:
        """An inbox that forgets soon shows whether the natural keys hold; one that never does, whether
        a repeat is receipted."""
        dice = Random(f"{self.plan.seed} tuning")
        seconds = dice.choice((15.0, 90.0, 86_400.0))
        return msgspec.structs.replace(TUNING, inbox_retention_seconds=seconds)

    def _leave_unreadable_rows(self) -> None:
        """What a newer version, since rolled back, has said and its readers of today cannot read."""
        for name, disk in self._disks.items():
            if dice := self._faults.strike("newer-version", name):
                owed = poison.owe(dice, name, self._topology, self._events)
                with Database.transaction(disk) as connection:
                    outbox = self._nodes[name].service.store.tables.outbox
                    outbox.add(connection, f"{name}-0", 0, [owed], VirtualClock().now())
                self.promise.committed(name)
                self._poison_owed.append(Outgoing(owed.subject, owed.body))

    def _begin(self, action: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Let somebody act; what nobody expected of them is a failure."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                self.promise.fail("I3", f"somebody met with {error!r}")

        task = asyncio.create_task(action)
        task.add_done_callback(ended)
        return task

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """A task ended with an error that nobody waits for; dying at a failpoint is no error."""
        error = context.get("exception")
        if not isinstance(error, Crashed):
            self.promise.fail("I3", f"{context['message']}: {error!r}")

    # Those who want something.

    async def _stock(self) -> None:
        dice = Random(f"{self.plan.seed} stock")
        for product_id in PRODUCTS:
            command = SetProduct(
                product_id=product_id,
                name=product_id,
                price=100,
                stock_quantity=dice.randint(0, 3 * self.plan.orders),
            )
            with suppress(StockNotSettable):  # Asked again, and sold or restocked meanwhile.
                await self._insist("inventory", command)

    async def _shop(self, number: int) -> None:
        """Place one order, and ask again with the same id until it is answered."""
        dice = Random(f"{self.plan.seed} order#{number}")
        await asyncio.sleep(dice.uniform(0, self.plan.chaos_seconds * 0.8))
        if self._faults.happen("order", f"order#{number}") is None:
            return
        wanted = dice.sample(PRODUCTS, dice.randint(1, 3))
        if dice.random() < 0.1:
            wanted.append(UNKNOWN_PRODUCT)
        command = PlaceOrder(
            order_id=_uuid7(self._now(), dice),
            user_id=f"user{number}",
            items=tuple(
                OrderedItem(product_id=product_id, quantity=dice.randint(1, 3), price=100)
                for product_id in wanted
            ),
            currency="JPY",
        )
        self.trace.note("world", "order", f"{command.order_id} by {command.user_id}")
        asks = 2 if dice.random() < 0.25 else 1
        for order in await asyncio.gather(*(self._insist("orders", command) for _ in range(asks))):
            self.promise.answered(order)

    async def _insist(self, service: str, command: Any) -> Any:
        """What a service answers, however often one has to ask."""
        while True:
            answer = await self._ask(service, command)
            if answer is not None:
                return answer
            await asyncio.sleep(1)

    async def _ask(self, service: str, command: Any) -> Any:
        """What a service answers; None if it does not, or refuses."""
        process = self._nodes[service].process
        if process is None:
            return None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await process.ask(command)
        except (TimeoutError, MailboxFull, ProcessFailed):
            return None

    # Those who do harm.

    def _let_loose(self) -> list[asyncio.Task[None]]:
        """Begin everything that strikes at times of its own."""
        harms: dict[str, Callable[[Random], Coroutine[Any, Any, None]]] = {
            "kill": self._kill,
            "stop": self._stop,
            "partition": self._cut_off,
            "outage": self._outage,
            "wipe": self._wipe,
            "purge": self._purge,
            "delete-durable": self._delete_durable,
            "database-away": self._take_database_away,
            "poison": self._poison_stream,
            "impossible-command": self._ask_the_impossible,
            "restock": self._restock,
        }
        return [
            self._begin(self._strike_at(self._faults.schedule(kind, self.plan.chaos_seconds), harm))
            for kind, harm in harms.items()
        ]

    async def _strike_at(
        self, times: Sequence[Occurrence], harm: Callable[[Random], Coroutine[Any, Any, None]]
    ) -> None:
        for planned in times:
            await asyncio.sleep(max(0.0, planned.at - self._now()))
            if dice := self._faults.happen(planned.kind, planned.label):
                await harm(dice)

    async def _kill(self, dice: Random) -> None:
        self._any_node(dice).crash("killed")

    async def _stop(self, dice: Random) -> None:
        self._begin(self._any_node(dice).stop())  # It ends by itself, also after healing.

    async def _cut_off(self, dice: Random) -> None:
        node = self._any_node(dice)
        node.cut_off()
        await asyncio.sleep(dice.uniform(0, 15))
        node.rejoin()

    async def _outage(self, dice: Random) -> None:
        self._broker.stop()
        await asyncio.sleep(dice.uniform(0, 10))
        if dice.random() < 0.3:
            self.trace.note("world", "fault", "its disk is wiped")
            self._broker.wipe()
        self._broker.start()

    async def _wipe(self, _: Random) -> None:
        self._broker.wipe()

    async def _purge(self, _: Random) -> None:
        self._broker.purge()

    async def _delete_durable(self, dice: Random) -> None:
        name = self._any_node(dice).service.name
        if self._broker.consumed(name) is not None:
            self._broker.delete_durable(name)

    async def _take_database_away(self, dice: Random) -> None:
        disk = self._any_node(dice).disk
        disk.away = True
        await asyncio.sleep(dice.uniform(0, 10))
        disk.away = False

    async def _poison_stream(self, dice: Random) -> None:
        if not self._broker.running:
            return
        message = poison.brew(dice, self._events)
        self.trace.note("world", "poison", message.subject, message.body)
        self._poison_sent.append((self._broker.last_sequence + 1, message))
        self._broker.store([message])

    async def _ask_the_impossible(self, _: Random) -> None:
        """Something that the tables refuse: nobody else must notice."""
        with suppress(ConstraintViolated):
            if await self._ask("inventory", SetProduct(product_id="free", name="free", price=0)):
                self.promise.fail("I1", "a product that the tables refuse was answered for")

    async def _restock(self, dice: Random) -> None:
        command = Restock(
            product_id=dice.choice(PRODUCTS),
            quantity=dice.randint(1, 3),
            note=f"restock {dice.getrandbits(32):08x}",
        )
        with suppress(UnknownProduct):
            if await self._ask("inventory", command):
                self._restocks.append(str(command.note))

    def _any_node(self, dice: Random) -> Node:
        return self._nodes[dice.choice(tuple(self._nodes))]

    # The end.

    def _heal(self) -> None:
        self._faults.heal()
        self.trace.note("world", "heal")
        self._broker.start()
        for node in self._nodes.values():
            node.rejoin()
            node.disk.away = False

    async def _settle(self, traders: Sequence[asyncio.Task[None]]) -> None:
        """Wait until all is settled, as long as that may take."""
        healed = self._now()
        limit = self.plan.settle_seconds
        if self._faults.counts["clock-jump"]:
            limit += 2 * CLOCK_JUMP_SECONDS_MAX
        while not self.promise.broken.is_set():
            await asyncio.sleep(1)
            waiting = self._unsettled(traders)
            if not waiting:
                self._settled_after_seconds = self._now() - healed
                return
            if self._now() - healed > limit:
                orders = [
                    order_id for order_id in self.promise.accepted if order_id in " ".join(waiting)
                ]
                self.promise.fail("I3", f"after {limit:.0f} s {'; '.join(waiting)}", *orders)

    def _unsettled(self, traders: Sequence[asyncio.Task[None]]) -> list[str]:
        waiting = self.promise.unsettled()
        if unanswered := sum(not trader.done() for trader in traders):
            waiting.append(f"{unanswered} who asked were never answered")
        return waiting or self.promise.unparked(self._lasting_poison(), self._subjects_read())

    def _lasting_poison(self) -> list[Outgoing]:
        """What every reader must come by sooner or later, because nothing has taken it away."""
        return self._poison_owed + [
            message
            for place, message in self._poison_sent
            if self._broker.messages.get(place) is message
        ]

    def _subjects_read(self) -> dict[str, list[str]]:
        return {
            service.name: [event.subject for event in service.event_handlers]
            for service in self._services
        }

    def _judge(self) -> None:
        """Hold the promise against what is left."""
        if self.promise.broken.is_set():
            return
        with ExitStack() as stack:
            connections = {
                name: stack.enter_context(disk.read()) for name, disk in self._disks.items()
            }
            report = audit(connections, VirtualClock().now(), overdue_after=timedelta(0))
        self.promise.judge_report(report)
        self.promise.judge_histories()
        self.promise.judge_bookings(self._carrier.answers)
        self.promise.judge_restocks(self._restocks)
        sent = [message for _, message in self._poison_sent]
        self.promise.judge_dead_letters(self._poison_owed + sent)


def _uuid7(seconds: float, random: Random) -> str:
    """A UUIDv7 of the simulated world."""
    milliseconds = int(START.timestamp() * 1000 + seconds * 1000)
    value = (milliseconds & (2**48 - 1)) << 80 | random.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))
