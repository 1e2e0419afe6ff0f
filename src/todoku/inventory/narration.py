"""How the events of the inventory service read on a terminal."""

from collections.abc import Iterable

from todoku.contracts import (
    CancellationConfirmedEvent,
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    ReleaseOutcome,
    StockAwaitedEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.inventory.domain import STOCK_REQUESTS
from todoku.narration import Detail, Narration, item_list, parked_details, resolved_details


def _reserved(event: StockReservedEvent) -> Iterable[Detail]:
    yield Detail(f"reserves {item_list(event.items)}")


def _refused(event: StockReservationFailedEvent) -> Iterable[Detail]:
    for item in event.failed_items:
        requested, available = item.requested_quantity, item.available_quantity
        yield Detail(f"{item.product_id}: {requested:,} requested, {available:,} available")
    yield Detail("not enough stock: nothing is reserved for this order", "compensation")


def _released(event: StockReleasedEvent) -> Iterable[Detail]:
    if event.outcome == ReleaseOutcome.RELEASED:
        yield Detail(f"↩ compensation: releases {item_list(event.items)}", "compensation")
    elif event.whole:
        yield Detail("nothing was reserved, and nothing will be")
    else:
        yield Detail(f"not reserved, and will not be: {item_list(event.items)}")


def _awaited(event: StockAwaitedEvent) -> Iterable[Detail]:
    for item in event.missing:
        requested, available = item.requested_quantity, item.available_quantity
        yield Detail(f"{item.product_id}: {requested:,} requested, {available:,} available")
    yield Detail("not enough stock: the order waits for it, and nothing is reserved yet")


NARRATION = Narration(
    details={
        StockReservedEvent: _reserved,
        StockReservationFailedEvent: _refused,
        StockReleasedEvent: _released,
        StockAwaitedEvent: _awaited,
        InventoryMessageParkedEvent: parked_details,
        InventoryMessageClosedEvent: resolved_details,
    },
    awaited={
        STOCK_REQUESTS[max(STOCK_REQUESTS)]: "inventory to reserve the stock",
        CancellationConfirmedEvent: "inventory to release the stock",
    },
)
