"""The kinds of messages that a service's mailbox holds."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from todoku.broker.port import Delivery
from todoku.engine.audit_log.requests import AuditRequest
from todoku.engine.idempotency import IdempotencyKey
from todoku.events import NO_CONTEXT, Context, Envelope, Event

if TYPE_CHECKING:
    from todoku.engine.agenda import Agenda


class IncomingEvent(msgspec.Struct, frozen=True, gc=False):
    """An event of another service; or an own event that is `replayed`, because the database lacks it."""

    delivery: Delivery
    envelope: Envelope
    event: Event
    replayed: bool = False


class UndecodableMessage(msgspec.Struct, frozen=True, gc=False):
    """A message of the stream that cannot be decoded as an event.

    `again` says whether a retry may succeed: a newer version of this service may know the type. One
    `for_newer` came on a subject to which only a newer version subscribes: it waits for that version.
    `envelope` is None if not even that can be decoded, or if its origin cannot be trusted.
    """

    delivery: Delivery
    error: str
    traceback: str
    again: bool
    envelope: Envelope | None = None
    for_newer: bool = False


class EventTooLarge(Exception):
    """Raised for a command whose event would be larger than the broker takes: nothing was changed."""

    def __init__(self, event_type: str, size: int, bytes_max: int) -> None:
        super().__init__(
            f"The {event_type} would be {size:,} bytes, and the broker takes {bytes_max:,}."
        )


class PendingCommand(msgspec.Struct, frozen=True):
    """A command whose caller waits for the result.

    `answer` is called on the event loop's thread after the commit, with the resulting state or with
    the error. One whose event exceeds `event_bytes_max` is refused with
    `EventTooLarge`. One whose `key` was used before is not executed: the answer is a `KeptAnswer`, or
    `IdempotencyKeyReused`. The audit log tells of the `request` that it belongs to.
    """

    command: Any
    answer: Callable[[Any], None]
    context: Context = NO_CONTEXT
    event_bytes_max: int | None = None
    key: IdempotencyKey | None = None
    request: AuditRequest | None = None


class PendingEffect(msgspec.Struct, frozen=True, gc=False):
    """An effect to be started after the commit, and the context of its decision."""

    effect: object
    context: Context = NO_CONTEXT


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A receipt: the subscriber `reader` has these events in its database, handled or parked."""

    reader: str
    ids: tuple[str, ...]


class StoredEvents(msgspec.Struct, frozen=True, gc=False):
    """The broker has stored the events of this process at the positions above `after` and up to
    `up_to`: the stream waits for them no longer."""

    after: int
    up_to: int


class RepublishEvents(msgspec.Struct, frozen=True):
    """A command that every service knows: publish again what it has decided about the entity `key`.
    The result is a tuple of the published events."""

    key: str


class Due(msgspec.Struct, frozen=True, gc=False):
    """A row of an agenda whose time has come, and the context in which it was put there."""

    key: str
    agenda: "Agenda"
    context: Context = NO_CONTEXT


Message = IncomingEvent | UndecodableMessage | PendingCommand | Receipt | StoredEvents
"""What the mailbox holds; the writer finds what is `Due` itself."""
