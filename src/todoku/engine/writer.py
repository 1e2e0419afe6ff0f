"""The single writer of a service: decides on a batch of messages and commits it as one transaction.

One of three functions runs the transaction, each from top to bottom:

- `_commit_batch` for a batch of messages, and what is due with it;
- `_commit_due` for a single due row, after a batch that the database rejected;
- `_commit_rejected` for a single message that the database rejects.

Commands about pauses have a transaction of their own, `execute_pause`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from typing import Any

import structlog
from sqlalchemy import Connection

from todoku.broker.port import Delivery, Progress
from todoku.database import ConstraintViolated, Database, DatabaseBroken, DatabaseError
from todoku.engine.agenda import DUE_MAX, DueRows, DueTimes, earlier
from todoku.engine.api_keys import event_of_key
from todoku.engine.audit_log.entries import AuditEntry, Head
from todoku.engine.audit_log.requests import AuditRequest
from todoku.engine.audit_log.trail import Trail
from todoku.engine.batch_context import BatchContext
from todoku.engine.cache import StateCache
from todoku.engine.clock import Correction
from todoku.engine.config import RetryPolicy
from todoku.engine.dead_letter_handler import DeadLetterHandler
from todoku.engine.dead_letters import RetryDeadLetter, describe
from todoku.engine.failpoints import Failpoint, no_failpoint
from todoku.engine.failures import FailedAttempts
from todoku.engine.idempotency import IdempotencyKey, IdempotencyKeyReused, kept_answer
from todoku.engine.messages import (
    Due,
    Message,
    PendingCommand,
)
from todoku.engine.pause_handler import PauseHandler
from todoku.engine.pauses import Pause, PauseError, Resume
from todoku.engine.persons.commands import ErasePerson, PersonError
from todoku.engine.persons.file import ErasureFile
from todoku.engine.persons.handler import PersonHandler
from todoku.engine.post_commit import PostCommitActions
from todoku.engine.service import Service, Topology, UnitOfWork
from todoku.engine.stream_positions import TIMELINE, new_epoch, place_in
from todoku.engine.tables import STREAM, PendingDelivery
from todoku.engine.tracing import Tracer
from todoku.events import NO_CONTEXT, ErasureEvent, Event, encode, fact_id, seal
from todoku.identity.keys import ApiKey

log = structlog.get_logger(__name__)

RETRIES_MAX = 100
"""How many dead letters one batch retries at most."""

CACHED_STATES_MAX = 5_000
"""How many states of each kind the cache keeps."""

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
        self._partition_durables = frozenset(partition_durables)
        self.alive: Collection[str] = (owner,)
        """The processes that had a lease when leases were last read."""
        self._tracer = tracer
        self._service = service
        self._database = database
        self._tables = service.store.tables
        self._formats = service.formats
        self._topology = topology
        self._owner = owner
        self._retry_policy = retry_policy or RetryPolicy()
        self._failpoint = failpoint
        self._correction = correction
        self._position_lag_max = position_lag_max
        self._persons = PersonHandler(service.persons, self._tables, erasure_file)
        self._trail: Trail | None = None
        if audit:
            self._trail = Trail(self._tables.audit_log, self._tables.audit_names, owner=owner)
        self._anchored: Head | None = None
        self._position = 0
        self._position_certain = True
        self._timeline_saved = False
        self._due_rows = DueRows(service.agendas, due_max, shared=not database.exclusive)
        self._pauses = PauseHandler(service, self._due_rows, shared=not database.exclusive)
        self._retry_at: datetime | None = None
        self._failed_attempts = FailedAttempts()
        self._stream_positions: dict[str, int] = {}
        self._committed_positions: dict[str, int] = {}
        self._noted_positions: dict[str, int] = {}
        self._position_owner = None if database.exclusive else owner
        self.decided_anew = 0
        """How many batches were decided without locks, and once more with locks."""
        self._load_unlocked: Load | None = None
        if not database.exclusive:
            self._load_unlocked = getattr(service.store, "load_unlocked", None)
        self._recoveries = 0
        self._held_keys: frozenset[str] = frozenset()
        self._cache = StateCache(CACHED_STATES_MAX)

    @property
    def position(self) -> int:
        """Return the position of the last event that this process has committed."""
        return self._position

    @property
    def owner(self) -> str:
        """Return what identifies this process in the outbox."""
        return self._owner

    @property
    def cache(self) -> StateCache:
        """Return the cache of states."""
        return self._cache

    @property
    def pause_count(self) -> int:
        """Return how many pauses this process knows of."""
        return self._pauses.count

    def begin(self, stream: Progress) -> int:
        """Return the last handled sequence of the stream; of a service that handled nothing yet, its last
        one is saved as it."""
        with self._transaction() as connection:
            return self._tables.positions.begin(connection, stream)

    def adopt(self, now: datetime, lease_seconds: float) -> int:
        """Adopt the outbox rows of dead processes, and read what is paused; return the new last position.

        Transactions of frozen processes are ended first: they may have locked due rows, which all others
        skip instead of waiting for them.
        """
        self._database.end_frozen()
        with self._transaction() as connection:
            alive = None
            if not self._database.exclusive:
                alive = self._tables.leases.renew(connection, self._owner, now, lease_seconds)
            position = self._tables.outbox.adopt(connection, self._owner, self._position, alive)
            if alive is not None:
                self._tables.positions.merge_dead(connection, alive)
            retry_at = self._tables.dead_letters.next_retry_at(connection)
            self._held_keys = self._tables.dead_letters.held_keys(connection)
            self._pauses.read(connection, now)
        self._position = position
        self._retry_at = retry_at
        self.alive = alive or (self._owner,)
        return position

    def leave(self) -> None:
        """Give up this process's lease, so that others need not wait until it expires."""
        with self._database.transaction() as connection:
            self._tables.leases.give_up(connection, self._owner)

    def begin_partition(self, stream_epoch: str, durable: str, sequence: int) -> None:
        """Save that a partition's durable, which is about to be created, begins behind that sequence."""
        with self._database.transaction() as connection:
            self._tables.positions.advance(connection, place_in(stream_epoch, durable), sequence)

    def prune_inbox(self, before: datetime, count: int) -> int:
        """Delete up to `count` inbox entries received before that instant; return how many."""
        with self._database.transaction() as connection:
            return self._tables.inbox.prune(connection, before, count)

    def note_position(self, place: str, sequence: int) -> None:
        """Save that everything up to that sequence is handled, if the saved position is far behind; `place`
        is that of the service or of a partition (`place_in`)."""
        for known in (self._stream_positions, self._noted_positions):
            if place in known and sequence <= known[place] + self._position_lag_max:
                return
        positions = self._tables.positions
        advances = False
        with self._transaction() as connection:
            reached = positions.get(connection, place)
            if sequence > reached + self._position_lag_max:
                positions.advance(connection, place, sequence, self._position_owner)
                advances = True
        if advances:
            self._stream_positions[place] = sequence
        else:
            self._noted_positions[place] = reached

    def begin_recovery(self, now: datetime) -> None:
        """Save that a recovery has begun, and with it a new epoch of the database and a new chain of the
        audit log."""
        self._recoveries += 1
        epoch = new_epoch(self._owner, self._recoveries)
        with self._transaction() as connection:
            self._tables.positions.begin_recovery(connection, epoch)
            if self._trail is not None:
                self._trail.begin(connection, now, restored=True)

    def end_recovery(self, stream_epoch: str, sequence: int) -> None:
        """Save that the database is complete up to that sequence."""
        with self._transaction() as connection:
            self._tables.positions.end_recovery(
                connection, stream_epoch, sequence, self._partition_durables
            )
            self._persons.apply_again(connection)
        self._cache.clear()

    def prune_keys(self, before: datetime, count: int) -> int:
        """Delete up to `count` idempotency keys used before that instant; return how many."""
        with self._database.transaction() as connection:
            return self._tables.idempotency_keys.prune(connection, before, count)

    def save_timeline(self) -> None:
        """Save under which timeline the database is complete, once a process."""
        if self._timeline_saved:
            return
        timeline = self._database.timeline()
        if timeline is not None:
            with self._database.transaction() as connection:
                self._tables.positions.advance(connection, TIMELINE, timeline)
        self._timeline_saved = True

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

    def begin_trail(self, now: datetime) -> None:
        """Begin the chain that this process writes to the audit log."""
        assert self._trail is not None
        with self._transaction() as connection:
            self._trail.begin(connection, now)

    def add_to_trail(self, entries: Sequence[AuditEntry], now: datetime) -> None:
        """Add rows to the audit log, in a transaction of their own."""
        assert self._trail is not None
        with self._transaction() as connection:
            self._trail.add(connection, entries, now)

    def anchor_trail(self, now: datetime) -> bool:
        """Publish the head of the chain, if there are rows behind the last one that was published."""
        assert self._trail is not None
        self._trail.forget_names()
        head = self._trail.head
        kind = self._service.anchor_event
        if head is None or kind is None or head == self._anchored:
            return False
        event = kind(
            service=self._service.name,
            chain=head.chain,
            sequence=head.sequence,
            hash=head.hash.hex(),
        )
        self._publish(event, now)
        self._anchored = head
        return True

    def apply_erasure_file(self) -> int:
        """Erase the persons that the file has and the database lacks; return how many."""
        with self._transaction() as connection:
            return self._persons.apply_file(connection)

    def erase_person(
        self,
        command: ErasePerson,
        key: IdempotencyKey | None,
        now: datetime,
        request: AuditRequest | None = None,
    ) -> object:
        """Commit the erasure of a person by itself; return the result, a `KeptAnswer` if the key was used
        before, or an error."""
        with self._transaction() as connection:
            result, events = self._find_or_erase(connection, command, key, now)
            self._add_to_outbox(connection, events, now)
            if self._trail is not None and request is not None:
                self._trail.add(connection, [request.entry(result, command)], now)
        self._position += len(events)
        self._cache.clear()
        if self._trail is not None:
            self._trail.forget_names()
        if request is not None:
            request.recorded = self._trail is not None
        return result

    def change_key(self, key: ApiKey, now: datetime) -> None:
        """Save an API key that was created or revoked, and publish it, in a transaction of its own."""
        assert self._service.key_event is not None, "another service creates the keys"
        with self._transaction() as connection:
            self._tables.api_keys.keep(connection, [key])
            self._add_to_outbox(connection, [event_of_key(self._service.key_event, key)], now)
        self._position += 1

    def execute_pause(
        self,
        command: Pause | Resume,
        key: IdempotencyKey | None,
        now: datetime,
        request: AuditRequest | None = None,
    ) -> object:
        """Commit a command about a pause by itself, since it may change every row that has a due time.

        Return the result, a `KeptAnswer` if the key was used before, or an error. From the next batch on,
        this process knows of it, also after a commit whose result is unknown.
        """
        self._pauses.forget()
        try:
            result = self._commit_pause(command, key, now, request)
        except ConstraintViolated:
            # Another process has executed a request with this key, or id, at the same time.
            result = self._commit_pause(command, key, now, request)
        if request is not None:
            request.recorded = self._trail is not None
        return result

    # Three transactions, and one for pauses.

    def _commit_pause(
        self,
        command: Pause | Resume,
        key: IdempotencyKey | None,
        now: datetime,
        request: AuditRequest | None,
    ) -> object:
        with self._transaction() as connection, _rejecting_values():
            result = self._find_or_execute(connection, command, key, now)
            if self._trail is not None and request is not None:
                self._trail.add(connection, [request.entry(result, command)], now)
            self._failpoint("before-commit")
        self._failpoint("after-commit")
        self._cache.clear()  # It holds due times that may have changed.
        return result

    def _find_or_execute(
        self,
        connection: Connection,
        command: Pause | Resume,
        key: IdempotencyKey | None,
        now: datetime,
    ) -> object:
        """Return the result of a command about a pause, or what its key was answered with before."""
        keys = self._tables.idempotency_keys
        if key is not None and (kept := keys.find(connection, [key.id]).get(key.id)):
            if kept.fingerprint == key.fingerprint:
                return kept
            return IdempotencyKeyReused("This key was sent before, with another request.")
        result: object
        try:
            result = self._pauses.execute(connection, command, now)
        except PauseError as error:
            result = error
        if key is not None and key.keeps(result):
            keys.add(connection, [(key.id, kept_answer(key, result, self._formats))], now)
        return result

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
        with self._transaction() as connection:
            self._cache.validate(self._database.version(connection))
            with _rejecting_values():
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
        self._position += len(batch.published) + len(batch.returned)
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

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """Begin a transaction; after one whose result is unknown, read our last position again."""
        certain, self._position_certain = self._position_certain, False
        self._persons.open_transaction()
        with self._database.transaction() as connection:
            if self._trail is not None:
                self._trail.open_transaction(connection, certain=certain)
            if not certain:
                self._require_not_gone_back(connection)
                self._stream_positions = {}
                self._cache.clear()
                pending = self._tables.outbox.last_position(connection, self._owner)
                self._position = max(self._position, pending)
            yield connection
        self._position_certain = True
        if self._trail is not None:
            self._trail.committed()
        self._persons.committed()
        self._committed_positions |= self._stream_positions

    def _require_not_gone_back(self, connection: Connection) -> None:
        """Raise `DatabaseBroken` if a shared database lacks what this process has committed: it was restored
        or replaced while the process ran, which only the start of a process recovers from."""
        if self._database.exclusive:
            return
        for place, committed in self._committed_positions.items():
            found = self._tables.positions.saved_by(connection, place, self._owner)
            if found >= committed:
                continue
            raise DatabaseBroken(
                f"{self._database.name} has handled the stream up to {found}, and this process had committed"
                f" up to {committed}: it was restored or replaced in the meantime. The next start recovers"
                " what it lacks from the stream."
            )

    def note_replayed_pauses(self, version: int) -> None:
        """Note that this service had published what is paused, under this version, before its database was
        restored."""
        self._pauses.note_replayed(version)

    def _publish_pauses(self, now: datetime) -> None:
        """Publish what is paused, in a transaction of its own: the next batch offers it to the relay."""
        with self._transaction() as connection:
            event, version = self._pauses.event(connection, now)
            self._add_to_outbox(connection, [event], now)
        self._position += 1
        self._pauses.note_published(version)

    def _publish(self, event: Event, now: datetime) -> None:
        """Publish an event that no decision has led to, in a transaction of its own."""
        with self._transaction() as connection:
            self._add_to_outbox(connection, [event], now)
        self._position += 1

    def _add_to_outbox(
        self, connection: Connection, events: Sequence[Event], now: datetime
    ) -> None:
        pending = [
            PendingDelivery(
                fact_id(event.key, event.fact),
                type(event).subject,
                encode(seal(event, now, NO_CONTEXT)),
                self._topology.readers(type(event)) or (STREAM,),
            )
            for event in events
        ]
        self._tables.outbox.add(connection, self._owner, self._position, pending, now)

    def _find_or_erase(
        self,
        connection: Connection,
        command: ErasePerson,
        key: IdempotencyKey | None,
        now: datetime,
    ) -> tuple[object, Sequence[ErasureEvent]]:
        """Return the result of an erasure, or what its key was answered with before; and its events."""
        keys = self._tables.idempotency_keys
        if key is not None and (kept := keys.find(connection, [key.id]).get(key.id)):
            if kept.fingerprint == key.fingerprint:
                return kept, ()
            return IdempotencyKeyReused("This key was sent before, with another request."), ()
        try:
            result, events = self._persons.erase_person(connection, command, now)
        except PersonError as error:
            return error, ()
        if key is not None:
            keys.add(connection, [(key.id, kept_answer(key, result, self._formats))], now)
        return result, events

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
        self._tables.outbox.mark_stored(connection, self._owner, batch.stored)
        self._tables.dead_letters.park(connection, batch.failures.parked, batch.failures.attempts)
        self._note_positions(connection, (*batch.actions.acks, *batch.actions.terms))
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
            connection, self._owner, self._position, pending, batch.now
        )

    def _note_positions(self, connection: Connection, handled: Iterable[Delivery]) -> None:
        """Save the last handled sequence of each stream epoch, and of each partition, so that a restored
        backup can be recognised. A batch may hold messages of two epochs."""
        last: dict[tuple[str, str], int] = {}
        for delivery in handled:
            key = delivery.stream_epoch, delivery.durable
            if delivery.sequence > last.get(key, 0):
                last[key] = delivery.sequence
        advanced: dict[str, int] = {}
        for (stream_epoch, durable), sequence in last.items():
            place = place_in(stream_epoch, durable if durable in self._partition_durables else "")
            reached = self._stream_positions.get(place)
            if reached is None:
                reached = self._tables.positions.saved_by(connection, place, self._owner)
            if sequence > max(reached, advanced.get(place, 0)):
                advanced[place] = sequence
        self._tables.positions.advance_all(connection, advanced, self._position_owner)
        self._stream_positions |= advanced

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


def _ignore_result(result: object) -> None:
    """Ignore the result of a scheduled retry: it is recorded with the letter."""
