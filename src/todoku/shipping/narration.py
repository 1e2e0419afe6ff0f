"""How the events of the shipping service read on a terminal."""

from collections.abc import Iterable

from todoku.contracts import (
    BookingAttemptFailedEvent,
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    HoldConfirmedEvent,
    HoldRefusedEvent,
    HoldRequestedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
    StockReservedEvent,
)
from todoku.narration import Detail, Narration, item_list, parked_details, resolved_details


def _initiated(event: ShipmentInitiatedEvent) -> Iterable[Detail]:
    yield Detail(f"shipment {event.shipment_id}")


def _attempt_failed(event: BookingAttemptFailedEvent) -> Iterable[Detail]:
    yield Detail(f"attempt {event.attempts:,} has failed: {event.error}")
    yield Detail(f"the next one is due at {event.next_attempt_at:%Y-%m-%d %H:%M:%S} UTC")


def _completed(event: ShipmentCompletedEvent) -> Iterable[Detail]:
    yield Detail(f"accepted by the carrier: {event.tracking_number}")


def _failed(event: ShipmentFailedEvent) -> Iterable[Detail]:
    yield Detail(event.reason)
    yield Detail(f"↩ compensation: inventory releases {item_list(event.items)}", "compensation")


def _confirmed(event: CancellationConfirmedEvent) -> Iterable[Detail]:
    if event.whole:
        yield Detail("the carrier was not called: nothing will be shipped")
    else:
        yield Detail(f"will not be shipped: {item_list(event.items)}")


def _refused(event: CancellationRefusedEvent) -> Iterable[Detail]:
    yield Detail(event.reason)


def _hold_confirmed(event: HoldConfirmedEvent) -> Iterable[Detail]:
    yield Detail(f"the carrier is not called while {event.holder} holds it")


def _hold_refused(event: HoldRefusedEvent) -> Iterable[Detail]:
    yield Detail(f"{event.holder} cannot hold it any more: {event.refusal}")


NARRATION = Narration(
    details={
        ShipmentInitiatedEvent: _initiated,
        BookingAttemptFailedEvent: _attempt_failed,
        ShipmentCompletedEvent: _completed,
        ShipmentFailedEvent: _failed,
        CancellationConfirmedEvent: _confirmed,
        CancellationRefusedEvent: _refused,
        HoldConfirmedEvent: _hold_confirmed,
        HoldRefusedEvent: _hold_refused,
        ShippingMessageParkedEvent: parked_details,
        ShippingMessageClosedEvent: resolved_details,
    },
    awaited={
        StockReservedEvent: "shipping to create a shipment",
        ShipmentInitiatedEvent: "the carrier",
        BookingAttemptFailedEvent: "the carrier",
        CancellationRequestedEvent: "shipping to confirm or refuse the cancellation",
        CancellationRefusedEvent: "the carrier",
        HoldRequestedEvent: "shipping to confirm or refuse the hold",
        HoldConfirmedEvent: "the release of the hold",
        HoldRefusedEvent: "the carrier",
    },
)
