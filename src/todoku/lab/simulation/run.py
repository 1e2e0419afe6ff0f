"""Runs one simulation: inject faults, heal, wait until quiescent, check the invariants."""

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

from todoku.broker.memory import MemoryBroker
from todoku.broker.port import Outgoing
from todoku.contracts import EVENTS, OrderedItem
from todoku.database import ConstraintViolated, Database
from todoku.engine import EngineConfig, MailboxFull, ProcessFailed, Topology
from todoku.inventory.domain import Restock, SetProduct, StockNotSettable, UnknownProduct
from todoku.lab.simulation import poison
from todoku.lab.simulation.carrier import UnreliableCarrier
from todoku.lab.simulation.database import SimulatedDatabase
from todoku.lab.simulation.faults import Faults, Occurrence
from todoku.lab.simulation.invariants import InvariantChecker, Violation
from todoku.lab.simulation.loop import START, Stuck, VirtualClock, VirtualLoop, run
from todoku.lab.simulation.network import FaultInjector
from todoku.lab.simulation.node import CLOCK_JUMP_SECONDS_MAX, SIMULATION_CONFIG, Crashed, Node
from todoku.lab.simulation.trace import Trace
from todoku.orders.domain import PlaceOrder
from todoku.settings import Settings, Span
from todoku.shipping.carriers import SimulatedCarrier, booking_effects
from todoku.system import load_system

PRODUCTS = ("prod0", "prod1", "prod2")
UNKNOWN_PRODUCT = "prod3"

PATIENCE_SECONDS = 5.0
"""How long a client waits for a reply before it retries."""


class SimulationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The parameters of one run. The same plan gives the same run, to the byte.

    `only` names the orders and faults that may happen (`order#1`, `kill#2`); None allows all of the
    seed. After `chaos_seconds` no fault is injected any more, and the system must be quiescent within
    `settle_seconds`; where clocks have jumped, later by the most they may have jumped.
    """

    seed: int
    orders: int = 5
    chaos_seconds: float = 60.0
    settle_seconds: float = 120.0
    only: tuple[str, ...] | None = None
    system: str = Settings().system


class SimulationResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a run: violations, injected faults, and the time until it was quiescent.

    `occurred` lists orders and faults in order; their labels, as `SimulationPlan.only`, repeat the
    run. `events` counts the records of its trace, and `digest` is their hash.
    """

    plan: SimulationPlan
    violations: tuple[Violation, ...]
    statuses: dict[str, int]
    faults: dict[str, int]
    occurred: tuple[Occurrence, ...]
    events: int
    settled_after_seconds: float | None
    digest: str


def simulate(plan: SimulationPlan) -> SimulationResult:
    """Run a plan in virtual time."""
    return replay(plan)[0]


def replay(plan: SimulationPlan) -> tuple[SimulationResult, Trace]:
    """Run a plan in virtual time; return its trace as well."""
    loop = VirtualLoop()
    simulation = _Run(plan, loop.time)
    with _quiet():
        try:
            run(loop, simulation.go())
        except Stuck as stuck:
            simulation.checker.fail("I3", str(stuck))
        finally:
            simulation.close()
    return simulation.result(), simulation.trace


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the logs of the services: a run has its trace."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


