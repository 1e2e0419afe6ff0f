"""Fact ids, envelopes, and the marks of personal data."""

import importlib
import uuid
from datetime import UTC, datetime
from typing import Any, Final, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.examples import FULL, ORDER_ID, PRODUCT_ID, TIME, TRACEPARENT
from todoku.contracts import (
    EVENTS,
    Event,
    PausesEvent,
    Personal,
    ProductEvent,
    decode,
    encode,
    fact_id,
    seal,
)
from todoku.events import ApiKeyEvent, AuditAnchoredEvent, Context, ErasureEvent

UUIDS: Final = st.uuids().map(str)
NAMES: Final = st.text(max_size=40)
NUMBERS: Final = st.integers(0, 10_000)


class TestFactIds:
    def test_a_fact_keeps_its_id_from_release_to_release(self) -> None:
        """Computed once; another value would repeat every effect after an upgrade."""
        assert fact_id(ORDER_ID, "OrderCreatedEvent") == "0198c2f0-7b1a-882d-ac6d-c89814857e16"
        assert fact_id(ORDER_ID, "Shipment", 2) == "0198c2f0-7b1a-8aef-b5f1-7892065e46e1"

    @given(UUIDS, NAMES, NUMBERS)
    def test_the_same_fact_has_the_same_id(self, order_id: str, name: str, n: int) -> None:
        assert fact_id(order_id, name, n) == fact_id(order_id.upper(), name, n)

    @given(UUIDS, NAMES, NUMBERS)
    def test_an_id_is_a_uuid_of_version_8_that_begins_as_the_order_does(
        self, order_id: str, name: str, n: int
    ) -> None:
        fact = uuid.UUID(fact_id(order_id, name, n))
        assert str(fact) == fact_id(order_id, name, n)
        assert (fact.version, fact.variant) == (8, uuid.RFC_4122)
        assert fact.bytes[:6] == uuid.UUID(order_id).bytes[:6]

    @given(st.sets(st.tuples(UUIDS, NAMES, NUMBERS), min_size=2, max_size=20))
    def test_two_facts_never_share_an_id(self, facts: set[tuple[str, str, int]]) -> None:
        assert len({fact_id(*fact) for fact in facts}) == len(facts)

    def test_a_name_and_a_number_do_not_run_into_each_other(self) -> None:
        assert fact_id(ORDER_ID, "Shipment1", 1) != fact_id(ORDER_ID, "Shipment", 11)

    def test_orders_of_the_same_instant_have_facts_of_their_own(self) -> None:
        neighbour = ORDER_ID[:-1] + "f"
        assert fact_id(ORDER_ID, "Shipment") != fact_id(neighbour, "Shipment")

    @pytest.mark.parametrize(
        "key",
        ["", "注文", "\0", ORDER_ID + "00", ORDER_ID.replace("-", ""), f"{{{ORDER_ID}}}", " "],
    )
    def test_any_other_text_is_a_key_with_fact_ids_of_its_own(self, key: str) -> None:
        fact = uuid.UUID(fact_id(key, "Shipment"))
        assert (fact.version, fact.variant) == (8, uuid.RFC_4122)
        assert str(fact) != fact_id(ORDER_ID, "Shipment")
        assert fact_id(key, "Shipment")[:13] == fact_id(key, "Parcel")[:13]

    @given(st.sets(st.tuples(st.text(), NAMES, NUMBERS), min_size=2, max_size=20))
    def test_two_facts_about_texts_never_share_an_id(self, facts: set[Any]) -> None:
        assert len({fact_id(*fact) for fact in facts}) == len(facts)


