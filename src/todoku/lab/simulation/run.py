"""Runs one simulation: inject faults, heal, wait until quiescent, check the invariants."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from logging import CRITICAL
from random import Random
from typing import Any

import msgspec
import structlog

from todoku.broker.memory import MemoryBroker
from todoku.broker.partitions import NUMBERS
from todoku.engine import EngineConfig, Service, Topology
from todoku.lab.simulation.database import ExclusiveDatabase, SharedDatabase, SimulatedDatabase
from todoku.lab.simulation.disturbances import Disturbances
from todoku.lab.simulation.faults import Faults, Occurrence
from todoku.lab.simulation.invariants import InvariantChecker
from todoku.lab.simulation.loop import Stuck, VirtualClock, VirtualLoop, run
from todoku.lab.simulation.message_limit import MessageLimit
from todoku.lab.simulation.network import FaultInjector
from todoku.lab.simulation.node import CLOCK_JUMP_SECONDS_MAX, SIMULATION_CONFIG, Crashed, Node
from todoku.lab.simulation.part import ServiceWorld, unreliable
from todoku.lab.simulation.pauses import PauseChecker, Pausing
from todoku.lab.simulation.plan import SimulationPlan, SimulationResult
from todoku.lab.simulation.replicas import QUIET_SECONDS, ReplicaChecker
from todoku.lab.simulation.restores import Restores
from todoku.lab.simulation.row_locks import Row
from todoku.lab.simulation.trace import Trace
from todoku.lab.simulation.wiring import Wire, as_it_is
from todoku.settings import Settings
from todoku.simulated import Action
from todoku.system import load_system

SHARED_SHARE = 0.15
"""How often the processes of a service share a database: such a run takes longer."""

REPLICAS = (1, 2, 2, 3)
"""How many processes share a database, one of these."""

LEASE_SECONDS = 30.0
"""Longer than by default, so that a run takes less time: leases are renewed less often."""

RESTORED_SECONDS = 120.0
"""How much longer it takes if a database was restored last: the stream is read again, and what was lost
waits for its pickup again."""

ID_LENGTH = 36
"""The length of an order's id."""


def simulate(plan: SimulationPlan, wire: Wire = as_it_is) -> SimulationResult:
    """Run a plan in virtual time; `wire` replaces what processes are made of."""
    return replay(plan, wire)[0]


