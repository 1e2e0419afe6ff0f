"""Commands that have a transaction of their own, because they are about more than the batch may lock."""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import Connection

from todoku.database import ConstraintViolated
from todoku.engine.api_keys import event_of_key
from todoku.engine.audit_log.requests import AuditRequest
from todoku.engine.failpoints import Failpoint
from todoku.engine.idempotency import (
    IdempotencyKey,
    IdempotencyKeyReused,
    KeptAnswer,
    kept_answer,
)
from todoku.engine.pause_handler import PauseHandler
from todoku.engine.pauses import Pause, PauseError, Resume
from todoku.engine.persons.commands import ErasePerson, PersonError
from todoku.engine.rejection import rejecting_values
from todoku.engine.service import Service
from todoku.engine.transactions import Transactions
from todoku.events import ErasureEvent
from todoku.identity.keys import ApiKey


class SeparateCommands:
    """Executes commands about pauses, persons and API keys, each in a transaction of its own."""

    def __init__(
        self,
        service: Service,
        transactions: Transactions,
        pauses: PauseHandler,
        failpoint: Failpoint,
    ) -> None:
        self._transactions = transactions
        self._tables = transactions.tables
        self._formats = service.formats
        self._key_event = service.key_event
        self._pauses = pauses
        self._failpoint = failpoint

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
        self._note_recorded(request)
        return result

    def erase_person(
        self,
        command: ErasePerson,
        key: IdempotencyKey | None,
        now: datetime,
        request: AuditRequest | None = None,
    ) -> object:
        """Commit the erasure of a person by itself; return the result, a `KeptAnswer` if the key was used
        before, or an error."""
        transactions, trail = self._transactions, self._transactions.trail
        with transactions.open() as connection:
            result, events = self._find_or_erase(connection, command, key, now)
            transactions.add_to_outbox(connection, events, now)
            if trail is not None and request is not None:
                trail.add(connection, [request.entry(result, command)], now)
        transactions.position += len(events)
        transactions.cache.clear()
        if trail is not None:
            trail.forget_names()
        self._note_recorded(request)
        return result

    def apply_erasure_file(self) -> int:
        """Erase the persons that the file has and the database lacks; return how many."""
        with self._transactions.open() as connection:
            return self._transactions.persons.apply_file(connection)

    def change_key(self, key: ApiKey, now: datetime) -> None:
        """Save an API key that was created or revoked, and publish it, in a transaction of its own."""
        assert self._key_event is not None, "another service creates the keys"
        with self._transactions.open() as connection:
            self._tables.api_keys.keep(connection, [key])
            event = event_of_key(self._key_event, key)
            self._transactions.add_to_outbox(connection, [event], now)
        self._transactions.position += 1

    def _commit_pause(
        self,
        command: Pause | Resume,
        key: IdempotencyKey | None,
        now: datetime,
        request: AuditRequest | None,
    ) -> object:
        trail = self._transactions.trail
        with self._transactions.open() as connection, rejecting_values():
            result = self._find_or_execute(connection, command, key, now)
            if trail is not None and request is not None:
                trail.add(connection, [request.entry(result, command)], now)
            self._failpoint("before-commit")
        self._failpoint("after-commit")
        self._transactions.cache.clear()  # It holds due times that may have changed.
        return result

    def _find_or_execute(
        self,
        connection: Connection,
        command: Pause | Resume,
        key: IdempotencyKey | None,
        now: datetime,
    ) -> object:
        """Return the result of a command about a pause, or what its key was answered with before."""
        if (answered := self._answered(connection, key)) is not None:
            return answered
        result: object
        try:
            result = self._pauses.execute(connection, command, now)
        except PauseError as error:
            result = error
        if key is not None and key.keeps(result):
            self._keep_answer(connection, key, result, now)
        return result

    def _find_or_erase(
        self,
        connection: Connection,
        command: ErasePerson,
        key: IdempotencyKey | None,
        now: datetime,
    ) -> tuple[object, Sequence[ErasureEvent]]:
        """Return the result of an erasure, or what its key was answered with before; and its events."""
        if (answered := self._answered(connection, key)) is not None:
            return answered, ()
        try:
            result, events = self._transactions.persons.erase_person(connection, command, now)
        except PersonError as error:
            return error, ()
        if key is not None:
            self._keep_answer(connection, key, result, now)
        return result, events

    def _answered(
        self, connection: Connection, key: IdempotencyKey | None
    ) -> KeptAnswer | IdempotencyKeyReused | None:
        """Return what a request with this key was answered with before, None if there was none."""
        if key is None:
            return None
        kept = self._tables.idempotency_keys.find(connection, [key.id]).get(key.id)
        if kept is None or kept.fingerprint == key.fingerprint:
            return kept
        return IdempotencyKeyReused("This key was sent before, with another request.")

    def _keep_answer(
        self, connection: Connection, key: IdempotencyKey, result: object, now: datetime
    ) -> None:
        answer = kept_answer(key, result, self._formats)
        self._tables.idempotency_keys.add(connection, [(key.id, answer)], now)

    def _note_recorded(self, request: AuditRequest | None) -> None:
        if request is not None:
            request.recorded = self._transactions.trail is not None
