"""Which messages an event registry decodes, and which it rejects for their origin."""

from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import msgspec
import pytest

from todoku.events import (
    Context,
    Event,
    EventRegistry,
    FalseOrigin,
    UndecodableEvent,
    UnknownEventType,
    encode,
    fact_id,
    seal,
)

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
KEY: Final = "member 7"


class PointsGiven(Event, frozen=True, kw_only=True):
    """An adopter's event, with a key of its own."""

    subject: ClassVar[str] = "loyalty.given"
    publisher: ClassVar[str] = "loyalty"
    key_field: ClassVar[str] = "member_id"

    member_id: str
    points: int


REGISTRY: Final = EventRegistry([PointsGiven])
EVENT: Final = PointsGiven(member_id=KEY, points=3)


def message(**changes: Any) -> bytes:
    """The event on the wire, with changed attributes."""
    return msgspec.json.encode(msgspec.json.decode(encode(seal(EVENT, NOW))) | changes)


def test_an_event_with_a_key_of_its_own_survives_the_wire() -> None:
    envelope, event = REGISTRY.decode(message(), arrived_on="loyalty.given")
    assert event == EVENT
    assert (event.key, envelope.subject) == (KEY, KEY)
    assert envelope.id == fact_id(KEY, "PointsGiven")


def test_context_travels_in_the_envelope_and_absent_parts_are_not_written() -> None:
    context = Context("user", "00-trace", "vendor=1")
    envelope, _ = REGISTRY.decode(encode(seal(EVENT, NOW, context)))
    assert envelope.context == context
    assert b"tracestate" not in encode(seal(EVENT, NOW, Context("user", "00-trace")))


def test_two_types_of_one_name_are_rejected() -> None:
    other = type("PointsGiven", (PointsGiven,), {}, frozen=True, kw_only=True)
    with pytest.raises(ValueError, match="PointsGiven"):
        EventRegistry([PointsGiven, other])


@pytest.mark.parametrize(
    ("changes", "arrived_on", "error"),
    [
        ({}, "orders.created", "published on 'loyalty.given'"),
        ({"source": "orders"}, "loyalty.given", "published by 'loyalty'"),
        ({"source": "orders"}, "orders.created", "published by 'loyalty'"),
        ({"id": fact_id("another", "PointsGiven")}, "loyalty.given", "is not that of"),
        ({"id": "x"}, "loyalty.given", "is not that of"),
        ({"type": "NewerEvent", "source": "orders"}, "loyalty.given", "does not publish on"),
    ],
)
def test_event_from_elsewhere_is_rejected(
    changes: dict[str, Any], arrived_on: str, error: str
) -> None:
    """Else a message could pass for another service's event, or hide it by its id."""
    with pytest.raises(FalseOrigin, match=error):
        REGISTRY.decode(message(**changes), arrived_on=arrived_on)


def test_unknown_type_of_the_right_service_may_be_retried() -> None:
    with pytest.raises(UnknownEventType):
        REGISTRY.decode(message(type="NewerEvent"), arrived_on="loyalty.newer")


@pytest.mark.parametrize("source", ["a b c", "a.b", ">", "*", "注文", "-", "x" * 65])
def test_source_must_be_a_plain_service_name(source: str) -> None:
    """It becomes part of a subject of the broker."""
    with pytest.raises(UndecodableEvent, match="source is not the name of a service"):
        REGISTRY.decode(message(source=source))


@pytest.mark.parametrize("attribute", ["id", "type", "subject"])
def test_attribute_too_long_for_an_index_is_rejected(attribute: str) -> None:
    with pytest.raises(UndecodableEvent, match="9000 characters"):
        REGISTRY.decode(message(**{attribute: "x" * 9_000}))
