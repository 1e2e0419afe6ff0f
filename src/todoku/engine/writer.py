"""The single writer of a service: decides on a batch of messages and commits it as one transaction.

One of three functions runs the transaction, each from top to bottom:

- `_commit_batch` for a batch of messages, and what is due with it;
- `_commit_due` for a single due row, after a batch that the database rejected;
- `_commit_rejected` for a single message that the database rejects.

The other transactions of a process are in `separate_commands` and `maintenance`; they share `transactions`.
"""

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from itertools import chain
from typing import Any

import structlog
from sqlalchemy import Connection

from todoku.database import ConstraintViolated, Database
from todoku.engine.agenda import DUE_MAX
from todoku.engine.audit_log.trail import Trail
from todoku.engine.batch_context import BatchContext
from todoku.engine.cache import StateCache
from todoku.engine.clock import Correction
from todoku.engine.config import RetryPolicy
from todoku.engine.dead_letter_handler import DeadLetterHandler
from todoku.engine.dead_letters import RetryDeadLetter
from todoku.engine.due_rows import DueRows, DueTimes, earlier
from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.failures import FailedAttempts
from todoku.engine.maintenance import Maintenance
from todoku.engine.messages import (
    Due,
    Message,
    PendingCommand,
)
from todoku.engine.pause_handler import PauseHandler
from todoku.engine.persons.file import ErasureFile
from todoku.engine.post_commit import PostCommitActions
from todoku.engine.rejection import rejecting_values
from todoku.engine.separate_commands import SeparateCommands
from todoku.engine.service import Service, Topology, UnitOfWork
from todoku.engine.tables import STREAM, PendingDelivery
from todoku.engine.tracing import Tracer
from todoku.engine.transactions import Transactions
from todoku.events import encode

log = structlog.get_logger(__name__)

RETRIES_MAX = 100
"""How many dead letters one batch retries at most."""

Load = Callable[[Connection, Sequence[Any], StateCache], UnitOfWork]
"""Loads what decisions about some subjects need."""


