"""Bugs: a cancellation is lost, is never answered, or undoes what others rely on."""

from typing import Any

import msgspec
from msgspec import UNSET

from simulation import planting
from simulation.planting import mutant, mutant_of_crowds
from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    CancellationRequestedEvent,
    OrderCreatedEvent,
    ShipmentCompletedEvent,
    ShipmentInitiatedEvent,
    StockReleasedEvent,
    StockReservedEvent,
)
from todoku.inventory import domain as stock
from todoku.lab.simulation.wiring import Wire
from todoku.orders import cancellation
from todoku.shipping import domain as parcels


@mutant
def request_never_published() -> Wire:
    """A cancellation is accepted, and nobody is told."""

    def decide(original: Any, order: Any, command: Any, now: Any) -> Any:
        return original(order, command, now)[0], []

    return planting.commands("orders", cancellation.CancelOrder, decide)


@mutant
def request_not_durable() -> Wire:
    """A cancellation is accepted and published, but not saved."""

    def decide(original: Any, order: Any, command: Any, now: Any) -> Any:
        return order, original(order, command, now)[1]

    return planting.commands("orders", cancellation.CancelOrder, decide)


@mutant
def asking_again_is_another_request() -> Wire:
    """Whoever asks again to cancel an order makes a second request."""

    def decide(original: Any, order: Any, command: Any, now: Any) -> Any:
        after, events = original(
            msgspec.structs.replace(order, changes=()) if order else None, command, now
        )
        return msgspec.structs.replace(after, changes=(*order.changes, *after.changes)), events

    return planting.commands("orders", cancellation.CancelOrder, decide)


@mutant
def refusal_never_published() -> Wire:
    """That it is too late to cancel an order is decided, and nobody is told."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        after, events = original(shipment, event, now)
        return after, [e for e in events if not isinstance(e, CancellationRefusedEvent)]

    return planting.events("shipping", CancellationRequestedEvent, decide)


@mutant
def cancelled_behind_the_pivot() -> Wire:
    """A cancellation is confirmed although the carrier was called."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        after, events = original(shipment, event, now)
        answers = [
            CancellationConfirmedEvent(
                order_id=e.order_id, change_id=e.change_id, items=e.items, whole=e.whole
            )
            for e in events
        ]
        return after, answers

    return planting.events("shipping", CancellationRequestedEvent, decide)


@mutant
def cancelled_shipment_still_due() -> Wire:
    """A cancellation is confirmed, and the carrier is called all the same."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        after, events = original(shipment, event, now)
        initiated = shipment and shipment.status is parcels.ShipmentStatus.INITIATED
        return (shipment if initiated else after), events

    return planting.events("shipping", CancellationRequestedEvent, decide)


@mutant
def cancelled_order_shipped_when_it_arrives() -> Wire:
    """An order that was cancelled before it arrived at shipping is shipped."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        cancelled = shipment and shipment.status is parcels.ShipmentStatus.CANCELLED
        return original(None if cancelled else shipment, event, now)

    return planting.events("shipping", StockReservedEvent, decide)


@mutant
def cancelled_order_reserved_when_it_arrives() -> Wire:
    """An order that was cancelled before it arrived at inventory reserves its stock."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        held = state.reservation
        if held is not None and held.state is stock.ReservationState.CANCELLED:
            state = msgspec.structs.replace(state, reservation=None)
        return original(state, event, now)

    return planting.events("inventory", OrderCreatedEvent, decide)


@mutant
def cancelled_stock_kept() -> Wire:
    """The stock of a cancelled order is said to be released, and stays reserved."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        after, events = original(state, event, now)
        return (state if state.reservation else after), events

    return planting.events("inventory", CancellationConfirmedEvent, decide)


@mutant
def release_never_published() -> Wire:
    """The stock of a cancelled order is released, and nobody is told."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        return original(state, event, now)[0], []

    return planting.events("inventory", CancellationConfirmedEvent, decide)


@mutant
def ended_when_shipping_confirms() -> Wire:
    """A cancelled order ends without the answer of inventory, which may have refused its stock."""

    def decide(original: Any, order: Any, event: Any, now: Any) -> Any:
        released = StockReleasedEvent(
            order_id=event.order_id,
            change_id=event.change_id,
            items=event.items,
            whole=event.whole,
            outcome="RELEASED",
        )
        confirmed, _ = original(order, event, now)
        if confirmed.status.terminal:
            return confirmed, []
        return cancellation.end_cancelled(confirmed, released, now)

    return planting.events("orders", CancellationConfirmedEvent, decide)


@mutant
def cancelled_line_shipped() -> Wire:
    """The pieces of a cancelled line are shipped all the same."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        after, events = original(shipment, event, now)
        kept = after.items if event.whole or shipment is None else shipment.items
        return msgspec.structs.replace(after, items=kept), events

    return planting.events("shipping", CancellationRequestedEvent, decide)


@mutant
def cancelled_line_stays_reserved() -> Wire:
    """The pieces of a cancelled line stay reserved."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        after, events = original(state, event, now)
        return (after if event.whole or not after.products else state), events

    return planting.events("inventory", CancellationConfirmedEvent, decide)


@mutant_of_crowds
def shipped_as_reserved() -> Wire:
    """What was reserved is deducted, although a cancelled line was taken out of the parcel. It shows if
    inventory consumes the end of the shipment before the confirmation of the line."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        return original(state, msgspec.structs.replace(event, items=()), now)

    return planting.together(
        planting.events("inventory", ShipmentCompletedEvent, decide),
        planting.late("inventory", CancellationConfirmedEvent, seconds=8),
    )


@mutant
def cancelled_line_reserved_when_the_order_arrives() -> Wire:
    """Pieces that were cancelled before the order arrived at inventory are reserved."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        held = state.reservation
        if held is not None and held.state is stock.ReservationState.EXPECTED:
            state = msgspec.structs.replace(state, reservation=None)
        return original(state, event, now)

    return planting.events("inventory", OrderCreatedEvent, decide)


@mutant
def cancelled_line_subtracted_twice() -> Wire:
    """Shipping subtracts a cancelled line although inventory has done so."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        return original(shipment, msgspec.structs.replace(event, changes=UNSET), now)

    return planting.events("shipping", StockReservedEvent, decide)


@mutant
def refused_cancellation_forgotten() -> Wire:
    """A refused cancellation leads back, and is no longer on the order."""

    def decide(original: Any, order: Any, event: Any, now: Any) -> Any:
        after, events = original(order, event, now)
        return msgspec.structs.replace(after, changes=()), events

    return planting.events("orders", CancellationRefusedEvent, decide)


@mutant
def forgotten_call_believed() -> Wire:
    """A restored database of shipping has no claim of a call, and a cancellation is confirmed as if the
    carrier had not been called."""

    def decide(original: Any, shipment: Any, event: Any, time: Any) -> Any:
        return shipment, []

    return planting.replays("shipping", ShipmentInitiatedEvent, decide)
