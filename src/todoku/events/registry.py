"""The event types that a system knows, and how their messages are decoded."""

from collections.abc import Callable, Iterable, Iterator

import msgspec

from todoku.events.envelope import (
    NOT_JSON,
    Envelope,
    UndecodableEvent,
    UnknownEventType,
    UnknownSagaVersion,
    decode_envelope,
    require_key,
    require_valid_attributes,
)
from todoku.events.event import Event, EventKind, kind_of
from todoku.events.fact_ids import fact_id


class FalseOrigin(UndecodableEvent):
    """Raised for an event that does not come from where such events come from. Neither its source nor
    its id can be trusted, so it is neither confirmed nor taken for the event that has this id."""


class _Known(msgspec.Struct, frozen=True):
    """A known event type: where its messages come from, and how their data is decoded."""

    type: type[Event]
    subject: str
    publisher: str
    decode: Callable[[msgspec.Raw], Event]
    kind: EventKind


class EventRegistry:
    """Decodes the messages of these event types, up to this version of the saga.

    Raises `ValueError` for two types of one name.
    """

    def __init__(self, events: Iterable[type[Event]], *, saga_version: int = 1) -> None:
        self.saga_version = saga_version
        self._known: dict[str, _Known] = {}
        for event in dict.fromkeys(events):
            if event.__name__ in self._known:
                raise ValueError(
                    f"Two event types are called {event.__name__}: rename one of them."
                )
            decode = msgspec.json.Decoder(event).decode
            self._known[event.__name__] = _Known(
                event, event.subject, event.publisher, decode, kind_of(event)
            )

    def __iter__(self) -> Iterator[type[Event]]:
        return (known.type for known in self._known.values())

    def __contains__(self, event: object) -> bool:
        return any(known.type is event for known in self._known.values())

    def decode(self, body: bytes, *, arrived_on: str | None = None) -> tuple[Envelope, Event]:
        """Return the envelope and the event of a message, written by this or another version.

        Unknown fields are ignored, since events only grow. `arrived_on` is the subject on which the
        message came, without the prefix of the system; if it is given, the subject, the source, the
        type and the id must agree. Raises `UndecodableEvent`, or of it `UnknownEventType`.
        """
        envelope = decode_envelope(body)
        known = self._known.get(envelope.type)
        if (
            known is not None
            and arrived_on == known.subject
            and envelope.source == known.publisher
            and envelope.specversion == "1.0"
        ):  # Type and source are those of this event, and its id is checked below.
            require_key(envelope.subject)
        else:
            _check_attributes(envelope, known, arrived_on)
        if known is None:
            raise UnknownEventType(f"this version does not know events of type {envelope.type!r}")
        if envelope.sagaversion > self.saga_version:
            raise UnknownSagaVersion(
                f"this version knows the saga up to version {self.saga_version}, "
                f"not version {envelope.sagaversion}: update this service"
            )
        try:
            event = known.decode(envelope.data)
        except NOT_JSON as error:
            raise UndecodableEvent(f"invalid {envelope.type} payload: {error}") from error
        key = known.kind.key_of(event)
        if key != envelope.subject:
            raise UndecodableEvent(
                f"the envelope is about {envelope.subject!r}, its data about {key!r}"
            )
        if arrived_on is not None and envelope.id != fact_id(key, known.kind.fact or event.fact):
            raise FalseOrigin(
                f"the id {envelope.id!r} is not that of this {envelope.type}: another event's id "
                "would hide that event"
            )
        return envelope, event


def _check_attributes(envelope: Envelope, known: _Known | None, arrived_on: str | None) -> None:
    """Raise `UndecodableEvent` for attributes that an event cannot have, `FalseOrigin` for those that
    this one does not have."""
    if arrived_on is None or known is None or known.publisher != envelope.source:
        require_valid_attributes(envelope)
    else:
        require_key(envelope.subject)
    if envelope.specversion != "1.0":
        raise UndecodableEvent(f"CloudEvents {envelope.specversion!r} instead of '1.0'")
    if arrived_on is None:
        return
    if known is None:
        # A newer version's: at least it comes from the service whose subject it came on.
        if not arrived_on.startswith(f"{envelope.source}."):
            raise FalseOrigin(f"{envelope.source!r} does not publish on {arrived_on!r}")
    elif known.publisher != envelope.source:
        raise FalseOrigin(
            f"{envelope.type} is published by {known.publisher!r}, not by {envelope.source!r}"
        )
    elif known.subject != arrived_on:
        raise FalseOrigin(
            f"{envelope.type} is published on {known.subject!r}, not on {arrived_on!r}"
        )
