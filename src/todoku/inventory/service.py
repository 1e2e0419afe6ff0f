"""Define the inventory service: which function handles which command and event."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Final

from msgspec.structs import replace

from todoku.contracts import (
    CancellationConfirmedEvent,
    Event,
    InventoryAuditAnchoredEvent,
    InventoryMessageClosedEvent,
    InventoryMessageParkedEvent,
    InventoryPausesChangedEvent,
    LowStockThresholdChangedEvent,
    OrdersApiKeyChangedEvent,
    OrdersAuditAnchoredEvent,
    PersonErasedEvent,
    ProductChangedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockAdjustedEvent,
    StockAwaitedEvent,
    StockLowEvent,
    StockReleasedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
    parking_event,
    pauses_event,
)
from todoku.engine import (
    BySagaVersion,
    Decide,
    PausesPublication,
    RecoveryPending,
    Service,
    by_saga_version,
    keep_anchor,
    keep_erasure,
    keep_key,
)
from todoku.inventory.domain import (
    STOCK_REQUESTS,
    ArchiveProduct,
    CorrectStock,
    PublishCatalogue,
    Restock,
    SetLowStockThreshold,
    SetProduct,
    Stock,
    archive_product,
    correct_stock,
    deduct_stock,
    publish_catalogue,
    release_cancelled,
    release_stock,
    replay_adjustment,
    replay_product,
    replay_refusal,
    replay_release,
    replay_reservation,
    replay_threshold,
    replay_waiting,
    republish_reservation,
    reserve_stock,
    restock,
    set_low_stock_threshold,
    set_product,
    takes_pieces,
)
from todoku.inventory.persons import INVENTORY_PERSONS
from todoku.inventory.store import InventoryStore, publications, queues
from todoku.settings import Settings


def _set_product(stock: Stock, command: SetProduct, now: datetime) -> tuple[Stock, list[Event]]:
    if command.only_new and command.product_id in stock.products:
        raise RecoveryPending
    return set_product(stock, command, now)


COMMAND_HANDLERS: Final[Mapping[type[Any], Decide[Stock]]] = {
    SetProduct: _set_product,
    ArchiveProduct: archive_product,
    PublishCatalogue: publish_catalogue,
    Restock: restock,
    CorrectStock: correct_stock,
    SetLowStockThreshold: set_low_stock_threshold,
}

EVENT_HANDLERS: Final[Mapping[type[Event], Decide[Stock] | BySagaVersion[Stock]]] = {
    **by_saga_version(STOCK_REQUESTS, reserve_stock),
    ShipmentCompletedEvent: deduct_stock,
    ShipmentFailedEvent: release_stock,
    CancellationConfirmedEvent: release_cancelled,
    OrdersAuditAnchoredEvent: keep_anchor,
    PersonErasedEvent: keep_erasure,
    OrdersApiKeyChangedEvent: keep_key,
}

REPLAY_HANDLERS: Final[Mapping[type[Event], Decide[Stock]]] = {
    ProductChangedEvent: replay_product,
    StockReservedEvent: replay_reservation,
    StockReservationFailedEvent: replay_refusal,
    ShipmentCompletedEvent: deduct_stock,
    ShipmentFailedEvent: release_stock,
    StockReleasedEvent: replay_release,
    StockAdjustedEvent: replay_adjustment,
    StockAwaitedEvent: replay_waiting,
    LowStockThresholdChangedEvent: replay_threshold,
}


PUBLISHES: Final[Sequence[type[Event]]] = (
    StockReservedEvent,
    StockReservationFailedEvent,
    StockReleasedEvent,
    ProductChangedEvent,
    StockAdjustedEvent,
    StockAwaitedEvent,
    StockLowEvent,
    LowStockThresholdChangedEvent,
    InventoryMessageParkedEvent,
    InventoryMessageClosedEvent,
    InventoryPausesChangedEvent,
    InventoryAuditAnchoredEvent,
)


def _waits_for_recovery(command: object) -> bool:
    """Return whether what is still to be replayed could contradict a command: pieces that are reserved, or an
    older threshold."""
    return takes_pieces(command) or type(command) is SetLowStockThreshold


def _waits_for_replay(command: object) -> bool:
    """Return whether a command changes a product, whose versions go on from the last one published. One that
    enters a product again does not wait: the recovery may wait for it."""
    return isinstance(command, ArchiveProduct) or (
        isinstance(command, SetProduct) and command.stock_quantity is None
    )


def _before_replay(command: object) -> object:
    """Return a command that enters a product such that it changes none: not one that was replayed in part."""
    return replace(command, only_new=True) if isinstance(command, SetProduct) else command


def inventory_service(settings: Settings) -> Service[Stock]:
    """Build the service that keeps the stock."""
    return Service(
        name=StockReservedEvent.publisher,
        store=InventoryStore(),
        command_handlers=COMMAND_HANDLERS,
        agendas=[publications.agenda(), queues.agenda()],
        event_handlers=EVENT_HANDLERS,
        parked_event=partial(parking_event, InventoryMessageParkedEvent),
        resolved_event=partial(parking_event, InventoryMessageClosedEvent),
        pauses_event=PausesPublication(
            InventoryPausesChangedEvent, partial(pauses_event, InventoryPausesChangedEvent)
        ),
        anchor_event=InventoryAuditAnchoredEvent,
        persons=INVENTORY_PERSONS,
        replay_handlers=REPLAY_HANDLERS,
        republish=republish_reservation,
        publishes=PUBLISHES,
        waits_for_recovery=_waits_for_recovery,
        waits_for_replay=_waits_for_replay,
        before_replay=_before_replay,
        not_in_stream="products and thresholds of low stock that were not changed since the stream begins",
    )
