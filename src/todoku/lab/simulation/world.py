"""The simulated world: machines that die, disks that fail, lines that are cut, a carrier that mumbles."""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any

import msgspec
from sqlalchemy import Connection

from todoku.broker.memory import Hostility, MemoryBroker, MemoryConsumer, MemorySession
from todoku.broker.port import Delivery, Outgoing, Stored
from todoku.database import Database, DatabaseBroken, DatabaseUnavailable, migrate, sqlite
from todoku.engine import EngineConfig, Process, RetryPolicy, Service, Topology
from todoku.engine.batch_context import PostCommitActions
from todoku.engine.process import ReceiptMessage
from todoku.lab.simulation.faults import Faults
from todoku.lab.simulation.loop import VirtualClock
from todoku.lab.simulation.promise import Promise
from todoku.lab.simulation.trace import Trace
from todoku.shipping.carriers import SimulatedCarrier
from todoku.shipping.domain import Answer, Parcel, Unknown

TUNING = EngineConfig(
    batch_max=8,
    credit=16,
    window_max=16,
    effect_timeout_seconds=10.0,
    retry_policy=RetryPolicy(
        failing_attempts_max=3, unknown_attempts_max=4, backoff_seconds_max=4.0
    ),
)
"""As in production, but small: so that every limit is met in a minute with a handful of orders."""

CLOCK_JUMP_SECONDS_MAX = 180.0
COMMIT_SECONDS_MAX = 5.0
CARRIER_SECONDS_MAX = 30.0
RESTART_SECONDS_MAX = 2.0


class Crashed(BaseException):
    """The process has died at a failpoint, as by `kill -9`."""


@cache
def empty_database(service: str) -> bytes:
    """A migrated, empty database of a service: a template, because migrating takes long."""
    with Database.in_memory() as database:
        migrate(database, f"todoku.{service}")
        return database.serialize()


class Disk(Database):
    """A service's database, which is away at times and fails at others.

    `committed` is called after every commit, before anybody else knows of it.
    """

    def __init__(self, service: str, faults: Faults) -> None:
        engine = sqlite.memory(empty_database(service))
        super().__init__(f"{service}.db", writer=engine, readers=engine)
        self.away = False
        self.committed: Callable[[str], None] = lambda _: None
        self._service = service
        self._faults = faults

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        self._refuse_while_away()
        with super().transaction() as connection:
            yield connection
            if self._faults.strike("disk-error", self._service):
                raise DatabaseBroken("the disk has failed")
        self.committed(self._service)
        if self._faults.strike("lose-commit-answer", self._service):
            raise DatabaseUnavailable("the connection was lost during the commit")

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self._refuse_while_away()
        with super().read() as connection:
            yield connection

    def bare(self) -> sqlite3.Connection:
        """The driver's own connection: to look at what is committed, past every fault."""
        with super().read() as connection:
            bare = connection.connection.driver_connection
            assert isinstance(bare, sqlite3.Connection)
            return bare

    def _refuse_while_away(self) -> None:
        if self.away:
            raise DatabaseUnavailable("the database is out of reach")


