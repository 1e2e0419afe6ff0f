"""Connects the services' parts of the simulation with the run."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

from todoku.database import DatabaseError, DatabaseUnavailable
from todoku.engine import (
    EventTooLarge,
    IdempotencyKey,
    MailboxFull,
    ProcessFailed,
    RequestInProgress,
)
from todoku.identity.keys import ApiKey
from todoku.lab.simulation.faults import Faults
from todoku.lab.simulation.invariants import InvariantChecker
from todoku.lab.simulation.loop import START
from todoku.lab.simulation.trace import Trace
from todoku.simulated import Effects

if TYPE_CHECKING:
    from todoku.lab.simulation.node import Node
    from todoku.lab.simulation.plan import SimulationPlan

R = TypeVar("R")

PATIENCE_SECONDS = 5.0
"""How long a client waits for a reply before it retries."""

EFFECT_SECONDS_MAX = 30.0

NO_REPLY = (
    TimeoutError,
    MailboxFull,
    ProcessFailed,
    RequestInProgress,
    EventTooLarge,
    DatabaseUnavailable,
)
"""What a client retries: nothing was executed, or nobody knows."""


class ServiceWorld:
    """The run as one service's part sees it: a `todoku.simulated.World`."""

    def __init__(
        self,
        service: str,
        plan: "SimulationPlan",
        faults: Faults,
        checker: InvariantChecker,
        trace: Trace,
        now: Callable[[], float],
    ) -> None:
        self.orders = plan.orders
        self.seconds = plan.chaos_seconds
        self.start = START
        self.nodes: Sequence[Node] = ()
        """The machines that run the service, once there are any."""
        self.fail = checker.fail
        self.happen = faults.happen
        self._service = service
        self._seed = plan.seed
        self._faults = faults
        self._checker = checker
        self._trace = trace
        self._now = now
        self._choice = self.random(f"replica of {service}")
        self._reader = self.random(f"reader of {service}")

    @property
    def clocks_differ(self) -> bool:
        set_clocks = self._faults.counts["clock-jump"] + self._faults.counts["set-clock"]
        return len(self.nodes) > 1 and set_clocks > 0

    @property
    def able_since(self) -> float:
        return min(
            (n.able_since for n in self.nodes if n.able_since is not None), default=self._now()
        )

    def random(self, name: str) -> Random:
        return Random(f"{self._seed} {name}")

    def new_id(self, random: Random) -> str:
        milliseconds = int(START.timestamp() * 1000 + self._now() * 1000)
        value = (milliseconds & (2**48 - 1)) << 80 | random.getrandbits(80)
        value = value & ~(0xF << 76) | 0x7 << 76
        value = value & ~(0x3 << 62) | 0x2 << 62
        return str(UUID(int=value))

    def rows(self, statement: str, *parameters: object) -> Sequence[tuple[Any, ...]]:
        return self._checker.rows(self._service, statement, *parameters)

    def rows_of(self, service: str, statement: str) -> Sequence[tuple[Any, ...]]:
        return self._checker.rows(service, statement)

    def is_stored(self, event_id: str) -> bool:
        return self._checker.is_stored(event_id)

    async def execute(self, command: Any, key: IdempotencyKey | None = None) -> Any:
        if not self.nodes:
            return None
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                nodes = [node for node in self.nodes if not node.retired]
                return await self._choice.choice(nodes).execute(command, key)
        except NO_REPLY:
            return None

    async def execute_until_answered(self, command: Any) -> Any:
        while True:
            reply = await self.execute(command)
            if reply is not None:
                return reply
            await asyncio.sleep(1)

    async def change_key(self, key: ApiKey) -> bool:
        nodes = [node for node in self.nodes if not node.retired]
        return await self._choice.choice(nodes).change_key(key) if nodes else False

    async def read(self, query: Callable[[Any, Any], R]) -> tuple[bool, R | None]:
        node = self._reader.choice(self.nodes)
        if node.process is None:
            return False, None
        try:
            with node.database.read() as connection:
                return True, query(node.process.service, connection)
        except DatabaseUnavailable:
            return False, None

    async def keep_up(self) -> None:
        process = self._reader.choice(self.nodes).process
        if process is None:
            return
        with suppress(DatabaseError):
            for change in process.service.upkeep:
                await process.transact(change)

    def inject(self, fault: str) -> Random | None:
        return self._faults.strike(fault, self._service)

    def note(self, what: str, text: str) -> None:
        self._trace.note("world", what, text)


def unreliable(effects: Effects, world: ServiceWorld) -> Effects:
    """Return effects whose calls fail, lose their reply or come late."""
    return {effect: _unreliable(handler, world) for effect, handler in effects.items()}


def _unreliable(
    handler: Callable[[Any], Awaitable[Any]], world: ServiceWorld
) -> Callable[[Any], Awaitable[Any]]:
    async def call(effect: Any) -> Any:
        if world.inject("effect-unreachable"):
            raise ConnectionError("what the effect calls is unreachable")
        result = await handler(effect)
        if world.inject("effect-reply-lost"):
            raise ConnectionError("the reply to the effect was lost")
        if random := world.inject("effect-late"):
            await asyncio.sleep(random.uniform(0, EFFECT_SECONDS_MAX))
        return result

    return call
