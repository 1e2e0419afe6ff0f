"""From an event to the bytes on the wire, and back."""

from datetime import datetime
from typing import Final

import msgspec

from todoku.contracts.envelope import Envelope, Event, fact_id
from todoku.contracts.inventory import (
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.contracts.orders import OrderCancelledEvent, OrderCompletedEvent, OrderCreatedEvent
from todoku.contracts.shipping import (
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
)

EVENTS: Final[dict[str, type[Event]]] = {
    event.__name__: event
    for event in (
        OrderCreatedEvent,
        StockReservedEvent,
        StockReservationFailedEvent,
        ShipmentInitiatedEvent,
        ShipmentCompletedEvent,
        ShipmentFailedEvent,
        OrderCompletedEvent,
        OrderCancelledEvent,
        InventoryMessageParkedEvent,
        InventoryMessageClosedEvent,
        ShippingMessageParkedEvent,
        ShippingMessageClosedEvent,
    )
}
"""Every event type that this version knows, by its name on the wire."""

_encode = msgspec.json.Encoder().encode
_decode_envelope = msgspec.json.Decoder(Envelope).decode
_decode_data = {name: msgspec.json.Decoder(event).decode for name, event in EVENTS.items()}


# The last one for a message that nests without an end.
_NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class UndecodableEvent(Exception):
    """These bytes are not an event of ours: not JSON, not CloudEvents 1.0, or its data lacks a field."""


class UnknownEventType(UndecodableEvent):
    """The envelope is in order, but this version does not know the type: a newer one may."""


def seal(
    event: Event,
    now: datetime,
    *,
    actor: str | None = None,
    traceparent: str | None = None,
) -> Envelope:
    """Put an event that is said `now` (UTC) into its envelope."""
    return Envelope(
        specversion="1.0",
        id=fact_id(event.order_id, event.fact),
        source=event.publisher,
        type=type(event).__name__,
        subject=event.order_id,
        time=now,
        datacontenttype="application/json",
        actor=actor,
        traceparent=traceparent,
        data=msgspec.Raw(_encode(event)),
    )


def encode(envelope: Envelope) -> bytes:
    """The envelope as it goes onto the wire."""
    return _encode(envelope)


def read_envelope(body: bytes) -> Envelope:
    """The envelope of a message, whatever is in it. Raises `UndecodableEvent`."""
    try:
        envelope = _decode_envelope(body)
    except _NOT_JSON as error:
        raise UndecodableEvent(f"not a CloudEvents 1.0 JSON message: {error}") from error
    for name in (envelope.id, envelope.source, envelope.type, envelope.subject):
        # Names become keys and parts of subjects; PostgreSQL cannot even store the character NUL.
        if not name or not name.isprintable():
            raise UndecodableEvent(f"an attribute is empty or has control characters: {name!r}")
    return envelope


def decode(body: bytes) -> tuple[Envelope, Event]:
    """Read what `encode` wrote, here or in another version.

    Unknown fields are ignored, since events only grow. Raises `UndecodableEvent`, or of it
    `UnknownEventType`.
    """
    envelope = read_envelope(body)
    if envelope.specversion != "1.0":
        raise UndecodableEvent(f"CloudEvents {envelope.specversion!r} instead of '1.0'")
    if envelope.type not in _decode_data:
        raise UnknownEventType(f"this version does not know events of type {envelope.type!r}")
    try:
        event = _decode_data[envelope.type](envelope.data)
    except _NOT_JSON as error:
        raise UndecodableEvent(f"the data of this {envelope.type} is off: {error}") from error
    if event.order_id != envelope.subject:
        raise UndecodableEvent(
            f"the envelope is about {envelope.subject!r}, its data about {event.order_id!r}"
        )
    return envelope, event