def replay(plan: SimulationPlan, wire: Wire = as_it_is) -> tuple[SimulationResult, Trace]:
    """Run a plan in virtual time; return its trace as well."""
    loop = VirtualLoop()
    simulation = _Run(plan, loop.time, wire)
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
    """Builds the system of one run, with its clients and its faults, and runs them."""

    def __init__(self, plan: SimulationPlan, now: Callable[[], float], wire: Wire) -> None:
        self.plan = plan
        self._wire = wire
        self.trace = Trace(now)
        self._now = now
        self._system = load_system(Settings(system=plan.system))
        self._faults = Faults(plan.seed, plan.only, self.trace, now)
        self._replicas = self._draw_replicas()
        self._databases = {
            each.name: self._open_database(each.name, each.package) for each in self._system
        }
        self.checker = InvariantChecker(self._databases)
        self._worlds = {
            name: ServiceWorld(name, plan, self._faults, self.checker, self.trace, now)
            for name in self._system.names
        }
        self._parts = {each.name: each.simulated(self._worlds[each.name]) for each in self._system}
        self.checker.parts = self._parts
        self._services = self._build_services()
        self._broker = MemoryBroker(
            messages_max=self._stream_limit(), hostility=FaultInjector(self._faults)
        )
        self._topology = Topology(self._services)
        self._config = self._draw_config()
        self._pause_checkers = {
            service.name: PauseChecker(service, self._databases[service.name], self.checker.fail)
            for service in self._services
        }
        self._nodes = self._build_nodes()
        self._replica_checkers = self._check_replicas()
        for database in self._databases.values():
            database.committed = self._committed
        events = [event for event in self._topology.registry if self._topology.readers(event)]
        self._disturbances = Disturbances(
            self._nodes,
            self._broker,
            self._topology,
            events,
            self._faults,
            self.checker,
            self.trace,
        )
        self._restores = Restores(
            self._nodes,
            self._broker,
            self._parts,
            self._worlds,
            self._faults,
            self.checker,
            self._pause_checkers,
        )
        self._message_limit = MessageLimit(self._broker, self._worlds, self._faults, self.checker)
        self._pausing = Pausing(self._services, self._worlds, plan.seed)
        self._settled_after_seconds: float | None = None

    async def go(self) -> None:
        """Inject faults, heal, and check. Ends at the first violation."""
        asyncio.get_running_loop().set_exception_handler(self._unhandled)
        self._disturbances.add_undecodable_rows()
        machines = [self._begin(node.live()) for node in self._nodes.values()]
        clients = [
            self._begin(client) for part in self._parts.values() for client in part.clients()
        ]
        operator = self._begin(self._message_limit.operate())
        injecting = self._start_faults()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.plan.chaos_seconds):
                await self.checker.violated.wait()
        for task in injecting:
            task.cancel()
        self._heal()
        await self._settle(clients)
        self._check()
        for task in (*machines, *clients, operator, self._resuming):
            task.cancel()
        self._restores.cancel()
        for node in self._nodes.values():
            node.crash("the end")

    def close(self) -> None:
        """End the threads, and close the databases."""
        for node in self._nodes.values():
            node.close()
        for database in self._databases.values():
            database.close()

    def result(self) -> SimulationResult:
        """Return the outcome."""
        return SimulationResult(
            plan=self.plan,
            violations=tuple(self.checker.violations),
            statuses=self.checker.outcome(),
            faults=dict(sorted(self._faults.counts.items())),
            occurred=tuple(self._faults.occurred),
            events=len(self.trace),
            settled_after_seconds=self._settled_after_seconds,
            digest=self.trace.digest(),
        )

    # The system.

    def _build_services(self) -> list[Service]:
        settings = self._settings()
        return [self._build_service(name, settings) for name in self._system.names]

    def _settings(self) -> Settings:
        parts = self._parts.values()
        values = {name: value for part in parts for name, value in part.settings().items()}
        return self._system.settings(**values)

    def _build_service(self, name: str, settings: Settings) -> Service:
        effects = self._parts[name].effects()
        if effects is not None:
            return self._system[name].build(settings, effects=effects)
        service = self._system[name].build(settings)
        if not service.effects:
            return service
        effects = unreliable(service.effects, self._worlds[name])
        return self._system[name].build(settings, effects=effects)

    def _draw_replicas(self) -> dict[str, int]:
        """Return how many processes share the database of a service, for those that share one."""
        if self.plan.replicas == 1:
            return {}
        drawn = {}
        for name in self._system.names:
            dice = Random(f"{self.plan.seed} replicas of {name}")
            if self.plan.replicas or dice.random() < SHARED_SHARE:
                drawn[name] = self.plan.replicas or dice.choice(REPLICAS)
        return drawn

    def _open_database(self, name: str, package: str) -> SimulatedDatabase:
        if name not in self._replicas:
            return ExclusiveDatabase(name, package, self._faults)

        def unlocked(row: Row) -> None:
            self.checker.fail("R1", f"{name} changed {row.table} {row.key} without locking it")

        return SharedDatabase(name, package, self._faults, unlocked)

    def _build_nodes(self) -> dict[str, Node]:
        nodes = {}
        for service in self._services:
            here = [
                self._build_node(service, n) for n in range(self._replicas.get(service.name, 1))
            ]
            self._worlds[service.name].nodes = here
            nodes.update({node.name: node for node in here})
        return nodes

    def _build_node(self, service: Service, number: int) -> Node:
        name = f"{service.name}.{number + 1}" if number else service.name
        return Node(
            name,
            service,
            self._databases[service.name],
            self._broker,
            self._topology,
            self._faults,
            self.checker,
            self.trace,
            self._config_of(service.name),
            Random(f"{self.plan.seed} restarts of {name}"),
            self._wire,
            self._pause_checkers[service.name].watch,
            Random(f"{self.plan.seed} partitions at {name}") if not self.plan.partitions else None,
        )

    def _check_replicas(self) -> dict[str, ReplicaChecker]:
        return {
            name: ReplicaChecker(
                database,
                self._worlds[name].nodes,
                LEASE_SECONDS,
                self.checker.fail,
            )
            for name, database in self._databases.items()
            if isinstance(database, SharedDatabase)
        }

    def _committed(self, service: str) -> None:
        self.checker.committed(service)
        self._pause_checkers[service].check_commit()
        if service in self._replica_checkers:
            self._replica_checkers[service].check_commit()

    def _stream_limit(self) -> int | None:
        dice = self._faults.strike("small-stream")
        return dice.choice((4, 12)) if dice else None

    def _draw_config(self) -> EngineConfig:
        """Draw how long the inbox keeps its entries: a short time shows whether natural keys hold, a long one
        whether a duplicate gets a receipt."""
        dice = Random(f"{self.plan.seed} tuning")
        seconds = dice.choice((15.0, 90.0, 86_400.0))
        return msgspec.structs.replace(
            SIMULATION_CONFIG,
            inbox_retention_seconds=seconds,
            partitions=self.plan.partitions
            or Random(f"{self.plan.seed} partitions").choice(NUMBERS),
        )

    def _config_of(self, service: str) -> EngineConfig:
        if service not in self._replicas:
            return self._config
        return msgspec.structs.replace(self._config, lease_seconds=LEASE_SECONDS)

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

    # Faults.

    def _start_faults(self) -> list[asyncio.Task[None]]:
        """Start the faults, and the actions of the services, that have a schedule."""
        actions = {
            **self._disturbances.actions(),
            **self._restores.actions(),
            **self._message_limit.actions(),
            **self._pausing.actions(),
        }
        for part in self._parts.values():
            for kind, each in part.scheduled().items():
                self._faults.add_kind(kind, each.family, each.mean_seconds)
                actions[kind] = each.action
        return [
            self._begin(self._run_at(self._faults.schedule(kind, self.plan.chaos_seconds), action))
            for kind, action in actions.items()
        ]

    async def _run_at(self, times: Sequence[Occurrence], action: Action) -> None:
        for planned in times:
            await asyncio.sleep(max(0.0, planned.at - self._now()))
            if dice := self._faults.happen(planned.kind, planned.label):
                await action(dice)

    # The end.

    def _heal(self) -> None:
        self._faults.heal()
        self.trace.note("world", "heal")
        self._disturbances.heal()
        self._message_limit.heal()
        if not self.plan.partitions:
            for node in self._nodes.values():
                node.agree_on_partitions()
        self._resuming = self._begin(self._pausing.resume_all())

    async def _settle(self, clients: Sequence[asyncio.Task[None]]) -> None:
        """Wait until the system is quiescent, within the limit of the plan."""
        healed = self._now()
        limit = self.plan.settle_seconds
        if self._faults.counts["clock-jump"] + self._faults.counts["set-clock"]:
            limit += 2 * CLOCK_JUMP_SECONDS_MAX
        if self._faults.counts["restore"]:
            limit += RESTORED_SECONDS
        while not self.checker.violated.is_set():
            await asyncio.sleep(1)
            waiting = self._not_quiescent(clients)
            if not waiting:
                self._settled_after_seconds = self._now() - healed
                await self._watch_replicas(healed)
                return
            if self._now() - healed > limit:
                words = " ".join(waiting).split()
                orders = [word for word in words if len(word) == ID_LENGTH]
                self.checker.fail("I3", f"after {limit:.0f} s {'; '.join(waiting)}", *orders)

    async def _watch_replicas(self, healed: float) -> None:
        """Watch the leases for a while in which nothing else happens."""
        for _ in range(QUIET_SECONDS if self._replica_checkers else 0):
            await asyncio.sleep(1)
            for checker in self._replica_checkers.values():
                checker.check_leases(healed)

    def _not_quiescent(self, clients: Sequence[asyncio.Task[None]]) -> list[str]:
        waiting = self.checker.not_quiescent()
        if unanswered := sum(not client.done() for client in clients):
            waiting.append(f"{unanswered} clients have got no reply")
        waiting += self._restores.unfinished() + self._message_limit.unfinished()
        waiting += self._pausing.unfinished()
        return waiting or self.checker.unhandled(
            self._disturbances.lasting_poison(), self._subjects_read()
        )

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
        poison = self._disturbances.all_poison()
        self.checker.check_report(report, poison)
        self.checker.check_end()
        self.checker.check_deliveries()
        self.checker.check_dead_letters(poison)
