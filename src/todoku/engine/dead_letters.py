"""What a message that could not be dealt with is, and may become. Pure: values in, values out.

    PARKED ──retry───▶ RETRIED      dealt with after all
       ├─────edit────▶ EDITED       a corrected message took its place, caused by this one
       └────discard──▶ DISCARDED    somebody decided to do without it, and said why

A letter moves only once. A retry that fails leaves it where it is, with one more attempt.
"""

import hashlib
import re
import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from todoku.broker.port import Delivery
from todoku.contracts import Envelope, Event, decode, encode


class DeadLetterError(Exception):
    """A dead letter cannot be dealt with as was asked."""


class UnknownDeadLetter(DeadLetterError):
    """There is no dead letter with this id."""


class DeadLetterResolved(DeadLetterError):
    """Somebody has dealt with this letter already."""


class RedeliveryFailed(DeadLetterError):
    """The retry failed; the attempt is recorded."""


class InvalidEdit(DeadLetterError):
    """The correction is not an event that may take the letter's place."""


class DeadLetterState(StrEnum):
    """What has become of a letter."""

    PARKED = "PARKED"
    RETRIED = "RETRIED"
    EDITED = "EDITED"
    DISCARDED = "DISCARDED"


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A message that could not be dealt with, kept whole.

    `error` and `traceback` are of the last attempt, None if that went well; `error_group` names
    what the error has in common with others. `retry_at` (UTC) is when it is retried by itself, for
    `retry_by`. `replaces` is the letter that an edited message was made from, and `replaced_by` the
    one that was made from this.
    """

    id: str
    subject: str
    body: bytes
    headers: str | None = None
    event_id: str | None
    event_type: str | None
    order_id: str | None
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
        """The class of the last error."""
        return (self.error or "").partition(":")[0]

    @property
    def new(self) -> bool:
        """Whether it was made just now, in the place of another, and nobody has been told of it."""
        return self.attempts == 0


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One try at a message: how it failed, None if it went well; and who asked for it, None if the
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
    """Do without a parked message."""

    letter_id: str
    reason: str
    by: str


class RetryDeadLetters(msgspec.Struct, frozen=True, kw_only=True):
    """Decide again on all that is parked, or on one group of it, at so many letters a second."""

    per_second: float
    group: str | None = None
    by: str | None = None


class RetrySchedule(msgspec.Struct, frozen=True):
    """How many letters will be retried, and when (UTC) the last of them."""

    count: int
    last_at: datetime


def parked(
    delivery: Delivery, envelope: Envelope | None, error: str, traceback: str, now: datetime
) -> DeadLetter:
    """The letter that is kept of a delivery; `envelope` as far as it can be read."""
    return DeadLetter(
        id=letter_id(delivery, envelope),
        subject=delivery.subject,
        body=delivery.body,
        headers=msgspec.json.encode(dict(delivery.headers)).decode() if delivery.headers else None,
        event_id=envelope.id if envelope else None,
        event_type=envelope.type if envelope else None,
        order_id=envelope.subject if envelope else None,
        parked_at=now,
        attempts=delivery.attempt,
        error=error,
        traceback=traceback,
        error_group=group_of(error),
    )


def letter_id(delivery: Delivery, envelope: Envelope | None) -> str:
    """A UUID that a message keeps however often it arrives: its event's own, or one made from what
    it says where the event has none."""
    if envelope is not None and (canonical := _canonical_uuid(envelope.id)):
        return canonical
    content = delivery.subject.encode() + b"\0" + delivery.body
    return str(uuid.uuid5(uuid.NAMESPACE_OID, hashlib.sha256(content).hexdigest()))


def retried(letter: DeadLetter, now: datetime, by: str | None) -> DeadLetter:
    """It was dealt with after all."""
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
    """It was tried once more, in vain."""
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
    letter: DeadLetter, command: EditDeadLetter, service: str, now: datetime
) -> tuple[DeadLetter, DeadLetter, Envelope, Event]:
    """The letter as it is laid to rest, and the one that takes its place, with what that says.

    The new message is about the same order and of the same type. Its id follows from the service
    and the letter, because two services may correct their copies of one event differently.
    Raises `InvalidEdit` or `UndecodableEvent`.
    """
    if letter.event_type is None or letter.order_id is None:
        raise InvalidEdit(
            "Of this message not even the envelope can be read, so nothing says which event "
            "another would replace. Its publisher sends the real one again: discard this."
        )
    envelope, event = decode(encode(_corrected(letter, command, service, now)))
    # `decode` ignores fields that it does not know; a person who misspelt one wants to hear of it.
    if unknown := _fields(command.data) - _fields(msgspec.json.encode(event)):
        raise InvalidEdit(f"{letter.event_type} has no field {', '.join(sorted(unknown))}.")
    successor = DeadLetter(
        id=envelope.id,
        subject=letter.subject,
        body=encode(envelope),
        event_id=envelope.id,
        event_type=envelope.type,
        order_id=envelope.subject,
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
    """It will not be dealt with, for a reason."""
    return _closed(letter, DeadLetterState.DISCARDED, now, command.by, reason=command.reason)


def describe(error: BaseException) -> str:
    """An error in one text that begins with its class, and that any database can store."""
    text = f"{type(error).__name__}: {error}".removesuffix(": ")
    return text.replace("\0", "␀").encode(errors="replace").decode()


def shape(error: str) -> str:
    """What an error has in common with others of its kind: its first line, without ids, numbers and
    quotations. It names nobody and may be shown in lists."""
    return _PARTICULARS.sub("…", error.partition("\n")[0])


def group_of(error: str) -> str:
    """A short name for the shape of an error."""
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
    assert letter.order_id is not None
    return Envelope(
        specversion="1.0",
        id=str(uuid.uuid5(uuid.UUID(letter.id), f"edited at {service}")),
        source=service,
        type=letter.event_type,
        subject=letter.order_id,
        time=now,
        datacontenttype="application/json",
        actor=command.by,
        data=msgspec.Raw(command.data),
    )


def _fields(data: bytes) -> set[str]:
    return set(msgspec.json.decode(data, type=dict[str, Any]))


def _canonical_uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
