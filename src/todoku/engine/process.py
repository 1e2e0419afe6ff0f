"""A running service: the loops around its writer, relay and broker connection."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog

from todoku.broker.port import Broker, BrokerError, BrokerUnavailable, MessageTooLarge
from todoku.database import Database, DatabaseUnavailable
from todoku.engine.batch_context import PostCommitActions, RetryPolicy
from todoku.engine.clock import Clock
from todoku.engine.consumer import Consumer
from todoku.engine.dead_letters import ParkUnpublishable
from todoku.engine.effects import Effects
from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.mailbox import Mailbox, MailboxFull
from todoku.engine.messages import IncomingEvent, PendingCommand, Receipt, UndecodableMessage
from todoku.engine.recovery import Recovery
from todoku.engine.relay import Relay, Run
from todoku.engine.service import Service, Topology
from todoku.engine.tables import EngineTables, OutboxRow
from todoku.engine.writer import Writer
from todoku.events import NO_CONTEXT, Context, read_envelope

log = structlog.get_logger(__name__)

DRAIN_SECONDS_MAX = 2.0


class ProcessFailed(Exception):
    """The process ends, because one of its loops has failed. Whether pending commands were executed is
    unknown."""


class EngineConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and intervals of the engine.

    batch_max: messages, commands and receipts in one transaction, and events in one publish.
    credit: messages of the stream that are requested and not yet handled.
    commands_max: commands that wait; more are rejected with `MailboxFull`.
    backlog_max: events that wait for the broker; above that, commands are rejected.
    receipts_max: receipts that wait; more are dropped, which costs one redelivery each.
    effects_max: effects that run at the same time.
    window_max: events that wait for the broker in memory; the others are read from the outbox.
    progress_check_seconds: how often the progress of subscribers is compared with the outbox.
    lease_seconds: how long a process counts as alive after it has renewed its lease.
    effect_timeout_seconds: how long an effect may take before it is cancelled and retried.
    inbox_retention_seconds: how long the id of a handled event is kept; longer than the stream keeps
        the event.
    prune_count: inbox entries that are deleted in one transaction.
    retry_policy: how a failing message is retried.
    """

    batch_max: int = 1_500
    credit: int = 2_000
    commands_max: int = 2_000
    backlog_max: int = 500_000
    receipts_max: int = 10_000
    effects_max: int = 500
    window_max: int = 10_000
    progress_check_seconds: float = 2.0
    lease_seconds: float = 15.0
    effect_timeout_seconds: float = 10.0
    inbox_retention_seconds: float = 172_800.0
    prune_count: int = 1_000
    retry_policy: RetryPolicy = RetryPolicy()


class Counts(msgspec.Struct):
    """Counters since the start of the process."""

    batches: int = 0
    commands: int = 0
    acknowledged: int = 0
    nacked: int = 0
    parked: int = 0


class ReceiptMessage(msgspec.Struct, frozen=True):
    """A delivery confirmation on the wire: `reader` has these events."""

    reader: str
    ids: tuple[str, ...]


_encode_receipt = msgspec.json.Encoder().encode
_decode_receipt = msgspec.json.Decoder(ReceiptMessage).decode