class FaultInjector(Hostility):
    """A broker's hostility that is drawn, counted and named with all other faults."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(Random(0))
        self._faults = faults

    def strikes(self, fault: str) -> bool:
        dice = self._faults.strike(_KINDS[fault])
        if dice is not None:
            self.random = dice
        return dice is not None


_KINDS = {name: name.replace("_", "-") for name in vars(Hostility(Random(0)))}


class Line(MemorySession):
    """A process's connection to the broker, which can be cut and mended."""

    def __init__(self, broker: MemoryBroker, name: str, promise: Promise, trace: Trace) -> None:
        super().__init__(broker, name)
        self._promise = promise
        self._trace = trace
        self._cut_off: list[MemoryConsumer] | None = None

    @property
    def connected(self) -> bool:
        return self._cut_off is None and super().connected

    def cut(self) -> None:
        """Let nothing through any more."""
        if self._cut_off is None:
            self._cut_off, self.readers = self.readers, []
            for reader in self._cut_off:
                _detach(reader)

    def mend(self) -> None:
        """Let everything through again."""
        if self._cut_off is None:
            return
        self.readers, self._cut_off = self._cut_off + self.readers, None
        if self.connected:
            for reader in self.readers:
                self.broker.attach(reader)

    async def publish(self, messages: Sequence[Outgoing]) -> Stored:
        self._promise.published(self.name, messages)
        for message in messages:
            self._trace.note(self.name, "publish", message.subject, message.body)
        return await super().publish(messages)

    async def subscribe(
        self,
        durable: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
    ) -> "RecordingSubscription":
        def heard(deliveries: Sequence[Delivery]) -> None:
            for delivery in deliveries:
                self._trace.note(
                    self.name, "deliver", f"for the {delivery.attempt}. time", delivery.body
                )
            deliver(deliveries)

        reader = RecordingSubscription(self, durable, subjects, heard, self._promise, self._trace)
        if self._cut_off is not None:
            self._cut_off.append(reader)
        else:
            self.readers.append(reader)
            if self.connected:
                self.broker.attach(reader)
        return reader

    def notify(self, subject: str, body: bytes) -> None:
        ids = _decode_receipt(body).ids
        self._promise.receipted(self.name, ids)
        self._trace.note(self.name, "receipt", " ".join(ids))
        super().notify(subject, body)


_decode_receipt = msgspec.json.Decoder(ReceiptMessage).decode


class RecordingSubscription(MemoryConsumer):
    """A subscription that notes what is settled."""

    def __init__(
        self,
        line: Line,
        durable: str,
        subjects: Sequence[str],
        deliver: Callable[[Sequence[Delivery]], None],
        promise: Promise,
        trace: Trace,
    ) -> None:
        super().__init__(line, durable, subjects, deliver)
        self._service = line.name
        self._promise = promise
        self._trace = trace

    def ack(self, deliveries: Sequence[Delivery]) -> None:
        self._promise.settled(self._service, deliveries)
        for delivery in deliveries:
            self._trace.note(self._service, "ack", body=delivery.body)
        super().ack(deliveries)

    def nak(self, delivery: Delivery, delay_seconds: float) -> None:
        self._trace.note(self._service, "nak", f"again in {delay_seconds} s", delivery.body)
        super().nak(delivery, delay_seconds)


def _detach(reader: MemoryConsumer) -> None:
    reader.cut()
    if reader.durable is not None:
        reader.durable.remove(reader)
        reader.durable = None


