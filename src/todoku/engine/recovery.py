"""Recovery of a database that is older than the stream, because it was restored from a backup.

The stream still holds what the database has lost. First the service replays its own events, so that
it never decides anew on what other services have acted upon. What cannot be replayed, because something
is missing that never was in the stream, is parked, and the recovery waits until it is resolved: a
database that is known to lack something decides nothing. Then the service consumes everything else from
the start of the stream, and the inbox skips what was handled before the backup. Until all of this is
done it starts no effects.

The service's durable consumer is left as it is meanwhile: what it has acknowledged is the evidence that
the database lacks something, also if it is restored once more during the recovery. A crash during the
recovery begins it again, because it is saved in the database that it has begun.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from todoku.broker.partitions import Partition
from todoku.broker.port import Broker, BrokerError, Progress, StartAfter
from todoku.database import Database
from todoku.engine.dead_letters import HOLDING, REPLAY_FAILED, ParkLoss, RetryDeadLetter
from todoku.engine.relay import Run
from todoku.engine.service import Service
from todoku.engine.stream_positions import COPIED, TIMELINE

log = structlog.get_logger(__name__)

PAUSE_SECONDS = 0.2
"""How often an unavailable broker, or the progress of a consumer, is polled."""

HOLD_PAUSE_SECONDS = 1.0
"""How often the letters that hold a recovery are counted."""

Execute = Callable[[object], Awaitable[object]]
"""Executes a command of the engine itself; returns its result, which may be an error."""

ReadAgain = Callable[[Progress], Awaitable[bool]]
"""Reads the stream again up to where it was; returns False if the stream was lost meanwhile."""


class Recovery:
    """Detects that the database lacks acknowledged messages, and replays the stream.

    `waits_for` is the number of dead letters that hold the recovery at present.
    """

    def __init__(
        self,
        service: Service,
        broker: Broker,
        database: Database,
        *,
        run: Run,
        execute: Execute,
        begin: Callable[[], Awaitable[None]],
        end: Callable[[str, int], Awaitable[None]],
        partitions: Sequence[Partition],
    ) -> None:
        self._whole = Partition(service.name)
        self._partitions = [p for p in partitions if p.count > 1]
        """What this service reads through several durables; empty if it reads through one."""
        self.waits_for = 0
        self._service = service
        self._broker = broker
        self._database = database
        self._positions = service.store.tables.positions
        self._letters = service.store.tables.dead_letters
        self._run = run
        self._execute = execute
        self._begin = begin
        self._end = end

    async def needed(self) -> bool:
        """Return whether this database may lack what was committed.

        A message is acknowledged after the commit that saves its sequence. So if one behind the last
        saved sequence is acknowledged, that commit was undone. A copy of the database says that it is
        one. A standby of PostgreSQL that was promoted may also lack commits that acknowledged nothing:
        another timeline tells.

        A service that reads in partitions asks this of each of them: what one has handled says nothing of
        another. So is the one durable asked, through which it may have read before.
        """
        durables = [each.durable for each in (self._whole, *self._partitions)]
        progress = await self._broker.progress(durables)
        reached: Mapping[str, int] = await self._run(self._reached, progress)
        if max(reached.values()) > progress.last_sequence:
            # Other processes may have handled what was stored since then. What they had, is stored now.
            now = await self._broker.progress(durables)
            if (
                now.stream_epoch == progress.stream_epoch
                and max(reached.values()) > now.last_sequence
            ):
                # The broker's disk was rolled back: it is the stream that lacks messages, and the
                # outboxes resend them in the new epoch.
                await self._broker.begin_epoch(now.stream_epoch)
            progress = await self._broker.progress(durables)
            reached = await self._run(self._reached, progress)
        if await self._run(self._is_marked_incomplete):
            return True
        subjects = [event.subject for event in self._service.event_handlers]
        for each in (self._whole, *self._partitions):
            consumed = progress.consumed.get(each.durable, 0)
            if self._partitions and not consumed:
                continue  # There is no such durable, or it has acknowledged nothing.
            following = await self._broker.first_after(
                reached[each.durable], each.filters(subjects)
            )
            if following is not None and following <= consumed:
                return True
        return bool(progress.acknowledged) and await self._run(self._is_new)

    async def recover(
        self, replay_own: ReadAgain, read_rest: ReadAgain, start_after: StartAfter | None
    ) -> None:
        """Replay the service's own events, wait until nothing is missing, then read everything else."""
        log.warning("recovery_started")
        stream = await self._broker.progress([])
        await self._park_loss(stream, start_after)
        await self._begin()
        whole = await replay_own(stream)
        await self._retry_failed()
        if not whole:
            await self._park(
                f"{stream.stream_epoch} lost",
                "the stream was lost while this database was being recovered from it",
            )
        await self._wait_until_resolved()
        await read_rest(stream)
        await self._end(stream.stream_epoch, stream.last_sequence)
        log.warning("recovery_complete", sequence=stream.last_sequence)

    async def caught_up(self, durable: str, stream: Progress) -> bool:
        """Wait until a durable has consumed what the stream held then; return False if the stream is
        lost."""
        while True:
            try:
                progress = await self._broker.progress([durable])
                if progress.stream_epoch != stream.stream_epoch:
                    return False
                if progress.consumed.get(durable, 0) >= stream.last_sequence:
                    return True
            except BrokerError as error:
                log.debug("consumer_progress_unavailable", error=str(error))
            await asyncio.sleep(PAUSE_SECONDS)

    async def _park_loss(self, stream: Progress, start_after: StartAfter | None) -> None:
        """Park what is lost for certain: the stream no longer holds it, or never did."""
        reached = await self._least_reached(stream)
        first = stream.first_sequence
        if first > reached + 1 and start_after is None:
            await self._park(
                f"{stream.stream_epoch} {reached}",
                f"the stream begins at its message {first:,}, and this database handled the messages up"
                f" to {reached:,} before it was restored: what it did about those in between is lost",
            )
        elif self._service.not_in_stream and await self._run(self._is_new):
            await self._park(
                f"{stream.stream_epoch} new",
                "this database is new, although the service has handled messages before",
            )

    async def _park(self, name: str, problem: str) -> None:
        missing = self._service.not_in_stream
        service = self._service.name
        command = ParkLoss(
            letter_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{service} {name}")),
            subject=f"{service}.recovery",
            error=f"{problem}. Restore a newer backup if there is one. Otherwise enter again from your own"
            f" records what is missing{missing and f' ({missing})'}, then retry this dead letter: the"
            " service decides nothing before that.",
        )
        _require(await self._execute(command))

    async def _retry_failed(self) -> None:
        """Retry what could not be replayed, for as long as that helps: it may have arrived too early."""
        failed = await self._run(self._holding, [REPLAY_FAILED])
        while failed:
            retries = (self._execute(RetryDeadLetter(letter_id=letter_id)) for letter_id in failed)
            await asyncio.gather(*retries)
            before, failed = failed, await self._run(self._holding, [REPLAY_FAILED])
            if len(failed) >= len(before):
                return

    async def _wait_until_resolved(self) -> None:
        """Wait until no letter holds the recovery."""
        while held := await self._run(self._holding, HOLDING):
            if len(held) != self.waits_for:
                log.error(
                    "recovery_waits",
                    dead_letters=len(held),
                    advice="enter again what is missing, then "
                    f"`todoku dead retry --all --service {self._service.name}`",
                )
            self.waits_for = len(held)
            await asyncio.sleep(HOLD_PAUSE_SECONDS)
        self.waits_for = 0

    def _holding(self, classes: Sequence[str]) -> Sequence[str]:
        with self._database.read() as connection:
            return self._letters.holding(connection, classes)

    def _is_new(self) -> bool:
        with self._database.read() as connection:
            return self._positions.is_new(connection)

    def _is_marked_incomplete(self) -> bool:
        with self._database.read() as connection:
            recovery = self._positions.recovery(connection)
            if recovery is not None:
                log.warning("database_incomplete", copied=recovery == COPIED)
                return True
            saved = self._positions.get(connection, TIMELINE)
        if self._database.exclusive:
            return False
        current = self._database.timeline()
        if saved == 0 or current is None or saved == current:
            return False
        log.warning("database_timeline_changed", before=saved, now=current)
        return True

    async def _least_reached(self, stream: Progress) -> int:
        """Return up to where every durable that this service reads through has handled the stream."""
        reached: Mapping[str, int] = await self._run(self._reached, stream)
        mine = [each.durable for each in self._partitions] or [self._whole.durable]
        return min(reached[durable] for durable in mine)

    def _reached(self, stream: Progress) -> Mapping[str, int]:
        """Return the last handled sequence of the stream by durable."""
        with self._database.read() as connection:
            return {
                self._whole.durable: self._positions.reached(connection, stream),
                **{
                    each.durable: self._positions.reached(connection, stream, each.durable)
                    for each in self._partitions
                },
            }


def _require(result: object) -> None:
    if isinstance(result, Exception):
        raise result
