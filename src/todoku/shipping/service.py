"""Define the shipping service: which function handles which command, event and due shipment."""

from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from typing import Any, Final

from todoku.contracts import (
    BookingAttemptFailedEvent,
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    Event,
    HoldConfirmedEvent,
    HoldRefusedEvent,
    HoldReleasedEvent,
    HoldRequestedEvent,
    OrdersApiKeyChangedEvent,
    PersonErasedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippingAuditAnchoredEvent,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
    ShippingPausesChangedEvent,
    StockReservedEvent,
    fact_id,
    parking_event,
    pauses_event,
)
from todoku.engine import (
    Agenda,
    AgendaParts,
    Decide,
    PausesPublication,
    Service,
    keep_erasure,
    keep_key,
)
from todoku.settings import Settings
from todoku.shipping.cancellation import (
    decide_cancellation,
    replay_confirmation,
    replay_refusal,
)
from todoku.shipping.carriers import pickup_delays
from todoku.shipping.domain import (
    BACKOFF_SECONDS_MAX,
    CLAIM_SECONDS,
    RecordAnswer,
    Shipment,
    initiate_shipment,
    record_answer,
    when_due,
)
from todoku.shipping.holding import decide_hold, release_hold, replay_hold_answer
from todoku.shipping.persons import SHIPPING_PERSONS
from todoku.shipping.recovery import (
    replay_completed,
    replay_failed,
    replay_failed_attempt,
    replay_initiated,
    republish_shipment,
)
from todoku.shipping.settings import ShippingSettings
from todoku.shipping.store import ShippingStore, shipment_items, shipments

COMMAND_HANDLERS: Final[Mapping[type[Any], Decide[Shipment | None]]] = {RecordAnswer: record_answer}

REPLAY_HANDLERS: Final[Mapping[type[Event], Decide[Shipment | None]]] = {
    ShipmentInitiatedEvent: replay_initiated,
    BookingAttemptFailedEvent: replay_failed_attempt,
    ShipmentCompletedEvent: replay_completed,
    ShipmentFailedEvent: replay_failed,
    CancellationConfirmedEvent: replay_confirmation,
    CancellationRefusedEvent: replay_refusal,
    HoldConfirmedEvent: replay_hold_answer,
    HoldRefusedEvent: replay_hold_answer,
}


PUBLISHES: Final[Sequence[type[Event]]] = (
    ShipmentInitiatedEvent,
    BookingAttemptFailedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    HoldConfirmedEvent,
    HoldRefusedEvent,
    ShippingMessageParkedEvent,
    ShippingMessageClosedEvent,
    ShippingPausesChangedEvent,
    ShippingAuditAnchoredEvent,
)


def bookings(pickup_seconds_max: float = 0.0) -> Agenda[Shipment]:
    """Return the agenda of shipments that are to be booked with the carrier, or booked again."""
    return Agenda(
        due_at=shipments.c.due_at,
        key=shipments.c.order_id,
        decide=when_due,
        due_at_of=attrgetter("due_at"),
        key_of=attrgetter("order_id"),
        starts_effects=True,
        longest_pause_seconds=max(pickup_seconds_max, CLAIM_SECONDS, BACKOFF_SECONDS_MAX),
        cause_of=_initiated_id,
        target="carrier",
        parts=AgendaParts(
            "product",
            row=shipments.c.id,
            member_of=shipment_items.c.shipment_id,
            name=shipment_items.c.product_id,
            names_of=_product_ids,
        ),
    )


def _product_ids(shipment: Shipment) -> list[str]:
    return [item.product_id for item in shipment.items]


def _initiated_id(shipment: Shipment) -> str:
    """Return the id of the event that announced the shipment: it led to the call of the carrier."""
    return fact_id(shipment.order_id, ShipmentInitiatedEvent.__name__)


def shipping_service(settings: Settings) -> Service[Shipment | None]:
    """Build the service that ships."""
    delay = pickup_delays(settings)
    return Service(
        name=ShipmentInitiatedEvent.publisher,
        store=ShippingStore(),
        event_handlers={
            StockReservedEvent: partial(initiate_shipment, pickup_delay=delay),
            OrdersApiKeyChangedEvent: keep_key,
            CancellationRequestedEvent: decide_cancellation,
            HoldRequestedEvent: decide_hold,
            HoldReleasedEvent: partial(release_hold, pickup_delay=delay),
            PersonErasedEvent: keep_erasure,
        },
        agendas=[bookings(settings.own(ShippingSettings).carrier_delay_seconds.high)],
        command_handlers=COMMAND_HANDLERS,
        parked_event=partial(parking_event, ShippingMessageParkedEvent),
        resolved_event=partial(parking_event, ShippingMessageClosedEvent),
        pauses_event=PausesPublication(
            ShippingPausesChangedEvent, partial(pauses_event, ShippingPausesChangedEvent)
        ),
        anchor_event=ShippingAuditAnchoredEvent,
        persons=SHIPPING_PERSONS,
        replay_handlers=REPLAY_HANDLERS,
        republish=republish_shipment,
        publishes=PUBLISHES,
    )
