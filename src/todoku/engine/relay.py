"""Publishes the outbox to the stream, and resends on evidence that an event was lost."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import msgspec
import structlog

from todoku.broker.partitions import progress_of, with_slot
from todoku.broker.port import Broker, BrokerError, MessageTooLarge, Outgoing, Progress
from todoku.database import Database, DatabaseUnavailable
from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.messages import StoredEvents
from todoku.engine.receipts import owner_token
from todoku.engine.tables import Outbox, OutboxRow
from todoku.engine.tracing import Tracer
from todoku.events import read_envelope

log = structlog.get_logger(__name__)

Run = Callable[..., Awaitable[Any]]
"""Runs a plain function away from the event loop: `await run(function, *arguments)`."""

Park = Callable[[OutboxRow, MessageTooLarge], Awaitable[None]]
"""Makes a dead letter of an event that the broker does not take."""

BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

STARTING_FAILURES = 6
"""How often in a row publishing fails before that is logged, as long as nothing was published: for four
seconds the broker may just be starting, too."""


class PublishedBatch(msgspec.Struct, frozen=True, gc=False):
    """A batch that the broker has stored: the positions above `after` and up to `up_to`.

    `sequence` is that of its last message in the stream `stream_epoch`.
    """

    after: int
    up_to: int
    stream_epoch: str
    sequence: int


class Relay:
    """Publishes in batches: at once from memory, or from the outbox when the memory is full.

    `stored` is called with the positions of stored batches that contain events on other subjects than
    those that are `subscribed`: the stream alone waits for these.

    Published batches are kept by subscriber, not by event. They are resent on evidence only: the
    stream is a new one, or a subscriber has passed the batch and a delivery of it is still pending.
    `check_progress` gathers that evidence. Without it nothing is resent, however long a subscriber is
    down: the stream holds the events for it.
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
        park: Park | None = None,
        subscribed: Collection[str] | None = None,
        stored: Callable[[StoredEvents], None] = lambda _: None,
        failpoint: Failpoint = no_failpoint,
        tracer: Tracer | None = None,
        partitions: int = 1,
    ) -> None:
        self._partitions = partitions
        self._tracer = tracer
        self._broker = broker
        self._database = database
        self._outbox = outbox
        self._owner = owner
        self.owner_token = owner_token(owner)
        self._run = run
        self._window_max = window_max
        self._batch_max = batch_max
        self._park = park
        self._subscribed = subscribed
        self._on_stored = stored
        self._failpoint = failpoint
        self._waiting: deque[OutboxRow] = deque()
        self._loaded = 0  # Rows up to this position are or were in memory.
        self._last = 0  # The last pending row.
        self._sent: dict[str, deque[PublishedBatch]] = {reader: deque() for reader in readers}
        self._suspects: dict[str, list[PublishedBatch]] = {reader: [] for reader in readers}
        self._starts = 0
        self._of_others: tuple[str, int] | None = None
        self._wake = asyncio.Event()
        self._failures = 0
        self.events_sent = 0
        self.events_repeated = 0
        self.events_unpublishable = 0

    @property
    def unsent(self) -> int:
        """Return how many events wait to be published, as far as this process has counted."""
        return len(self._waiting) + self._last - self._loaded

    @property
    def readers(self) -> Sequence[str]:
        """Return the services that subscribe to events of this one."""
        return tuple(self._sent)

    def lag(self, reader: str) -> int:
        """Return how many events were published since the first one that this subscriber has not passed,
        as of the last look at its progress."""
        sent = self._sent[reader]
        return sent[-1].up_to - sent[0].after if sent else 0

    @property
    def idle(self) -> bool:
        """Return whether every pending event was published at least once."""
        return not self._waiting and self._loaded == self._last

    def offer(self, rows: Sequence[OutboxRow]) -> None:
        """Publish rows that were committed just now, in the order of their positions."""
        if not rows:
            return
        # A gap means a commit whose result is unknown; load the rows from the outbox.
        in_step = self._loaded == self._last == rows[0].position - 1
        self._last = rows[-1].position
        if in_step and len(self._waiting) + len(rows) <= self._window_max:
            self._waiting.extend(rows)
            self._loaded = self._last
        self._wake.set()

    def enqueue(self, position: int) -> None:
        """Publish what the outbox holds up to `position`, for instance adopted rows."""
        if position > self._last:
            self._last = position
            self._wake.set()

    async def step(self) -> None:
        """Wait until events are pending, and publish one batch of them."""
        if self.idle and self._of_others is None:
            self._wake.clear()
            await self._wake.wait()
        try:
            if self._of_others is not None:
                await self._publish_of_others(self._of_others)
                return
            if not self._waiting:
                await self._load()
            await self._publish()
        except (BrokerError, DatabaseUnavailable) as error:
            await self._pause(error)
        else:
            self._failures = 0

    async def check_progress(self) -> None:
        """Compare what was published with the progress of the stream and its subscribers; resend what was
        lost."""
        outstanding = [
            sent for reader in self._sent for sent in (*self._sent[reader], *self._suspects[reader])
        ]
        if not outstanding:
            return
        progress = await progress_of(self._broker, tuple(self._sent), self._partitions)
        if any(sent.stream_epoch != progress.stream_epoch for sent in outstanding):
            log.warning("stream_replaced_resending_all")
            self.resend_all()
            return
        for reader in self._sent:
            await self._check_reader(reader, progress)

    async def _check_reader(self, reader: str, progress: Progress) -> None:
        # The receipt may still be on its way. If it is missing at the next check, it is lost.
        for after, up_to in _ranges(self._suspects[reader]):
            await self._resend(reader, after, up_to)
        self._suspects[reader].clear()
        sent = self._sent[reader]
        while sent and sent[0].sequence <= progress.consumed.get(reader, 0):
            self._suspects[reader].append(sent.popleft())

    def resend_all(self) -> None:
        """Publish every pending event again, as after a start of the process."""
        for reader in self._sent:
            self._sent[reader].clear()
            self._suspects[reader].clear()
        self._waiting.clear()
        self._loaded = 0
        self._starts += 1
        self._wake.set()

    def resend_others(self) -> None:
        """Publish every pending event of all other owners once more: a request to resend reaches one of
        several processes, and another one may have frozen."""
        self._of_others = ("", 0)
        self._wake.set()

    async def _publish_of_others(self, after: tuple[str, int]) -> None:
        """Publish a batch of them, before anything else. Their owners go on looking for their receipts."""

        def read() -> list[tuple[str, OutboxRow]]:
            with self._database.read() as connection:
                return self._outbox.of_others(connection, self._owner, after, self._batch_max)

        found: list[tuple[str, OutboxRow]] = await self._run(read)
        if found:
            self.events_repeated += len(found)
            await self._store([row for _, row in found], [])
        if self._of_others is after:  # Else it was requested again meanwhile.
            last = (found[-1][0], found[-1][1].position) if found else None
            self._of_others = last if len(found) == self._batch_max else None

    async def _resend(self, reader: str, after: int, up_to: int) -> None:
        while rows := await self._read(after, up_to, reader):
            log.warning("events_resent_without_receipt", reader=reader, events=len(rows))
            self.events_repeated += len(rows)
            await self._store(rows, [reader])
            after = rows[-1].position

    async def _load(self) -> None:
        starts, up_to = self._starts, self._last
        rows = await self._read(self._loaded, up_to)
        if starts != self._starts:
            return  # The stream was lost meanwhile: start again from the first row.
        self._waiting.extend(rows)
        self._loaded = rows[-1].position if len(rows) == self._batch_max else up_to

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
        self._tell_stored(rows)
        # The queue may have been cleared meanwhile, but never filled with other rows in between.
        while self._waiting and self._waiting[0].position <= rows[-1].position:
            self._waiting.popleft()

    def _tell_stored(self, rows: Sequence[OutboxRow]) -> None:
        """Pass to the writer which events without a subscriber are stored. If the process ends
        before that is committed, they are published once more."""
        subscribed = self._subscribed
        if subscribed is not None and any(row.subject not in subscribed for row in rows):
            self._on_stored(StoredEvents(rows[0].position - 1, rows[-1].position))

    async def _store(self, rows: Sequence[OutboxRow], readers: Sequence[str]) -> None:
        self._failpoint("before-publish")
        began = time.perf_counter()
        try:
            stored = await self._broker.publish(
                [Outgoing(self._subject_of(row), row.body, self.owner_token) for row in rows]
            )
        except MessageTooLarge as error:
            await self._park_too_large([rows[n] for n in error.sizes], error)
            rows = [row for n, row in enumerate(rows) if n not in error.sizes]
            if rows:
                await self._store(rows, readers)
            return
        self._failpoint("after-publish")
        if self._tracer is not None:
            self._tracer.published(rows, time.perf_counter() - began)
        self.events_sent += len(rows)
        sent = PublishedBatch(
            rows[0].position - 1, rows[-1].position, stored.stream_epoch, stored.sequence
        )
        for reader in readers:
            self._sent[reader].append(sent)

    def _subject_of(self, row: OutboxRow) -> str:
        """Return the subject on which an event is published: with a slot, where readers divide."""
        if self._partitions == 1:
            return row.subject
        return with_slot(row.subject, read_envelope(row.body).subject)

    async def _park_too_large(self, rows: Sequence[OutboxRow], error: MessageTooLarge) -> None:
        """Park what the broker does not take, so that the others pass."""
        self.events_unpublishable += len(rows)
        for row in rows:
            if self._park is not None:
                await self._park(row, error)

    async def _pause(self, error: Exception) -> None:
        seconds = BACKOFF_SECONDS[min(self._failures, len(BACKOFF_SECONDS) - 1)]
        if self._failures == (0 if self.events_sent else STARTING_FAILURES):
            log.warning("publishing_delayed", error=str(error))
        self._failures += 1
        await asyncio.sleep(seconds)


def _ranges(batches: Sequence[PublishedBatch]) -> list[tuple[int, int]]:
    """Return the positions that the batches cover, with neighbours joined."""
    ranges: list[tuple[int, int]] = []
    for sent in sorted(batches, key=lambda batch: batch.after):
        if ranges and sent.after <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(ranges[-1][1], sent.up_to))
        else:
            ranges.append((sent.after, sent.up_to))
    return ranges
