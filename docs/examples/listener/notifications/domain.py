"""What is told about an order's end. Pure: values in, values out."""

from datetime import datetime

import msgspec

from todoku.contracts import (
    Event,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockReservationFailedEvent,
)


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """What a customer is told about an order: once, since an order ends once."""

    order_id: str
    text: str
    noted_at: datetime


def tell_shipped(
    notification: Notification | None, event: ShipmentCompletedEvent, now: datetime
) -> tuple[Notification, list[Event]]:
    """The parcel is on its way."""
    return _told(notification, event, f"On its way: {event.tracking_number}.", now)


def tell_out_of_stock(
    notification: Notification | None, event: StockReservationFailedEvent, now: datetime
) -> tuple[Notification, list[Event]]:
    """There was too little of something."""
    missing = ", ".join(item.product_id for item in event.failed_items)
    return _told(notification, event, f"Sold out: {missing}.", now)


def tell_failed(
    notification: Notification | None, event: ShipmentFailedEvent, now: datetime
) -> tuple[Notification, list[Event]]:
    """The carrier would not have it."""
    return _told(notification, event, f"Not shipped: {event.reason}", now)


def _told(
    notification: Notification | None, event: Event, text: str, now: datetime
) -> tuple[Notification, list[Event]]:
    if notification is not None:
        return notification, []  # A repeat that outlived the inbox.
    return Notification(order_id=event.order_id, text=text, noted_at=now), []
