"""Simulated machines: each runs one service, crashes at failpoints, and starts again."""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from todoku.broker.memory import MemoryBroker
from todoku.broker.partitions import NUMBERS
from todoku.database import DatabaseBroken, DatabaseError, DatabaseUnavailable
from todoku.engine import (
    EngineConfig,
    IdempotencyKey,
    PostCommitActions,
    Process,
    RetryPolicy,
    Service,
    SteadyClock,
    Topology,
)
from todoku.identity.keys import ApiKey
from todoku.lab.simulation.database import SharedDatabase, SimulatedDatabase
from todoku.lab.simulation.faults import Faults
from todoku.lab.simulation.invariants import InvariantChecker
from todoku.lab.simulation.loop import START
from todoku.lab.simulation.network import SimulatedSession
from todoku.lab.simulation.replicas import interrupt_unlocked, watch_due_rows
from todoku.lab.simulation.stepped import SteppedThread
from todoku.lab.simulation.trace import Trace
from todoku.lab.simulation.wiring import Execute, Parts, Wire, execute

SIMULATION_CONFIG = EngineConfig(
    batch_max=8,
    credit=16,
    window_max=16,
    effect_timeout_seconds=10.0,
    retry_policy=RetryPolicy(
        failing_attempts_max=3, unknown_attempts_max=4, backoff_seconds_max=4.0
    ),
)
"""Small limits, so that a handful of orders reaches each of them within a minute."""

CLOCK_JUMP_SECONDS_MAX = 180.0
COMMIT_SECONDS_MAX = 5.0
STALL_SECONDS_MAX = 45.0
"""Longer than a lease lasts."""

RESTART_SECONDS_MAX = 2.0


class Crashed(BaseException):
    """The process crashed at a failpoint, as by `kill -9`."""


