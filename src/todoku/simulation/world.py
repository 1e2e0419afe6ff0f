"""The simulated world: service processes that die, a hostile broker, a carrier that mumbles."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import cache
from random import Random
from typing import Any

from todoku.broker.memory import MemoryBroker, MemorySession
from todoku.database import Database, migrate
from todoku.engine import Process, Service, Topology, Tuning
from todoku.shipping.carriers import SimulatedCarrier
from todoku.shipping.domain import Answer, Parcel, Unknown
from todoku.simulation.loop import VirtualClock


class Crashed(BaseException):
    """The process has died at a failpoint, as by `kill -9`."""


@cache
def empty_database(service: str) -> bytes:
    """A migrated, empty database of a service: a template, because migrating takes long."""
    with Database.in_memory() as database:
        migrate(database, f"todoku.{service}")
        return database.serialize()


async def inline(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a plain function right here: in the simulated world nothing else can happen meanwhile."""
    return function(*arguments)


class Node:
    """One service's machine: its disk outlives its processes."""

    def __init__(
        self, service: Service, broker: MemoryBroker, topology: Topology, random: Random
    ) -> None:
        self.service = service
        self.database = Database.in_memory(empty_database(service.name))
        self.process: Process | None = None
        self.crash_probability = 0.0
        self.crashes: Counter[str] = Counter()
        self.tuning = Tuning(
            batch_max=8,
            credit=16,
            window_max=16,
            inbox_retention_seconds=90.0,
            effect_timeout_seconds=10.0,
        )
        self._broker = broker
        self._topology = topology
        self._random = random
        self._session: MemorySession | None = None
        self._starts = 0
        self.errors: list[Exception] = []

    async def start(self) -> None:
        """Start a process on what is on the disk."""
        self._starts += 1
        self._session = self._broker.session(self.service.name)
        process = Process(
            self.service,
            self.database,
            self.service.store.tables,
            self._session,
            self._topology,
            owner=f"{self.service.name}-{self._starts}",
            clock=VirtualClock(),
            run_write=inline,
            run_read=inline,
            tuning=self.tuning,
            failpoint=self._failpoint,
        )
        await process.start()
        self.process = process
        self._watcher = asyncio.create_task(self._watch(process))

    async def _watch(self, process: Process) -> None:
        """A loop that fails ends its process; unless it was meant to, that is a finding."""
        try:
            await process.failed()
        except Crashed:
            pass
        except Exception as error:
            self.errors.append(error)
            self.crash()

    def crash(self) -> None:
        """Die. What the process did is on the disk; what it was about to do never happens."""
        process, self.process = self.process, None
        if self._session is not None:
            self._session.kill()
        if process is not None:
            process.abandon()

    def _failpoint(self, point: str) -> None:
        if self.crash_probability and self._random.random() < self.crash_probability:
            self.crashes[point] += 1
            self.crash()
            raise Crashed(point)


class MumblingCarrier:
    """A simulated carrier whose answers get lost: it remembers what it has really taken."""

    def __init__(self, random: Random, *, success_rate: float) -> None:
        self.mumbling = 0.0
        self.mumbled: Counter[str] = Counter()
        self.answers: dict[str, Answer] = {}
        self.orders: dict[str, str] = {}
        self._random = random
        self._carrier = SimulatedCarrier(success_rate=success_rate, seed=random.randrange(2**32))

    async def book(self, key: str, parcel: Parcel) -> Answer:
        fault = self._random.choice(("before", "after", "late")) if self._mumbles() else None
        if fault == "before":
            raise ConnectionError("the carrier could not be reached")
        answer = await self._carrier.book(key, parcel)
        self.answers[key] = answer
        self.orders[key] = parcel.order_id
        if fault == "after":
            return Unknown("the carrier's answer was lost")
        if fault == "late":
            await asyncio.sleep(self._random.uniform(0, 30))
        return answer

    def _mumbles(self) -> bool:
        strikes = self._random.random() < self.mumbling
        self.mumbled["mumbled"] += strikes
        return strikes
