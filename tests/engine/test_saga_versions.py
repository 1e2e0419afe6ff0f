"""Versions of the saga: fixed when it begins, carried by everything that follows, known or left alone."""

from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import msgspec
import pytest

from todoku.engine import BySagaVersion, SagaStart, by_saga_version
from todoku.events import (
    NO_CONTEXT,
    Context,
    Event,
    EventRegistry,
    UnknownEventType,
    UnknownSagaVersion,
    encode,
    read_envelope,
    seal,
)

NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
SECOND: Final = Context(saga_version=2)


class Opened(Event, frozen=True, kw_only=True, rename="camel"):
    """Something began."""

    subject: ClassVar[str] = "shop.opened"
    publisher: ClassVar[str] = "shop"
    key_field: ClassVar[str] = "shop_id"

    shop_id: str = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"


class Paid(Opened, frozen=True, kw_only=True, rename="camel"):
    """A later step."""

    subject: ClassVar[str] = "shop.paid"


class Shop(msgspec.Struct, frozen=True):
    saga_version: int = 1


START: Final = SagaStart(
    version=2,
    version_of=lambda state: state.saga_version if isinstance(state, Shop) else None,
    with_version=lambda state, version: Shop(version),
)


def decide(state: Any, message: Any, now: datetime) -> tuple[Any, list[Event]]:
    return state, []


def test_first_version_is_not_on_the_wire() -> None:
    assert b"sagaversion" not in encode(seal(Opened(), NOW))


def test_version_survives_the_wire() -> None:
    assert read_envelope(encode(seal(Opened(), NOW, SECOND))).context == SECOND


@pytest.mark.parametrize("version", [b"0", b"-1", b"2147483648", b"1.5", b'"2"', b"null", b"true"])
def test_version_that_is_no_positive_integer_is_undecodable(version: bytes) -> None:
    body = encode(seal(Opened(), NOW, SECOND)).replace(
        b'"sagaversion":2', b'"sagaversion":' + version
    )
    with pytest.raises(Exception, match="sagaversion"):
        read_envelope(body)


def test_event_of_a_newer_version_waits_as_one_of_an_unknown_type_does() -> None:
    body = encode(seal(Opened(), NOW, SECOND))
    with pytest.raises(UnknownSagaVersion, match="up to version 1, not version 2") as raised:
        EventRegistry([Opened]).decode(body)
    assert isinstance(raised.value, UnknownEventType)
    assert EventRegistry([Opened], saga_version=2).decode(body)[1] == Opened()


def test_handler_is_that_of_the_latest_version_not_after_the_event() -> None:
    handlers = BySagaVersion({2: decide, 4: None})
    assert [handlers.handler(n) for n in range(1, 6)] == [None, decide, decide, None, None]


def test_step_moves_to_another_event_in_its_version() -> None:
    assert by_saga_version({1: Opened}, decide) == {Opened: decide}
    moved = by_saga_version({1: Opened, 2: Paid}, decide)
    versions = {
        event: [n for n in (1, 2, 3) if handlers.handler(n) is decide]  # type: ignore[union-attr]
        for event, handlers in moved.items()
    }
    assert versions == {Opened: [1], Paid: [2, 3]}


def test_saga_takes_its_version_when_it_begins_and_never_again() -> None:
    begun, context = START.begin(None, Shop(), NO_CONTEXT, 2)
    assert begun == Shop(2)
    assert context.saga_version == 2
    assert START.begin(Shop(1), Shop(1), NO_CONTEXT, 2)[0] == Shop(1)
    assert START.begin(None, "no saga", NO_CONTEXT, 2)[0] == "no saga"


def test_what_follows_carries_the_version_of_the_state() -> None:
    asked = Context(actor="somebody")
    assert START.context(Shop(2), asked) == Context(actor="somebody", saga_version=2)
    assert START.context("no saga", asked) is asked
    assert START.context(Shop(1), NO_CONTEXT) is NO_CONTEXT
