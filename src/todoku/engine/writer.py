"""The one writer of a service: takes what waits, decides, and commits it as one transaction."""

import hashlib
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection

from todoku.broker.port import Delivery
from todoku.contracts import Envelope, Event, encode, seal
from todoku.database import ConstraintViolated, Database
from todoku.engine.failpoints import Failpoint, pass_by
from todoku.engine.messages import Asked, Due, Heard, Message, Receipt, Unreadable
from todoku.engine.service import Decide, Service, Topology, World
from todoku.engine.tables import DeadLetter, EngineTables, OutboxRow, Owed

log = structlog.get_logger(__name__)

DUE_AGAIN_SECONDS = 60.0
"""How long something due is left alone after its decision has failed."""

DUE_LOOK_SECONDS = 1.0
"""How long until the writer looks past what is left alone."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How often a message that fails is tried before it is parked.

    A decision that raises may succeed once a neighbour's event or a new version has arrived;
    an unknown type waits for a rolling upgrade to pass.
    """

    failing_attempts_max: int = 5
    unknown_attempts_max: int = 12
    backoff_seconds_max: float = 60.0

    def delay_seconds(self, attempt: int) -> float:
        """The pause after the `attempt`-th delivery."""
        return min(2.0 ** min(attempt - 1, 32), self.backoff_seconds_max)


class Outcome(msgspec.Struct):
    """What is to be done after a commit, and only then."""

    answers: list[tuple[Asked, Any]] = []
    said: list[OutboxRow] = []
    acks: list[Delivery] = []
    naks: list[tuple[Delivery, float]] = []
    terms: list[Delivery] = []
    receipts: dict[str, list[str]] = {}
    effects: list[Any] = []
    next_due_at: datetime | None = None

    def receipt(self, envelope: Envelope) -> None:
        """Owe the event's publisher a receipt."""
        self.receipts.setdefault(envelope.source, []).append(envelope.id)

    def absorb(self, other: "Outcome") -> None:
        """Do what the other asks for too."""
        self.answers += other.answers
        self.said += other.said
        self.acks += other.acks
        self.naks += other.naks
        self.terms += other.terms
        self.effects += other.effects
        for publisher, ids in other.receipts.items():
            self.receipts.setdefault(publisher, []).extend(ids)
        self.next_due_at = other.next_due_at


