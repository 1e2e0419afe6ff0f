"""Define the orders service: which function handles which command and event."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
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
    InventoryAuditAnchoredEvent,
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    InventoryPausesChangedEvent,
    OrderCancelledEvent,
    OrderCompletedEvent,
    OrderCreatedEvent,
    OrdersApiKeyChangedEvent,
    OrdersAuditAnchoredEvent,
    PersonErasedEvent,
    ProductChangedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    ShipmentInitiatedEvent,
    ShippingAuditAnchoredEvent,
    ShippingMessageClosedEvent,
    ShippingMessageParkedEvent,
    ShippingPausesChangedEvent,
    StockAwaitedEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.engine import (
    Agenda,
    Decide,
    SagaStart,
    Service,
    keep_anchor,
    keep_erasure,
    keep_key,
)
from todoku.orders.backorders import note_stock_awaited
from todoku.orders.cancellation import (
    CancelOrder,
    cancel_order,
    confirm_cancellation,
    end_cancelled,
    refuse_cancellation,
    replay_request,
)
from todoku.orders.catalogue import CatalogueEntry, note_product
from todoku.orders.deadlines import when_late
from todoku.orders.domain import (
    Order,
    cancel_for_lack_of_stock,
    complete,
    confirm_reservation,
    fail,
    note_shipment,
    saga_version_of,
    with_saga_version,
)
from todoku.orders.holding import (
    HoldOrder,
    ReleaseHold,
    confirm_hold,
    hold_expires_at,
    hold_order,
    refuse_hold,
    release_hold,
    replay_hold_release,
    replay_hold_request,
    when_hold_expires,
)
from todoku.orders.kept_answers import ANSWERS
from todoku.orders.parking import ParkedMessage, note_parked, note_resolved
from todoku.orders.pauses_elsewhere import PausesElsewhere, note_pauses
from todoku.orders.persons import ORDERS_PERSONS
from todoku.orders.placing import Placement, PlaceOrder, place
from todoku.orders.pricing import PricePolicy
from todoku.orders.recovery import (
    replay_cancelled_order,
    replay_completed_order,
    replay_order,
    republish_order,
)
from todoku.orders.settings import OrdersSettings
from todoku.orders.store import OrdersStore, feed, orders
from todoku.orders.waiting_for import note_booking_failure
from todoku.settings import Settings

EVENT_HANDLERS: Final[Mapping[type[Event], Decide]] = {
    StockReservedEvent: confirm_reservation,
    StockReservationFailedEvent: cancel_for_lack_of_stock,
    StockAwaitedEvent: note_stock_awaited,
    ShipmentInitiatedEvent: note_shipment,
    BookingAttemptFailedEvent: note_booking_failure,
    ShipmentCompletedEvent: complete,
    ShipmentFailedEvent: fail,
    CancellationConfirmedEvent: confirm_cancellation,
    CancellationRefusedEvent: refuse_cancellation,
    HoldConfirmedEvent: confirm_hold,
    HoldRefusedEvent: refuse_hold,
    StockReleasedEvent: end_cancelled,
    ProductChangedEvent: note_product,
    InventoryMessageParkedEvent: note_parked,
    InventoryMessageClosedEvent: note_resolved,
    ShippingMessageParkedEvent: note_parked,
    ShippingMessageClosedEvent: note_resolved,
    InventoryPausesChangedEvent: note_pauses,
    ShippingPausesChangedEvent: note_pauses,
    InventoryAuditAnchoredEvent: keep_anchor,
    ShippingAuditAnchoredEvent: keep_anchor,
}

REPLAY_HANDLERS: Final[Mapping[type[Event], Decide]] = {
    OrderCreatedEvent: replay_order,
    CancellationRequestedEvent: replay_request,
    HoldRequestedEvent: replay_hold_request,
    HoldReleasedEvent: replay_hold_release,
    OrderCompletedEvent: replay_completed_order,
    OrderCancelledEvent: replay_cancelled_order,
    PersonErasedEvent: keep_erasure,
    OrdersApiKeyChangedEvent: keep_key,
}


PUBLISHES: Final[Sequence[type[Event]]] = (
    OrderCreatedEvent,
    CancellationRequestedEvent,
    HoldRequestedEvent,
    HoldReleasedEvent,
    OrderCompletedEvent,
    OrderCancelledEvent,
    OrdersApiKeyChangedEvent,
    OrdersAuditAnchoredEvent,
    PersonErasedEvent,
)


def _saga_version_of(state: object) -> int | None:
    if isinstance(state, Order):
        return state.saga_version
    return saga_version_of(state.order if isinstance(state, Placement) else state)


SAGA: Final = SagaStart(version=1, version_of=_saga_version_of, with_version=with_saga_version)
"""Raise the version when a step is added: orders accepted from then on take it, older ones do not."""


LOOK_SECONDS: Final = 30.0
"""How often orders of other processes are looked for that are late, or whose holds expire. A process
finds its own by itself."""


def price_policy(settings: Settings) -> PricePolicy:
    """Return which prices are valid, and whether unknown products are accepted."""
    own = settings.own(OrdersSettings)
    return PricePolicy(prices=own.prices, unknown_products=own.unknown_products)


def command_handlers(settings: Settings) -> Mapping[type[Any], Decide]:
    """Return which function handles which command."""
    own = settings.own(OrdersSettings)
    deadline_after = timedelta(seconds=own.order_deadline_seconds)
    holders = frozenset(filter(None, map(str.strip, own.holders.split(","))))
    return {
        PlaceOrder: partial(
            place, deadline_after=deadline_after, holders=holders, policy=price_policy(settings)
        ),
        CancelOrder: cancel_order,
        HoldOrder: partial(hold_order, holders=holders),
        ReleaseHold: release_hold,
    }


def deadlines(settings: Settings) -> Agenda[Order]:
    """Return the agenda of orders that are cancelled if they are still open at their deadline."""
    deadline_after = timedelta(seconds=settings.own(OrdersSettings).order_deadline_seconds)
    return Agenda(
        due_at=orders.c.due_at,
        key=orders.c.id,
        decide=partial(when_late, deadline_after=deadline_after),
        due_at_of=lambda state: state.due_at if isinstance(state, Order) else None,
        key_of=attrgetter("id"),
        grace_seconds=settings.own(OrdersSettings).order_deadline_grace_seconds,
        look_seconds=LOOK_SECONDS,
        # The customer was told: a pause does not move them.
        instants=True,
    )


def hold_expiries(settings: Settings) -> Agenda[Order]:
    """Return the agenda of orders with holds that expire.

    It is another than that of the deadlines, with a due time of its own: a process of version 0.2.0 cancels
    every order whose `due_at` has come.
    """
    return Agenda(
        due_at=orders.c.hold_expires_at,
        key=orders.c.id,
        decide=when_hold_expires,
        due_at_of=hold_expires_at,
        key_of=attrgetter("id"),
        grace_seconds=settings.own(OrdersSettings).order_deadline_grace_seconds,
        look_seconds=LOOK_SECONDS,
        instants=True,  # Its holder was told.
    )


State = Order | Placement | ParkedMessage | CatalogueEntry | PausesElsewhere | None
"""What the decisions of this service read and return."""


def _republish(state: State) -> Sequence[tuple[Event, datetime]]:
    assert state is None or isinstance(state, Order), "only orders are republished"
    return republish_order(state)


def _waits_for_replay(command: object) -> bool:
    """Return whether a command cancels pieces: not of an order whose whole cancellation was published and is
    to be replayed."""
    return isinstance(command, CancelOrder) and bool(command.items)


def orders_service(settings: Settings) -> Service[State]:
    """Build the service that takes orders."""
    return Service(
        name=OrderCreatedEvent.publisher,
        store=OrdersStore(),
        command_handlers=command_handlers(settings),
        waits_for_replay=_waits_for_replay,
        agendas=[deadlines(settings), hold_expiries(settings)],
        event_handlers=EVENT_HANDLERS,
        anchor_event=OrdersAuditAnchoredEvent,
        persons=ORDERS_PERSONS,
        key_event=OrdersApiKeyChangedEvent,
        replay_handlers=REPLAY_HANDLERS,
        republish=_republish,
        publishes=PUBLISHES,
        saga=SAGA,
        endings=(OrderCompletedEvent, OrderCancelledEvent),
        answers=ANSWERS,
        upkeep=(feed.sequence,),
    )
