"""Notifications about the end of an order: pure functions."""

from datetime import datetime

import msgspec

from todoku.contracts import (
    Event,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockReservationFailedEvent,
)


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """The message to a customer about an order. An order ends once, so there is one."""

    order_id: str
    text: str
    noted_at: datetime


def tell_shipped(
    notification: Notification | None, event: ShipmentCompletedEvent, now: datetime
) -> tuple[Notification, list[Event]]:
    """Tell the customer that the parcel has shipped."""
    return _notify(notification, event, f"On its way: {event.tracking_number}.", now)


def tell_out_of_stock(
    notification: Notification | None, event: StockReservationFailedEvent, now: datetime
) -> tuple[Notification, list[Event]]:
    """Tell the customer which products were out of stock."""
    missing = ", ".join(item.product_id for item in event.failed_items)
    return _notify(notification, event, f"Sold out: {missing}.", now)


def tell_failed(
    notification: Notification | None, event: ShipmentFailedEvent, now: datetime
) -> tuple[Notification, list[Event]]:
    """Tell the customer that the carrier has rejected the parcel."""
    return _notify(notification, event, f"Not shipped: {event.reason}", now)


def _notify(
    notification: Notification | None, event: Event, text: str, now: datetime
) -> tuple[Notification, list[Event]]:
    if notification is not None:
        return notification, []  # A duplicate after the inbox was pruned.
    return Notification(order_id=event.order_id, text=text, noted_at=now), []