class _Run:
    """Builds the system of one run, its clients and its faults, and runs them."""

    def __init__(self, plan: SimulationPlan, now: Callable[[], float]) -> None:
        self.plan = plan
        self.trace = Trace(now)
        self._now = now
        self._faults = Faults(plan.seed, plan.only, self.trace, now)
        self._system = load_system(Settings(system=plan.system))
        self._databases = {
            service.name: SimulatedDatabase(service.name, service.package, self._faults)
            for service in self._system
        }
        self.checker = InvariantChecker(
            {name: database.bare() for name, database in self._databases.items()}
        )
        for database in self._databases.values():
            database.committed = self.checker.committed
        self._broker = MemoryBroker(
            messages_max=self._stream_limit(), hostility=FaultInjector(self._faults)
        )
        self._carrier = self._make_carrier()
        config = self._draw_config()
        self._services = self._system.build(
            self._draw_settings(), effects=booking_effects(self._carrier)
        )
        self._topology = Topology(self._services)
        self._nodes = {
            service.name: Node(
                service,
                self._databases[service.name],
                self._broker,
                self._topology,
                self._faults,
                self.checker,
                self.trace,
                config,
                Random(f"{plan.seed} restarts of {service.name}"),
            )
            for service in self._services
        }
        self._events = [event for event in EVENTS.values() if self._topology.readers(event)]
        self._poison_rows: list[Outgoing] = []
        self._poison_sent: list[tuple[int, Outgoing]] = []
        self._restocks: list[str] = []
        self._settled_after_seconds: float | None = None

    async def go(self) -> None:
        """Inject faults, heal, and check. Ends at the first violation."""
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        self._add_undecodable_rows()
        lives = [self._begin(node.live()) for node in self._nodes.values()]
        clients = [self._begin(self._set_products())]
        clients += [self._begin(self._place_order(n)) for n in range(1, self.plan.orders + 1)]
        injecting = self._start_faults()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.checker.violated.wait(), self.plan.chaos_seconds)
        for task in injecting:
            task.cancel()
        self._heal()
        await self._settle(clients)
        self._check()
        for task in (*lives, *clients):
            task.cancel()
        for node in self._nodes.values():
            node.crash("the end")

    def close(self) -> None:
        """Close the databases."""
        for database in self._databases.values():
            database.close()

    def result(self) -> SimulationResult:
        """Return the outcome."""
        return SimulationResult(
            plan=self.plan,
            violations=tuple(self.checker.violations),
            statuses=self.checker.statuses(),
            faults=dict(sorted(self._faults.counts.items())),
            occurred=tuple(self._faults.occurred),
            events=len(self.trace),
            settled_after_seconds=self._settled_after_seconds,
            digest=self.trace.digest(),
        )

    # The system.

    def _stream_limit(self) -> int | None:
        dice = self._faults.strike("small-stream")
        return dice.choice((4, 12)) if dice else None

    def _make_carrier(self) -> UnreliableCarrier:
        dice = Random(f"{self.plan.seed} carrier")
        carrier = SimulatedCarrier(
            success_rate=dice.choice((0.0, 0.5, 0.9, 1.0)), seed=dice.randrange(2**32)
        )
        return UnreliableCarrier(carrier, self._faults, self.checker, self.trace)

    def _draw_settings(self) -> Settings:
        dice = Random(f"{self.plan.seed} settings")
        return self._system.settings(carrier_delay_seconds=Span(0, dice.choice((0, 2))))

    def _draw_config(self) -> EngineConfig:
        """Draw how long the inbox remembers: a short time shows whether natural keys hold, a long one
        whether a duplicate gets a receipt."""
        dice = Random(f"{self.plan.seed} tuning")
        seconds = dice.choice((15.0, 90.0, 86_400.0))
        return msgspec.structs.replace(SIMULATION_CONFIG, inbox_retention_seconds=seconds)

    def _add_undecodable_rows(self) -> None:
        """Leave outbox rows of a newer version, since rolled back, that subscribers cannot decode."""
        publishers = {event.publisher for event in self._events}
        for name, database in self._databases.items():
            if name not in publishers:
                continue
            if dice := self._faults.strike("newer-version", name):
                row = poison.make_outbox_row(dice, name, self._topology, self._events)
                with Database.transaction(database) as connection:
                    outbox = self._nodes[name].service.store.tables.outbox
                    outbox.add(connection, f"{name}-0", 0, [row], VirtualClock().now())
                self.checker.committed(name)
                self._poison_rows.append(Outgoing(row.subject, row.body))

    def _begin(self, action: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task; an unexpected error in it is a violation."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()):
                self.checker.fail("I3", f"a task failed: {error!r}")

        task = asyncio.create_task(action)
        task.add_done_callback(ended)
        return task

    def _unhandled(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Handle a task that ended with an error nobody awaits; a crash at a failpoint is none."""
        error = context.get("exception")
        if not isinstance(error, Crashed):
            self.checker.fail("I3", f"{context['message']}: {error!r}")

    # Clients.

    async def _set_products(self) -> None:
        dice = Random(f"{self.plan.seed} stock")
        for product_id in PRODUCTS:
            command = SetProduct(
                product_id=product_id,
                name=product_id,
                price=100,
                stock_quantity=dice.randint(0, 3 * self.plan.orders),
            )
            with suppress(StockNotSettable):  # A retry, and sold or restocked meanwhile.
                await self._execute_until_answered("inventory", command)

    async def _place_order(self, number: int) -> None:
        """Place one order, and retry with the same id until it is answered."""
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
        for order in await asyncio.gather(
            *(self._execute_until_answered("orders", command) for _ in range(asks))
        ):
            self.checker.answered(order)

    async def _execute_until_answered(self, service: str, command: Any) -> Any:
        """Return a service's reply, after as many retries as it takes."""
        while True:
            reply = await self._execute(service, command)
            if reply is not None:
                return reply
            await asyncio.sleep(1)

    async def _execute(self, service: str, command: Any) -> Any:
        """Return a service's reply; None if there is none, or it refuses."""
        process = self._nodes[service].process
        if process is None:
            return None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await process.execute(command)
        except (TimeoutError, MailboxFull, ProcessFailed):
            return None

    # Faults.

    def _start_faults(self) -> list[asyncio.Task[None]]:
        """Start the faults that have a schedule."""
        faults: dict[str, Callable[[Random], Coroutine[Any, Any, None]]] = {
            "kill": self._kill,
            "stop": self._stop,
            "partition": self._partition,
            "outage": self._outage,
            "wipe": self._wipe,
            "purge": self._purge,
            "delete-durable": self._delete_durable,
            "database-away": self._take_database_away,
            "poison": self._poison_stream,
            "impossible-command": self._send_impossible_command,
            "restock": self._restock,
        }
        return [
            self._begin(
                self._inject_at(self._faults.schedule(kind, self.plan.chaos_seconds), inject)
            )
            for kind, inject in faults.items()
        ]

    async def _inject_at(
        self, times: Sequence[Occurrence], inject: Callable[[Random], Coroutine[Any, Any, None]]
    ) -> None:
        for planned in times:
            await asyncio.sleep(max(0.0, planned.at - self._now()))
            if dice := self._faults.happen(planned.kind, planned.label):
                await inject(dice)

    async def _kill(self, dice: Random) -> None:
        self._any_node(dice).crash("killed")

    async def _stop(self, dice: Random) -> None:
        self._begin(self._any_node(dice).stop())  # It ends by itself, also after healing.

    async def _partition(self, dice: Random) -> None:
        node = self._any_node(dice)
        node.disconnect()
        await asyncio.sleep(dice.uniform(0, 15))
        node.reconnect()

    async def _outage(self, dice: Random) -> None:
        self._broker.stop()
        await asyncio.sleep(dice.uniform(0, 10))
        if dice.random() < 0.3:
            self.trace.note("world", "fault", "the disk of the broker is wiped")
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
        database = self._any_node(dice).database
        database.away = True
        await asyncio.sleep(dice.uniform(0, 10))
        database.away = False

    async def _poison_stream(self, dice: Random) -> None:
        if not self._broker.running:
            return
        message = poison.make_message(dice, self._events)
        self.trace.note("world", "poison", message.subject, message.body)
        self._poison_sent.append((self._broker.last_sequence + 1, message))
        self._broker.store([message])

    async def _send_impossible_command(self, _: Random) -> None:
        """Send a command that the tables refuse: it must not affect any other."""
        with suppress(ConstraintViolated):
            if await self._execute(
                "inventory", SetProduct(product_id="free", name="free", price=0)
            ):
                self.checker.fail("I1", "a product that the tables refuse was confirmed")

    async def _restock(self, dice: Random) -> None:
        command = Restock(
            product_id=dice.choice(PRODUCTS),
            quantity=dice.randint(1, 3),
            note=f"restock {dice.getrandbits(32):08x}",
        )
        with suppress(UnknownProduct):
            if await self._execute("inventory", command):
                self._restocks.append(str(command.note))

    def _any_node(self, dice: Random) -> Node:
        return self._nodes[dice.choice(tuple(self._nodes))]

    # The end.

    def _heal(self) -> None:
        self._faults.heal()
        self.trace.note("world", "heal")
        self._broker.start()
        for node in self._nodes.values():
            node.reconnect()
            node.database.away = False

    async def _settle(self, clients: Sequence[asyncio.Task[None]]) -> None:
        """Wait until the system is quiescent, within the limit of the plan."""
        healed = self._now()
        limit = self.plan.settle_seconds
        if self._faults.counts["clock-jump"]:
            limit += 2 * CLOCK_JUMP_SECONDS_MAX
        while not self.checker.violated.is_set():
            await asyncio.sleep(1)
            waiting = self._not_quiescent(clients)
            if not waiting:
                self._settled_after_seconds = self._now() - healed
                return
            if self._now() - healed > limit:
                orders = [
                    order_id for order_id in self.checker.accepted if order_id in " ".join(waiting)
                ]
                self.checker.fail("I3", f"after {limit:.0f} s {'; '.join(waiting)}", *orders)

    def _not_quiescent(self, clients: Sequence[asyncio.Task[None]]) -> list[str]:
        waiting = self.checker.not_quiescent()
        if unanswered := sum(not client.done() for client in clients):
            waiting.append(f"{unanswered} commands were never answered")
        return waiting or self.checker.unparked(self._lasting_poison(), self._subjects_read())

    def _lasting_poison(self) -> list[Outgoing]:
        """Return the poison that every subscriber must reach, because nothing has removed it."""
        return self._poison_rows + [
            message
            for place, message in self._poison_sent
            if self._broker.messages.get(place) is message
        ]

    def _subjects_read(self) -> dict[str, list[str]]:
        return {
            service.name: [event.subject for event in service.event_handlers]
            for service in self._services
        }

    def _check(self) -> None:
        """Check the invariants at the end."""
        if self.checker.violated.is_set():
            return
        with ExitStack() as stack:
            connections = {
                name: stack.enter_context(database.read())
                for name, database in self._databases.items()
            }
            report = self._system.audit(
                connections, VirtualClock().now(), overdue_after=timedelta(0)
            )
        self.checker.check_report(report)
        self.checker.check_histories()
        self.checker.check_bookings(self._carrier.answers)
        self.checker.check_restocks(self._restocks)
        sent = [message for _, message in self._poison_sent]
        self.checker.check_dead_letters(self._poison_rows + sent)


def _uuid7(seconds: float, random: Random) -> str:
    """Return a UUIDv7 of the virtual time."""
    milliseconds = int(START.timestamp() * 1000 + seconds * 1000)
    value = (milliseconds & (2**48 - 1)) << 80 | random.getrandbits(80)
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))
