"""Define the shipping service: which function handles which command, event and due shipment."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from todoku.contracts import (
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
    StockReservedEvent,
)
from todoku.engine import Agenda, Service
from todoku.shipping.carriers import Carrier
from todoku.shipping.domain import (
    BookParcel,
    RecordAnswer,
    Unknown,
    initiate_shipment,
    record_answer,
    replay_completed,
    replay_failed,
    republish_shipment,
    when_due,
)
from todoku.shipping.store import ShippingStore


def shipping(carrier: Carrier, pickup_delay: Callable[[str], timedelta]) -> Service:
    """Return the service that ships with `carrier`, called after `pickup_delay(shipment id)`."""
    store = ShippingStore()
    return Service(
        name=ShipmentInitiatedEvent.publisher,
        store=store,
        event_handlers={StockReservedEvent: partial(initiate_shipment, pickup_delay=pickup_delay)},
        agenda=Agenda(due=store.due, next_due_at=store.next_due_at, decide=when_due),
        effects={BookParcel: partial(book_parcel, carrier)},
        commands={RecordAnswer: record_answer},
        parked_event=ShippingMessageParkedEvent,
        resolved_event=ShippingMessageClosedEvent,
        replay_handlers={
            ShipmentCompletedEvent: replay_completed,
            ShipmentFailedEvent: replay_failed,
        },
        republish=republish_shipment,
    )


async def book_parcel(carrier: Carrier, booking: BookParcel) -> RecordAnswer:
    """Call the carrier. An exception means that the outcome is unknown."""
    try:
        answer = await carrier.book(booking.shipment_id, booking.parcel)
    except Exception as error:
        answer = Unknown(f"{type(error).__name__}: {error}")
    return RecordAnswer(order_id=booking.order_id, answer=answer)
