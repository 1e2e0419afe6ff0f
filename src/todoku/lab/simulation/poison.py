"""Makes poison: messages that are broken, or come from somewhere else than they say.

They are made of the contracts of the system: a valid event about an order that does not exist, then
one field of its data or its envelope is replaced, removed or added. No message may end a process or
affect another; what cannot be processed must be parked.
"""

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, Final
from uuid import UUID

import msgspec

from todoku.broker.port import Outgoing
from todoku.engine import Topology
from todoku.engine.tables import PendingDelivery
from todoku.events import Event, fact_id
from todoku.lab.simulation.samples import INSTANT, sample

PLACE: Final = "<the place of a value>"
LARGE: Final = b"x" * 9_000
NESTED_MAX: Final = 2_000

TIMES: Final = (
    *(b'"2030-01-01T00:00:00"', b'"2030-01-01T00:00:00+14:00"', b'"2030-02-30T00:00:00Z"'),
    *(b'"0001-01-01T00:00:00+01:00"', b'"9999-12-31T23:59:59-12:00"', b'"1969-12-31T23:59:59Z"'),
)
NUMBERS: Final = (b"0", b"-1", b"0.5", b"1e400", b"9223372036854775808", b"9007199254740993")
STRINGS: Final = (
    *(b'""', b'" "', b'"a b c"', b'"\\u0000"', b'"\\ud800"', b'"\xff\xfe"', b'"%s"' % LARGE),
)
OTHERS: Final = (
    *(b"null", b"true", b"[]", b"{}", b"[null]", b"[" * NESTED_MAX + b"]" * NESTED_MAX),
)
VALUES: Final = (*TIMES, *NUMBERS, *STRINGS, *OTHERS)
"""What is put into a field, as JSON or as bytes that only look like it."""

FITTING_SHARE: Final = 0.7
"""How often a value is replaced by one of its own kind."""

ENVELOPE_FIELDS: Final = (
    *("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "actor"),
    *("traceparent", "tracestate", "sagaversion", "causationid", "data"),
)


class Poison(msgspec.Struct, frozen=True):
    """A poisonous message, and the key that it is about, which no order has.

    It `must_be_parked`, or may be processed as well: a service may accept an odd value.
    """

    message: Outgoing
    key: str
    must_be_parked: bool

    @property
    def event_id(self) -> str | None:
        """The id in its envelope, None if that cannot be decoded."""
        try:
            return msgspec.json.decode(self.message.body, type=_Identified).id
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None


class _Identified(msgspec.Struct):
    id: str


def make_poison(random: Random, events: Sequence[type[Event]]) -> Poison:
    """Return a poisonous message on the subject of one of these events."""
    make = random.choice((_garbage, _unknown_type, _foreign_subject, *[_broken_field] * 5))
    return make(random, events)


def make_outbox_row(
    random: Random, topology: Topology, events: Sequence[type[Event]]
) -> tuple[PendingDelivery, Poison]:
    """Return an outbox row of a newer version of a publisher that no subscriber can decode."""
    event = random.choice(events)
    key = str(_uuid(random))
    envelope = _envelope(event, key, {}, random)
    if random.random() < 0.5:
        envelope["type"] = "LoyaltyPointsEarnedEvent"
    poison = Poison(Outgoing(event.subject, msgspec.json.encode(envelope)), key, True)
    row = PendingDelivery(
        envelope["id"], event.subject, poison.message.body, topology.readers(event)
    )
    return row, poison


def _garbage(random: Random, events: Sequence[type[Event]]) -> Poison:
    return Poison(Outgoing(random.choice(events).subject, random.randbytes(20)), "", True)


def _unknown_type(random: Random, events: Sequence[type[Event]]) -> Poison:
    event, key = random.choice(events), str(_uuid(random))
    envelope = _envelope(event, key, sample(event, key, random), random)
    envelope["type"] = "LoyaltyPointsEarnedEvent"
    return Poison(Outgoing(event.subject, msgspec.json.encode(envelope)), key, True)


def _foreign_subject(random: Random, events: Sequence[type[Event]]) -> Poison:
    """Return a valid event on the subject of another one."""
    event, key = random.choice(events), str(_uuid(random))
    subjects = sorted({each.subject for each in events} - {event.subject}) or [event.subject]
    envelope = _envelope(event, key, sample(event, key, random), random)
    subject = random.choice(subjects)
    must_be_parked = subject != event.subject
    return Poison(Outgoing(subject, msgspec.json.encode(envelope)), key, must_be_parked)


def _broken_field(random: Random, events: Sequence[type[Event]]) -> Poison:
    """Return an event with one field replaced, removed or added, in its data or its envelope."""
    event, key = random.choice(events), _key(random)
    data = sample(event, key, random)
    if random.random() < 0.25:
        envelope = _envelope(event, key, data, random)
        value = _break(random, [(envelope, name) for name in ENVELOPE_FIELDS])
    else:
        value = _break(random, list(_places(data)))
        envelope = _envelope(event, key, data, random, value)
    return Poison(Outgoing(event.subject, _encoded(envelope, value)), key, False)


def _break(random: Random, places: Sequence[tuple[Any, Any]]) -> bytes:
    """Replace the value at a place, remove it, or add a field beside it; return what to put there."""
    container, name = random.choice(places)
    before = container.get(name) if isinstance(container, dict) else container[name]
    way = random.random()
    if way < 0.7:
        container[name] = PLACE
        return random.choice(_alike(before) if random.random() < FITTING_SHARE else VALUES)
    if isinstance(container, dict) and way < 0.8:
        container.pop(name, None)
    elif isinstance(container, dict):
        container["addedLater"] = PLACE
    else:
        container.append(PLACE)
    return random.choice(VALUES)


def _alike(value: Any) -> Sequence[bytes]:
    """Return values of the same kind."""
    match value:
        case str():
            return TIMES if value == INSTANT else STRINGS
        case int() | float():
            return NUMBERS
        case _:
            return OTHERS


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in JSON at which a value stands, as its container and its name there."""
    named = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in list(named):
        yield value, name
        if isinstance(inner, dict | list):
            yield from _places(inner)


def _envelope(
    event: type[Event], key: str, data: Mapping[str, Any], random: Random, value: bytes = b""
) -> dict[str, Any]:
    """Return an envelope around the data, with the id that an event of this content has."""
    return {
        "specversion": "1.0",
        "id": _id_of(event, _encoded(data, value)) or str(_uuid(random)),
        "source": event.publisher,
        "type": event.__name__,
        "subject": key,
        "time": INSTANT,
        "data": data,
    }


def _id_of(event: type[Event], data: bytes) -> str | None:
    try:
        decoded = msgspec.json.decode(data, type=event)
        return fact_id(decoded.key, decoded.fact)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
        return None


def _encoded(content: Mapping[str, Any], value: bytes) -> bytes:
    """Return the JSON of the content, with the value at its place."""
    return msgspec.json.encode(content).replace(msgspec.json.encode(PLACE), value)


def _key(random: Random) -> str:
    """Return a UUID, as people and other systems may write it."""
    plain = _uuid(random)
    if random.random() < 0.7:
        return str(plain)
    return random.choice(
        (plain.urn, f"{{{plain}}}", plain.hex, str(plain).upper(), f" {plain}", f"{plain}\n", "")
    )


def _uuid(random: Random) -> UUID:
    return UUID(int=random.getrandbits(128), version=4)
