"""The base class of events, and the context in which something is asked or decided."""

from collections.abc import Callable
from functools import cache
from operator import attrgetter
from typing import ClassVar, Final

import msgspec

Personal = msgspec.Meta(extra={"personal": True})
"""Marks a field that identifies a person: kept out of logs, metrics and lists, erasable."""

SAMPLED_DIGITS: Final = frozenset("13579bdf")
"""How the flags of a traceparent end that is sampled."""

TRACEPARENT_PARTS: Final = 4
"""How many parts a W3C traceparent has at least: version, trace id, span id, flags."""


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A fact about one entity, published by one service and named in the past tense.

    Subclasses set `subject`, on which the event is published; `publisher`, the service that
    publishes it; and `key_field`, the field that holds the entity's id. The type on the wire is the
    name of the class.
    """

    subject: ClassVar[str]
    publisher: ClassVar[str]
    key_field: ClassVar[str]

    @property
    def key(self) -> str:
        """Return the id of the entity that the event is about."""
        key: str = getattr(self, self.key_field)
        return key

    @property
    def fact(self) -> str:
        """Return what tells this fact from the others about the same key."""
        return type(self).__name__


class EventKind(msgspec.Struct, frozen=True):
    """What all events of one type have in common, found once: how their key is read, and their `fact`; None
    if that differs from one to the other."""

    key_of: Callable[[Event], str]
    fact: str | None


@cache
def kind_of(event: type[Event]) -> EventKind:
    """Return what all events of this type have in common."""
    key_of = attrgetter(event.key_field if event.key is Event.key else "key")
    return EventKind(key_of, event.__name__ if event.fact is Event.fact else None)


class Context(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Who asked for something, and in which trace: it goes with everything that follows from it.

    `actor` is the principal; `traceparent` and `tracestate` are those of W3C Trace Context.
    `saga_version` is the version of the saga that this belongs to, fixed when the saga began.
    `cause` is the id of the event that led to this; None for what a command began.
    """

    actor: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    saga_version: int = 1
    cause: str | None = None

    def caused_by(self, cause: str | None) -> "Context":
        """Return this context with another cause."""
        if cause == self.cause:
            return self
        caused = Context(self.actor, self.traceparent, self.tracestate, self.saga_version, cause)
        return NO_CONTEXT if caused == NO_CONTEXT else caused


class InContext(msgspec.Struct, frozen=True, gc=False):
    """An event that a decision publishes in another context than its own: that of the entity it is about."""

    event: Event
    context: Context


NO_CONTEXT: Final = Context()
"""The context of what nobody has asked for."""


def trace_id_of(traceparent: str | None) -> str | None:
    """Return the trace id of a W3C `traceparent`, None if there is none or it is malformed."""
    parts = (traceparent or "").split("-")
    return parts[1] if len(parts) >= TRACEPARENT_PARTS else None


def exemplar_of(traceparent: str | None) -> dict[str, str] | None:
    """Return the exemplar of what was measured in this trace, None if the trace is not sampled."""
    if traceparent is None or traceparent[-1:] not in SAMPLED_DIGITS:
        return None
    return trace_fields(traceparent)


def trace_fields(traceparent: str | None) -> dict[str, str]:
    """Return the fields that a log line about something in this trace has."""
    parts = (traceparent or "").split("-")
    if len(parts) < TRACEPARENT_PARTS:
        return {}
    return {"trace_id": parts[1], "span_id": parts[2]}
