"""Tests of what a carrier's plug-in may return or raise: the shipment lives, and the reason is visible."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from todoku.contracts import (
    BookingAttemptFailedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockReservedEvent,
    decode,
    encode,
    seal,
)
from todoku.shipping import carriers
from todoku.shipping.answers import (
    REASON_CHARACTERS_MAX,
    TRACKING_NUMBER_CHARACTERS_MAX,
    checked_answer,
)
from todoku.shipping.carriers import CALLS, booking_effects
from todoku.shipping.domain import (
    Accepted,
    Answer,
    BookParcel,
    Parcel,
    RecordAnswer,
    Rejected,
    Unknown,
    initiate_shipment,
    record_answer,
    when_due,
)

ORDER_ID: Final = "0198c2f0-7b1a-7c3e-9d55-3f6a1c2b4d5e"
NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)
BOOKING: Final = BookParcel(
    shipment_id="shipment",
    order_id=ORDER_ID,
    parcel=Parcel(order_id=ORDER_ID, items=(), shipping_address=""),
    attempt=3,
)


class Carrier:
    """A plug-in that returns or raises what it is told to."""

    def __init__(self, outcome: Any) -> None:
        self.outcome = outcome

    async def book(self, key: str, parcel: Parcel) -> Any:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


async def book_with(carrier: Any) -> Answer:
    recorded: Any = await booking_effects(carrier)[BookParcel](BOOKING)
    assert isinstance(recorded, RecordAnswer)
    return recorded.answer


def book(outcome: Any) -> Answer:
    return asyncio.run(book_with(Carrier(outcome)))


class Mute(Exception):
    """An exception that cannot be shown."""

    def __str__(self) -> str:
        raise RuntimeError("no")


class Liar(str):
    """A text that is not what it says it is."""

    def __len__(self) -> int:
        return 3

    def __str__(self) -> str:
        raise RuntimeError("no")


UNFIT: Final = {
    "number": Accepted(12345),  # type: ignore[arg-type]
    "list": Accepted([]),  # type: ignore[arg-type]
    "nothing": Accepted(None),  # type: ignore[arg-type]
    "blanks": Accepted(" \t"),
    "reason that is a list": Unknown([]),  # type: ignore[arg-type]
    "rejection without a reason": Rejected(""),
    "None": None,
    "text": "accepted",
    "class instead of an object": Accepted,
}


@pytest.mark.parametrize("name", UNFIT)
def test_answer_that_does_not_fit_is_unknown_and_names_what_was_returned(name: str) -> None:
    answer = book(UNFIT[name])
    assert isinstance(answer, Unknown)
    assert answer.reason.startswith("the carrier returned ")


@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (ConnectionError("cut off"), "ConnectionError: cut off"),
        (Mute(), "Mute: (no message: str() of it raises)"),
        (ValueError("\0\ud800"), "ValueError: ␀?"),
        (SystemExit(3), "SystemExit: 3"),
        (asyncio.CancelledError(), "CancelledError"),
        (BaseExceptionGroup("two", [GeneratorExit()]), "BaseExceptionGroup: two (1 sub-exception)"),
    ],
    ids=lambda each: type(each).__name__,
)
def test_exception_of_a_carrier_is_unknown_with_its_class(raised: Any, reason: str) -> None:
    assert book(raised) == Unknown(reason)


def test_texts_are_cut_to_their_bounds() -> None:
    rejected, accepted = book(Rejected("x" * 9_000_000)), book(Accepted("y" * 9_000_000))
    assert isinstance(rejected, Rejected)
    assert isinstance(accepted, Accepted)
    assert rejected.reason == "x" * (REASON_CHARACTERS_MAX - 1) + "…"
    assert accepted.tracking_number == "y" * (TRACKING_NUMBER_CHARACTERS_MAX - 1) + "…"


def test_subclass_of_a_text_is_stored_as_a_plain_text() -> None:
    answer = book(Accepted(Liar("TRACKING-1")))
    assert answer == Accepted("TRACKING-1")
    assert isinstance(answer, Accepted)
    assert type(answer.tracking_number) is str


def test_stop_of_the_process_is_no_answer() -> None:
    async def scenario() -> None:
        class Slow:
            async def book(self, key: str, parcel: Parcel) -> Answer:
                await asyncio.Event().wait()
                raise AssertionError

        task = asyncio.create_task(book_with(Slow()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_carrier_that_does_not_answer_in_time_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        async def book(self, key: str, parcel: Parcel) -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

    monkeypatch.setattr(carriers, "CALL_SECONDS_MAX", 0.001)
    assert asyncio.run(book_with(Slow())) == Unknown("TimeoutError")


def test_failed_call_is_logged_and_counted() -> None:
    before = CALLS.labels("unknown")._value.get()
    with structlog.testing.capture_logs() as logs:
        book(ConnectionError("cut off"))
        book(Accepted("SIM-1"))
    assert logs == [
        {
            "event": "carrier_call_failed",
            "log_level": "warning",
            "order_id": ORDER_ID,
            "shipment_id": "shipment",
            "attempt": 3,
            "error": "ConnectionError: cut off",
        }
    ]
    assert CALLS.labels("unknown")._value.get() == before + 1


ANYTHING: Final = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary() | st.just(object()),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
OUTCOMES: Final = (ShipmentCompletedEvent, ShipmentFailedEvent, BookingAttemptFailedEvent)
TEXTS: Final = st.text(st.characters(exclude_categories=()), max_size=600)  # surrogates and NUL too
ANSWERS: Final = st.one_of(
    ANYTHING, *(st.builds(kind, TEXTS | ANYTHING) for kind in (Accepted, Rejected, Unknown))
)


@given(returned=ANSWERS)
def test_whatever_is_returned_leads_to_a_state_and_an_event_that_can_be_stored(
    returned: object,
) -> None:
    answer = checked_answer(returned)
    reserved = StockReservedEvent(order_id=ORDER_ID, items=())
    shipment, _ = initiate_shipment(None, reserved, NOW, pickup_delay=lambda _: timedelta(0))
    claimed, _ = when_due(shipment, NOW)
    after, events = record_answer(claimed, RecordAnswer(order_id=ORDER_ID, answer=answer), NOW)
    for text in (after.tracking_number, after.reason):
        assert text is None or _storable(text)
    for event in events:
        assert isinstance(event, OUTCOMES)
        body = encode(seal(event, NOW))
        assert decode(body)[1] == event
        assert len(body) < 10_000
    if isinstance(answer, Unknown):
        assert answer.reason
        assert after.due_at is not None


def _storable(text: str) -> bool:
    return "\0" not in text and bool(text.encode()) and len(text) <= REASON_CHARACTERS_MAX
