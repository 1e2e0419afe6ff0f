"""The story of the shipping service: it hands to a carrier what was reserved."""

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
    """The service that ships with `carrier`, called after the `pickup_delay` of a shipment's id."""
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
    """Call the carrier. When it raises, nobody knows what it did: that is an answer too."""
    try:
        answer = await carrier.book(booking.shipment_id, booking.parcel)
    except Exception as error:
        answer = Unknown(f"{type(error).__name__}: {error}")
    return RecordAnswer(order_id=booking.order_id, answer=answer)
