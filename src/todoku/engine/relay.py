"""Brings what the outbox owes onto the stream, and sends it again when there is reason to."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog

from todoku.broker.port import Broker, BrokerError, Outgoing, Progress
from todoku.database import Database, DatabaseUnavailable
from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.tables import Outbox, OutboxRow

log = structlog.get_logger(__name__)

Run = Callable[..., Awaitable[Any]]
"""Runs a plain function away from the event loop: `await run(function, *arguments)`."""

BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class PublishedBatch(msgspec.Struct, frozen=True, gc=False):
    """A batch that the broker has stored: the positions above `after` and up to `up_to`.

    `sequence` is the place of its last message in the stream's life `incarnation`.
    """

    after: int
    up_to: int
    stream_epoch: str
    sequence: int


class Relay:
    """Publishes in batches: at once from memory, or from the outbox when memory ran over.

    What was sent is remembered by batch and reader, not by event. It is sent again on evidence only:
    the stream is another one, or the reader has gone past the batch and something of it is still
    owed to it. `look` gathers that evidence. Without it nothing is repeated, however long a reader
    is away: then the stream holds the events for it.
    """

    def __init__(
        self,
        broker: Broker,
        database: Database,
        outbox: Outbox,
        *,
        owner: str,
        readers: Sequence[str],
        run: Run,
        window_max: int = 10_000,
        batch_max: int = 500,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._broker = broker
        self._database = database
        self._outbox = outbox
        self._owner = owner
        self._run = run
        self._window_max = window_max
        self._batch_max = batch_max
        self._failpoint = failpoint
        self._waiting: deque[OutboxRow] = deque()
        self._taken = 0  # Every row up to this position is or was in memory.
        self._last = 0  # The last row that is owed at all.
        self._sent: dict[str, deque[PublishedBatch]] = {reader: deque() for reader in readers}
        self._suspects: dict[str, list[PublishedBatch]] = {reader: [] for reader in readers}
        self._starts = 0
        self._wake = asyncio.Event()
        self._failures = 0
        self.events_sent = 0
        self.events_repeated = 0

    @property
    def unsent(self) -> int:
        """How many events wait to be sent, as far as this process has counted."""
        return len(self._waiting) + self._last - self._taken

    @property
    def idle(self) -> bool:
        """Whether everything owed has been sent at least once."""
        return not self._waiting and self._taken == self._last

    def offer(self, rows: Sequence[OutboxRow]) -> None:
        """Send these, which were committed just now, in the order of their positions."""
        if not rows:
            return
        # Behind a gap is what was committed unnoticed: that is in the outbox only.
        in_step = self._taken == self._last == rows[0].position - 1
        self._last = rows[-1].position
        if in_step and len(self._waiting) + len(rows) <= self._window_max:
            self._waiting.extend(rows)
            self._taken = self._last
        self._wake.set()

    def enqueue(self, position: int) -> None:
        """Send what the outbox holds up to `position`, for instance what was taken over."""
        if position > self._last:
            self._last = position
            self._wake.set()

    async def step(self) -> None:
        """Wait until something is to be sent, and send one batch of it."""
        if self.idle:
            self._wake.clear()
            await self._wake.wait()
        try:
            if not self._waiting:
                await self._load()
            await self._publish()
        except (BrokerError, DatabaseUnavailable) as error:
            await self._pause(error)
        else:
            self._failures = 0

    async def look(self) -> None:
        """Compare what was sent with how far the stream and its readers are."""
        outstanding = [
            sent for reader in self._sent for sent in (*self._sent[reader], *self._suspects[reader])
        ]
        if not outstanding:
            return
        progress = await self._broker.progress(tuple(self._sent))
        if any(sent.stream_epoch != progress.stream_epoch for sent in outstanding):
            log.warning("the stream is a new one: what is still owed is sent again")
            self.resend_all()
            return
        for reader in self._sent:
            await self._look_at(reader, progress)

    async def _look_at(self, reader: str, progress: Progress) -> None:
        # The receipt for what a reader has just passed may be on its way: one look later it is not.
        for after, up_to in _ranges(self._suspects[reader]):
            await self._resend(reader, after, up_to)
        self._suspects[reader].clear()
        sent = self._sent[reader]
        while sent and sent[0].sequence <= progress.consumed.get(reader, 0):
            self._suspects[reader].append(sent.popleft())

    def resend_all(self) -> None:
        """Send everything that is still owed, as after a start of the process."""
        for reader in self._sent:
            self._sent[reader].clear()
            self._suspects[reader].clear()
        self._waiting.clear()
        self._taken = 0
        self._starts += 1
        self._wake.set()

    async def _resend(self, reader: str, after: int, up_to: int) -> None:
        while rows := await self._read(after, up_to, reader):
            log.warning("sent again: passed without a receipt", reader=reader, events=len(rows))
            self.events_repeated += len(rows)
            await self._store(rows, [reader])
            after = rows[-1].position

    async def _load(self) -> None:
        starts, up_to = self._starts, self._last
        rows = await self._read(self._taken, up_to)
        if starts != self._starts:
            return  # The stream was lost meanwhile: begin again from the first row.
        self._waiting.extend(rows)
        self._taken = rows[-1].position if len(rows) == self._batch_max else up_to

    async def _read(self, after: int, up_to: int, reader: str | None = None) -> list[OutboxRow]:
        def read() -> list[OutboxRow]:
            with self._database.read() as connection:
                return self._outbox.between(
                    connection, self._owner, after, up_to, self._batch_max, reader
                )

        rows: list[OutboxRow] = await self._run(read)
        return rows

    async def _publish(self) -> None:
        rows = [self._waiting[i] for i in range(min(len(self._waiting), self._batch_max))]
        if not rows:
            return
        await self._store(rows, list(self._sent))
        # The queue may have been emptied meanwhile, but never filled with other rows in between.
        while self._waiting and self._waiting[0].position <= rows[-1].position:
            self._waiting.popleft()

    async def _store(self, rows: Sequence[OutboxRow], readers: Sequence[str]) -> None:
        self._failpoint("before-publish")
        stored = await self._broker.publish([Outgoing(row.subject, row.body) for row in rows])
        self._failpoint("after-publish")
        self.events_sent += len(rows)
        sent = PublishedBatch(
            rows[0].position - 1, rows[-1].position, stored.stream_epoch, stored.sequence
        )
        for reader in readers:
            self._sent[reader].append(sent)

    async def _pause(self, error: Exception) -> None:
        seconds = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        if self._failures == 0:
            log.warning("events wait in the outbox", error=str(error))
        self._failures += 1
        await asyncio.sleep(seconds)


def _ranges(batches: Sequence[PublishedBatch]) -> list[tuple[int, int]]:
    """The positions that the batches cover, with neighbours joined."""
    ranges: list[tuple[int, int]] = []
    for sent in sorted(batches, key=lambda batch: batch.after):
        if ranges and sent.after <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], sent.up_to))
        else:
            ranges.append((sent.after, sent.up_to))
    return ranges
