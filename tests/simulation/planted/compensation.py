"""Bugs: all or nothing does not hold, or what was decided is lost."""

from typing import Any

import msgspec

from simulation import planting
from simulation.planting import Wrapped, mutant
from todoku.contracts import (
    OrderCreatedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
)
from todoku.inventory import domain as stock
from todoku.lab.simulation.wiring import Wire
from todoku.orders import placing


@mutant
def no_compensation() -> Wire:
    """The stock of a shipment that failed is not released."""
    return planting.events(
        "inventory", ShipmentFailedEvent, lambda original, state, event, now: (state, [])
    )


@mutant
def partial_reservation() -> Wire:
    """Of an order that cannot be fulfilled, what there is gets reserved and shipped."""

    def decide(original: Any, state: stock.Stock, event: OrderCreatedEvent, now: Any) -> Any:
        there = tuple(
            item
            for item in event.items
            if item.product_id in state.products
            and state.products[item.product_id].available >= item.quantity
        )
        return original(state, msgspec.structs.replace(event, items=there or event.items), now)

    return planting.events("inventory", OrderCreatedEvent, decide)


@mutant
def refusal_not_durable() -> Wire:
    """That an order was refused is published but not saved."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        after, events = original(state, event, now)
        held = after.reservation
        refused = held is not None and held.state is stock.ReservationState.REFUSED
        return (state if refused else after), events

    return planting.events("inventory", OrderCreatedEvent, decide)


@mutant
def ledger_forgotten() -> Wire:
    """What is shipped leaves the stock without an entry in the ledger."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        after, events = original(state, event, now)
        return msgspec.structs.replace(after, entries=()), events

    return planting.events("inventory", ShipmentCompletedEvent, decide)


@mutant
def restock_forgotten() -> Wire:
    """A restock is confirmed and not executed."""

    def decide(original: Any, state: stock.Stock, command: Any, now: Any) -> Any:
        original(state, command, now)
        return state, []

    return planting.commands("inventory", stock.Restock, decide)


@mutant
def restocked_twice() -> Wire:
    """A restock is executed twice."""

    def decide(original: Any, state: stock.Stock, command: Any, now: Any) -> Any:
        once, _ = original(state, command, now)
        twice, _ = original(once, command, now)
        return msgspec.structs.replace(twice, entries=once.entries + twice.entries), []

    return planting.commands("inventory", stock.Restock, decide)


def after_save(service: str, *statements: str) -> Wire:
    """Execute statements after each save of a service."""

    class Store(Wrapped):
        def save(self, connection: Any, unit_of_work: Any, now: Any) -> None:
            self.inner.save(connection, unit_of_work, now)
            for statement in statements:
                connection.exec_driver_sql(statement)

    return planting.store(Store, service)


@mutant
def ledger_tidied() -> Wire:
    """Restocks are merged into the opening entry, so that the sums stay right."""
    return after_save(
        "inventory",
        "UPDATE stock_ledger SET quantity = quantity + ("
        "SELECT coalesce(sum(other.quantity), 0) FROM stock_ledger AS other "
        "WHERE other.product_id = stock_ledger.product_id AND other.reason = 'RESTOCK'"
        ") WHERE reason = 'OPENING'",
        "DELETE FROM stock_ledger WHERE reason = 'RESTOCK'",
    )


@mutant
def ended_orders_tidied_away() -> Wire:
    """An order is deleted when it has ended."""
    return after_save("orders", "DELETE FROM orders WHERE status = 'COMPLETED'")


@mutant
def order_placed_anew() -> Wire:
    """A retry with the id of an existing order is answered as a new order."""

    def decide(original: Any, placement: placing.Placement, command: Any, now: Any) -> Any:
        unknown = msgspec.structs.replace(placement, order=None)
        placed, events = original(unknown, command, now)
        return placed, [] if placement.order else events

    return planting.commands("orders", placing.PlaceOrder, decide)