class TestSealing:
    @pytest.mark.parametrize("event", FULL, ids=lambda event: type(event).__name__)
    def test_envelope_has_publisher_type_key_time_and_context(self, event: Event) -> None:
        key = PRODUCT_ID if isinstance(event, ProductEvent) else ORDER_ID
        if isinstance(event, (PausesEvent, AuditAnchoredEvent)):
            key = event.publisher
        if isinstance(event, ErasureEvent):
            key = event.erasure_id
        if isinstance(event, ApiKeyEvent):
            key = event.key_id
        envelope = seal(event, TIME, Context("user123", TRACEPARENT))
        assert envelope.id == fact_id(key, event.fact)
        assert (envelope.source, envelope.type) == (event.publisher, type(event).__name__)
        assert (envelope.subject, envelope.time) == (key, TIME)
        assert (envelope.actor, envelope.traceparent) == ("user123", TRACEPARENT)
        assert msgspec.json.decode(envelope.data, type=type(event)) == event

    @given(st.datetimes(datetime(1970, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC)))
    def test_the_instant_survives_the_wire_to_the_microsecond(self, now: datetime) -> None:
        envelope, _ = decode(encode(seal(FULL[0], now)))
        assert envelope.time == now


PERSONAL_FIELDS: Final = {
    "user_id",
    "shipping_address",
    "requested_by",
    "released_by",
    "by",
    "owner",
    "paused_by",
}
MODULES: Final = (
    "todoku.contracts.holds",
    "todoku.contracts.orders",
    "todoku.contracts.inventory",
    "todoku.contracts.shipping",
    "todoku.orders.cancellation",
    "todoku.orders.changes",
    "todoku.orders.domain",
    "todoku.orders.holding",
    "todoku.orders.holds",
    "todoku.orders.parking",
    "todoku.orders.placing",
    "todoku.contracts.changes",
    "todoku.contracts.stock",
    "todoku.contracts.backorders",
    "todoku.contracts.pauses",
    "todoku.contracts.anchors",
    "todoku.contracts.persons",
    "todoku.contracts.keys",
    "todoku.inventory.domain.adjustments",
    "todoku.inventory.domain.low_stock",
    "todoku.inventory.domain.cancellations",
    "todoku.inventory.domain.products",
    "todoku.inventory.domain.reservations",
    "todoku.inventory.domain.stock",
    "todoku.shipping.domain",
    "todoku.shipping.holds",
)


def structs() -> list[type[msgspec.Struct]]:
    """Every struct that the contracts and the domains define."""
    return [
        each
        for name in MODULES
        for each in vars(importlib.import_module(name)).values()
        if isinstance(each, type) and issubclass(each, msgspec.Struct) and each.__module__ == name
    ]


def fields(struct: type[Any]) -> dict[str, bool]:
    """The fields of a struct, and whether each is marked as personal."""
    hints = get_type_hints(struct, include_extras=True)
    return {
        name: Personal in getattr(hints[name], "__metadata__", ())
        for name in struct.__struct_fields__
    }


class TestPersonalData:
    def test_exactly_the_personal_data_is_marked(self) -> None:
        wrong = [
            f"{struct.__name__}.{name}"
            for struct in structs()
            for name, marked in fields(struct).items()
            if marked != (name in PERSONAL_FIELDS)
        ]
        assert wrong == []

    def test_the_structs_that_carry_personal_data_are_these(self) -> None:
        carriers = {each.__name__ for each in structs() if any(fields(each).values())}
        assert carriers == {
            "OrderCreatedEvent",
            "OrdersApiKeyChangedEvent",
            "OrderCompletedEvent",
            "OrderCancelledEvent",
            "CancellationRequestedEvent",
            "CancelOrder",
            "Change",
            "Hold",
            "HoldOrder",
            "HoldRequestedEvent",
            "HoldReleasedEvent",
            "ReleaseHold",
            "StockReservedEvent",
            "StockAwaitedEvent",
            "ShipmentInitiatedEvent",
            "PlaceOrder",
            "Order",
            "Reservation",
            "Shipment",
            "Parcel",
            "LedgerEntry",
            "StockAdjustedEvent",
            "ActivePause",
            "Adjustment",
            "Restock",
            "CorrectStock",
        }

    def test_every_event_on_the_wire_is_checked(self) -> None:
        assert set(EVENTS.values()) <= set(structs())
