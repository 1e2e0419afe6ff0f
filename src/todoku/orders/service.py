"""Define the orders service: which function handles which command and event."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    Event,
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    OrderCancelledEvent,
    OrderCompletedEvent,
    OrderCreatedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.engine import Decide, SagaStart, Service
from todoku.orders.cancellation import (
    CancelOrder,
    cancel_order,
    confirm_cancellation,
    end_cancelled,
    refuse_cancellation,
    replay_request,
)
from todoku.orders.domain import (
    PlaceOrder,
    cancel_for_lack_of_stock,
    complete,
    confirm_reservation,
    fail,
    note_parked,
    note_resolved,
    note_shipment,
    place_order,
    replay_cancelled_order,
    replay_completed_order,
    replay_order,
    republish_order,
    saga_version_of,
    with_saga_version,
)
from todoku.orders.kept_answers import ANSWERS
from todoku.orders.store import OrdersStore
from todoku.settings import Settings

COMMAND_HANDLERS: Final[Mapping[type[Any], Decide]] = {
    PlaceOrder: place_order,
    CancelOrder: cancel_order,
}

EVENT_HANDLERS: Final[Mapping[type[Event], Decide]] = {
    StockReservedEvent: confirm_reservation,
    StockReservationFailedEvent: cancel_for_lack_of_stock,
    ShipmentInitiatedEvent: note_shipment,
    ShipmentCompletedEvent: complete,
    ShipmentFailedEvent: fail,
    CancellationConfirmedEvent: confirm_cancellation,
    CancellationRefusedEvent: refuse_cancellation,
    StockReleasedEvent: end_cancelled,
    InventoryMessageParkedEvent: note_parked,
    InventoryMessageClosedEvent: note_resolved,
    ShippingMessageParkedEvent: note_parked,
    ShippingMessageClosedEvent: note_resolved,
}

REPLAY_HANDLERS: Final[Mapping[type[Event], Decide]] = {
    OrderCreatedEvent: replay_order,
    CancellationRequestedEvent: replay_request,
    OrderCompletedEvent: replay_completed_order,
    OrderCancelledEvent: replay_cancelled_order,
}


PUBLISHES: Final[Sequence[type[Event]]] = (
    OrderCreatedEvent,
    CancellationRequestedEvent,
    OrderCompletedEvent,
    OrderCancelledEvent,
)


SAGA: Final = SagaStart(version=1, version_of=saga_version_of, with_version=with_saga_version)
"""Raise the version when a step is added: orders accepted from then on take it, older ones do not."""


def orders_service(settings: Settings) -> Service:
    """Build the service that takes orders."""
    return Service(
        name=OrderCreatedEvent.publisher,
        store=OrdersStore(),
        command_handlers=COMMAND_HANDLERS,
        event_handlers=EVENT_HANDLERS,
        replay_handlers=REPLAY_HANDLERS,
        republish=republish_order,
        publishes=PUBLISHES,
        saga=SAGA,
        answers=ANSWERS,
    )
