"""Event handlers of the notifications service, which publishes nothing itself."""

from todoku.contracts import (
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockReservationFailedEvent,
)
from todoku.engine import Service
from todoku.notifications.domain import tell_failed, tell_out_of_stock, tell_shipped
from todoku.notifications.store import store
from todoku.settings import Settings


def notifications_service(settings: Settings) -> Service:
    """Build the service."""
    return Service(
        name="notifications",
        store=store,
        event_handlers={
            ShipmentCompletedEvent: tell_shipped,
            StockReservationFailedEvent: tell_out_of_stock,
            ShipmentFailedEvent: tell_failed,
        },
        starts_from="now",  # Customers are not told about the orders of yesterday.
    )
