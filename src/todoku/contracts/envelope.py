"""The envelope every event travels in: CloudEvents 1.0, structured JSON mode.

Source: the CloudEvents 1.0.2 specification, section 3 (context attributes), and its JSON event format.
"""

import hashlib
from datetime import datetime
from typing import Annotated, ClassVar

import msgspec

CONTENT_TYPE = "application/cloudevents+json"

Personal = msgspec.Meta(extra={"personal": True})
"""Marks a field that identifies a person: kept out of logs, metrics and lists, erasable."""

MAX_SAFE_INTEGER = 2**53 - 1
"""The largest integer every JSON reader keeps exact; money and its sums stay at or below it."""


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A fact about one order, said by one service in the past tense.

    Subclasses set `subject`, the channel it is published on, and `publisher`, the service that
    says it. The wire type is the class's own name.
    """

    subject: ClassVar[str]
    publisher: ClassVar[str]

    order_id: str

    @property
    def fact(self) -> str:
        """What tells this fact from the others about the same order."""
        return type(self).__name__


class Envelope(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where an event comes from, around the event itself (`data`, kept as the JSON it arrived in).

    `id` names the fact: the same fact said twice carries the same id. `source` is the publishing
    service, `subject` the order, `time` the UTC instant at which the publisher decided it. `actor`
    (who asked) and `traceparent` (W3C Trace Context) are extension attributes.
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
    data: msgspec.Raw


def fact_id(order_id: str, name: str, n: int = 1) -> str:
    """The id of the `n`-th fact called `name` about an order: always the same for the same fact.

    A UUIDv8 (RFC 9562, section 5.8): the first 48 bits are the order's own, which for a UUIDv7 are
    its time, so that rows keyed by it land beside each other in an index; the rest is a SHA-1 of
    what it names, as in a UUIDv5. See docs/decisions/0001-fact-ids.md.
    """
    order = bytes.fromhex(order_id.replace("-", ""))
    if len(order) != 16:
        raise ValueError(f"{order_id!r} is not a UUID")
    digest = hashlib.sha1(order + f"{name}\0{n}".encode(), usedforsecurity=False).digest()
    octets = bytearray(order[:6] + digest[:10])
    octets[6] = 0x80 | octets[6] & 0x0F
    octets[8] = 0x80 | octets[8] & 0x3F
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
