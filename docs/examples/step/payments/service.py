"""Event handlers of the payments service, the step between orders and inventory."""

from todoku.contracts import (
    OrderCreatedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockReservationFailedEvent,
)
from todoku.contracts.payments import PaymentAuthorizedEvent, PaymentDeclinedEvent
from todoku.engine import Service
from todoku.payments.domain import authorize_payment, capture_payment, release_payment
from todoku.payments.store import store
from todoku.settings import Settings


def payments_service(settings: Settings) -> Service:
    """Build the service."""
    return Service(
        name=PaymentAuthorizedEvent.publisher,
        store=store,
        event_handlers={
            OrderCreatedEvent: authorize_payment,
            ShipmentCompletedEvent: capture_payment,
            StockReservationFailedEvent: release_payment,
            ShipmentFailedEvent: release_payment,
        },
        publishes=(PaymentAuthorizedEvent, PaymentDeclinedEvent),
    )
