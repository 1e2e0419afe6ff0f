"""The envelope of every event: CloudEvents 1.0, structured JSON mode.

Source: the CloudEvents 1.0.2 specification, section 3 (context attributes), its JSON event format,
and its extensions for distributed tracing and for correlation.
"""

import re
from datetime import datetime
from typing import Annotated, Final

import msgspec

from todoku.events.event import NO_CONTEXT, Context, Event, kind_of
from todoku.events.fact_ids import fact_id

CONTENT_TYPE: Final = "application/cloudevents+json"

ATTRIBUTE_CHARACTERS_MAX: Final = 500
"""The longest id, type or subject. They become keys, and an index entry of PostgreSQL holds 2,704
bytes."""

# The last one for a message that nests without an end.
NOT_JSON: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for bytes that are not the JSON it expects."""

_is_service_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}").fullmatch


class UndecodableEvent(Exception):
    """Raised for bytes that are not one of our events: not JSON, not CloudEvents 1.0, invalid data, or
    from somewhere else than such an event comes from."""


class UnknownEventType(UndecodableEvent):
    """Raised for a valid envelope of a type that this version does not know; a newer one may."""


class UnknownSagaVersion(UnknownEventType):
    """Raised for an event of a saga that began in a newer version: only the newer version knows the
    steps of that saga."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where an event comes from, around the event itself (`data`, kept as the JSON it arrived in).

    `id` names the fact: the same fact published twice has the same id. `source` is the publishing
    service, `subject` the event's key, `time` the UTC instant at which the publisher decided it.
    `actor` (who asked), `traceparent` and `tracestate` (W3C Trace Context) are extension attributes,
    and so are `sagaversion`, which is absent from the first version of the saga, and `causationid`, the
    id of the event that led to this one (the CloudEvents extension for correlation).
    """

    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: Annotated[datetime, msgspec.Meta(tz=True)]
    datacontenttype: str | None = None
    actor: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    sagaversion: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 1
    causationid: str | None = None
    data: msgspec.Raw

    @property
    def context(self) -> Context:
        """Return the context in which the event was decided."""
        if (
            self.traceparent is None
            and self.actor is None
            and self.tracestate is None
            and self.sagaversion == 1
        ):
            return NO_CONTEXT
        return Context(self.actor, self.traceparent, self.tracestate, self.sagaversion)


def seal(
    event: Event, now: datetime, context: Context = NO_CONTEXT, cause: str | None = None
) -> Envelope:
    """Return the envelope of an event that was decided `now` (UTC); `cause` is the id of the event that
    led to it, if that is not the context's."""
    kind = kind_of(type(event))
    key = kind.key_of(event)
    return Envelope(
        specversion="1.0",
        id=fact_id(key, kind.fact or event.fact),
        source=event.publisher,
        type=type(event).__name__,
        subject=key,
        time=now,
        datacontenttype="application/json",
        actor=context.actor,
        traceparent=context.traceparent,
        tracestate=context.tracestate,
        sagaversion=context.saga_version,
        causationid=cause or context.cause,
        data=msgspec.Raw(_encode(event)),
    )


def encode(envelope: Envelope) -> bytes:
    """Return the envelope as it goes onto the wire."""
    return _encode(envelope)


def read_envelope(body: bytes) -> Envelope:
    """Return the envelope of a message, whatever its data is. Raises `UndecodableEvent`."""
    envelope = decode_envelope(body)
    require_valid_attributes(envelope)
    return envelope


def decode_envelope(body: bytes) -> Envelope:
    """Return the envelope of a message, with any text in its attributes. Raises `UndecodableEvent`."""
    try:
        return _decode_envelope(body)
    except NOT_JSON as error:
        raise UndecodableEvent(f"not a CloudEvents 1.0 JSON message: {error}") from error


def require_valid_attributes(envelope: Envelope) -> None:
    """Raise `UndecodableEvent` for attributes that cannot be keys of a table, or a source that cannot be
    part of a subject of the broker."""
    for value in (envelope.id, envelope.source, envelope.type, envelope.subject):
        require_key(value)
    if not is_service_name(envelope.source):
        raise UndecodableEvent(f"source is not the name of a service: {envelope.source[:100]!r}")


def require_key(value: str) -> None:
    """Raise `UndecodableEvent` for an attribute that cannot be a key."""
    if not value or not value.isprintable():  # PostgreSQL cannot even store the character NUL.
        raise UndecodableEvent(f"an attribute is empty or has control characters: {value!r}")
    if len(value) > ATTRIBUTE_CHARACTERS_MAX:
        raise UndecodableEvent(
            f"an attribute has {len(value)} characters, more than "
            f"{ATTRIBUTE_CHARACTERS_MAX}: {value[:50]!r}…"
        )


def is_service_name(text: str) -> bool:
    """Return whether a text can be the name of a service: letters, digits, `_` and `-`, at most 64."""
    return _is_service_name(text) is not None


_encode = msgspec.json.Encoder().encode
_decode_envelope = msgspec.json.Decoder(Envelope).decode