class Writer:
    """Turns batches of messages into transactions. Plain and synchronous: `step` is all it does.

    `owner` names this process in the outbox. After `adopt`, its events follow in position what it
    took over from processes that are gone.
    """

    def __init__(
        self,
        service: Service,
        database: Database,
        tables: EngineTables,
        topology: Topology,
        *,
        owner: str,
        patience: Patience | None = None,
        due_max: int = 200,
        failpoint: Failpoint = pass_by,
    ) -> None:
        self._service = service
        self._database = database
        self._tables = tables
        self._topology = topology
        self._owner = owner
        self._patience = patience or Patience()
        self._due_max = due_max
        self._failpoint = failpoint
        self._position = 0
        self._position_certain = True
        self._due_again: dict[str, datetime] = {}
        self._reached = ("", 0)

    @property
    def position(self) -> int:
        """The position of the last event that this process owes."""
        return self._position

    def adopt(self, now: datetime, lease_seconds: float) -> int:
        """Take over what processes that are gone have left in the outbox; the new last position."""
        with self._transaction() as connection:
            alive = None
            if not self._database.exclusive:
                alive = self._tables.leases.renew(connection, self._owner, now, lease_seconds)
            position = self._tables.outbox.adopt(connection, self._owner, self._position, alive)
        self._position = position
        return position

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction that knows our last position, also after one of which nobody knows the end."""
        certain, self._position_certain = self._position_certain, False
        with self._database.transaction() as connection:
            if not certain:
                owed = self._tables.outbox.last_position(connection, self._owner)
                self._position = max(self._position, owed)
            yield connection
        self._position_certain = True

    def forget(self, before: datetime, count: int) -> int:
        """Prune up to `count` inbox entries received before that instant; how many it was."""
        with self._database.transaction() as connection:
            return self._tables.inbox.prune(connection, before, count)

    def step(self, batch: Sequence[Message], now: datetime, room: int) -> Outcome:
        """Decide on a batch and commit it; what is to be done then. `room` is how many effects may be
        started: what is due beyond it stays due.

        A batch that the database refuses because of one message is tried again message by message,
        so that nobody poisons a neighbour. Raises `DatabaseUnavailable` if nothing could be
        committed; the same batch may be given again.
        """
        try:
            return self._commit(batch, now, room)
        except ConstraintViolated as error:
            log.warning("batch refused, trying one by one", messages=len(batch), error=str(error))
        outcome = Outcome()
        for message in batch:
            outcome.absorb(self._step_alone(message, now))
        for due in self._find_due(now, room):
            outcome.absorb(self._step_due(due, now))
        return outcome

    def _step_alone(self, message: Message, now: datetime) -> Outcome:
        try:
            return self._commit([message], now, 0)
        except ConstraintViolated as error:
            return self._commit([message], now, 0, refusal=error)

    def _find_due(self, now: datetime, room: int) -> list[Due]:
        with self._database.transaction() as connection:
            return self._waiting(connection, now, room)

    def _step_due(self, due: Due, now: datetime) -> Outcome:
        """Decide on one thing that is due; if the database refuses, it is left alone for a while."""
        try:
            return self._commit([], now, 1, only=due)
        except ConstraintViolated:
            log.exception("what was due is refused", key=due.key)
            self._due_again[due.key] = now + timedelta(seconds=DUE_AGAIN_SECONDS)
            return self._commit([], now, 0)

    def _commit(
        self,
        batch: Sequence[Message],
        now: datetime,
        room: int,
        *,
        only: Due | None = None,
        refusal: ConstraintViolated | None = None,
    ) -> Outcome:
        """One transaction. `only` is the one due thing to look at; `refusal` is why the batch's single
        message could not be saved before."""
        with self._transaction() as connection:
            waiting = [only] if only else self._waiting(connection, now, room)
            work = _Work(self._service, now, self._patience, room - len(waiting))
            fresh, spoilt = work.sift(batch, self._known(connection, batch))
            asked = [message for message in batch if isinstance(message, Asked)]
            subjects = [
                *(ask.command for ask in asked),
                *(message.event for message in fresh),
                *waiting,
            ]
            if refusal is not None:
                work.refuse(asked, fresh, refusal)
            elif subjects:
                world = self._service.store.load(connection, subjects)
                self._decide(work, world, asked, fresh, waiting)
                self._service.store.save(connection, world, now)
            for message in spoilt:
                work.put_aside(message)
            work.settle_copies()
            receipts = [message for message in batch if isinstance(message, Receipt)]
            # A receipt that the database refuses is dropped: it costs one repeat.
            self._write_books(connection, work, [] if refusal else receipts)
            if not any(message.recalled for message in fresh):
                self._note_position(connection, (*work.outcome.acks, *work.outcome.terms))
            work.outcome.next_due_at = self._next_due_at(connection, now)
            self._failpoint("before-commit")
        self._failpoint("after-commit")
        self._position += len(work.said)
        return work.outcome

    def _known(self, connection: Connection, batch: Sequence[Message]) -> set[str]:
        """The ids of those events of the batch that were dealt with before."""
        envelopes = (m.envelope for m in batch if isinstance(m, (Heard, Unreadable)))
        return self._tables.inbox.known(connection, {e.id for e in envelopes if e is not None})

    def _waiting(self, connection: Connection, now: datetime, room: int) -> list[Due]:
        """What is due, except for what is left alone."""
        limit = min(room, self._due_max)
        agenda = self._service.agenda
        if agenda is None or limit <= 0:
            return []
        self._due_again = {key: at for key, at in self._due_again.items() if at > now}
        found = agenda.due(connection, now, limit + len(self._due_again))
        return [due for due in found if due.key not in self._due_again][:limit]

    def _decide(
        self,
        work: "_Work",
        world: World,
        asked: Sequence[Asked],
        fresh: Sequence[Heard],
        waiting: Sequence[Due],
    ) -> None:
        for ask in asked:
            work.obey(world, ask)
        for message in fresh:
            work.react(world, message)
        for due in waiting:
            if not work.attend(world, due):
                self._due_again[due.key] = work.now + timedelta(seconds=DUE_AGAIN_SECONDS)

    def _write_books(
        self, connection: Connection, work: "_Work", receipts: Sequence[Receipt]
    ) -> None:
        self._tables.inbox.add(connection, work.settled, work.now)
        owed = [
            Owed(
                envelope.id,
                type(event).subject,
                encode(envelope),
                self._topology.readers(type(event)),
            )
            for envelope, event in work.said
        ]
        work.outcome.said = self._tables.outbox.add(
            connection, self._owner, self._position, owed, work.now
        )
        self._tables.outbox.settle(
            connection,
            ((event_id, receipt.reader) for receipt in receipts for event_id in receipt.ids),
        )
        self._tables.dead_letters.park(connection, work.parked, work.now)

    def _note_position(self, connection: Connection, settled: Iterable[Delivery]) -> None:
        """Note how far into the stream this database has come, so that a backup of it can tell."""
        last = max(settled, key=lambda delivery: delivery.sequence, default=None)
        if last is None:
            return
        incarnation, reached = self._reached
        if incarnation != last.incarnation:
            reached = self._tables.positions.reached(connection, last.incarnation)
        if last.sequence > reached:
            self._tables.positions.reach(connection, last.incarnation, last.sequence)
            # Should the commit fail, the next one notes less than it could: that is harmless.
            self._reached = last.incarnation, last.sequence

    def _next_due_at(self, connection: Connection, now: datetime) -> datetime | None:
        if self._service.agenda is None:
            return None
        next_due_at = self._service.agenda.next_due_at(connection)
        if next_due_at is None or not self._due_again:
            return next_due_at
        if self._waiting(connection, now, 1):
            return now
        # What is left alone hides what falls due behind it.
        return max(next_due_at, now + timedelta(seconds=DUE_LOOK_SECONDS))


class _Work:
    """What one transaction has decided so far. A decision that raises leaves no trace in it.

    `room` is how many effects may be started for what is due at once.
    """

    def __init__(self, service: Service, now: datetime, patience: Patience, room: int) -> None:
        self.service = service
        self.now = now
        self.patience = patience
        self.room = room
        self.outcome = Outcome()
        self.said: list[tuple[Envelope, Event]] = []
        self.settled: list[str] = []
        self.parked: list[DeadLetter] = []
        self.met: set[str] = set()
        self.copies: list[tuple[str, Delivery]] = []

    def sift(
        self, batch: Sequence[Message], known: set[str]
    ) -> tuple[list[Heard], list[Unreadable]]:
        """The events of the batch that are new, and those of them that cannot be read."""
        fresh: list[Heard] = []
        spoilt: list[Unreadable] = []
        for message in batch:
            if isinstance(message, Heard) and not self._is_repeat(message, known):
                fresh.append(message)
            elif isinstance(message, Unreadable) and not self._is_repeat(message, known):
                spoilt.append(message)
        return fresh, spoilt

    def _is_repeat(self, message: Heard | Unreadable, known: set[str]) -> bool:
        """Whether the event was met before. One that is known is receipted again: the first receipt
        may be lost. A copy within the batch waits for what becomes of the first."""
        envelope = message.envelope
        if envelope is None:
            return False
        if envelope.id in known:
            self.outcome.acks.append(message.delivery)
            self.outcome.receipt(envelope)
            return True
        if envelope.id in self.met:
            self.copies.append((envelope.id, message.delivery))
            return True
        self.met.add(envelope.id)
        return False

    def settle_copies(self) -> None:
        """Let copies share the fate of the first: what was not dealt with must come again."""
        settled = set(self.settled)
        for event_id, delivery in self.copies:
            if event_id in settled:
                self.outcome.acks.append(delivery)
            else:
                self._again(delivery)

    def obey(self, world: World, ask: Asked) -> None:
        """Carry out a command, or answer with what keeps it from being carried out."""
        try:
            decide = self.service.commands[type(ask.command)]
            state = self._apply(
                world, decide, ask.command, actor=ask.actor, traceparent=ask.traceparent
            )
        except Exception as error:
            self.outcome.answers.append((ask, error))
        else:
            self.outcome.answers.append((ask, state))

    def react(self, world: World, message: Heard) -> None:
        """Decide on an event; one that fails is tried again later, and in the end parked."""
        envelope = message.envelope
        decide = self._decision_on(message)
        if decide is None:
            # A durable keeps the subjects of the version that made it, and that one reacted to more.
            self._settle(message)
            return
        try:
            self._apply(
                world,
                decide,
                message.event,
                heard=envelope,
                actor=envelope.actor,
                traceparent=envelope.traceparent,
            )
        except Exception as error:
            self._set_back(message, error, self.patience.failing_attempts_max)
        else:
            self._settle(message)

    def _decision_on(self, message: Heard) -> Decide | None:
        if not message.recalled:
            return self.service.reactions.get(type(message.event))
        recall, time = self.service.recalls[type(message.event)], message.envelope.time
        return lambda state, event, _: recall(state, event, time)

    def attend(self, world: World, due: Due) -> bool:
        """Decide on what is due; whether that went well."""
        agenda = self.service.agenda
        assert agenda is not None
        try:
            self._apply(world, lambda state, _, now: agenda.decide(state, now), due)
        except Exception:
            log.exception("deciding on what is due failed", key=due.key)
            return False
        return True

    def refuse(
        self, asked: Sequence[Asked], fresh: Sequence[Heard], error: ConstraintViolated
    ) -> None:
        """The database will not have what this message leads to."""
        self.outcome.answers += [(ask, error) for ask in asked]
        for message in fresh:
            self._set_back(message, error, self.patience.failing_attempts_max)

    def put_aside(self, message: Unreadable) -> None:
        """Wait for a version that can read this, or park it."""
        attempts_max = self.patience.unknown_attempts_max if message.again else 1
        if message.delivery.attempt < attempts_max:
            self._again(message.delivery)
        else:
            self._park(message.delivery, message.error, message.traceback, message.envelope)

    def _apply(
        self,
        world: World,
        decide: Decide,
        subject: Any,
        *,
        heard: Envelope | None = None,
        actor: str | None = None,
        traceparent: str | None = None,
    ) -> Any:
        state, outputs = decide(world.view(subject), subject, self.now)
        agenda = self.service.agenda
        if agenda is not None and self._due_at_once(state):
            state, more = agenda.decide(state, self.now)
            outputs = [*outputs, *more]
        said = [
            (seal(output, self.now, actor=actor, traceparent=traceparent), output)
            for output in outputs
            if isinstance(output, Event)
        ]
        world.put(subject, state)
        if heard is not None:
            world.record(heard)
        for envelope, _ in said:
            world.record(envelope)
        self.said += said
        self.outcome.effects += [output for output in outputs if not isinstance(output, Event)]
        return state

    def _due_at_once(self, state: Any) -> bool:
        """Whether what was decided wants attention already, and there is room to give it."""
        due_at: datetime | None = state.due_at
        has_room = len(self.outcome.effects) < self.room
        return has_room and due_at is not None and due_at <= self.now

    def _settle(self, message: Heard) -> None:
        self.outcome.acks.append(message.delivery)
        if message.envelope.source != self.service.name:
            self.settled.append(message.envelope.id)
            self.outcome.receipt(message.envelope)

    def _set_back(self, message: Heard, error: Exception, attempts_max: int) -> None:
        if message.delivery.attempt < attempts_max:
            log.warning(
                "an event could not be dealt with, trying again later",
                event_id=message.envelope.id,
                event_type=message.envelope.type,
                order_id=message.envelope.subject,
                attempt=message.delivery.attempt,
                error=repr(error),
            )
            self._again(message.delivery)
        else:
            trace = "".join(traceback.format_exception(error))
            self._park(message.delivery, repr(error), trace, message.envelope)

    def _again(self, delivery: Delivery) -> None:
        self.outcome.naks.append((delivery, self.patience.delay_seconds(delivery.attempt)))

    def _park(self, delivery: Delivery, error: str, trace: str, envelope: Envelope | None) -> None:
        log.error(
            "a message is parked",
            subject=delivery.subject,
            error=error,
            event_id=envelope and envelope.id,
            order_id=envelope and envelope.subject,
        )
        self.parked.append(
            DeadLetter(
                id=envelope.id if envelope else hashlib.sha256(delivery.body).hexdigest(),
                subject=delivery.subject,
                body=delivery.body,
                headers=msgspec.json.encode(delivery.headers).decode()
                if delivery.headers
                else None,
                error=error,
                traceback=trace,
                attempts=delivery.attempt,
                event_id=envelope.id if envelope else None,
                event_type=envelope.type if envelope else None,
                order_id=envelope.subject if envelope else None,
            )
        )
        self.outcome.terms.append(delivery)
        if envelope is not None:
            self.settled.append(envelope.id)
            self.outcome.receipt(envelope)
