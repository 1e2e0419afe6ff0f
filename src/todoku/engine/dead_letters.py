"""The states of a dead letter and its transitions. Pure: values in, values out.

    PARKED ──retry───▶ RETRIED      handled successfully
       ├─────edit────▶ EDITED       replaced by a corrected message
       └────discard──▶ DISCARDED    discarded by an operator, with a reason

A letter changes its state only once. A retry that fails leaves it PARKED, with one more attempt.
"""

import hashlib
import re
import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from todoku.broker.port import Delivery
from todoku.events import (
    NO_CONTEXT,
    Context,
    Envelope,
    Event,
    EventRegistry,
    UndecodableEvent,
    encode,
    is_canonical_uuid,
    read_envelope,
)

REPLAY_FAILED = "ReplayFailed"
"""The class of the error of a message that the recovery of a restored database could not replay."""

DATABASE_LOST = "DatabaseLost"
"""The class of the error of a letter that tells what a recovery cannot read from the stream."""

HOLDING = (REPLAY_FAILED, DATABASE_LOST)
"""Letters with these errors hold the recovery: the service decides nothing until they are resolved."""


class DeadLetterError(Exception):
    """A command about a dead letter cannot be executed."""


class UnknownDeadLetter(DeadLetterError):
    """There is no dead letter with this id."""


class DeadLetterResolved(DeadLetterError):
    """This letter is resolved already."""


class RedeliveryFailed(DeadLetterError):
    """The retry failed; the attempt is recorded."""


class InvalidEdit(DeadLetterError):
    """The correction is not a valid event for this letter."""


class DeadLetterState(StrEnum):
    """The state of a letter."""

    PARKED = "PARKED"
    RETRIED = "RETRIED"
    EDITED = "EDITED"
    DISCARDED = "DISCARDED"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not be handled, with its whole body.

    `key` is that of its event. `error` and `traceback` are of the last attempt, None if that
    succeeded; `error_group` identifies errors of the same shape. `retry_at` (UTC) is when a scheduled
    retry is due, and `retry_by` who asked for it. `replaces` is the letter that an edited message was
    made from, and `replaced_by` the one that was made from this.
    """

    id: str
    subject: str
    body: bytes
    headers: str | None = None
    event_id: str | None
    event_type: str | None
    key: str | None
    parked_at: datetime
    attempts: int
    error: str | None
    traceback: str | None
    error_group: str | None
    state: DeadLetterState = DeadLetterState.PARKED
    retry_at: datetime | None = None
    retry_by: str | None = None
    closed_at: datetime | None = None
    closed_by: str | None = None
    reason: str | None = None
    replaces: str | None = None
    replaced_by: str | None = None

    @property
    def error_class(self) -> str:
        """Return the class of the last error."""
        return (self.error or "").partition(":")[0]

    @property
    def new(self) -> bool:
        """Return whether an edit has just created it, and nothing was published about it."""
        return self.attempts == 0


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt at a message: its error, None if it succeeded; and who asked for it, None if the
    stream delivered it."""

    letter_id: str
    at: datetime
    error: str | None
    asked_by: str | None = None


class RetryDeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Decide on a parked message again, now."""

    letter_id: str
    by: str | None = None


class EditDeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Decide on a corrected message in a parked one's place. `data` is the event as JSON."""

    letter_id: str
    data: bytes
    by: str | None = None


class DiscardDeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """Discard a parked message."""

    letter_id: str
    reason: str
    by: str


class ParkUnpublishable(msgspec.Struct, frozen=True, kw_only=True):
    """Park an event of this service that the broker does not take: `letter_id` is that of its event.
    A retry publishes it again."""

    letter_id: str
    subject: str
    body: bytes
    error: str
    event_bytes_max: int
    by: str | None = None


class ParkLoss(msgspec.Struct, frozen=True, kw_only=True):
    """Park a letter that tells what a recovery cannot read from the stream. A retry resolves it."""

    letter_id: str
    subject: str
    error: str
    by: str | None = None


class RetryDeadLetters(msgspec.Struct, frozen=True, kw_only=True):
    """Decide again on all parked messages, or on one group, at so many letters a second."""

    per_second: float
    group: str | None = None
    by: str | None = None


DEAD_LETTER_COMMANDS: frozenset[type] = frozenset(
    {
        RetryDeadLetter,
        EditDeadLetter,
        DiscardDeadLetter,
        RetryDeadLetters,
        ParkUnpublishable,
        ParkLoss,
    }
)
"""The commands about dead letters that every service knows."""


class RetrySchedule(msgspec.Struct, frozen=True):
    """How many letters will be retried, and when (UTC) the last one."""

    count: int
    last_at: datetime


def parked(
    delivery: Delivery, envelope: Envelope | None, error: str, traceback: str, now: datetime
) -> DeadLetter:
    """Return the letter of a delivery; `envelope` is None if it cannot be decoded."""
    return DeadLetter(
        id=letter_id(delivery, envelope),
        subject=delivery.subject,
        body=delivery.body,
        headers=msgspec.json.encode(dict(delivery.headers)).decode() if delivery.headers else None,
        event_id=envelope.id if envelope else None,
        event_type=envelope.type if envelope else None,
        key=envelope.subject if envelope else None,
        parked_at=now,
        attempts=delivery.attempt,
        error=error,
        traceback=traceback,
        error_group=group_of(error),
    )


