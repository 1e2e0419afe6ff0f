"""The one writer of a service: takes what waits, decides, and commits it as one transaction."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import structlog
from sqlalchemy import Connection

from todoku.broker.port import Delivery
from todoku.contracts import encode
from todoku.database import ConstraintViolated, Database
from todoku.engine.dead_letter_office import LETTER_COMMANDS, Office
from todoku.engine.dead_letters import Attempt, RetryLetter
from todoku.engine.failpoints import Failpoint, pass_by
from todoku.engine.memory import Memory
from todoku.engine.messages import Asked, Due, Heard, Message, Receipt, SayAgain, Unreadable
from todoku.engine.service import Service, Topology, World
from todoku.engine.tables import EngineTables, Owed
from todoku.engine.work import Outcome, Patience, Work

log = structlog.get_logger(__name__)

DUE_AGAIN_SECONDS = 60.0
"""How long something due is left alone after its decision has failed."""

DUE_LOOK_SECONDS = 1.0
"""How long until the writer looks past what is left alone."""

RETRIES_MAX = 100
"""How many dead letters are retried in one batch at most."""

REMEMBERED_MAX = 5_000
"""How many orders, products or shipments need not be loaded when they are touched again."""

SETBACKS_MAX = 10_000
"""Of how many messages that are still being tried the failed attempts are remembered."""


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
        self._retry_at: datetime | None = None
        self._setbacks: dict[str, list[Attempt]] = {}
        self._reached = ("", 0)
        self._memory = Memory(REMEMBERED_MAX)

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
            retry_at = self._tables.dead_letters.next_retry_at(connection)
        self._position = position
        self._retry_at = retry_at
        return position

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        """A transaction that knows our last position, also after one of which nobody knows the end."""
        certain, self._position_certain = self._position_certain, False
        with self._database.transaction() as connection:
            if not certain:
                self._reached = ("", 0)
                self._memory.forget()
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

        A batch that the database refuses because of one message is halved until that one is alone,
        so that nobody poisons a neighbour. Raises `DatabaseUnavailable` if nothing could be
        committed; the same batch may be given again.
        """
        outcome = self._step([*batch, *self._find_retries(now)], now, room)
        outcome.next_due_at = _earlier(outcome.next_due_at, self._retry_at)
        return outcome

    def _step(self, batch: Sequence[Message], now: datetime, room: int) -> Outcome:
        try:
            return self._commit(batch, now, room)
        except ConstraintViolated as error:
            log.warning("batch refused, trying parts of it", messages=len(batch), error=str(error))
        outcome = self._step_apart(batch, now)
        for due in self._find_due(now, room):
            outcome.absorb(self._step_due(due, now))
        return outcome

    def _step_apart(self, refused: Sequence[Message], now: datetime) -> Outcome:
        """Commit a batch that was refused as a whole, in parts; nothing that is due along with it."""
        outcome = Outcome()
        half = len(refused) // 2
        for part in (refused[:half], refused[half:]):
            if len(part) == 1:
                outcome.absorb(self._step_alone(part[0], now))
            elif part:
                try:
                    outcome.absorb(self._commit(part, now, 0))
                except ConstraintViolated:
                    outcome.absorb(self._step_apart(part, now))
        return outcome

    def _step_alone(self, message: Message, now: datetime) -> Outcome:
        try:
            return self._commit([message], now, 0)
        except ConstraintViolated as error:
            return self._commit([message], now, 0, refusal=error)

    def _find_retries(self, now: datetime) -> list[Asked]:
        """The dead letters that somebody has asked to be retried by now."""
        if self._retry_at is None or self._retry_at > now:
            return []
        with self._database.read() as connection:
            letters = self._tables.dead_letters.to_retry(connection, now, RETRIES_MAX)
        return [Asked(RetryLetter(letter_id=key, by=by), _let_go) for key, by in letters]

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
            self._memory.hold(self._database.version(connection))
            waiting = [only] if only else self._waiting(connection, now, room)
            work = Work(self._service, now, self._patience, room - len(waiting), self._setbacks)
            fresh, spoilt = work.sift(batch, self._known(connection, batch))
            asked, about_letters = _commands(batch)
            worlds: list[World] = []
            office = Office(work, connection, self._tables.dead_letters)
            office.open(about_letters)
            subjects = [
                *(ask.command for ask in asked),
                *(message.event for message in fresh),
                *(case.event for case in office.cases),
                *waiting,
            ]
            if refusal is not None:
                work.refuse(asked, fresh, refusal)
                office.refuse(refusal)
            elif subjects:
                world = self._service.store.load(connection, subjects, self._memory)
                self._decide(work, world, asked, fresh, waiting)
                office.decide(world)
                self._service.store.save(connection, world, now)
                worlds.append(world)
            for message in spoilt:
                work.put_aside(message)
            work.settle_copies()
            self._announce(connection, work)
            receipts = [message for message in batch if isinstance(message, Receipt)]
            # A receipt that the database refuses is dropped: it costs one repeat.
            self._write_books(connection, work, [] if refusal else receipts)
            if not any(message.recalled for message in fresh):
                self._note_positions(connection, (*work.outcome.acks, *work.outcome.terms))
            retry_at = office.write(self._retry_at)
            work.outcome.next_due_at = self._next_due_at(connection, now)
            self._failpoint("before-commit")
        self._failpoint("after-commit")
        self._position += len(work.said)
        self._retry_at = retry_at
        for world in worlds:
            world.keep(self._memory)
        self._remember(work)
        return work.outcome

    def _known(self, connection: Connection, batch: Sequence[Message]) -> set[str]:
        """The ids of those events and commands of the batch that were dealt with before."""
        envelopes = (m.envelope for m in batch if isinstance(m, (Heard, Unreadable)))
        ids = {envelope.id for envelope in envelopes if envelope is not None}
        ids |= {m.id for m in batch if isinstance(m, Asked) and m.id is not None}
        return self._tables.inbox.known(connection, ids)

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
        work: Work,
        world: World,
        asked: Sequence[Asked],
        fresh: Sequence[Heard],
        waiting: Sequence[Due],
    ) -> None:
        for ask in asked:
            if isinstance(ask.command, SayAgain):
                work.say_again(world, ask)
            else:
                work.obey(world, ask)
        for message in fresh:
            work.react(world, message)
        for due in waiting:
            if not work.attend(world, due):
                self._due_again[due.key] = work.now + timedelta(seconds=DUE_AGAIN_SECONDS)

    def _announce(self, connection: Connection, work: Work) -> None:
        """Tell the others what is parked now. What comes again after the inbox has forgotten it is
        parked already, and told."""
        kept = self._tables.dead_letters.find(connection, {letter.id for letter in work.parked})
        for letter in work.parked:
            if letter.id not in kept:
                work.announce(self._service.says_parked, letter)

    def _write_books(self, connection: Connection, work: Work, receipts: Sequence[Receipt]) -> None:
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
        self._tables.dead_letters.park(connection, work.parked, work.attempts)

    def _note_positions(self, connection: Connection, settled: Iterable[Delivery]) -> None:
        """Note how far into the stream this database has come, so that a backup of it can tell; into
        each life of the stream, since a batch may hold messages of two."""
        last: dict[str, int] = {}
        for delivery in settled:
            last[delivery.incarnation] = max(delivery.sequence, last.get(delivery.incarnation, 0))
        for incarnation, sequence in last.items():
            life, reached = self._reached
            if life != incarnation:
                reached = self._tables.positions.reached(connection, incarnation)
            if sequence > reached:
                self._tables.positions.reach(connection, incarnation, sequence)
                self._reached = incarnation, sequence

    def _remember(self, work: Work) -> None:
        """Keep in mind how messages failed that are tried again, and forget those that are not."""
        if self._setbacks:
            for key in (*work.settled, *(letter.id for letter in work.parked)):
                self._setbacks.pop(key, None)
        for attempt in work.setbacks:
            self._setbacks.setdefault(attempt.letter_id, []).append(attempt)
        while len(self._setbacks) > SETBACKS_MAX:
            self._setbacks.pop(next(iter(self._setbacks)))

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


def _commands(batch: Sequence[Message]) -> tuple[list[Asked], list[Asked]]:
    """What the service itself is asked, and what is asked about its dead letters, as of any service."""
    own: list[Asked] = []
    about_letters: list[Asked] = []
    for message in batch:
        if isinstance(message, Asked):
            (about_letters if isinstance(message.command, LETTER_COMMANDS) else own).append(message)
    return own, about_letters


def _earlier(one: datetime | None, other: datetime | None) -> datetime | None:
    return min((at for at in (one, other) if at is not None), default=None)


def _let_go(result: Any) -> None:
    """Nobody waits for the outcome of a scheduled retry: it is written down with the letter."""
