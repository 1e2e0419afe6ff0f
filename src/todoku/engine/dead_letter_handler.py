"""Executes an operator's commands about dead letters within a transaction."""

import traceback
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
import structlog
from sqlalchemy import Connection

from todoku.broker.port import Delivery, MessageTooLarge
from todoku.engine.api_keys import InvalidApiKey
from todoku.engine.audit_log.anchors import InvalidAnchor
from todoku.engine.batch_context import BatchContext
from todoku.engine.dead_letter_tables import DeadLetters
from todoku.engine.dead_letters import (
    DATABASE_LOST,
    REPLAY_FAILED,
    Attempt,
    DeadLetter,
    DeadLetterError,
    DeadLetterResolved,
    DeadLetterState,
    DiscardDeadLetter,
    EditDeadLetter,
    InvalidEdit,
    ParkLoss,
    ParkUnpublishable,
    RedeliveryFailed,
    RetryDeadLetter,
    RetryDeadLetters,
    RetrySchedule,
    UnknownDeadLetter,
    describe,
    discarded,
    edited,
    failed_again,
    loss,
    parked,
    retried,
    shape,
)
from todoku.engine.messages import PendingCommand
from todoku.engine.persons import erasures
from todoku.engine.service import UnitOfWork
from todoku.engine.tracing import BatchSpans
from todoku.events import (
    ApiKeyEvent,
    AuditAnchoredEvent,
    Envelope,
    ErasureEvent,
    Event,
    EventRegistry,
    UndecodableEvent,
    read_envelope,
)

log = structlog.get_logger(__name__)

UNPUBLISHABLE = MessageTooLarge.__name__
"""The class of the error of an event that the broker does not take."""


class Redelivery(msgspec.Struct, frozen=True):
    """A parked message that is decided on again. It bypasses the inbox, which holds its id since it was
    parked. One that could not be `replayed` is replayed again."""

    pending: PendingCommand
    letter: DeadLetter
    envelope: Envelope
    event: Event
    replayed: bool = False


