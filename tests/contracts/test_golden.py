"""The bytes of every event, as released: events only grow, and old ones stay decodable.

A golden file is one event as some version has published it. A file of a released version is never
edited. When a field is added, the files here get a new version beside the old one.
"""

import json
from pathlib import Path
from typing import Final

import pytest
from msgspec import UNSET

from contracts.examples import CAUSED, GROWN, SEALED
from todoku.contracts import CONTENT_TYPE, EVENTS, Event, decode, encode

GOLDEN: Final = Path(__file__).parent / "golden"


def golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes().removesuffix(b"\n")


def test_there_is_a_full_and_a_minimal_golden_file_for_every_event() -> None:
    expected = {f"{event}.{kind}" for event in EVENTS for kind in ("full", "minimal")}
    expected |= {*GROWN, CAUSED}
    assert expected == set(SEALED) == {path.stem for path in GOLDEN.iterdir()}


@pytest.mark.parametrize("name", SEALED)
def test_event_is_encoded_byte_for_byte_as_released(name: str) -> None:
    envelope, _ = SEALED[name]
    assert encode(envelope) == golden(name)


@pytest.mark.parametrize("name", SEALED)
def test_released_event_is_decoded_to_the_same_values(name: str) -> None:
    envelope, event = decode(golden(name))
    expected_envelope, expected_event = SEALED[name]
    assert event == expected_event
    assert encode(envelope) == encode(expected_envelope)


@pytest.mark.parametrize("name", [name for name in SEALED if name.endswith(".minimal")])
def test_a_field_with_a_default_may_be_absent(name: str) -> None:
    """So an event from before the field existed is decoded too."""
    message = json.loads(golden(name))
    _, event = SEALED[name]
    for field, default in _defaults(type(event)).items():
        assert message["data"].pop(field, UNSET) == default
    assert decode(json.dumps(message).encode())[1] == event


def _defaults(event: type[Event]) -> dict[str, object]:
    names, defaults = event.__struct_encode_fields__, event.__struct_defaults__
    return dict(zip(reversed(names), reversed(defaults), strict=False))


def test_the_content_type_is_the_one_of_structured_cloud_events() -> None:
    assert CONTENT_TYPE == "application/cloudevents+json"


def test_every_event_has_the_subject_and_the_publisher_that_others_rely_on() -> None:
    assert {name: (event.subject, event.publisher) for name, event in EVENTS.items()} == {
        "OrderCreatedEvent": ("orders.created", "orders"),
        "StockReservedEvent": ("inventory.reserved", "inventory"),
        "StockReservationFailedEvent": ("inventory.reservation_failed", "inventory"),
        "ShipmentInitiatedEvent": ("shipping.initiated", "shipping"),
        "BookingAttemptFailedEvent": ("shipping.booking_attempt_failed", "shipping"),
        "ShipmentCompletedEvent": ("shipping.completed", "shipping"),
        "ShipmentFailedEvent": ("shipping.failed", "shipping"),
        "CancellationRequestedEvent": ("orders.cancellation_requested", "orders"),
        "CancellationConfirmedEvent": ("shipping.cancellation_confirmed", "shipping"),
        "CancellationRefusedEvent": ("shipping.cancellation_refused", "shipping"),
        "StockReleasedEvent": ("inventory.released", "inventory"),
        "HoldRequestedEvent": ("orders.hold_requested", "orders"),
        "HoldReleasedEvent": ("orders.hold_released", "orders"),
        "HoldConfirmedEvent": ("shipping.hold_confirmed", "shipping"),
        "HoldRefusedEvent": ("shipping.hold_refused", "shipping"),
        "OrderCompletedEvent": ("orders.completed", "orders"),
        "OrderCancelledEvent": ("orders.cancelled", "orders"),
        "ProductChangedEvent": ("inventory.product_changed", "inventory"),
        "StockAwaitedEvent": ("inventory.stock_awaited", "inventory"),
        "LowStockThresholdChangedEvent": ("inventory.low_stock_threshold_changed", "inventory"),
        "StockLowEvent": ("inventory.stock_low", "inventory"),
        "StockAdjustedEvent": ("inventory.stock_adjusted", "inventory"),
        "InventoryMessageParkedEvent": ("inventory.message_parked", "inventory"),
        "InventoryMessageClosedEvent": ("inventory.message_closed", "inventory"),
        "ShippingMessageParkedEvent": ("shipping.message_parked", "shipping"),
        "ShippingMessageClosedEvent": ("shipping.message_closed", "shipping"),
        "InventoryPausesChangedEvent": ("inventory.pauses_changed", "inventory"),
        "ShippingPausesChangedEvent": ("shipping.pauses_changed", "shipping"),
        "PersonErasedEvent": ("orders.person_erased", "orders"),
        "OrdersApiKeyChangedEvent": ("orders.api_key_changed", "orders"),
        "OrdersAuditAnchoredEvent": ("orders.audit_anchored", "orders"),
        "InventoryAuditAnchoredEvent": ("inventory.audit_anchored", "inventory"),
        "ShippingAuditAnchoredEvent": ("shipping.audit_anchored", "shipping"),
    }
