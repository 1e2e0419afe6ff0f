"""The single writer of a service: decides on a batch of messages and commits it as one transaction."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection

from todoku.broker.port import Delivery
from todoku.database import ConstraintViolated, Database, DatabaseError
from todoku.engine.batch_context import BatchContext, PostCommitActions, RetryPolicy
from todoku.engine.cache import StateCache
from todoku.engine.dead_letter_handler import DEAD_LETTER_COMMANDS, DeadLetterHandler
from todoku.engine.dead_letters import Attempt, RetryDeadLetter, describe
from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.messages import (
    Due,
    IncomingEvent,
    Message,
    PendingCommand,
    Receipt,
    RepublishEvents,
    UndecodableMessage,
)
from todoku.engine.service import Service, Topology, UnitOfWork
from todoku.engine.tables import EngineTables, PendingDelivery
from todoku.events import encode

log = structlog.get_logger(__name__)

DUE_AGAIN_SECONDS = 60.0
"""How long a due row is postponed after its decision has failed."""

DUE_LOOK_SECONDS = 1.0
"""How long until the writer looks for due rows behind postponed ones."""

RETRIES_MAX = 100
"""How many dead letters one batch retries at most."""

CACHED_STATES_MAX = 5_000
"""How many states of each kind the cache keeps."""

FAILED_ATTEMPTS_MAX = 10_000
"""For how many messages that are still retried the failed attempts are kept in memory."""


class Writer:
    """Turns batches of messages into transactions; plain and synchronous.

    `owner` identifies this process in the outbox. After `adopt`, the positions of its events follow
    those that it adopted from dead processes.
    """

    def __init__(
        self,
        service: Service,
        database: Database,
        tables: EngineTables,
        topology: Topology,
        *,
        owner: str,
        retry_policy: RetryPolicy | None = None,
        due_max: int = 200,
        failpoint: Failpoint = no_failpoint,
    ) -> None:
        self._service = service
        self._database = database
        self._tables = tables
        self._topology = topology
        self._owner = owner
        self._retry_policy = retry_policy or RetryPolicy()
        self._due_max = due_max
        self._failpoint = failpoint
        self._position = 0
        self._position_certain = True
        self._due_again: dict[str, datetime] = {}
        self._retry_at: datetime | None = None
        self._failed_attempts: dict[str, list[Attempt]] = {}
        self._stream_position = ("", 0)
        self._cache = StateCache(CACHED_STATES_MAX)

    @property
    def position(self) -> int:
        """Return the position of the last event that this process has committed."""
        return self._position

    def adopt(self, now: datetime, lease_seconds: float) -> int:
        """Adopt the outbox rows of dead processes; return the new last position."""
        with self._transaction() as connection:
            alive = None
            if not self._database.exclusive:
                alive = self._tables.leases.renew(connection, self._owner, now, lease_seconds)
            position = self._tables.outbox.adopt(connection, self._owner, self._position, alive)
            retry_at = self._tables.dead_letters.next_retry_at(connection)
        self._position = position
        self._retry_at = retry_at
        return position

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Begin a transaction; after one whose result is unknown, read our last position again."""
        certain, self._position_certain = self._position_certain, False
        with self._database.transaction() as connection:
            if not certain:
                self._stream_position = ("", 0)
                self._cache.clear()
                pending = self._tables.outbox.last_position(connection, self._owner)
                self._position = max(self._position, pending)
            yield connection
        self._position_certain = True

    def prune_inbox(self, before: datetime, count: int) -> int:
        """Delete up to `count` inbox entries received before that instant; return how many."""
        with self._database.transaction() as connection:
            return self._tables.inbox.prune(connection, before, count)

    def step(self, batch: Sequence[Message], now: datetime, effect_slots: int) -> PostCommitActions:
        """Decide on a batch and commit it; return the post-commit actions. At most `effect_slots` effects
        start: what is due beyond that stays due.

        A batch that the database rejects because of one message is halved until that message is
        alone, so that no message affects its neighbours. Raises `DatabaseUnavailable` if nothing was
        committed; the same batch may be given again.
        """
        actions = self._step([*batch, *self._find_retries(now)], now, effect_slots)
        actions.next_due_at = _earlier(actions.next_due_at, self._retry_at)
        return actions

    def _step(
        self, batch: Sequence[Message], now: datetime, effect_slots: int
    ) -> PostCommitActions:
        try:
            return self._commit(batch, now, effect_slots)
        except ConstraintViolated as error:
            log.warning("batch_rejected_splitting", messages=len(batch), error=str(error))
        actions = self._step_apart(batch, now)
        for due in self._find_due(now, effect_slots):
            actions.absorb(self._step_due(due, now))
        return actions

    def _step_apart(self, refused: Sequence[Message], now: datetime) -> PostCommitActions:
        """Commit a rejected batch in halves, without due rows."""
        actions = PostCommitActions()
        half = len(refused) // 2
        for part in (refused[:half], refused[half:]):
            if len(part) == 1:
                actions.absorb(self._step_alone(part[0], now))
            elif part:
                try:
                    actions.absorb(self._commit(part, now, 0))
                except ConstraintViolated:
                    actions.absorb(self._step_apart(part, now))
        return actions

    def _step_alone(self, message: Message, now: datetime) -> PostCommitActions:
        try:
            return self._commit([message], now, 0)
        except ConstraintViolated as error:
            return self._commit([message], now, 0, refusal=error)

    def _find_retries(self, now: datetime) -> list[PendingCommand]:
        """Return the scheduled retries of dead letters that are due."""
        if self._retry_at is None or self._retry_at > now:
            return []
        with self._database.read() as connection:
            letters = self._tables.dead_letters.to_retry(connection, now, RETRIES_MAX)
        return [
            PendingCommand(RetryDeadLetter(letter_id=key, by=by), _ignore_result)
            for key, by in letters
        ]

    def _find_due(self, now: datetime, effect_slots: int) -> list[Due]:
        with self._database.transaction() as connection:
            return self._waiting(connection, now, effect_slots)

    def _step_due(self, due: Due, now: datetime) -> PostCommitActions:
        """Decide on one due row; postpone it if the database rejects the result."""
        try:
            return self._commit([], now, 1, only=due)
        except ConstraintViolated:
            log.exception("due_row_rejected", key=due.key)
            self._due_again[due.key] = now + timedelta(seconds=DUE_AGAIN_SECONDS)
            return self._commit([], now, 0)

    def _commit(
        self,
        batch: Sequence[Message],
        now: datetime,
        effect_slots: int,
        *,
        only: Due | None = None,
        refusal: ConstraintViolated | None = None,
    ) -> PostCommitActions:
        """Run one transaction. `only` is the one due row to decide on; `refusal` is why the batch's single
        message could not be saved before."""
        with self._transaction() as connection:
            self._cache.validate(self._database.version(connection))
            with _rejecting_values():
                waiting = [only] if only else self._waiting(connection, now, effect_slots)
                batch_context = BatchContext(
                    self._service,
                    now,
                    self._retry_policy,
                    effect_slots - len(waiting),
                    self._failed_attempts,
                )
                new_events, undecodable = batch_context.deduplicate(
                    batch, self._known(connection, batch)
                )
                asked, about_letters = self._commands(batch, batch_context)
                units_of_work: list[UnitOfWork] = []
                dead_letter_handler = DeadLetterHandler(
                    batch_context, connection, self._tables.dead_letters, self._topology.registry
                )
                dead_letter_handler.prepare(about_letters)
                subjects = [
                    *(pending.command for pending in asked),
                    *(message.event for message in new_events),
                    *(redelivery.event for redelivery in dead_letter_handler.redeliveries),
                    *waiting,
                ]
                if refusal is not None:
                    batch_context.reject(asked, new_events, refusal)
                    dead_letter_handler.reject(refusal)
                elif subjects:
                    unit_of_work = self._service.store.load(connection, subjects, self._cache)
                    self._decide(batch_context, unit_of_work, asked, new_events, waiting)
                    dead_letter_handler.decide(unit_of_work)
                    self._service.store.save(connection, unit_of_work, now)
                    units_of_work.append(unit_of_work)
                for message in undecodable:
                    batch_context.retry_or_park_undecodable(message)
                batch_context.resolve_duplicates()
                self._publish_parked(connection, batch_context)
                receipts = [message for message in batch if isinstance(message, Receipt)]
                # A receipt that the database rejects is dropped: it costs one redelivery.
                self._record(connection, batch_context, [] if refusal else receipts)
                if not any(message.replayed for message in new_events):
                    self._note_positions(
                        connection, (*batch_context.actions.acks, *batch_context.actions.terms)
                    )
                retry_at = dead_letter_handler.save(self._retry_at)
            batch_context.actions.next_due_at = self._next_due_at(connection, now)
            self._failpoint("before-commit")
        self._failpoint("after-commit")
        self._position += len(batch_context.published)
        self._retry_at = retry_at
        for unit_of_work in units_of_work:
            unit_of_work.fill_cache(self._cache)
        self._note_failed_attempts(batch_context)
        return batch_context.actions

    def _known(self, connection: Connection, batch: Sequence[Message]) -> set[str]:
        """Return the ids of those events and commands of the batch that the inbox holds."""
        envelopes = (
            m.envelope for m in batch if isinstance(m, (IncomingEvent, UndecodableMessage))
        )
        ids = {envelope.id for envelope in envelopes if envelope is not None}
        ids |= {m.id for m in batch if isinstance(m, PendingCommand) and m.id is not None}
        return self._tables.inbox.find_processed(connection, ids)

    def _waiting(self, connection: Connection, now: datetime, effect_slots: int) -> list[Due]:
        """Return the due rows that are not postponed."""
        limit = min(effect_slots, self._due_max)
        agenda = self._service.agenda
        if agenda is None or limit <= 0:
            return []
        self._due_again = {key: at for key, at in self._due_again.items() if at > now}
        found = agenda.due(connection, now, limit + len(self._due_again))
        return [due for due in found if due.key not in self._due_again][:limit]

    def _commands(
        self, batch: Sequence[Message], batch_context: BatchContext
    ) -> tuple[list[PendingCommand], list[PendingCommand]]:
        """Return the service's own commands, and those about its dead letters."""
        own: list[PendingCommand] = []
        about_letters: list[PendingCommand] = []
        for message in batch:
            if not isinstance(message, PendingCommand):
                continue
            if isinstance(message.command, DEAD_LETTER_COMMANDS):
                about_letters.append(message)
            elif isinstance(message.command, RepublishEvents) and self._service.republish is None:
                batch_context.actions.answers.append((message, ()))
            else:
                own.append(message)
        return own, about_letters

    def _decide(
        self,
        batch_context: BatchContext,
        unit_of_work: UnitOfWork,
        asked: Sequence[PendingCommand],
        new_events: Sequence[IncomingEvent],
        waiting: Sequence[Due],
    ) -> None:
        for pending in asked:
            if isinstance(pending.command, RepublishEvents):
                batch_context.republish(unit_of_work, pending)
            else:
                batch_context.handle_command(unit_of_work, pending)
        for message in new_events:
            batch_context.handle_event(unit_of_work, message)
        for due in waiting:
            if not batch_context.handle_due(unit_of_work, due):
                self._due_again[due.key] = batch_context.now + timedelta(seconds=DUE_AGAIN_SECONDS)

    def _publish_parked(self, connection: Connection, batch_context: BatchContext) -> None:
        """Publish what is newly parked. A message that arrives again after its inbox entry was pruned is
        parked already, and published."""
        kept = self._tables.dead_letters.find(
            connection, {letter.id for letter in batch_context.parked}
        )
        for letter in batch_context.parked:
            if letter.id not in kept:
                batch_context.publish_letter(self._service.parked_event, letter)

    def _record(
        self, connection: Connection, batch_context: BatchContext, receipts: Sequence[Receipt]
    ) -> None:
        self._tables.inbox.add(connection, batch_context.handled_ids, batch_context.now)
        pending = [
            PendingDelivery(
                envelope.id,
                type(event).subject,
                encode(envelope),
                self._topology.readers(type(event)),
            )
            for envelope, event in batch_context.published
        ]
        batch_context.actions.published = self._tables.outbox.add(
            connection, self._owner, self._position, pending, batch_context.now
        )
        self._tables.outbox.mark_delivered(
            connection,
            ((event_id, receipt.reader) for receipt in receipts for event_id in receipt.ids),
        )
        self._tables.dead_letters.park(connection, batch_context.parked, batch_context.attempts)

    def _note_positions(self, connection: Connection, settled: Iterable[Delivery]) -> None:
        """Save the last handled sequence of each stream epoch, so that a restored backup can be
        recognised. A batch may hold messages of two epochs."""
        last: dict[str, int] = {}
        for delivery in settled:
            last[delivery.stream_epoch] = max(delivery.sequence, last.get(delivery.stream_epoch, 0))
        for stream_epoch, sequence in last.items():
            epoch, reached = self._stream_position
            if epoch != stream_epoch:
                reached = self._tables.positions.get(connection, stream_epoch)
            if sequence > reached:
                self._tables.positions.advance(connection, stream_epoch, sequence)
                self._stream_position = stream_epoch, sequence

    def _note_failed_attempts(self, batch_context: BatchContext) -> None:
        """Keep the failed attempts of messages that are retried; drop those of handled ones."""
        if self._failed_attempts:
            for key in (
                *batch_context.handled_ids,
                *(letter.id for letter in batch_context.parked),
            ):
                self._failed_attempts.pop(key, None)
        for attempt in batch_context.failed_attempts:
            self._failed_attempts.setdefault(attempt.letter_id, []).append(attempt)
        while len(self._failed_attempts) > FAILED_ATTEMPTS_MAX:
            self._failed_attempts.pop(next(iter(self._failed_attempts)))

    def _next_due_at(self, connection: Connection, now: datetime) -> datetime | None:
        if self._service.agenda is None:
            return None
        next_due_at = self._service.agenda.next_due_at(connection)
        if next_due_at is None or not self._due_again:
            return next_due_at
        if self._waiting(connection, now, 1):
            return now
        # A postponed row hides what falls due behind it.
        return max(next_due_at, now + timedelta(seconds=DUE_LOOK_SECONDS))


@contextmanager
def _rejecting_values() -> Iterator[None]:
    """Treat any error that is not the database's as a value that cannot be saved: it is the fault of
    one message, and must not end the process."""
    try:
        yield
    except DatabaseError:
        raise
    except Exception as error:
        raise ConstraintViolated(f"A value cannot be saved: {describe(error)}") from error


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((at for at in (one, other) if at is not None), default=None)


def _ignore_result(result: Any) -> None:
    """Ignore the result of a scheduled retry: it is recorded with the letter."""