class DeadLetterHandler:
    """Loads the requested letters, has them decided on, and saves the results.

    Letters are loaded before the unit of work, because their events tell what to load.
    """

    def __init__(
        self,
        batch_context: BatchContext,
        connection: Connection,
        letters: DeadLetters,
        registry: EventRegistry,
    ) -> None:
        self.redeliveries: list[Redelivery] = []
        self._context = batch_context
        self._connection = connection
        self._letters = letters
        self._registry = registry
        self._has_commands = False
        self._found: dict[str, DeadLetter] = {}
        self._changed: dict[str, DeadLetter] = {}
        self._attempts: list[Attempt] = []

    def prepare(self, commands: Sequence[PendingCommand]) -> None:
        """Execute what needs no decision on a message, and make a `Redelivery` of everything else."""
        self._has_commands = bool(commands)
        ids = {
            pending.command.letter_id
            for pending in commands
            if not isinstance(pending.command, RetryDeadLetters)
        }
        self._found = self._letters.find(self._connection, ids)
        for pending in commands:
            try:
                self._prepare(pending)
            except DeadLetterError as error:
                self._answer(pending, error)

    def decide(self, unit_of_work: UnitOfWork) -> None:
        """Decide on every redelivery."""
        for redelivery in self.redeliveries:
            envelope, event = redelivery.envelope, redelivery.event
            decided = None
            spans: BatchSpans | None = None
            try:
                if not redelivery.replayed:
                    self._context.require_not_held(envelope)
                decide = self._context.handler_of(event, envelope, replayed=redelivery.replayed)
                if decide is not None:
                    context = envelope.context
                    if not redelivery.replayed and (spans := self._context.spans) is not None:
                        context = spans.event(envelope, redelivery.letter.subject)
                    decided = self._context.decide(
                        unit_of_work, decide, event, context, cause=envelope.id
                    )
            except Exception as error:
                if spans is not None:
                    spans.failed(error)
                self._fail(
                    redelivery.pending, redelivery.letter, error, replayed=redelivery.replayed
                )
                continue
            if decided is not None:
                self._context.keep(unit_of_work, event, decided, incoming=envelope)
            self._succeed(redelivery)

    def reject(self, error: Exception) -> None:
        """Fail the redeliveries, whose results the database rejects."""
        for redelivery in self.redeliveries:
            self._fail(redelivery.pending, redelivery.letter, error, replayed=redelivery.replayed)

    def save(self) -> datetime | None:
        """Save the letters; return when the next retry is due."""
        if not self._has_commands:
            return None
        known = [each for each in self._changed.values() if each.id in self._found]
        # Another process may have parked it in the meantime, and a person have resolved it.
        new = [each for each in self._changed.values() if each.id not in self._found]
        self._letters.park(self._connection, new, ())
        self._letters.replace(self._connection, known, self._attempts)
        self._context.held_keys = self._letters.held_keys(self._connection)
        return self._letters.next_retry_at(self._connection)

    def _prepare(self, pending: PendingCommand) -> None:
        command = pending.command
        if isinstance(command, RetryDeadLetters):
            self._answer(pending, self._schedule(command))
            return
        if isinstance(command, ParkUnpublishable):
            self._park_unpublishable(pending, command)
            return
        if isinstance(command, ParkLoss):
            self._park_loss(pending, command)
            return
        letter = self._find_parked(command.letter_id)
        match command:
            case RetryDeadLetter() if letter.error_class == UNPUBLISHABLE:
                self._publish_again(pending, letter)
            case RetryDeadLetter() if letter.error_class == DATABASE_LOST:
                self._resolve_retried(pending, letter)
            case RetryDeadLetter():
                self._redeliver(pending, letter)
            case EditDeadLetter():
                self._replace(pending, letter, command)
            case DiscardDeadLetter():
                self._resolve(discarded(letter, command, self._context.now))
                self._answer(pending, self._changed[letter.id])

    def _park_unpublishable(self, pending: PendingCommand, command: ParkUnpublishable) -> None:
        delivery = Delivery(command.subject, command.body, attempt=1, sequence=0, token=None)
        error = f"{UNPUBLISHABLE}: {command.error}"
        letter = parked(delivery, read_envelope(command.body), error, "", self._context.now)
        log.error("event_unpublishable", letter_id=letter.id, key=letter.key, error=shape(error))
        self._changed[letter.id] = letter
        self._context.withdrawn.append(letter.id)
        self._add_attempt(pending, letter)
        self._context.publish_letter(self._context.service.parked_event, letter)
        self._answer(pending, letter)

    def _publish_again(self, pending: PendingCommand, letter: DeadLetter) -> None:
        """Return the event to the outbox as it is, also one that only a newer version can decode; if the
        broker still does not take it, it is parked again."""
        self._context.returned.append(letter)
        self._resolve_retried(pending, letter)

    def _park_loss(self, pending: PendingCommand, command: ParkLoss) -> None:
        """Park what a recovery has found to be lost, unless it found that before."""
        letter = self._found.get(command.letter_id)
        if letter is None:
            letter = self._changed[command.letter_id] = loss(command, self._context.now)
            log.error("database_lost", letter_id=letter.id, error=command.error)
            self._add_attempt(pending, letter)
        self._answer(pending, letter)

    def _resolve_retried(self, pending: PendingCommand, letter: DeadLetter) -> None:
        """Resolve a letter whose message needs no decision."""
        resolved = retried(letter, self._context.now, pending.command.by)
        self._add_attempt(pending, resolved)
        self._resolve(resolved)
        self._answer(pending, resolved)

    def _find_parked(self, letter_id: str) -> DeadLetter:
        letter = self._changed.get(letter_id) or self._found.get(letter_id)
        if letter is None:
            raise UnknownDeadLetter(f"There is no dead letter {letter_id!r}.")
        if letter.state is not DeadLetterState.PARKED:
            raise DeadLetterResolved(
                f"The letter {letter_id} is {letter.state} since {letter.closed_at:%F %T} UTC."
            )
        if any(redelivery.letter.id == letter_id for redelivery in self.redeliveries):
            raise DeadLetterResolved(f"The letter {letter_id} is being handled at this moment.")
        return letter

    def _schedule(self, command: RetryDeadLetters) -> RetrySchedule:
        now = self._context.now
        count = self._letters.schedule(
            self._connection, command.group, now, command.per_second, command.by
        )
        return RetrySchedule(count, now + timedelta(seconds=max(count - 1, 0) / command.per_second))

    def _redeliver(self, pending: PendingCommand, letter: DeadLetter) -> None:
        try:
            # A corrected message is this service's own and has an id of its own.
            origin = None if letter.replaces else letter.subject
            envelope, event = self._registry.decode(letter.body, arrived_on=origin)
        except UndecodableEvent as error:
            self._fail(pending, letter, error)
        else:
            if isinstance(event, (AuditAnchoredEvent, ApiKeyEvent)):
                self._keep_anchor(pending, letter, event)
                return
            if isinstance(event, ErasureEvent):
                self._carry_out(pending, letter, event)
                return
            replayed = (
                event.publisher == self._context.service.name or letter.error_class == REPLAY_FAILED
            )
            self.redeliveries.append(Redelivery(pending, letter, envelope, event, replayed))

    def _carry_out(self, pending: PendingCommand, letter: DeadLetter, event: ErasureEvent) -> None:
        """Carry out an erasure; nothing is decided on it."""
        try:
            erasures.require_valid(event)
        except erasures.InvalidErasure as error:
            self._fail(pending, letter, error)
        else:
            self._context.erasures.append(event)
            self._resolve_retried(pending, letter)

    def _keep_anchor(
        self, pending: PendingCommand, letter: DeadLetter, event: AuditAnchoredEvent | ApiKeyEvent
    ) -> None:
        """Keep an anchor of another service's audit log, or an API key; nothing is decided on it."""
        try:
            self._context.keep_event(event)
        except (InvalidAnchor, InvalidApiKey) as error:
            self._fail(pending, letter, error)
        else:
            self._resolve_retried(pending, letter)

    def _replace(
        self, pending: PendingCommand, letter: DeadLetter, command: EditDeadLetter
    ) -> None:
        batch_context = self._context
        try:
            closed, successor, envelope, event = edited(
                letter, command, batch_context.service.name, self._registry, batch_context.now
            )
        except UndecodableEvent as error:
            raise InvalidEdit(str(error)) from error
        if isinstance(event, (AuditAnchoredEvent, ApiKeyEvent, ErasureEvent)):
            raise InvalidEdit("An anchor, an API key or an erasure is kept as it is, or discarded.")
        self._resolve(closed)
        replayed = event.publisher == batch_context.service.name
        self.redeliveries.append(Redelivery(pending, successor, envelope, event, replayed))

    def _succeed(self, redelivery: Redelivery) -> None:
        letter = retried(redelivery.letter, self._context.now, redelivery.pending.command.by)
        self._add_attempt(redelivery.pending, letter)
        if redelivery.letter.new:
            self._changed[letter.id] = letter
        else:
            self._resolve(letter)
        self._answer(redelivery.pending, letter)

    def _fail(
        self,
        pending: PendingCommand,
        letter: DeadLetter,
        error: Exception,
        *,
        replayed: bool = False,
    ) -> None:
        described = f"{REPLAY_FAILED}: {describe(error)}" if replayed else describe(error)
        failed = failed_again(letter, described, "".join(traceback.format_exception(error)))
        log.warning("dead_letter_retry_failed", letter_id=letter.id, error=shape(describe(error)))
        self._changed[letter.id] = failed
        self._add_attempt(pending, failed)
        if letter.new:
            self._context.publish_letter(self._context.service.parked_event, failed)
            self._answer(pending, failed)
        else:
            self._answer(pending, RedeliveryFailed(failed.error))

    def _resolve(self, letter: DeadLetter) -> None:
        log.info(
            "dead_letter_resolved", letter_id=letter.id, state=letter.state, by=letter.closed_by
        )
        self._changed[letter.id] = letter
        self._context.publish_letter(self._context.service.resolved_event, letter)

    def _add_attempt(self, pending: PendingCommand, letter: DeadLetter) -> None:
        self._attempts.append(
            Attempt(
                letter_id=letter.id,
                at=self._context.now,
                error=letter.error,
                asked_by=pending.command.by,
            )
        )

    def _answer(self, pending: PendingCommand, answer: object) -> None:
        self._context.actions.answers.append((pending, answer))
