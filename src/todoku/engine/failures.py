"""Messages that failed: they are retried later, and parked in the end."""

import traceback
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import structlog

from todoku.broker.port import Delivery
from todoku.engine.config import RetryPolicy
from todoku.engine.dead_letters import (
    REPLAY_FAILED,
    Attempt,
    DeadLetter,
    describe,
    letter_id,
    parked,
    shape,
)
from todoku.engine.messages import IncomingEvent, UndecodableMessage
from todoku.engine.post_commit import PostCommitActions
from todoku.events import Envelope, trace_fields
from todoku.lifecycle import UnknownStatus

log = structlog.get_logger(__name__)

FAILED_ATTEMPTS_MAX = 10_000
"""For how many messages that are still retried the failed attempts are kept in memory."""


class KeyHeld(Exception):
    """Raised for a message about what could not be replayed and was discarded."""


class FailedAttempts:
    """The failed attempts of messages that are still retried, by letter id; bounded."""

    def __init__(self) -> None:
        self._attempts: dict[str, list[Attempt]] = {}

    def of(self, key: str) -> Sequence[Attempt]:
        """Return the failed attempts of a message so far."""
        return self._attempts.get(key, ())

    def note(self, failed: Iterable[Attempt], ended: Iterable[str]) -> None:
        """Keep the attempts that have failed; drop those of messages that were handled or parked."""
        if self._attempts:
            for key in ended:
                self._attempts.pop(key, None)
        for attempt in failed:
            self._attempts.setdefault(attempt.letter_id, []).append(attempt)
        while len(self._attempts) > FAILED_ATTEMPTS_MAX:
            self._attempts.pop(next(iter(self._attempts)))


class Failures:
    """The failures of one transaction. What to do with a message goes into `actions`; a parked one
    counts as handled.

    `parked` are the new dead letters, with all their `attempts`; `failed` are the attempts of messages
    that will be retried.
    """

    def __init__(
        self,
        now: datetime,
        retry_policy: RetryPolicy,
        earlier: FailedAttempts,
        actions: PostCommitActions,
        handled_ids: list[str],
    ) -> None:
        self._now = now
        self._retry_policy = retry_policy
        self._earlier = earlier
        self._actions = actions
        self._handled_ids = handled_ids
        self.parked: list[DeadLetter] = []
        self.attempts: list[Attempt] = []
        self.failed: list[Attempt] = []

    def add(self, message: IncomingEvent, error: Exception) -> None:
        """Retry the message later or park it; one that cannot be replayed is parked at once, and the
        recovery retries it when it has replayed all others.

        One about what only a newer version knows is never parked: it waits for that version.
        """
        if isinstance(error, UnknownStatus):
            log.warning(
                "message_waits_for_newer_version",
                subject=message.delivery.subject,
                event_id=message.envelope.id,
                error=str(error),
            )
            self.nack(message.delivery)
            return
        described, attempts_max = describe(error), self._retry_policy.failing_attempts_max
        if message.replayed:
            described = f"{REPLAY_FAILED}: {described}"
        if message.replayed or isinstance(error, KeyHeld):
            attempts_max = 1
        trace = "".join(traceback.format_exception(error))
        self._retry_or_park(message.delivery, message.envelope, described, trace, attempts_max)

    def add_undecodable(self, message: UndecodableMessage) -> None:
        """Retry a message until a version can decode it, or park it.

        One that was addressed to a newer version of this service is never parked: the durable filters as
        that version wants it, since it runs or ran, and its events stay until it does so again.
        """
        if message.for_newer:
            self.nack(message.delivery)
            return
        attempts_max = self._retry_policy.unknown_attempts_max if message.again else 1
        self._retry_or_park(
            message.delivery, message.envelope, message.error, message.traceback, attempts_max
        )

    def nack(self, delivery: Delivery) -> None:
        """Let a message be delivered again after a while."""
        self._actions.naks.append((delivery, self._retry_policy.delay_seconds(delivery.attempt)))

    def _retry_or_park(
        self,
        delivery: Delivery,
        envelope: Envelope | None,
        error: str,
        trace: str,
        attempts_max: int,
    ) -> None:
        """Nack the message, or park it after too many attempts."""
        attempt = Attempt(letter_id=letter_id(delivery, envelope), at=self._now, error=error)
        if delivery.attempt >= attempts_max:
            self.attempts += [*self._earlier.of(attempt.letter_id), attempt]
            # A microsecond apart, so that they are retried in the order of their arrival.
            parked_at = self._now + timedelta(microseconds=len(self.parked))
            self._park(parked(delivery, envelope, error, trace, parked_at), delivery, envelope)
            return
        self.failed.append(attempt)
        self.nack(delivery)
        log.warning(
            "message_failed_will_retry",
            subject=delivery.subject,
            event_id=envelope and envelope.id,
            key=envelope and envelope.subject,
            **trace_fields(envelope.traceparent if envelope else None),
            attempt=delivery.attempt,
            error=shape(error),
        )

    def _park(self, letter: DeadLetter, delivery: Delivery, envelope: Envelope | None) -> None:
        log.error(
            "message_parked",
            letter_id=letter.id,
            subject=letter.subject,
            key=letter.key,
            event_id=envelope and envelope.id,
            **trace_fields(envelope.traceparent if envelope else None),
            error=shape(letter.error or ""),
        )
        self.parked.append(letter)
        self._actions.terms.append(delivery)
        if envelope is not None:
            self._handled_ids.append(envelope.id)
            self._actions.add_receipt(envelope, delivery)