class Writer:
    """Turns batches of messages into transactions; plain and synchronous.

    `owner` identifies this process in the outbox. After `adopt`, the positions of its events follow
    those that it adopted from dead processes. With `audit` it writes the audit log. The `erasure_file` has
    the persons that were erased.
    """

    def __init__(
        self,
        service: Service,
        database: Database,
        topology: Topology,
        *,
        owner: str,
        retry_policy: RetryPolicy | None = None,
        due_max: int = DUE_MAX,
        position_lag_max: int = 1_000,
        failpoint: Failpoint = no_failpoint,
        correction: Callable[[], Correction | None] = lambda: None,
        tracer: Tracer | None = None,
        audit: bool = False,
        erasure_file: ErasureFile | None = None,
        partition_durables: Collection[str] = (),
    ) -> None:
        self.alive: Collection[str] = (owner,)
        """The processes that had a lease when leases were last read."""
        self.transactions = Transactions(
            service,
            database,
            topology,
            owner=owner,
            position_lag_max=position_lag_max,
            audit=audit,
            erasure_file=erasure_file,
            partition_durables=partition_durables,
        )
        self._tracer = tracer
        self._service = service
        self._database = database
        self._tables = service.store.tables
        self._formats = service.formats
        self._topology = topology
        self._retry_policy = retry_policy or RetryPolicy()
        self._failpoint = failpoint
        self._correction = correction
        self._trail = self.transactions.trail
        self._persons = self.transactions.persons
        self._due_rows = DueRows(service.agendas, due_max, shared=not database.exclusive)
        self._pauses = PauseHandler(service, self._due_rows, shared=not database.exclusive)
        self._retry_at: datetime | None = None
        self._failed_attempts = FailedAttempts()
        self.decided_anew = 0
        """How many batches were decided without locks, and once more with locks."""
        self._load_unlocked: Load | None = None
        if not database.exclusive:
            self._load_unlocked = getattr(service.store, "load_unlocked", None)
        self._held_keys: frozenset[str] = frozenset()
        self._cache = self.transactions.cache
        self.maintenance = Maintenance(self.transactions, partition_durables)
        self.separate_commands = SeparateCommands(
            service, self.transactions, self._pauses, failpoint
        )

    @property
    def position(self) -> int:
        """Return the position of the last event that this process has committed."""
        return self.transactions.position

    @property
    def owner(self) -> str:
        """Return what identifies this process in the outbox."""
        return self.transactions.owner

    @property
    def cache(self) -> StateCache:
        """Return the cache of states."""
        return self._cache

    @property
    def pause_count(self) -> int:
        """Return how many pauses this process knows of."""
        return self._pauses.count

    def adopt(self, now: datetime, lease_seconds: float) -> int:
        """Adopt the outbox rows of dead processes, and read what is paused; return the new last position.

        Transactions of frozen processes are ended first: they may have locked due rows, which all others
        skip instead of waiting for them.
        """
        self._database.end_frozen()
        tables, transactions = self._tables, self.transactions
        with transactions.open() as connection:
            alive = None
            if not self._database.exclusive:
                alive = tables.leases.renew(connection, self.owner, now, lease_seconds)
            position = tables.outbox.adopt(connection, self.owner, transactions.position, alive)
            if alive is not None:
                tables.positions.merge_dead(connection, alive)
            retry_at = tables.dead_letters.next_retry_at(connection)
            self._held_keys = tables.dead_letters.held_keys(connection)
            self._pauses.read(connection, now)
        transactions.position = position
        self._retry_at = retry_at
        self.alive = alive or (self.owner,)
        return position

    def note_replayed_pauses(self, version: int) -> None:
        """Note that this service had published what is paused, under this version, before its database was
        restored."""
        self._pauses.note_replayed(version)

    def step(
        self, batch: Sequence[Message], now: datetime, effect_slots: int, due: bool = True
    ) -> PostCommitActions:
        """Decide on a batch and on what is `due`, and commit it; return the post-commit actions.

        At most `effect_slots` rows of agendas that start effects are decided on; the others do not wait
        for effects. A batch that the database rejects because of one message is halved until that
        message is alone, so that no message affects its neighbours. Raises `DatabaseUnavailable` if
        nothing was committed; the same batch may be given again.
        """
        self._pauses.refresh(self._database, now)
        if self._pauses.to_publish:
            self._publish_pauses(now)
        messages = [*batch, *self._find_retries(now)]
        try:
            actions = self._commit_sharing(messages, now, effect_slots, due=due)
        except ConstraintViolated as error:
            log.warning("batch_rejected_splitting", messages=len(messages), error=str(error))
            actions = self._commit_apart(messages, now)
            rows = self._find_due(now, effect_slots) if due else []
            for row in rows:
                actions.absorb(self._try_due(row, now))
            if rows or not messages:  # It tells when to look for due rows next.
                actions.absorb(self._commit_batch([], now, 0, due=False))
        actions.retry_at = self._retry_at
        return actions

    # Three transactions.

    def _commit_sharing(
        self, messages: Sequence[Message], now: datetime, effect_slots: int, *, due: bool
    ) -> PostCommitActions:
        """Commit a batch that leaves rows unlocked for other processes, where the store can do that. Decide
        it anew, with locks, if what was read no longer holds."""
        if self._load_unlocked is not None:
            try:
                return self._commit_batch(
                    messages, now, effect_slots, due=due, load=self._load_unlocked
                )
            except ConstraintViolated as error:
                self.decided_anew += 1
                log.debug("batch_decided_anew", messages=len(messages), error=str(error))
        return self._commit_batch(messages, now, effect_slots, due=due)

    def _commit_batch(
        self,
        messages: Sequence[Message],
        now: datetime,
        effect_slots: int,
        *,
        due: bool,
        load: Load | None = None,
    ) -> PostCommitActions:
        """Commit a batch, with what is due."""

        def decide(connection: Connection, batch: BatchContext) -> UnitOfWork | None:
            deduplicate = self._deduplication(connection, batch, messages)
            if due:
                batch.due = self._take_due(connection, now, effect_slots)
                batch.effect_slots -= sum(row.agenda.starts_effects for row in batch.due)
            deduplicate()
            letters = self._open_letters(connection, batch)
            unit_of_work = self._load(connection, batch, letters, load or self._service.store.load)
            if unit_of_work is not None:
                batch.handle_all(unit_of_work)
                letters.decide(unit_of_work)
                self._service.store.save(connection, unit_of_work, now)
            self._record(connection, batch, letters)
            if load is not None and unit_of_work is not None:
                self._service.store.save_last(connection, unit_of_work)  # type: ignore[attr-defined]
            return unit_of_work

        return self._transact(decide, now, effect_slots)

    def _commit_due(self, due: Due, now: datetime) -> PostCommitActions:
        """Commit the decision on one due row, and nothing else."""

        def decide(connection: Connection, batch: BatchContext) -> UnitOfWork | None:
            batch.due = [due]
            due.agenda.lock(connection, due.key)
            unit_of_work = self._service.store.load(connection, [due], self._cache)
            batch.handle_all(unit_of_work)
            self._service.store.save(connection, unit_of_work, now)
            self._record(connection, batch)
            return unit_of_work

        return self._transact(decide, now, effect_slots=0)

    def _commit_rejected(
        self, message: Message, error: ConstraintViolated, now: datetime
    ) -> PostCommitActions:
        """Commit that a message failed because the database rejects its results."""

        def decide(connection: Connection, batch: BatchContext) -> UnitOfWork | None:
            self._deduplication(connection, batch, [message])()
            letters = self._open_letters(connection, batch)
            batch.reject(error)
            letters.reject(error)
            self._record(connection, batch, letters)
            return None

        return self._transact(decide, now, effect_slots=0)

    def _transact(
        self,
        decide: Callable[[Connection, BatchContext], UnitOfWork | None],
        now: datetime,
        effect_slots: int,
    ) -> PostCommitActions:
        """Run a transaction; after its commit, note in memory what it has changed."""
        batch = BatchContext(
            self._service,
            now,
            self._retry_policy,
            effect_slots,
            self._failed_attempts,
            self._due_rows.windows(now, self._correction()),
            self._held_keys,
            self._pauses.gate,
            None if self._tracer is None else self._tracer.batch(),
        )
        with self.transactions.open() as connection:
            self._cache.validate(self._database.version(connection))
            with rejecting_values():
                unit_of_work = decide(connection, batch)
            for due in batch.failed_due:
                self._due_rows.postpone(due, now)
            self._due_rows.note_due(batch.earliest_due)
            next_due = self._due_rows.send_next_due(connection, now, self._correction())
            if batch.spans is not None:
                batch.spans.before_commit()
            self._failpoint("before-commit")
        self._failpoint("after-commit")
        batch.actions.next_due = self._next_due(next_due(), now)
        if batch.spans is not None:
            batch.spans.committed(len(batch.new_events))
        self.transactions.position += len(batch.published) + len(batch.returned)
        self._retry_at = batch.retry_at if batch.letter_commands else self._retry_at
        self._held_keys = batch.held_keys
        if unit_of_work is not None:
            unit_of_work.fill_cache(self._cache)
        for request in batch.audited:
            request.recorded = True
        if batch.erasures:
            self._cache.clear()  # It holds what was erased.
        self._failed_attempts.note(
            batch.failures.failed,
            chain(batch.handled_ids, (letter.id for letter in batch.failures.parked)),
        )
        return batch.actions

    def _publish_pauses(self, now: datetime) -> None:
        """Publish what is paused, in a transaction of its own: the next batch offers it to the relay."""
        with self.transactions.open() as connection:
            event, version = self._pauses.event(connection, now)
            self.transactions.add_to_outbox(connection, [event], now)
        self.transactions.position += 1
        self._pauses.note_published(version)

    # When the database rejects a batch.

    def _commit_apart(self, rejected: Sequence[Message], now: datetime) -> PostCommitActions:
        """Commit a rejected batch in halves, without due rows."""
        actions = PostCommitActions()
        half = len(rejected) // 2
        for part in (rejected[:half], rejected[half:]):
            if len(part) == 1:
                actions.absorb(self._commit_alone(part[0], now))
            elif part:
                try:
                    actions.absorb(self._commit_batch(part, now, 0, due=False))
                except ConstraintViolated:
                    actions.absorb(self._commit_apart(part, now))
        return actions

    def _commit_alone(self, message: Message, now: datetime) -> PostCommitActions:
        try:
            return self._commit_batch([message], now, 0, due=False)
        except ConstraintViolated as error:
            return self._commit_rejected(message, error, now)

    def _try_due(self, due: Due, now: datetime) -> PostCommitActions:
        """Decide on one due row; postpone it if the database rejects the result."""
        try:
            return self._commit_due(due, now)
        except ConstraintViolated:
            log.exception("due_row_rejected", agenda=due.agenda.name, key=due.key)
            self._due_rows.postpone(due, now)
            return PostCommitActions()

    # Phases of a transaction.

    def _deduplication(
        self, connection: Connection, batch: BatchContext, messages: Sequence[Message]
    ) -> Callable[[], None]:
        """Sort the messages, and ask which of them the inbox holds and which keys were used; return what
        completes that."""
        batch.sort(messages)
        processed = self._tables.inbox.send(connection, batch.ids())
        used = self._tables.idempotency_keys.send(connection, batch.keys())
        return lambda: batch.deduplicate(processed(), used())

    def _open_letters(self, connection: Connection, batch: BatchContext) -> DeadLetterHandler:
        """Load the dead letters that commands are about."""
        letters = DeadLetterHandler(
            batch, connection, self._tables.dead_letters, self._topology.registry
        )
        letters.prepare(batch.letter_commands)
        return letters

    def _load(
        self, connection: Connection, batch: BatchContext, letters: DeadLetterHandler, load: Load
    ) -> UnitOfWork | None:
        """Load what the decisions need, None if there is nothing to decide on."""
        subjects = [
            *[pending.command for pending in batch.commands],
            *[message.event for message in batch.new_events],
            *[redelivery.event for redelivery in letters.redeliveries],
            *batch.due,
        ]
        if not subjects:
            return None
        return load(connection, subjects, self._cache)

    def _record(
        self,
        connection: Connection,
        batch: BatchContext,
        letters: DeadLetterHandler | None = None,
    ) -> None:
        """Record what was decided: inbox, idempotency keys, outbox, receipts, dead letters, and stream
        positions."""
        for message in batch.undecodable:
            batch.failures.add_undecodable(message)
        batch.resolve_duplicates()
        self._publish_parked(connection, batch)
        batch.acknowledge_set_aside()
        if batch.erasures:
            self._persons.apply_events(connection, batch.erasures, batch.now)
        self._tables.audit_anchors.keep(connection, batch.anchors, batch.now)
        if batch.api_keys:
            self._tables.api_keys.keep(connection, batch.api_keys.values())
            self._persons.keys_changed(connection)
        if self._trail is not None:
            self._audit(connection, batch, self._trail)
        for agenda, contexts in batch.contexts.items():
            agenda.keep_contexts(connection, contexts)
        self._tables.paused_timers.note(connection, batch.still_timers, batch.now)
        self._tables.inbox.add(connection, batch.handled_ids, batch.now)
        self._tables.idempotency_keys.add(connection, batch.kept_answers(self._formats), batch.now)
        self._tables.outbox.withdraw(connection, batch.withdrawn)
        self._enqueue(connection, batch)
        self._tables.outbox.mark_delivered(
            connection,
            ((event_id, receipt.reader) for receipt in batch.receipts for event_id in receipt.ids),
        )
        self._tables.outbox.mark_stored(connection, self.owner, batch.stored)
        self._tables.dead_letters.park(connection, batch.failures.parked, batch.failures.attempts)
        self.transactions.handled.advance(connection, (*batch.actions.acks, *batch.actions.terms))
        if letters is not None:
            batch.retry_at = letters.save()

    def _audit(self, connection: Connection, batch: BatchContext, trail: Trail) -> None:
        """Add a row to the audit log for each command that somebody has asked for."""
        entries = []
        for pending, result in batch.actions.answers:
            if pending.request is not None:
                entries.append(pending.request.entry(result, pending.command))
                batch.audited.append(pending.request)
        trail.add(connection, entries, batch.now)

    def _publish_parked(self, connection: Connection, batch: BatchContext) -> None:
        """Publish what is newly parked. A message that arrives again after its inbox entry was pruned is
        parked already, and published."""
        parked = batch.failures.parked
        kept = self._tables.dead_letters.find(connection, {letter.id for letter in parked})
        for letter in parked:
            if letter.id not in kept:
                batch.publish_letter(self._service.parked_event, letter)

    def _enqueue(self, connection: Connection, batch: BatchContext) -> None:
        """Put the published events into the outbox."""
        pending = [
            PendingDelivery(
                envelope.id,
                type(event).subject,
                encode(envelope),
                self._topology.readers(type(event)) or (STREAM,),
                envelope.traceparent,
            )
            for envelope, event in batch.published
        ]
        pending += [
            PendingDelivery(
                letter.id,
                letter.subject,
                letter.body,
                self._topology.readers_on(letter.subject) or (STREAM,),
            )
            for letter in batch.returned
        ]
        endings = self._service.endings
        batch.actions.ended = [
            envelope.subject for envelope, event in batch.published if type(event) in endings
        ]
        batch.actions.published = self._tables.outbox.add(
            connection, self.owner, self.transactions.position, pending, batch.now
        )

    # Beside the transactions.

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
            return self._take_due(connection, now, effect_slots)

    def _take_due(self, connection: Connection, now: datetime, effect_slots: int) -> list[Due]:
        """Return the due rows, no more than the rates of resumes allow."""
        allowance = self._pauses.allowance(connection, now)
        due = self._due_rows.find(connection, now, effect_slots, self._correction(), allowance)
        if allowance is not None:
            self._pauses.save(connection, allowance, now)
        return due

    def _next_due(self, times: DueTimes, now: datetime) -> DueTimes:
        """Return when to look for due rows next, or for the end of a pause."""
        look_at = self._pauses.look_again_at(now)
        if look_at is None:
            return times
        return DueTimes(times.effects_at, earlier(times.others_at, look_at))


def _ignore_result(result: object) -> None:
    """Ignore the result of a scheduled retry: it is recorded with the letter."""
