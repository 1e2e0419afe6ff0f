"""A running service: its loops around the writer, the relay and the broker."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog

from todoku.broker.port import Broker, BrokerError
from todoku.database import Database, DatabaseUnavailable
from todoku.engine.batch_context import PostCommitActions, RetryPolicy
from todoku.engine.clock import Clock
from todoku.engine.consumer import Consumer
from todoku.engine.effects import Effects
from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.mailbox import Mailbox, MailboxFull
from todoku.engine.messages import IncomingEvent, PendingCommand, Receipt, UndecodableMessage
from todoku.engine.recovery import Recovery
from todoku.engine.relay import Relay, Run
from todoku.engine.service import Service, Topology
from todoku.engine.tables import EngineTables
from todoku.engine.writer import Writer
from todoku.settings import Settings

log = structlog.get_logger(__name__)

DEFAULTS = Settings()
DRAIN_SECONDS_MAX = 2.0


class ProcessFailed(Exception):
    """The process ends, because one of its loops has failed. Nobody knows whether what was asked of
    it was carried out."""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How much the engine takes at a time, and how often it looks around."""

    batch_max: int = DEFAULTS.batch_messages_max
    credit: int = DEFAULTS.mailbox_messages_max
    commands_max: int = DEFAULTS.mailbox_commands_max
    backlog_max: int = DEFAULTS.outbox_backlog_max
    receipts_max: int = 10_000
    effects_max: int = 500
    window_max: int = 10_000
    look_seconds: float = 2.0
    lease_seconds: float = 15.0
    effect_timeout_seconds: float = 10.0
    inbox_retention_seconds: float = DEFAULTS.inbox_retention_seconds
    prune_count: int = 1_000
    retry_policy: RetryPolicy = RetryPolicy()


class Counts(msgspec.Struct):
    """What a process has done since its start."""

    batches: int = 0
    commands: int = 0
    settled: int = 0
    nacked: int = 0
    parked: int = 0


class ReceiptMessage(msgspec.Struct, frozen=True):
    """What goes back to a publisher: who has which of its events."""

    reader: str
    ids: tuple[str, ...]


_encode_receipt = msgspec.json.Encoder().encode
_decode_receipt = msgspec.json.Decoder(ReceiptMessage).decode


