"""Run processes of services in tests."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from todoku.broker.memory import MemoryBroker
from todoku.database import Database
from todoku.engine.clock import Clock
from todoku.engine.config import EngineConfig
from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.process import Process
from todoku.engine.service import Service, Topology
from todoku.engine.testing.virtual_time import VirtualClock, VirtualLoop
from todoku.engine.testing.virtual_time import run as run_on

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine, and the tasks that it starts, in virtual time: an hour passes at once, and
    always in the same order."""
    return run_on(VirtualLoop(), main)


async def inline(function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a plain function here and now: what a process needs as `run_write` and `run_read`."""
    return function(*arguments)


async def until(
    condition: Callable[[], bool], seconds: float = 600.0, every_seconds: float = 0.01
) -> None:
    """Wait until `condition()` holds. Raises `TimeoutError` after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing signals what is polled from outside
            await asyncio.sleep(every_seconds)


def memory_database(service: Service) -> Database:
    """Create a database in memory with the tables of a service and of the engine."""
    database = Database.in_memory()
    with database.transaction() as connection:
        service.store.metadata.create_all(connection)
    return database


def make_process(
    service: Service,
    broker: MemoryBroker,
    topology: Topology,
    database: Database,
    *,
    owner: str | None = None,
    clock: Clock | None = None,
    config: EngineConfig | None = None,
    failpoint: Failpoint = no_failpoint,
) -> Process:
    """Make a process of a service. To restart it, make another one with the same database and another
    `owner`."""
    return Process(
        service,
        database,
        broker.session(service.name),
        topology,
        owner=owner or f"{service.name}-1",
        clock=clock or VirtualClock(),
        run_write=inline,
        run_read=inline,
        config=config,
        failpoint=failpoint,
    )


class RunningProcess:
    """A process that runs as a task. Make one inside an event loop, then await `started`."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._stop = asyncio.Event()
        self._task = asyncio.create_task(process.run(self._stop), name=process.service.name)

    async def started(self) -> None:
        """Wait until the process has started. Raises what keeps it from that."""
        waiting = asyncio.create_task(self.process.started())
        await asyncio.wait([waiting, self._task], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            waiting.cancel()
            self._task.result()
        await waiting

    async def stop(self) -> None:
        """Let the process finish its work and end. Raises the error of a loop that failed."""
        self._stop.set()
        await self._task

    async def ended(self) -> None:
        """Wait until the process ends by itself. Raises the error of the loop that failed."""
        await self._task

    def kill(self) -> None:
        """End the process as `kill -9` does: nothing is finished, sent or acknowledged any more."""
        self.process.abandon()
        self._task.cancel()

    def raise_if_failed(self) -> None:
        """Raise the error of a loop that has failed by now."""
        if self._task.done() and not self._task.cancelled():
            self._task.result()


@asynccontextmanager
async def running(process: Process) -> AsyncIterator[Process]:
    """Run a process for as long as the block lasts. Raises the error of a loop that failed."""
    run = RunningProcess(process)
    await run.started()
    try:
        yield process
    finally:
        await run.stop()