class Node:
    """One service's machine: its disk outlives its processes, which are started again when they end."""

    def __init__(
        self,
        service: Service,
        disk: Disk,
        broker: MemoryBroker,
        topology: Topology,
        faults: Faults,
        promise: Promise,
        trace: Trace,
        tuning: EngineConfig,
        random: Random,
    ) -> None:
        self.service = service
        self.disk = disk
        self.process: Process | None = None
        self._broker = broker
        self._topology = topology
        self._faults = faults
        self._promise = promise
        self._trace = trace
        self._tuning = tuning
        self._random = random
        self._line: Line | None = None
        self._cut_off = False
        self._starting: Process | None = None
        self._life: asyncio.Task[None] | None = None
        self._starts = 0

    async def live(self) -> None:
        """Run a process, and another when it ends, for ever: what `todoku up` does."""
        while True:
            self._life = asyncio.create_task(self._run())
            await asyncio.wait([self._life])
            await asyncio.sleep(self._random.uniform(0.1, RESTART_SECONDS_MAX))

    def crash(self, why: str) -> None:
        """Die. What the process did is on the disk; what it was about to do never happens."""
        self._trace.note(self.service.name, "crash", why)
        process, self._starting, self.process = self._starting, None, None
        if self._line is not None:
            self._line.kill()
        if process is not None:
            process.abandon()
        if self._life is not None:
            self._life.cancel()

    async def stop(self) -> None:
        """Stop in good order, as on SIGTERM."""
        process, self.process = self.process, None
        if process is not None:
            await process.stop()

    def cut_off(self) -> None:
        """Lose the broker, which the others still have."""
        self._cut_off = True
        if self._line is not None:
            self._line.cut()

    def rejoin(self) -> None:
        """Find the broker again."""
        self._cut_off = False
        if self._line is not None:
            self._line.mend()

    async def _run(self) -> None:
        """One process, from its start on what is on the disk to its end."""
        name = self.service.name
        self._line = Line(self._broker, name, self._promise, self._trace)
        if self._cut_off:
            self._line.cut()
        process = self._starting = self._make_process(self._line)
        try:
            await process.start()
            self.process = process
            await process.failed()
        except (DatabaseBroken, DatabaseUnavailable) as error:
            # A disk that fails ends the process: it knows no longer what is on it.
            self.crash(str(error))
        except Exception as error:
            self._promise.fail("I3", f"a process of {name} failed: {error!r}")
            self.crash(repr(error))
        except Crashed:
            pass  # Whatever is lost with the process has been lost where it died.

    def _make_process(self, line: Line) -> Process:
        self._starts += 1
        jump = self._faults.strike("clock-jump", self.service.name)
        offset = jump.uniform(-CLOCK_JUMP_SECONDS_MAX, CLOCK_JUMP_SECONDS_MAX) if jump else 0.0
        self._trace.note(self.service.name, "start", f"with the clock {offset:+.0f} s off")
        turn = asyncio.Lock()

        async def write(function: Callable[..., Any], *arguments: Any) -> Any:
            async with turn:
                return await self._write(function, *arguments)

        return Process(
            self.service,
            self.disk,
            self.service.store.tables,
            line,
            self._topology,
            owner=f"{self.service.name}-{self._starts}",
            clock=VirtualClock(offset),
            run_write=write,
            run_read=_at_once,
            config=self._tuning,
            failpoint=self._failpoint,
        )

    async def _write(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Use the disk, which may take its time before or after it has done what it should."""
        slow = self._faults.strike("slow-commit", self.service.name)
        seconds = slow.uniform(0, COMMIT_SECONDS_MAX) if slow else 0.0
        share = slow.random() if slow else 0.0
        if slow:
            await asyncio.sleep(seconds * share)
        result = function(*arguments)
        if isinstance(result, PostCommitActions):
            self._note(result)
        if slow:
            await asyncio.sleep(seconds * (1 - share))
        return result

    def _note(self, outcome: PostCommitActions) -> None:
        for row in outcome.published:
            self._trace.note(self.service.name, "commit", "said", row.body)
        for ids in outcome.receipts.values():
            self._trace.note(self.service.name, "commit", f"heard {' '.join(ids)}")
        for asked, _ in outcome.answers:
            self._trace.note(self.service.name, "commit", f"did {asked.command!r}")

    def _failpoint(self, point: str) -> None:
        if self._faults.strike(f"crash-{point}", self.service.name):
            self.crash(point)
            raise Crashed(point)


async def _at_once(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


class MumblingCarrier:
    """A simulated carrier whose answers get lost: it remembers what it has really taken.

    `answers` has for each key the order that it was used for and what was said.
    """

    def __init__(
        self, carrier: SimulatedCarrier, faults: Faults, promise: Promise, trace: Trace
    ) -> None:
        self.answers: dict[str, tuple[str, Answer]] = {}
        self._carrier = carrier
        self._faults = faults
        self._promise = promise
        self._trace = trace

    async def book(self, key: str, parcel: Parcel) -> Answer:
        self._promise.booked(parcel.order_id)
        if self._faults.strike("carrier-unreachable"):
            raise ConnectionError("the carrier could not be reached")
        answer = await self._carrier.book(key, parcel)
        self.answers[key] = (parcel.order_id, answer)
        self._trace.note("carrier", "answer", f"{answer!r} for {parcel.order_id}")
        if self._faults.strike("carrier-answer-lost"):
            return Unknown("the carrier's answer was lost")
        if dice := self._faults.strike("carrier-late"):
            await asyncio.sleep(dice.uniform(0, CARRIER_SECONDS_MAX))
        return answer
