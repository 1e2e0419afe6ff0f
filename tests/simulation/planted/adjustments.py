"""Bugs: the stock is adjusted by staff, and the orders, the ledger or the stream do not agree with it."""

from typing import Any

import msgspec

from simulation import planting
from simulation.planting import mutant
from todoku.contracts import (
    LowStockThresholdChangedEvent,
    OrderCreatedEvent,
    StockAdjustedEvent,
    StockLowEvent,
)
from todoku.inventory import domain as stock
from todoku.lab.simulation.wiring import Wire


@mutant
def adjustment_not_published() -> Wire:
    """A restock is in the ledger and in no event: a restored database has lost it."""
    return planting.commands(
        "inventory",
        stock.Restock,
        lambda original, state, command, now: (original(state, command, now)[0], []),
    )


@mutant
def threshold_not_published() -> Wire:
    """A threshold is in no event: a restored database has lost it."""
    return planting.commands(
        "inventory",
        stock.SetLowStockThreshold,
        lambda original, state, command, now: (original(state, command, now)[0], []),
    )


@mutant
def threshold_not_replayed() -> Wire:
    """A restored database leaves a threshold as it was."""
    return planting.replays(
        "inventory",
        LowStockThresholdChangedEvent,
        lambda original, state, event, time: (state, []),
    )


@mutant
def older_threshold_counts() -> Wire:
    """An older change of a threshold that is delivered again replaces the newer one."""

    def decide(original: Any, state: stock.Stock, event: Any, time: Any) -> Any:
        products = {
            key: msgspec.structs.replace(product, threshold_version=-1)
            for key, product in state.products.items()
        }
        return original(msgspec.structs.replace(state, products=products), event, time)

    return planting.replays("inventory", LowStockThresholdChangedEvent, decide)


@mutant
def known_adjustment_entered_again() -> Wire:
    """An adjustment that a restored database has is entered again from its event."""
    return planting.replays(
        "inventory",
        StockAdjustedEvent,
        lambda original, state, event, time: original(
            msgspec.structs.replace(state, adjusted=frozenset()), event, time
        ),
    )


@mutant
def correction_without_entry() -> Wire:
    """A correction changes the stock and is not in the ledger."""

    def decide(original: Any, state: stock.Stock, command: Any, now: Any) -> Any:
        after, events = original(state, command, now)
        return msgspec.structs.replace(after, entries=()), events

    return planting.commands("inventory", stock.CorrectStock, decide)


@mutant
def reserved_pieces_corrected_away() -> Wire:
    """Pieces that are reserved are taken out of the stock, and their reservations stay."""

    def decide(original: Any, state: stock.Stock, command: Any, now: Any) -> Any:
        product = state.products.get(command.product_id)
        if product is None:
            return original(state, command, now)
        taken = min(0, max(command.quantity, -product.on_hand) + product.available)
        fewer = msgspec.structs.replace(product, reserved=product.reserved + taken)
        changed = msgspec.structs.replace(state, products={product.id: fewer})
        return original(changed, command, now)

    return planting.commands("inventory", stock.CorrectStock, decide)


@mutant
def low_stock_not_told() -> Wire:
    """Of a product that an order has made low, nobody is told."""

    def decide(original: Any, state: stock.Stock, event: Any, now: Any) -> Any:
        after, events = original(state, event, now)
        return after, [each for each in events if not isinstance(each, StockLowEvent)]

    return planting.events("inventory", OrderCreatedEvent, decide)
