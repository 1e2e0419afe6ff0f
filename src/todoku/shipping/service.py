"""Define the shipping service: which function handles which command, event and due shipment."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

from todoku.contracts import (
    Event,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
    StockReservedEvent,
    parking_event,
)
from todoku.engine import Agenda, Decide, Service
from todoku.settings import Settings
from todoku.shipping.carriers import pickup_delays
from todoku.shipping.domain import (
    RecordAnswer,
    initiate_shipment,
    record_answer,
    replay_completed,
    replay_failed,
    republish_shipment,
    when_due,
)
from todoku.shipping.store import ShippingStore

COMMAND_HANDLERS: Final[Mapping[type[Any], Decide]] = {RecordAnswer: record_answer}

REPLAY_HANDLERS: Final[Mapping[type[Event], Decide]] = {
    ShipmentCompletedEvent: replay_completed,
    ShipmentFailedEvent: replay_failed,
}


PUBLISHES: Final[Sequence[type[Event]]] = (
    ShipmentInitiatedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShippingMessageParkedEvent,
    ShippingMessageClosedEvent,
)


def shipping_service(settings: Settings) -> Service:
    """Build the service that ships."""
    delay = pickup_delays(settings)
    store = ShippingStore()
    return Service(
        name=ShipmentInitiatedEvent.publisher,
        store=store,
        event_handlers={StockReservedEvent: partial(initiate_shipment, pickup_delay=delay)},
        agenda=Agenda(due=store.due, next_due_at=store.next_due_at, decide=when_due),
        command_handlers=COMMAND_HANDLERS,
        parked_event=partial(parking_event, ShippingMessageParkedEvent),
        resolved_event=partial(parking_event, ShippingMessageClosedEvent),
        replay_handlers=REPLAY_HANDLERS,
        republish=republish_shipment,
        publishes=PUBLISHES,
    )
