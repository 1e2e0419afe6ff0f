"""The contexts of spans: which trace they belong to, who is their parent, whether they are sampled."""

from collections.abc import Callable
from random import getrandbits
from typing import Final

import msgspec

from todoku.events import Context
from todoku.telemetry.encoding import link

Sample = Callable[[str], bool]
"""Tells whether a trace that begins here is sampled, by its id in hexadecimal digits."""

TRACEPARENT_LENGTH: Final = 55
_ODD: Final = frozenset("13579bdf")


class Parent(msgspec.Struct, frozen=True, gc=False):
    """A W3C traceparent. A trace that begins has no `span_id` yet."""

    trace: str
    trace_id: bytes
    span_id: bytes
    sampled: bool

    def child(self, span_id: int) -> str:
        """Return the traceparent of what a child of it leads to."""
        return f"00-{self.trace}-{span_id:016x}-{'01' if self.sampled else '00'}"


def parent_of(traceparent: str) -> Parent | None:
    """Return a traceparent as it is stored in messages, None if it is malformed."""
    if len(traceparent) != TRACEPARENT_LENGTH:
        return None
    trace = traceparent[3:35]
    try:
        ids = bytes.fromhex(trace + traceparent[36:52])
    except ValueError:
        return None
    if len(ids) != 24:  # Spaces are skipped.
        return None
    return Parent(trace, ids[:16], ids[16:], traceparent[54] in _ODD)


def sampled_link(traceparent: bytes) -> bytes | None:
    """Return the link of a span to a traceparent, None if that is not sampled, or malformed."""
    if traceparent[53:] != b"01":
        return None
    try:
        ids = bytes.fromhex((traceparent[3:35] + traceparent[36:52]).decode())
    except ValueError:
        return None
    return link(ids[:16], ids[16:]) if len(ids) == 24 else None


def new_trace(sample: Sample) -> Parent:
    """Return the beginning of a trace."""
    trace = f"{getrandbits(128) or 1:032x}"
    return Parent(trace, bytes.fromhex(trace), b"", sample(trace))


def new_span_id() -> int:
    """Return a span id, which is never 0."""
    return getrandbits(64) or 1


def within(context: Context, traceparent: str) -> Context:
    """Return a context with another traceparent."""
    return Context(
        context.actor, traceparent, context.tracestate, context.saga_version, context.cause
    )
