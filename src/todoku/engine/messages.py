"""What can lie in a service's mailbox."""

from collections.abc import Callable
from typing import Any

import msgspec

from todoku.broker.port import Delivery
from todoku.contracts import Envelope, Event, UndecodableEvent, read_envelope


class IncomingEvent(msgspec.Struct, frozen=True, gc=False):
    """An event from another service; or one that is `recalled`, because our database has lost it."""

    delivery: Delivery
    envelope: Envelope
    event: Event
    replayed: bool = False


class UndecodableMessage(msgspec.Struct, frozen=True, gc=False):
    """A message from the stream that cannot be read as an event.

    `again` says whether that may change: a newer version of this service may know the type.
    """

    delivery: Delivery
    error: str
    traceback: str
    again: bool

    @property
    def envelope(self) -> Envelope | None:
        """The envelope, if at least that is in order."""
        try:
            return read_envelope(self.delivery.body)
        except UndecodableEvent:
            return None


class PendingCommand(msgspec.Struct, frozen=True):
    """A command from somebody who waits.

    `answer` is called on the event loop's thread after the commit, with the state that the command
    left, or with the error that kept it from being carried out. With an `id` it is carried out once,
    however often it is given: after a commit of which nobody knows whether it went through.
    """

    command: Any
    answer: Callable[[Any], None]
    actor: str | None = None
    traceparent: str | None = None
    id: str | None = None


class Receipt(msgspec.Struct, frozen=True, gc=False):
    """A reader's word that it has these events in its database, or parked."""

    reader: str
    ids: tuple[str, ...]


class RepublishOrder(msgspec.Struct, frozen=True):
    """A command to any service: say again what it has decided about an order. The answer is a tuple
    of the events that it said."""

    order_id: str


class Due(msgspec.Struct, frozen=True, gc=False):
    """Something of the service's own wants attention: its `due_at` has passed."""

    key: str


Message = IncomingEvent | UndecodableMessage | PendingCommand | Receipt
"""What arrives from outside; `Due` is found by the writer itself."""