class Process:
    """One service, running: mailbox → writer → what the commit asks for.

    `run_write` and `run_read` run plain functions away from the event loop; the former one at a
    time. `owner` names this process among all that ever ran. Every loop is `while: step()` and each
    step is public, so that a simulator and a debugger come in by the same door.
    """

    def __init__(
        self,
        service: Service,
        database: Database,
        tables: EngineTables,
        broker: Broker,
        topology: Topology,
        *,
        owner: str,
        clock: Clock,
        run_write: Run,
        run_read: Run,
        config: EngineConfig | None = None,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self.service = service
        self.config = config or EngineConfig()
        self.clock = clock
        self._broker = broker
        self._database = database
        self._run_write = run_write
        self._failpoint = failpoint
        self.mailbox = Mailbox(
            commands_max=self.config.commands_max, receipts_max=self.config.receipts_max
        )
        self.writer = Writer(
            service,
            database,
            tables,
            topology,
            owner=owner,
            retry_policy=self.config.retry_policy,
            failpoint=failpoint,
        )
        self.relay = Relay(
            broker,
            database,
            tables.outbox,
            owner=owner,
            readers=topology.readers_of(service.name),
            run=run_read,
            window_max=self.config.window_max,
            batch_max=self.config.batch_max,
            failpoint=failpoint,
        )
        self.recovery = Recovery(service, broker, database, tables.positions, run=run_read)
        self.consumer = Consumer(
            service,
            broker,
            self.recovery,
            self.mailbox,
            credit=self.config.credit,
            failpoint=failpoint,
        )
        self.effects = Effects(
            service.effects,
            self.mailbox,
            seconds_max=self.config.effect_timeout_seconds,
            failpoint=failpoint,
        )
        self._owner = owner
        self._commands_numbered = 0
        self._next_due_at: datetime | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._unanswered: dict[asyncio.Future[Any], None] = {}  # In the order in which they asked.
        self.counts = Counts()
        self.database_available = False
        self._stopping = False

    @property
    def connected(self) -> bool:
        """Whether the broker answers."""
        return self._broker.connected

    async def start(self) -> None:
        """Take over what earlier processes owe, connect, and begin. Needs the database, not the broker."""
        await self._adopt()
        self._next_due_at = self.clock.now()
        self.database_available = True
        await self._broker.start()
        await self._broker.listen(
            f"receipts.{self.service.name}", self._receipted, group=self.service.name
        )
        self._loops.append(asyncio.create_task(self.consumer.begin(), name="begin"))
        for name, step in (
            ("write", self.write_step),
            ("relay", self.relay.step),
            ("look", self.look_step),
            ("keep house", self.housekeeping_step),
        ):
            self._loops.append(asyncio.create_task(_forever(step), name=name))

    async def failed(self) -> None:
        """Wait until a loop has failed, and raise why. A process whose loop has failed must end."""
        done, _ = await asyncio.wait(self._loops, return_when=asyncio.FIRST_EXCEPTION)
        try:
            for task in done:
                if not task.cancelled():
                    task.result()
        except Exception as error:
            self._stopping = True
            for answered in self._unanswered:
                if not answered.done():
                    answered.set_exception(ProcessFailed(repr(error)))
            raise

    async def stop(self) -> None:
        """Finish what is under way, and let go of the broker."""
        self._stopping = True
        await self.consumer.stop()
        await self.effects.finished()
        await self._drain()
        await asyncio.gather(*self._cancel(), return_exceptions=True)
        await self._broker.stop()

    def abandon(self) -> None:
        """Stop at once and finish nothing, as when the process is killed."""
        self._stopping = True
        self._cancel()

    def _cancel(self) -> list[asyncio.Task[None]]:
        """End all that runs; the tasks that are ending by that."""
        for task in self._loops:
            task.cancel()
        return [*self.effects.cancel(), *self._loops]

    async def ask(
        self, command: Any, *, actor: str | None = None, traceparent: str | None = None
    ) -> Any:
        """Have a command carried out; the state that it left, once that is committed.

        Raises what the decision raises, `ProcessFailed`, or `MailboxFull`: also when too much waits
        for a broker that is away. Giving up waiting does not undo it.
        """
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def answer(result: Any) -> None:
            if answered.done():
                return
            if isinstance(result, Exception):
                answered.set_exception(result)
            else:
                answered.set_result(result)

        if self._stopping:
            raise MailboxFull("This process is about to end: try again later.")
        if self.relay.unsent >= self.config.backlog_max:
            raise MailboxFull(
                f"{self.relay.unsent} events wait for the broker already: try again later."
            )
        self.mailbox.ask(
            PendingCommand(command, answer, actor, traceparent, self._command_id(command))
        )
        self._unanswered[answered] = None
        try:
            return await answered
        finally:
            self._unanswered.pop(answered, None)

    def _command_id(self, command: Any) -> str | None:
        if type(command) not in self.service.once:
            return None
        self._commands_numbered += 1
        return f"{self._owner}:{self._commands_numbered}"

    def resend_all(self) -> None:
        """Send everything that this process still owes once more, because a person asks for it."""
        log.warning("asked to send again what is still owed")
        self.relay.resend_all()

    async def write_step(self) -> None:
        """Wait for something to decide on, commit a batch of it, and do what follows."""
        effect_slots = self._effect_slots()
        await self.mailbox.arrival(self._next_due_at if effect_slots else None, self.clock.now())
        batch = self.mailbox.take(self.config.batch_max)
        actions = await self._commit(batch)
        self._next_due_at = actions.next_due_at
        self._run_post_commit(actions)
        self.consumer.refill(
            sum(isinstance(message, (IncomingEvent, UndecodableMessage)) for message in batch)
        )

    async def look_step(self) -> None:
        """After a while, look for evidence that something must be sent again."""
        await asyncio.sleep(self.config.look_seconds)
        if not self.database_available:
            return  # Receipts cannot be noted: that one is missing is no evidence.
        try:
            await self.relay.look()
        except (BrokerError, DatabaseUnavailable) as error:
            log.debug("could not look how far the readers are", error=str(error))

    async def housekeeping_step(self) -> None:
        """After a while, forget what the inbox no longer needs, and take over from the dead."""
        await asyncio.sleep(self.config.lease_seconds / 3)
        try:
            if not self._database.exclusive:
                await self._adopt()
            await self._prune()
        except DatabaseUnavailable as error:
            log.warning("housekeeping has to wait", error=str(error))

    def _effect_slots(self) -> int:
        """How many more effects may be under way; none before the database is known to be whole."""
        if self._stopping or not self.consumer.caught_up:
            return 0
        return self.config.effects_max - len(self.effects)

    async def _commit(self, batch: Sequence[Any]) -> PostCommitActions:
        """Commit the batch, however long the database is away; nothing of it is lost meanwhile."""
        pause = 0.05
        while True:
            try:
                actions: PostCommitActions = await self._run_write(
                    self.writer.step, batch, self.clock.now(), self._effect_slots()
                )
            except DatabaseUnavailable as error:
                if self.database_available:
                    log.error("the database does not take a batch", error=str(error))
                self.database_available = False
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                self.database_available = True
                return actions

    def _run_post_commit(self, actions: PostCommitActions) -> None:
        self._count(actions)
        for asked, result in actions.answers:
            asked.answer(result)
        self.relay.offer(actions.published)
        self.relay.enqueue(
            self.writer.position
        )  # Also what was committed before an answer was lost.
        self.consumer.settle(actions)
        for publisher, ids in actions.receipts.items():
            self._failpoint("before-receipt")
            body = _encode_receipt(ReceiptMessage(self.service.name, tuple(ids)))
            self._broker.notify(f"receipts.{publisher}", body)
            self._failpoint("after-receipt")
        for effect in actions.effects:
            self.effects.start(effect)

    def _count(self, actions: PostCommitActions) -> None:
        self.counts.batches += 1
        self.counts.commands += len(actions.answers)
        self.counts.settled += len(actions.acks)
        self.counts.nacked += len(actions.naks)
        self.counts.parked += len(actions.terms)

    def _receipted(self, body: bytes) -> None:
        try:
            message = _decode_receipt(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.warning("a receipt cannot be read", error=str(error))
        else:
            self.mailbox.receipt(Receipt(message.reader, message.ids))

    async def _drain(self) -> None:
        """Wait, within bounds, until what is in the mailbox is committed."""
        try:
            await asyncio.wait_for(self.mailbox.emptied(), timeout=DRAIN_SECONDS_MAX)
        except TimeoutError:
            log.info("stopped before all was decided: it comes again", left=len(self.mailbox))

    async def _adopt(self) -> None:
        now = self.clock.now()
        self.relay.enqueue(await self._run_write(self.writer.adopt, now, self.config.lease_seconds))

    async def _prune(self) -> None:
        before = self.clock.now() - timedelta(seconds=self.config.inbox_retention_seconds)
        # A bounded number at a time: pruning shares the writer with everything else.
        pruned = count = self.config.prune_count
        while pruned == count:
            pruned = await self._run_write(self.writer.forget, before, count)


async def _forever(step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await step()
