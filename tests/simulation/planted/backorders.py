"""Bugs: orders that wait for stock are forgotten."""

from typing import Any

import msgspec

from simulation import planting
from simulation.planting import mutant
from todoku.contracts import ShipmentFailedEvent, StockAwaitedEvent
from todoku.inventory import domain as stock
from todoku.lab.simulation.wiring import Wire


def _asleep(before: stock.Stock, after: stock.Stock) -> stock.Stock:
    """Return the stock with the queues as they were."""
    return msgspec.structs.replace(
        after,
        products={
            key: msgspec.structs.replace(product, queue=before.products[key].queue)
            for key, product in after.products.items()
        },
    )


@mutant
def restock_wakes_nobody() -> Wire:
    """Orders go on waiting although the pieces that they wait for have arrived."""

    def decide(original: Any, state: stock.Stock, command: Any, now: Any) -> Any:
        after, events = original(state, command, now)
        return _asleep(state, after), events

    return planting.commands("inventory", stock.Restock, decide)


@mutant
def release_wakes_nobody() -> Wire:
    """Orders go on waiting although the pieces of a failed shipment are available again."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        after, events = original(state, event, now)
        return _asleep(state, after), events

    return planting.events("inventory", ShipmentFailedEvent, decide)


@mutant
def waiting_order_not_replayed() -> Wire:
    """A restored inventory forgets the orders that wait for stock."""

    def decide(original: Any, state: stock.Stock, event: Any, time: Any) -> Any:
        return state, []

    return planting.replays("inventory", StockAwaitedEvent, decide)
