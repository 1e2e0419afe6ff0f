"""Bugs: something is done twice, or not as it was asked."""

from typing import Any

import msgspec

from simulation import planting
from simulation.planting import Wrapped, mutant
from todoku.contracts import (
    OrderCreatedEvent,
    ShipmentCompletedEvent,
    StockReservedEvent,
)
from todoku.inventory import domain as stock
from todoku.lab.simulation.wiring import Wire
from todoku.orders import domain as ordering
from todoku.shipping import domain as parcels


@mutant
def inbox_not_written() -> Wire:
    """What was handled is not recorded in the inbox."""

    class Inbox(Wrapped):
        def add(self, connection: Any, ids: Any, now: Any) -> None:
            pass

    return planting.tables("inbox", Inbox)


@mutant
def reservation_decided_anew() -> Wire:
    """A duplicate of an order that arrived after the inbox was pruned reserves its stock again."""
    return planting.events(
        "inventory",
        OrderCreatedEvent,
        lambda original, state, event, now: original(
            msgspec.structs.replace(state, reservation=None), event, now
        ),
    )


@mutant
def deducted_twice() -> Wire:
    """A duplicate of a completed shipment that arrived after the inbox was pruned deducts again."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        held = state.reservation
        if held is not None and held.state is stock.ReservationState.SHIPPED:
            held = msgspec.structs.replace(held, state=stock.ReservationState.RESERVED)
        return original(msgspec.structs.replace(state, reservation=held), event, now)

    return planting.events("inventory", ShipmentCompletedEvent, decide)


@mutant
def second_shipment() -> Wire:
    """A duplicate of a reservation that arrived after the inbox was pruned opens the shipment again."""
    return planting.events(
        "shipping",
        StockReservedEvent,
        lambda original, shipment, event, now: original(None, event, now),
    )


@mutant
def parcel_of_more_than_was_ordered() -> Wire:
    """Shipping ships 99 pieces of each item."""

    def decide(original: Any, shipment: Any, event: StockReservedEvent, now: Any) -> Any:
        items = tuple(msgspec.structs.replace(item, quantity=99) for item in event.items)
        return original(shipment, msgspec.structs.replace(event, items=items), now)

    return planting.events("shipping", StockReservedEvent, decide)


@mutant
def parcel_to_another_address() -> Wire:
    """Shipping ships to an address that was not ordered."""

    def decide(original: Any, shipment: Any, event: StockReservedEvent, now: Any) -> Any:
        return original(shipment, msgspec.structs.replace(event, shipping_address="here"), now)

    return planting.events("shipping", StockReservedEvent, decide)


@mutant
def ending_not_published() -> Wire:
    """An order that is completed is not announced."""

    def decide(original: Any, order: Any, event: ShipmentCompletedEvent, now: Any) -> Any:
        return original(order, event, now)[0], []

    return planting.events("orders", ShipmentCompletedEvent, decide)


@mutant
def two_keys_for_a_booking() -> Wire:
    """A repeated call to the carrier has another key."""

    async def call(original: Any, booking: parcels.BookParcel) -> Any:
        key = f"{booking.shipment_id}-{booking.attempt}"
        return await original(msgspec.structs.replace(booking, shipment_id=key))

    return planting.effects("shipping", parcels.BookParcel, call)


@mutant
def late_event_overwrites_status() -> Wire:
    """An event that was overtaken sets the order back."""

    def decide(original: Any, order: Any, event: Any, now: Any) -> Any:
        order, events = original(order, event, now)
        status = ordering.OrderStatus.AWAITING_SHIPMENT
        return msgspec.structs.replace(order, status=status, updated_at=now), events

    return planting.events("orders", StockReservedEvent, decide)
