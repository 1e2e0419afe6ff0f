"""What one transaction does about dead letters, on the word of a person."""

import traceback
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection

from todoku.contracts import Envelope, Event, UndecodableEvent, decode
from todoku.engine.batch_context import BatchContext
from todoku.engine.dead_letter_tables import DeadLetters
from todoku.engine.dead_letters import (
    Attempt,
    DeadLetter,
    DeadLetterError,
    DeadLetterResolved,
    DeadLetterState,
    DiscardDeadLetter,
    EditDeadLetter,
    InvalidEdit,
    RedeliveryFailed,
    RetryDeadLetter,
    RetryDeadLetters,
    RetrySchedule,
    UnknownDeadLetter,
    describe,
    discarded,
    edited,
    failed_again,
    retried,
    shape,
)
from todoku.engine.messages import PendingCommand
from todoku.engine.service import UnitOfWork

log = structlog.get_logger(__name__)

DEAD_LETTER_COMMANDS = (RetryDeadLetter, EditDeadLetter, DiscardDeadLetter, RetryDeadLetters)
"""What every service can be asked about its dead letters."""


class Redelivery(msgspec.Struct, frozen=True):
    """A message that is to be decided on again: as the stream's are, but the inbox is not asked,
    because it has known the message since it was parked."""

    ask: PendingCommand
    letter: DeadLetter
    envelope: Envelope
    event: Event


class DeadLetterHandler:
    """Opens the letters that are asked for, has them decided on, and writes down what became of them.

    Letters are opened before the world is loaded, because what they say tells what to load.
    """

    def __init__(
        self, batch_context: BatchContext, connection: Connection, letters: DeadLetters
    ) -> None:
        self.redeliveries: list[Redelivery] = []
        self._work = batch_context
        self._connection = connection
        self._letters = letters
        self._asked = False
        self._found: dict[str, DeadLetter] = {}
        self._moved: dict[str, DeadLetter] = {}
        self._attempts: list[Attempt] = []

    def open(self, asked: Sequence[PendingCommand]) -> None:
        """Do what can be done without deciding on a message, and make a case of everything else."""
        self._asked = bool(asked)
        ids = {
            ask.command.letter_id for ask in asked if not isinstance(ask.command, RetryDeadLetters)
        }
        self._found = self._letters.find(self._connection, ids)
        for ask in asked:
            try:
                self._open(ask)
            except DeadLetterError as error:
                self._answer(ask, error)

    def decide(self, unit_of_work: UnitOfWork) -> None:
        """Decide on every case."""
        for redelivery in self.redeliveries:
            envelope, event = redelivery.envelope, redelivery.event
            replayed = event.publisher == self._work.service.name
            try:
                decide = self._work.decision_on(event, envelope.time, replayed=replayed)
                if decide is not None:
                    self._work.apply(
                        unit_of_work,
                        decide,
                        event,
                        incoming=envelope,
                        actor=envelope.actor,
                        traceparent=envelope.traceparent,
                    )
            except Exception as error:
                self._fail(redelivery.ask, redelivery.letter, error)
            else:
                self._succeed(redelivery)

    def refuse(self, error: Exception) -> None:
        """The database will not have what the case leads to."""
        for redelivery in self.redeliveries:
            self._fail(redelivery.ask, redelivery.letter, error)

    def write(self, retry_at: datetime | None) -> datetime | None:
        """Write down what became of the letters; when the next retry is due, which was `retry_at`."""
        if not self._asked:
            return retry_at
        self._letters.replace(self._connection, list(self._moved.values()), self._attempts)
        return self._letters.next_retry_at(self._connection)

    def _open(self, ask: PendingCommand) -> None:
        command = ask.command
        if isinstance(command, RetryDeadLetters):
            self._answer(ask, self._schedule(command))
            return
        letter = self._take(command.letter_id)
        match command:
            case RetryDeadLetter():
                self._open_again(ask, letter)
            case EditDeadLetter():
                self._replace(ask, letter, command)
            case DiscardDeadLetter():
                self._close(discarded(letter, command, self._work.now))
                self._answer(ask, self._moved[letter.id])

    def _take(self, letter_id: str) -> DeadLetter:
        letter = self._moved.get(letter_id) or self._found.get(letter_id)
        if letter is None:
            raise UnknownDeadLetter(f"There is no dead letter {letter_id!r}.")
        if letter.state is not DeadLetterState.PARKED:
            raise DeadLetterResolved(
                f"The letter {letter_id} is {letter.state} since {letter.closed_at:%F %T} UTC."
            )
        if any(redelivery.letter.id == letter_id for redelivery in self.redeliveries):
            raise DeadLetterResolved(
                f"Somebody is dealing with the letter {letter_id} at this moment."
            )
        return letter

    def _schedule(self, command: RetryDeadLetters) -> RetrySchedule:
        now = self._work.now
        count = self._letters.schedule(
            self._connection, command.group, now, command.per_second, command.by
        )
        return RetrySchedule(count, now + timedelta(seconds=max(count - 1, 0) / command.per_second))

    def _open_again(self, ask: PendingCommand, letter: DeadLetter) -> None:
        try:
            envelope, event = decode(letter.body)
        except UndecodableEvent as error:
            self._fail(ask, letter, error)
        else:
            self.redeliveries.append(Redelivery(ask, letter, envelope, event))

    def _replace(self, ask: PendingCommand, letter: DeadLetter, command: EditDeadLetter) -> None:
        batch_context = self._work
        try:
            closed, successor, envelope, event = edited(
                letter, command, batch_context.service.name, batch_context.now
            )
        except UndecodableEvent as error:
            raise InvalidEdit(str(error)) from error
        self._close(closed)
        self.redeliveries.append(Redelivery(ask, successor, envelope, event))

    def _succeed(self, redelivery: Redelivery) -> None:
        letter = retried(redelivery.letter, self._work.now, redelivery.ask.command.by)
        self._note_attempt(redelivery.ask, letter)
        if redelivery.letter.new:
            self._moved[letter.id] = letter
        else:
            self._close(letter)
        self._answer(redelivery.ask, letter)

    def _fail(self, ask: PendingCommand, letter: DeadLetter, error: Exception) -> None:
        failed = failed_again(letter, describe(error), "".join(traceback.format_exception(error)))
        log.warning("a dead letter stays parked", letter_id=letter.id, error=shape(describe(error)))
        self._moved[letter.id] = failed
        self._note_attempt(ask, failed)
        if letter.new:
            self._work.publish_parked(self._work.service.parked_event, failed)
            self._answer(ask, failed)
        else:
            self._answer(ask, RedeliveryFailed(failed.error))

    def _close(self, letter: DeadLetter) -> None:
        log.info(
            "a dead letter is closed", letter_id=letter.id, state=letter.state, by=letter.closed_by
        )
        self._moved[letter.id] = letter
        self._work.publish_parked(self._work.service.resolved_event, letter)

    def _note_attempt(self, ask: PendingCommand, letter: DeadLetter) -> None:
        self._attempts.append(
            Attempt(
                letter_id=letter.id,
                at=self._work.now,
                error=letter.error,
                asked_by=ask.command.by,
            )
        )

    def _answer(self, ask: PendingCommand, answer: Any) -> None:
        self._work.actions.answers.append((ask, answer))
