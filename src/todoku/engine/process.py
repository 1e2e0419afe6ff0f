"""A running service: the loops around its writer, relay and broker connection."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog
from sqlalchemy import Connection

from todoku.broker.partitions import partitions_of
from todoku.broker.port import Broker, BrokerError, BrokerUnavailable, MessageTooLarge
from todoku.database import Database, DatabaseUnavailable
from todoku.engine.audit_log.keeper import AuditKeeper
from todoku.engine.audit_log.trail import Trail
from todoku.engine.audit_log.trail_writer import TrailWriter
from todoku.engine.clock import Clock
from todoku.engine.commands import Commands
from todoku.engine.commits import Commits
from todoku.engine.config import EngineConfig
from todoku.engine.consumer import Consumer
from todoku.engine.dead_letters import ParkUnpublishable
from todoku.engine.due_rows import DueTimes, earlier
from todoku.engine.effects import Effects
from todoku.engine.endings import Endings
from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.idempotency import IdempotencyKey
from todoku.engine.instruments import Instruments
from todoku.engine.mailbox import Mailbox, MailboxFull, RecoveryPending
from todoku.engine.messages import (
    IncomingEvent,
    Message,
    PendingCommand,
    Receipt,
    UndecodableMessage,
)
from todoku.engine.partition_share import PartitionShare
from todoku.engine.persons.commands import ErasePerson
from todoku.engine.persons.file import ErasureFile
from todoku.engine.post_commit import PostCommitActions, run_post_commit
from todoku.engine.receipts import Publisher, decode_receipt, receipt_subject
from todoku.engine.recovery import Recovery
from todoku.engine.relay import Relay, Run
from todoku.engine.service import Service, Topology
from todoku.engine.stream_positions import place_in
from todoku.engine.tables import OutboxRow
from todoku.engine.tracing import Tracer
from todoku.engine.writer import Writer
from todoku.events import NO_CONTEXT, Context, read_envelope
from todoku.identity.keys import ApiKey

log = structlog.get_logger(__name__)

T = TypeVar("T")

DRAIN_SECONDS_MAX = 2.0

CLOCK_LOOK_SECONDS = 5.0
"""How often the clock is read while rows wait until they are due. The event loop's timers stand still
while the machine is suspended, and do not notice that the clock was set."""


class ProcessFailed(Exception):
    """The process ends, because one of its loops has failed or it was stopped. Whether pending commands
    were executed is unknown."""


class Counts(msgspec.Struct):
    """Counters since the start of the process."""

    batches: int = 0
    commands: int = 0
    acknowledged: int = 0
    nacked: int = 0
    parked: int = 0


class Process:
    """One service, running: mailbox → writer → post-commit actions.

    `await process.run(stop)` is the only way to run it. `run_write` and `run_read` run plain functions
    away from the event loop; the former one at a time. `owner` is unique among all processes that ever
    ran. Every loop is `while: step()` and each step is public, for simulators and debuggers.
    """

    def __init__(
        self,
        service: Service,
        database: Database,
        broker: Broker,
        topology: Topology,
        *,
        owner: str,
        clock: Clock,
        run_write: Run,
        run_read: Run,
        config: EngineConfig | None = None,
        failpoint: Failpoint = no_failpoint,
        tracer: Tracer | None = None,
    ) -> None:
        self.service = service
        self.config = config or EngineConfig()
        self.clock = clock
        self._broker = broker
        self._database = database
        self._run_write = run_write
        self._run_read = run_read
        self._failpoint = failpoint
        self.mailbox = Mailbox(
            commands_max=self.config.commands_max, receipts_max=self.config.receipts_max
        )
        self.commands = Commands(
            service,
            self.mailbox,
            database,
            run_read=run_read,
            event_bytes_max=lambda: broker.max_message_bytes,
        )
        self.endings = Endings(service, broker, shared=not database.exclusive)
        self.commits = Commits()
        # A process that has its database to itself reads everything anyway.
        count = 1 if database.exclusive else self.config.partitions
        self._partitions = partitions_of(service.name, count)
        self._share = PartitionShare(owner, count)
        self.writer = Writer(
            service,
            database,
            topology,
            owner=owner,
            retry_policy=self.config.retry_policy,
            position_lag_max=self.config.position_lag_max,
            failpoint=failpoint,
            correction=clock.correction,
            tracer=tracer,
            audit=self.config.audit,
            erasure_file=ErasureFile(erasures) if (erasures := self.config.erasure_file) else None,
            partition_durables=[each.durable for each in self._partitions] if count > 1 else (),
        )
        self.audit: AuditKeeper | None = None
        if (trail := self.writer.transactions.trail) is not None:
            self.audit = self._audit_keeper(trail)
        self.relay = Relay(
            broker,
            database,
            service.store.tables.outbox,
            owner=owner,
            readers=topology.readers_of(service.name),
            run=run_read,
            window_max=self.config.window_max,
            batch_max=self.config.batch_max,
            park=self._park_unpublishable,
            subscribed=topology.subjects_of(service.name),
            stored=self.mailbox.put_stored,
            failpoint=failpoint,
            tracer=tracer,
            partitions=self.config.partitions,
        )
        self.recovery = Recovery(
            service,
            broker,
            database,
            run=run_read,
            execute=self.commands.execute_own,
            begin=self._begin_recovery,
            end=partial(run_write, self.writer.maintenance.end_recovery),
            partitions=self._partitions,
        )
        self.consumer = Consumer(
            service,
            broker,
            self.recovery,
            self.mailbox,
            topology.registry,
            credit=self.config.credit,
            begin=partial(run_write, self.writer.maintenance.begin),
            note_pauses=self.writer.note_replayed_pauses,
            partitions=self._partitions,
            begin_partition=partial(run_write, self.writer.maintenance.begin_partition),
            failpoint=failpoint,
        )
        self.effects = Effects(
            service.effects,
            self.mailbox,
            seconds_max=self.config.effect_timeout_seconds,
            failpoint=failpoint,
            tracer=tracer,
        )
        self._next_due = DueTimes()
        self._retry_at: datetime | None = None
        self._loops: list[asyncio.Task[None]] = []
        self.counts = Counts()
        self.instruments = Instruments()
        database.observe_commit = self.instruments.commit_seconds.observe
        self.stream_lag: int | None = None
        """How many messages of the stream are behind what this service has consumed; None if unknown."""
        self.database_available = False
        self._start_ended = asyncio.Event()
        self._running = False
        self._stopping = False

    @property
    def connected(self) -> bool:
        """Return whether the broker answers."""
        return self._broker.connected

    @property
    def broker(self) -> Broker:
        """Return the connection to the broker."""
        return self._broker

    @property
    def ready(self) -> bool:
        """Return whether commands are executed: every loop runs, and the database takes batches."""
        return self._running and not self._stopping and self.database_available and self._alive

    @property
    def _alive(self) -> bool:
        """Return whether no loop has ended by an error."""
        return not any(
            task.done() and (task.cancelled() or task.exception() is not None)
            for task in self._loops
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Run the service until `stop` is set, then finish the work in progress.

        Needs the database to start, not the broker. Raises what keeps it from starting, or the error of
        a loop that failed; then pending commands get `ProcessFailed`. Cancelling it ends everything at
        once, as a kill does.
        """
        try:
            await self._start()
            await self._wait_for(stop)
            await self._drain()
        except Exception as error:
            self._fail(repr(error))
            await self._end()
            raise
        except BaseException:
            self.abandon()
            raise
        else:
            await self._end()
            self._fail("the process was stopped")
        finally:
            self._running = False
            self._start_ended.set()
        for task in self._loops:
            if not task.cancelled():
                task.result()

    async def started(self) -> None:
        """Wait until `run` has started everything. Raises `ProcessFailed` if it never will."""
        await self._start_ended.wait()
        if not self._running:
            raise ProcessFailed("the process ended before it had started")

    def abandon(self) -> None:
        """End everything at once without finishing it, as when the process is killed."""
        self._stopping = True
        self._cancel()

    async def execute(
        self, command: Any, context: Context = NO_CONTEXT, key: IdempotencyKey | None = None
    ) -> Any:
        """Execute a command and return the resulting state, once that is committed.

        A command whose `key` was used before is not executed: its first result is returned or raised.
        Raises what the decision raises, `ProcessFailed`, or `MailboxFull`: also when too many events
        wait for an unavailable broker. With a key also `RequestInProgress`, `IdempotencyKeyReused` and
        `AnswerUnavailable`. Cancelling the wait does not undo the command.
        """
        if self._stopping:
            raise MailboxFull("This process is stopping: try again later.")
        if self.relay.unsent >= self.config.backlog_max:
            raise MailboxFull(f"{self.relay.unsent} events wait for the broker: try again later.")
        if (not self.consumer.caught_up and self.service.waits_for_recovery(command)) or (
            not self.consumer.replayed and self.service.waits_for_replay(command)
        ):
            raise RecoveryPending
        if not self.consumer.replayed:
            command = self.service.before_replay(command)
        return await self.commands.execute(command, context, key)

    def give_up(self) -> None:
        """Tell the callers of pending commands that their results are unknown: the process will end."""
        self.commands.fail(ProcessFailed("the process is stopping"))

    def wait_for_end(self, key: str) -> asyncio.Future[None] | None:
        """Return a future that is done once the entity `key` has ended; None if too many callers wait.

        It tells only of what ends from now on, so look at the entity after this call. Cancel it to wait
        no longer.
        """
        return self.endings.wait_for(key)

    async def transact(self, change: Callable[[Connection], T]) -> T:
        """Run a function in a transaction of its own, between two batches; return its result. It touches
        nothing that decisions read."""

        def run() -> T:
            with self._database.transaction() as connection:
                return change(connection)

        result: T = await self._run_write(run)
        return result

    async def change_key(self, key: ApiKey) -> None:
        """Save an API key that was created or revoked, and publish it."""
        await self._run_write(self.writer.separate_commands.change_key, key, self.clock.now())
        self.mailbox.wake()

    def resend_all(self) -> None:
        """Publish every pending delivery of the service again, on an operator's request: of all processes
        that share its database."""
        log.warning("resending_all_pending_events")
        self.relay.resend_all()
        if not self._database.exclusive:
            self.relay.resend_others()

    # The loops.

    async def write_step(self) -> None:
        """Wait for messages or due rows, commit a batch of them, and run its post-commit actions."""
        await self._wait_for_work()
        for pending in self.mailbox.take_pauses():
            await self._execute_pause(pending)
        batch = self.mailbox.take(self.config.batch_max)
        actions = await self._commit(batch)
        self._next_due, self._retry_at = actions.next_due, actions.retry_at
        self._count(actions)
        run_post_commit(
            actions,
            self.writer.position,
            service=self.service.name,
            relay=self.relay,
            consumer=self.consumer,
            effects=self.effects,
            notify=self._broker.notify,
            failpoint=self._failpoint,
        )
        self.endings.tell(actions.ended)
        self.commits.tell()
        self.consumer.refill(
            [
                message.delivery
                for message in batch
                if isinstance(message, (IncomingEvent, UndecodableMessage))
            ]
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
        """After a while, prune inbox and idempotency keys, and adopt what dead processes have left."""
        shared = not self._database.exclusive
        await asyncio.sleep(
            self.config.lease_seconds / 3 if shared else self.config.housekeeping_seconds
        )
        try:
            if shared:
                await self._adopt()
                self._look_again()
                for change in self.service.upkeep:
                    await self.transact(change)
                if self.consumer.caught_up:
                    await self._run_write(self.writer.maintenance.save_timeline)
            await self._prune()
            await self._divide()
            await self._note_position()
        except DatabaseUnavailable as error:
            log.warning("housekeeping_delayed", error=str(error))
        except BrokerError as error:
            log.debug("stream_position_unavailable", error=str(error))

    # Starting and ending.

    async def _start(self) -> None:
        """Adopt pending deliveries of earlier processes, connect, and start the loops."""
        await self._adopt()
        if lacking := await self._run_write(self.writer.separate_commands.apply_erasure_file):
            log.warning("persons_erased_again", erasures=lacking)
        if self.audit is not None:
            await self.audit.begin()
        self._look_again()
        self.database_available = True
        await self._broker.start()
        await self._listen_for_receipts()
        await self.endings.start()
        await self._divide()
        self._loops.append(asyncio.create_task(self.consumer.start(), name="start consumer"))
        steps: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            ("write", self.write_step),
            ("relay", self.relay.step),
            ("progress", self.progress_step),
            ("housekeeping", self.housekeeping_step),
        ]
        if self.audit is not None:
            steps.append(("audit", self.audit.step))
        for name, step in steps:
            self._loops.append(asyncio.create_task(_forever(step), name=name))
        self._running = True
        self._start_ended.set()

    async def _wait_for(self, stop: asyncio.Event) -> None:
        """Wait until `stop` is set, or raise the error of a loop that has failed."""
        stopping = asyncio.create_task(stop.wait(), name="stop")
        pending: set[asyncio.Task[Any]] = {stopping, *self._loops}
        try:
            while stopping in pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            stopping.cancel()

    async def _drain(self) -> None:
        """Finish the work in progress, within bounds."""
        self._stopping = True
        await self.consumer.stop()
        await self.effects.finished()
        try:
            async with asyncio.timeout(DRAIN_SECONDS_MAX):
                await self.mailbox.wait_until_empty()
        except TimeoutError:
            log.info("mailbox_not_drained", left=len(self.mailbox))
        if self.audit is not None:
            await self.audit.end()
        await self._leave()

    async def _end(self) -> None:
        """End all tasks, and disconnect from the broker."""
        self._stopping = True
        await asyncio.gather(*self._cancel(), return_exceptions=True)
        await self._broker.stop()

    def _cancel(self) -> list[asyncio.Task[None]]:
        """Cancel all tasks; return those that are ending."""
        for task in self._loops:
            task.cancel()
        return [*self.effects.cancel(), *self._loops]

    def _fail(self, why: str) -> None:
        """Tell the callers of pending commands that their results are unknown."""
        self._stopping = True
        self.commands.fail(ProcessFailed(why))

    # What the loops use.

    async def _wait_for_work(self) -> None:
        """Wait for messages, or until the writer must look for due rows by the clock."""
        correction = self.clock.correction()
        while True:
            now, until = self.clock.now(), self._next_step_at()
            look_at = now + timedelta(seconds=CLOCK_LOOK_SECONDS)
            await self.mailbox.wait_for_work(earlier(until, look_at) if until else None, now)
            if until is None or until <= look_at or len(self.mailbox):
                return
            if self.clock.now() < look_at or self.clock.correction() is not correction:
                return  # Woken, or due times mean something else now.

    def _next_step_at(self) -> datetime | None:
        """Return when the writer must look for due rows without being woken."""
        if not self.consumer.caught_up:
            return self._retry_at
        others = earlier(self._next_due.others_at, self._retry_at)
        return earlier(others, self._next_due.effects_at) if self._effect_slots() > 0 else others

    def _effect_slots(self) -> int:
        """Return how many more effects may start; none before the database is known to be complete."""
        if self._stopping or not self.consumer.caught_up:
            return 0
        return self.config.effects_max - len(self.effects)

    async def _execute_pause(self, pending: PendingCommand) -> None:
        """Execute a command about a pause, or about a person, by itself. Once it is answered, what is paused
        starts nothing more in this process. Without an answer of the database, the caller repeats it with its
        key."""
        now = self.clock.now()
        erases = isinstance(pending.command, ErasePerson)
        commands = self.writer.separate_commands
        execute: Any = commands.erase_person if erases else commands.execute_pause
        try:
            result = await self._run_write(
                execute, pending.command, pending.key, now, pending.request
            )
        except DatabaseUnavailable as error:
            result = error
        self.relay.enqueue(self.writer.position)
        pending.answer(result)

    async def _commit(self, batch: Sequence[Message]) -> PostCommitActions:
        """Commit the batch; retry for as long as the database is unavailable."""
        began = time.perf_counter()
        pause = 0.05
        while True:
            try:
                actions: PostCommitActions = await self._run_write(
                    self.writer.step,
                    batch,
                    self.clock.now(),
                    self._effect_slots(),
                    self.consumer.caught_up,
                )
            except DatabaseUnavailable as error:
                if self.database_available:
                    log.error("database_unavailable", error=str(error))
                self.database_available = False
                await asyncio.sleep(pause)
                pause = min(pause * 2, 1.0)
            else:
                self.database_available = True
                self.instruments.batch_messages.observe(len(batch))
                self.instruments.batch_seconds.observe(time.perf_counter() - began)
                return actions

    def _count(self, actions: PostCommitActions) -> None:
        self.counts.batches += 1
        self.counts.commands += len(actions.answers)
        self.counts.acknowledged += len(actions.acks)
        self.counts.nacked += len(actions.naks)
        self.counts.parked += len(actions.terms)

    async def _listen_for_receipts(self) -> None:
        """Receive receipts of each subscriber for what this process has published; those of subscribers of
        the version before are for all processes of the service."""
        name = self.service.name
        mine = Publisher(name, self.relay.owner_token)
        for reader in self.relay.readers:
            await self._broker.listen(
                receipt_subject(mine, reader), partial(self._on_receipt, reader)
            )
        everyone = Publisher(name)
        await self._broker.listen(
            receipt_subject(everyone, name), partial(self._on_receipt, None), group=name
        )

    def _on_receipt(self, sender: str | None, body: bytes) -> None:
        """Put a receipt into the mailbox; the subject says who has sent it, except in the version before."""
        try:
            message = decode_receipt(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            log.warning("receipt_undecodable", error=str(error))
            return
        if sender not in (None, message.reader):
            log.warning("receipt_of_another_reader", reader=message.reader, sender=sender)
            return
        self.mailbox.put_receipt(Receipt(message.reader, message.ids))

    async def _park_unpublishable(self, row: OutboxRow, error: MessageTooLarge) -> None:
        """Make a dead letter of an event that the broker does not take."""
        envelope = read_envelope(row.body)
        command = ParkUnpublishable(
            letter_id=envelope.id,
            subject=row.subject,
            body=row.body,
            error=str(error),
            event_bytes_max=error.bytes_max,
        )
        result = await self.commands.execute_own(command)
        if isinstance(result, Exception):
            raise BrokerUnavailable(f"an event that is too large could not be parked: {result}")

    def _audit_keeper(self, trail: Trail) -> AuditKeeper:
        return AuditKeeper(
            TrailWriter(
                self.writer.transactions,
                trail,
                service=self.service.name,
                anchor_event=self.service.anchor_event,
            ),
            run=self._run_write,
            now=self.clock.now,
            published=lambda: self.relay.enqueue(self.writer.position),
        )

    async def _begin_recovery(self) -> None:
        await self._run_write(self.writer.maintenance.begin_recovery, self.clock.now())

    def _look_again(self) -> None:
        """Let the writer look for due rows, of other processes too: those may be gone."""
        now = self.clock.now()
        self._next_due = DueTimes(effects_at=now, others_at=now)
        self._retry_at = now
        self.mailbox.wake()

    async def _adopt(self) -> None:
        now = self.clock.now()
        self.relay.enqueue(await self._run_write(self.writer.adopt, now, self.config.lease_seconds))

    async def _divide(self) -> None:
        """Read the partitions that this process owns among those that live."""
        if len(self._partitions) > 1:
            now = asyncio.get_running_loop().time()
            await self.consumer.own(self._share.numbers(self.writer.alive, now))

    async def _leave(self) -> None:
        """Let others read the partitions of this process at once, now that it stops."""
        if len(self._partitions) > 1:
            try:
                await self._run_write(self.writer.maintenance.leave)
            except DatabaseUnavailable as error:
                log.debug("lease_left_to_expire", error=str(error))

    async def _note_position(self) -> None:
        """Save that the database is complete up to where the stream is, where other services' messages
        have brought it far ahead: else nothing would tell whether a backup lacks some of them."""
        if not self.consumer.caught_up:
            return
        durables = [each.durable for each in self._partitions]
        progress = await self._broker.progress(durables)
        consumed = {durable: progress.consumed.get(durable, 0) for durable in durables}
        self.stream_lag = max(0, progress.last_sequence - min(consumed.values()))
        self._share.look(
            {each.number: consumed[each.durable] for each in self._partitions},
            progress.last_sequence,
            asyncio.get_running_loop().time(),
        )
        for durable, sequence in consumed.items():
            place = place_in(progress.stream_epoch, durable if len(durables) > 1 else "")
            await self._run_write(self.writer.maintenance.note_position, place, sequence)

    async def _prune(self) -> None:
        now, config = self.clock.now(), self.config
        for prune, seconds in (
            (self.writer.maintenance.prune_inbox, config.inbox_retention_seconds),
            (self.writer.maintenance.prune_keys, config.key_retention_seconds),
        ):
            # A bounded number at a time: pruning shares the writer with the batches.
            pruned = config.prune_count
            while pruned == config.prune_count:
                before = now - timedelta(seconds=seconds)
                pruned = await self._run_write(prune, before, config.prune_count)


async def _forever(step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await step()