def loss(command: ParkLoss, now: datetime) -> DeadLetter:
    """Return the letter of a loss, which is about no message."""
    error = f"{DATABASE_LOST}: {command.error}"
    return DeadLetter(
        id=command.letter_id,
        subject=command.subject,
        body=b"",
        event_id=None,
        event_type=None,
        key=None,
        parked_at=now,
        attempts=1,
        error=error,
        traceback=None,
        error_group=group_of(error),
    )


def letter_id(delivery: Delivery, envelope: Envelope | None) -> str:
    """Return a UUID that is the same for every delivery of a message: that of its event, or one made
    from subject and body where the event has none."""
    if envelope is not None and (canonical := _canonical_uuid(envelope.id)):
        return canonical
    content = delivery.subject.encode() + b"\0" + delivery.body
    return str(uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(content).hexdigest()))


def retried(letter: DeadLetter, now: datetime, by: str | None) -> DeadLetter:
    """Return the letter after a successful retry."""
    return _closed(
        letter,
        DeadLetterState.RETRIED,
        now,
        by,
        attempts=letter.attempts + 1,
        error=None,
        traceback=None,
        error_group=None,
    )


def failed_again(letter: DeadLetter, error: str, traceback: str) -> DeadLetter:
    """Return the letter after one more failed attempt."""
    return msgspec.structs.replace(
        letter,
        attempts=letter.attempts + 1,
        error=error,
        traceback=traceback,
        error_group=group_of(error),
        retry_at=None,
        retry_by=None,
    )


def edited(
    letter: DeadLetter,
    command: EditDeadLetter,
    service: str,
    registry: EventRegistry,
    now: datetime,
) -> tuple[DeadLetter, DeadLetter, Envelope, Event]:
    """Return the letter as EDITED, its successor, and the successor's envelope and event.

    The new message has the same key and the same type. Its id follows from the service
    and the letter, because two services may correct their copies of one event differently.
    Raises `InvalidEdit` or `UndecodableEvent`.
    """
    if letter.event_type is None or letter.key is None:
        raise InvalidEdit(
            "Of this message not even the envelope can be read, so it is unknown which event "
            "another would replace. Its publisher sends the real one again: discard this."
        )
    envelope, event = registry.decode(encode(_corrected(letter, command, service, now)))
    # `decode` ignores unknown fields; an operator who misspelt one needs an error.
    if unknown := _fields(command.data) - _fields(msgspec.json.encode(event)):
        raise InvalidEdit(f"{letter.event_type} has no field {', '.join(sorted(unknown))}.")
    successor = DeadLetter(
        id=envelope.id,
        subject=letter.subject,
        body=encode(envelope),
        event_id=envelope.id,
        event_type=envelope.type,
        key=envelope.subject,
        parked_at=now,
        attempts=0,
        error=None,
        traceback=None,
        error_group=None,
        replaces=letter.id,
    )
    closed = _closed(letter, DeadLetterState.EDITED, now, command.by, replaced_by=successor.id)
    return closed, successor, envelope, event


def discarded(letter: DeadLetter, command: DiscardDeadLetter, now: datetime) -> DeadLetter:
    """Return the letter as DISCARDED, with the reason."""
    return _closed(letter, DeadLetterState.DISCARDED, now, command.by, reason=command.reason)


def context_of(letter: DeadLetter) -> Context:
    """Return the context of what follows from a letter's message, as far as that can be decoded."""
    try:
        return read_envelope(letter.body).context.caused_by(letter.event_id)
    except UndecodableEvent:
        return NO_CONTEXT


def describe(error: BaseException) -> str:
    """Return an error as text that begins with its class and that every database can store."""
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return text.replace("\0", "␀").encode(errors="replace").decode()


def shape(error: str) -> str:
    """Return the first line of an error without ids, numbers and quotations, which is the same for
    similar errors. It holds no personal data and may be shown in lists."""
    return _PARTICULARS.sub("…", error.partition("\n")[0])


def group_of(error: str) -> str:
    """Return a short hash of an error's shape."""
    return hashlib.sha256(shape(error).encode()).hexdigest()[:12]


_PARTICULARS = re.compile(
    r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"  # UUIDs
    r"|'(?:[^'\\]|\\.)*'"
    r"|\b\d+(?:\.\d+)?\b"
)


def _closed(
    letter: DeadLetter, state: DeadLetterState, now: datetime, by: str | None, **changes: Any
) -> DeadLetter:
    return msgspec.structs.replace(
        letter,
        state=state,
        closed_at=now,
        closed_by=by,
        retry_at=None,
        retry_by=None,
        **changes,
    )


def _corrected(
    letter: DeadLetter, command: EditDeadLetter, service: str, now: datetime
) -> Envelope:
    assert letter.event_type is not None
    assert letter.key is not None
    context = context_of(letter)
    return Envelope(
        specversion="1.0",
        id=str(uuid.uuid5(uuid.UUID(letter.id), f"edited at {service}")),
        source=service,
        type=letter.event_type,
        subject=letter.key,
        time=now,
        datacontenttype="application/json",
        actor=command.by,
        traceparent=context.traceparent,
        tracestate=context.tracestate,
        sagaversion=context.saga_version,
        causationid=context.cause,
        data=msgspec.Raw(command.data),
    )


def _fields(data: bytes) -> set[str]:
    return set(msgspec.json.decode(data, type=dict[str, Any]))


def _canonical_uuid(text: str) -> str | None:
    return text.lower() if is_canonical_uuid(text) else None