class Process:
    """One service, running: mailbox → writer → post-commit actions.

    `run_write` and `run_read` run plain functions away from the event loop; the former one at a
    time. `owner` is unique among all processes that ever ran. Every loop is `while: step()` and each
    step is public, for simulators and debuggers.
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
            park=self._park_unpublishable,
            failpoint=failpoint,
        )
        self._subscribers = topology.readers_of(service.name)
        self.recovery = Recovery(service, broker, database, tables.positions, run=run_read)
        self.consumer = Consumer(
            service,
            broker,
            self.recovery,
            self.mailbox,
            topology.registry,
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
        self._unanswered: dict[asyncio.Future[Any], None] = {}  # In the order of execution.
        self.counts = Counts()
        self.database_available = False
        self._stopping = False

    @property
    def connected(self) -> bool:
        """Return whether the broker answers."""
        return self._broker.connected

    @property
    def broker(self) -> Broker:
        """Return the connection to the broker."""
        return self._broker

    async def start(self) -> None:
        """Adopt pending deliveries of earlier processes, connect, and start the loops. Needs the database,
        not the broker."""
        await self._adopt()
        self._next_due_at = self.clock.now()
        self.database_available = True
        await self._broker.start()
        await self._broker.listen(
            f"receipts.{self.service.name}", self._receipted, group=self.service.name
        )
        self._loops.append(asyncio.create_task(self.consumer.start(), name="begin"))
        for name, step in (
            ("write", self.write_step),
            ("relay", self.relay.step),
            ("progress", self.progress_step),
            ("housekeeping", self.housekeeping_step),
        ):
            self._loops.append(asyncio.create_task(_forever(step), name=name))

    async def failed(self) -> None:
        """Wait until a loop has failed, and raise its error. A process whose loop has failed must end."""
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
        """Finish the work in progress, and disconnect from the broker."""
        self._stopping = True
        await self.consumer.stop()
        await self.effects.finished()
        await self._drain()
        await asyncio.gather(*self._cancel(), return_exceptions=True)
        await self._broker.stop()

    def abandon(self) -> None:
        """Stop at once without finishing anything, as when the process is killed."""
        self._stopping = True
        self._cancel()

    def _cancel(self) -> list[asyncio.Task[None]]:
        """Cancel all tasks; return those that are ending."""
        for task in self._loops:
            task.cancel()
        return [*self.effects.cancel(), *self._loops]

    async def execute(self, command: Any, context: Context = NO_CONTEXT) -> Any:
        """Execute a command and return the resulting state, once that is committed.

        Raises what the decision raises, `ProcessFailed`, or `MailboxFull`: also when too many events
        wait for an unavailable broker. Cancelling the wait does not undo the command.
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
            raise MailboxFull("This process is stopping: try again later.")
        if self.relay.unsent >= self.config.backlog_max:
            raise MailboxFull(f"{self.relay.unsent} events wait for the broker: try again later.")
        self.mailbox.put_command(
            PendingCommand(
                command, answer, context, self._command_id(command), self._broker.max_message_bytes
            )
        )
        self._unanswered[answered] = None
        try:
            return await answered
        finally:
            self._unanswered.pop(answered, None)

    def _command_id(self, command: Any) -> str | None:
        if type(command) not in self.service.deduplicated_commands:
            return None
        self._commands_numbered += 1
        return f"{self._owner}:{self._commands_numbered}"

    async def _park_unpublishable(self, row: OutboxRow, error: MessageTooLarge) -> None:
        """Make a dead letter of an event that the broker does not take, then drop its deliveries."""
        envelope = read_envelope(row.body)
        command = ParkUnpublishable(
            letter_id=envelope.id,
            subject=row.subject,
            body=row.body,
            error=str(error),
            event_bytes_max=error.bytes_max,
        )
        results: asyncio.Queue[Any] = asyncio.Queue()
        self.mailbox.put_effect_result(PendingCommand(command, results.put_nowait))
        result = await results.get()
        if isinstance(result, Exception):
            raise BrokerUnavailable(f"an event that is too large could not be parked: {result}")
        for subscriber in self._subscribers:
            self.mailbox.put_receipt(Receipt(subscriber, (envelope.id,)))

    def resend_all(self) -> None:
        """Publish every pending delivery of this process again, on an operator's request."""
        log.warning("resending_all_pending_events")
        self.relay.resend_all()

    async def write_step(self) -> None:
        """Wait for messages or due rows, commit a batch of them, and run its post-commit actions."""
        effect_slots = self._effect_slots()
        await self.mailbox.wait_for_work(
            self._next_due_at if effect_slots else None, self.clock.now()
        )
        batch = self.mailbox.take(self.config.batch_max)
        actions = await self._commit(batch)
        self._next_due_at = actions.next_due_at
        self._run_post_commit(actions)
        self.consumer.refill(
            sum(isinstance(message, (IncomingEvent, UndecodableMessage)) for message in batch)
        )

    async def progress_step(self) -> None:
        """After a while, look for evidence that events must be resent."""
        await asyncio.sleep(self.config.progress_check_seconds)
        if not self.database_available:
            return  # Receipts cannot be recorded: a missing one is no evidence.
        try:
            await self.relay.check_progress()
        except (BrokerError, DatabaseUnavailable) as error:
            log.debug("subscriber_progress_unavailable", error=str(error))

    async def housekeeping_step(self) -> None:
        """After a while, prune the inbox, and adopt what dead processes have left."""
        await asyncio.sleep(self.config.lease_seconds / 3)
        try:
            if not self._database.exclusive:
                await self._adopt()
            await self._prune()
        except DatabaseUnavailable as error:
            log.warning("housekeeping_delayed", error=str(error))

    def _effect_slots(self) -> int:
        """Return how many more effects may start; none before the database is known to be complete."""
        if self._stopping or not self.consumer.caught_up:
            return 0
        return self.config.effects_max - len(self.effects)

    async def _commit(self, batch: Sequence[Any]) -> PostCommitActions:
        """Commit the batch; retry for as long as the database is unavailable."""
        pause = 0.05
        while True:
            try:
                actions: PostCommitActions = await self._run_write(
                    self.writer.step, batch, self.clock.now(), self._effect_slots()
                )
            except DatabaseUnavailable as error:
                if self.database_available:
                    log.error("database_unavailable", error=str(error))
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
        )  # Also what a commit with unknown result has added.
        self.consumer.acknowledge(actions)
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
        self.counts.acknowledged += len(actions.acks)
        self.counts.nacked += len(actions.naks)
        self.counts.parked += len(actions.terms)

    def _receipted(self, body: bytes) -> None:
        try:
            message = _decode_receipt(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.warning("receipt_undecodable", error=str(error))
        else:
            self.mailbox.put_receipt(Receipt(message.reader, message.ids))

    async def _drain(self) -> None:
        """Wait, at most `DRAIN_SECONDS_MAX`, until the mailbox is empty and committed."""
        try:
            await asyncio.wait_for(self.mailbox.wait_until_empty(), timeout=DRAIN_SECONDS_MAX)
        except TimeoutError:
            log.info("mailbox_not_drained", left=len(self.mailbox))

    async def _adopt(self) -> None:
        now = self.clock.now()
        self.relay.enqueue(await self._run_write(self.writer.adopt, now, self.config.lease_seconds))

    async def _prune(self) -> None:
        before = self.clock.now() - timedelta(seconds=self.config.inbox_retention_seconds)
        # A bounded number at a time: pruning shares the writer with the batches.
        pruned = count = self.config.prune_count
        while pruned == count:
            pruned = await self._run_write(self.writer.prune_inbox, before, count)


async def _forever(step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await step()
