"""What one transaction does about dead letters, on the word of a person."""

import traceback
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import structlog
from sqlalchemy import Connection

from todoku.contracts import Envelope, Event, UnreadableEvent, decode
from todoku.engine.dead_letter_tables import DeadLetters
from todoku.engine.dead_letters import (
    Attempt,
    DeadLetter,
    DiscardLetter,
    EditLetter,
    InvalidEdit,
    LetterClosed,
    LetterError,
    LetterState,
    LetterStaysParked,
    RetryLetter,
    RetryParked,
    Scheduled,
    UnknownLetter,
    describe,
    discarded,
    edited,
    failed_again,
    retried,
    shape,
)
from todoku.engine.messages import Asked
from todoku.engine.service import World
from todoku.engine.work import Work

log = structlog.get_logger(__name__)

LETTER_COMMANDS = (RetryLetter, EditLetter, DiscardLetter, RetryParked)
"""What every service can be asked about its dead letters."""


class Case(msgspec.Struct, frozen=True):
    """A message that is to be decided on again: as the stream's are, but the inbox is not asked,
    because it has known the message since it was parked."""

    ask: Asked
    letter: DeadLetter
    envelope: Envelope
    event: Event


class Office:
    """Opens the letters that are asked for, has them decided on, and writes down what became of them.

    Letters are opened before the world is loaded, because what they say tells what to load.
    """

    def __init__(self, work: Work, connection: Connection, letters: DeadLetters) -> None:
        self.cases: list[Case] = []
        self._work = work
        self._connection = connection
        self._letters = letters
        self._asked = False
        self._found: dict[str, DeadLetter] = {}
        self._moved: dict[str, DeadLetter] = {}
        self._attempts: list[Attempt] = []

    def open(self, asked: Sequence[Asked]) -> None:
        """Do what can be done without deciding on a message, and make a case of everything else."""
        self._asked = bool(asked)
        ids = {ask.command.letter_id for ask in asked if not isinstance(ask.command, RetryParked)}
        self._found = self._letters.find(self._connection, ids)
        for ask in asked:
            try:
                self._open(ask)
            except LetterError as error:
                self._answer(ask, error)

    def decide(self, world: World) -> None:
        """Decide on every case."""
        for case in self.cases:
            envelope, event = case.envelope, case.event
            recalled = event.publisher == self._work.service.name
            try:
                decide = self._work.decision_on(event, envelope.time, recalled=recalled)
                if decide is not None:
                    self._work.apply(
                        world,
                        decide,
                        event,
                        heard=envelope,
                        actor=envelope.actor,
                        traceparent=envelope.traceparent,
                    )
            except Exception as error:
                self._fail(case.ask, case.letter, error)
            else:
                self._succeed(case)

    def refuse(self, error: Exception) -> None:
        """The database will not have what the case leads to."""
        for case in self.cases:
            self._fail(case.ask, case.letter, error)

    def write(self, retry_at: datetime | None) -> datetime | None:
        """Write down what became of the letters; when the next retry is due, which was `retry_at`."""
        if not self._asked:
            return retry_at
        self._letters.replace(self._connection, list(self._moved.values()), self._attempts)
        return self._letters.next_retry_at(self._connection)

    def _open(self, ask: Asked) -> None:
        command = ask.command
        if isinstance(command, RetryParked):
            self._answer(ask, self._schedule(command))
            return
        letter = self._take(command.letter_id)
        match command:
            case RetryLetter():
                self._open_again(ask, letter)
            case EditLetter():
                self._replace(ask, letter, command)
            case DiscardLetter():
                self._close(discarded(letter, command, self._work.now))
                self._answer(ask, self._moved[letter.id])

    def _take(self, letter_id: str) -> DeadLetter:
        letter = self._moved.get(letter_id) or self._found.get(letter_id)
        if letter is None:
            raise UnknownLetter(f"There is no dead letter {letter_id!r}.")
        if letter.state is not LetterState.PARKED:
            raise LetterClosed(
                f"The letter {letter_id} is {letter.state} since {letter.closed_at:%F %T} UTC."
            )
        if any(case.letter.id == letter_id for case in self.cases):
            raise LetterClosed(f"Somebody is dealing with the letter {letter_id} at this moment.")
        return letter

    def _schedule(self, command: RetryParked) -> Scheduled:
        now = self._work.now
        count = self._letters.schedule(
            self._connection, command.group, now, command.per_second, command.by
        )
        return Scheduled(count, now + timedelta(seconds=max(count - 1, 0) / command.per_second))

    def _open_again(self, ask: Asked, letter: DeadLetter) -> None:
        try:
            envelope, event = decode(letter.body)
        except UnreadableEvent as error:
            self._fail(ask, letter, error)
        else:
            self.cases.append(Case(ask, letter, envelope, event))

    def _replace(self, ask: Asked, letter: DeadLetter, command: EditLetter) -> None:
        work = self._work
        try:
            closed, successor, envelope, event = edited(
                letter, command, work.service.name, work.now
            )
        except UnreadableEvent as error:
            raise InvalidEdit(str(error)) from error
        self._close(closed)
        self.cases.append(Case(ask, successor, envelope, event))

    def _succeed(self, case: Case) -> None:
        letter = retried(case.letter, self._work.now, case.ask.command.by)
        self._note_attempt(case.ask, letter)
        if case.letter.new:
            self._moved[letter.id] = letter
        else:
            self._close(letter)
        self._answer(case.ask, letter)

    def _fail(self, ask: Asked, letter: DeadLetter, error: Exception) -> None:
        failed = failed_again(letter, describe(error), "".join(traceback.format_exception(error)))
        log.warning("a dead letter stays parked", letter_id=letter.id, error=shape(describe(error)))
        self._moved[letter.id] = failed
        self._note_attempt(ask, failed)
        if letter.new:
            self._work.announce(self._work.service.says_parked, failed)
            self._answer(ask, failed)
        else:
            self._answer(ask, LetterStaysParked(failed.error))

    def _close(self, letter: DeadLetter) -> None:
        log.info(
            "a dead letter is closed", letter_id=letter.id, state=letter.state, by=letter.closed_by
        )
        self._moved[letter.id] = letter
        self._work.announce(self._work.service.says_closed, letter)

    def _note_attempt(self, ask: Asked, letter: DeadLetter) -> None:
        self._attempts.append(
            Attempt(
                letter_id=letter.id,
                at=self._work.now,
                error=letter.error,
                asked_by=ask.command.by,
            )
        )

    def _answer(self, ask: Asked, answer: Any) -> None:
        self._work.outcome.answers.append((ask, answer))