class Node:
    """A machine that runs processes of one service, one after the other. The database outlives them, and
    may be shared with other machines.

    `owner` is the name of the current process in the outbox, `clock_offset` how far its clock is ahead,
    `clock_was_set` whether that has changed while a process ran, and `able_since` since when it can write,
    None while it cannot. One that is `retired` runs no further process.
    """

    def __init__(
        self,
        name: str,
        service: Service,
        database: SimulatedDatabase,
        broker: MemoryBroker,
        topology: Topology,
        faults: Faults,
        checker: InvariantChecker,
        trace: Trace,
        config: EngineConfig,
        random: Random,
        wire: Wire,
        watch: Wire,
        partitions: Random | None = None,
    ) -> None:
        self.name = name
        self.service = service
        self.database = database
        self.owner = ""
        self.clock_offset = 0.0
        self.clock_was_set = False
        self.able_since: float | None = None
        self.retired = False
        self.process: Process | None = None
        self._broker = broker
        self._topology = topology
        self._faults = faults
        self._checker = checker
        self._trace = trace
        self._config = config
        self._random = random
        self._partitions = partitions
        self._wire = wire
        self._watch = watch
        self._execute: Execute = execute
        self._session: SimulatedSession | None = None
        self._disconnected = False
        self._starting: Process | None = None
        self._life: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()
        self._starts = 0
        self._thread = SteppedThread() if isinstance(database, SharedDatabase) else None
        self._turn = asyncio.Lock()
        self._changing: set[asyncio.Task[None]] = set()

    async def live(self) -> None:
        """Run a process, and another when it ends, until it is retired, as `todoku up` does."""
        while not self.retired:
            self._life = asyncio.create_task(self._run())
            await asyncio.wait([self._life])
            await asyncio.sleep(self._random.uniform(0.1, RESTART_SECONDS_MAX))

    def crash(self, why: str) -> None:
        """Crash the process: what it committed stays, what it had not done yet never happens."""
        self._trace.note(self.name, "crash", why)
        process, self._starting, self.process = self._starting, None, None
        self.able_since = None
        if self._session is not None:
            self._session.kill()
        if process is not None:
            process.abandon()
        for changing in self._changing:
            changing.cancel()
        if self._life is not None:
            self._life.cancel()

    async def stop(self) -> None:
        """Stop gracefully, as on SIGTERM."""
        stopping, self.process = self.process, None
        if self._changing:  # A server answers its requests before its process ends.
            await asyncio.wait(self._changing)
        if stopping is not None and self._life is not None:
            self._stop.set()
            await asyncio.wait([self._life])

    def close(self) -> None:
        """End the thread of the writer."""
        if self._thread is not None:
            self._thread.close()

    async def execute(self, command: Any, key: IdempotencyKey | None = None) -> Any:
        """Send a command to the process; return its result, None if no process runs."""
        process = self.process
        return None if process is None else await self._execute(process, command, key)

    async def change_key(self, key: ApiKey) -> bool:
        """Let the process save and publish an API key; return whether it has answered that it did."""
        if self.process is None:
            return False
        changing = asyncio.create_task(self.process.change_key(key))
        self._changing.add(changing)
        changing.add_done_callback(self._changing.discard)
        await asyncio.wait([changing])
        if changing.cancelled():
            return False
        error = changing.exception()
        if error is not None and not isinstance(error, (Crashed, DatabaseError)):
            raise error
        return error is None

    def disconnect(self) -> None:
        """Lose the connection to the broker, which other nodes keep."""
        self._disconnected = True
        if self._session is not None:
            self._session.cut()

    def reconnect(self) -> None:
        """Restore the connection to the broker."""
        self._disconnected = False
        if self._session is not None:
            self._session.restore()

    def set_clock(self, offset_seconds: float) -> None:
        """Set the wall clock of the machine, while a process may be running."""
        self._trace.note(self.name, "clock", f"is set to {offset_seconds:+.0f} s")
        self.clock_offset, self.clock_was_set = offset_seconds, True

    async def _run(self) -> None:
        """Run one process, from its start to its end."""
        name = self.service.name
        self._session = SimulatedSession(
            self._broker, name, self._checker, self._trace, where=self.name
        )
        if self._disconnected:
            self._session.cut()
        process = self._starting = self._make_process(self._session)
        self._stop = asyncio.Event()
        starting = asyncio.create_task(self._note_start(process))
        try:
            await process.run(self._stop)
        except (DatabaseBroken, DatabaseUnavailable) as error:
            # After a disk error the process cannot know what was written: it ends.
            self.crash(str(error))
        except Exception as error:
            self._checker.fail("I3", f"a process of {name} failed: {error!r}")
            self.crash(repr(error))
        except Crashed:
            pass  # `crash` has already discarded what the process had in memory.
        finally:
            starting.cancel()

    async def _note_start(self, process: Process) -> None:
        await process.started()
        if process is self._starting:
            self.process = process
            self.able_since = asyncio.get_running_loop().time()

    def _make_process(self, session: SimulatedSession) -> Process:
        self._starts += 1
        jump = self._faults.strike("clock-jump", self.name)
        offset = jump.uniform(-CLOCK_JUMP_SECONDS_MAX, CLOCK_JUMP_SECONDS_MAX) if jump else 0.0
        self._trace.note(self.name, "start", f"with a clock offset of {offset:+.0f} s")
        self.owner, self.clock_offset = f"{self.name}-{self._starts}", offset
        parts = self._watch(self._wire(self._parts(session)))
        if isinstance(self.database, SharedDatabase):
            parts = watch_due_rows(parts, self.database, self._checker.fail)
            parts = interrupt_unlocked(parts, self.database)
        self._execute = parts.execute
        return Process(
            parts.service,
            parts.database,
            parts.broker,
            self._topology,
            owner=self.owner,
            clock=SteadyClock(self._wall, asyncio.get_running_loop().time),
            run_write=self._write_in_turn,
            run_read=_at_once,
            config=parts.config,
            failpoint=parts.failpoint,
        )

    def _wall(self) -> float:
        return START.timestamp() + asyncio.get_running_loop().time() + self.clock_offset

    def _parts(self, session: SimulatedSession) -> Parts:
        return Parts(
            service=self.service,
            database=self.database,
            broker=session,
            config=self._draw_partitions(),
            failpoint=self._failpoint,
        )

    def agree_on_partitions(self) -> None:
        """Start again, and always read in the number of partitions of the run, as all others do: an operator
        ends a change of that setting."""
        self._partitions = None
        self.crash("killed at the end of a change of the setting")

    def _draw_partitions(self) -> EngineConfig:
        """Return the limits of a process, which may read in another number of partitions than the last."""
        if self._partitions is None:
            return self._config
        return msgspec.structs.replace(self._config, partitions=self._partitions.choice(NUMBERS))

    async def _write_in_turn(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Write to the database, one transaction after the other: also after one that the process before has
        left, which ends when its thread notices."""
        async with self._turn:
            return await self._write(function, *arguments)

    async def _write(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Write to the database, with injected delays before and after."""
        if self._thread is not None:
            await self._stall()
        slow = self._faults.strike("slow-commit", self.name)
        seconds = slow.uniform(0, COMMIT_SECONDS_MAX) if slow else 0.0
        share = slow.random() if slow else 0.0
        if slow:
            await asyncio.sleep(seconds * share)
        if self._thread is None:
            result = function(*arguments)
        else:
            result = await self._thread.run(function, *arguments)
        if isinstance(result, PostCommitActions):
            self._note(result)
        if slow:
            await asyncio.sleep(seconds * (1 - share))
        return result

    async def _stall(self) -> None:
        """Let the database not answer this process for a while, perhaps longer than its lease lasts."""
        dice = self._faults.strike("stalled-writes", self.name)
        if dice is None:
            return
        was_able, self.able_since = self.able_since is not None, None
        await asyncio.sleep(dice.uniform(0, STALL_SECONDS_MAX))
        if was_able:
            self.able_since = asyncio.get_running_loop().time()

    def _note(self, actions: PostCommitActions) -> None:
        for row in actions.published:
            self._trace.note(self.name, "commit", "published", row.body)
        for ids in actions.receipts.values():
            self._trace.note(self.name, "commit", f"consumed {' '.join(ids)}")
        for command, _ in actions.answers:
            self._trace.note(self.name, "commit", f"did {command.command!r}")

    def _failpoint(self, point: str) -> None:
        if self._faults.strike(f"crash-{point}", self.name):
            self.crash(point)
            raise Crashed(point)


async def _at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)
