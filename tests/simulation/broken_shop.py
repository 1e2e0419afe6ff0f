"""A system with a bug: `TODOKU_SYSTEM=simulation.broken_shop:system` never releases stock."""

from dataclasses import replace
from typing import Any

import msgspec

from todoku.contracts import ShipmentFailedEvent
from todoku.engine import Service
from todoku.settings import Settings
from todoku.system import System
from todoku.system import system as todoku


def inventory_service(settings: Settings) -> Service:
    """Build an inventory that ignores shipments that fail."""
    service = todoku["inventory"].build(settings)

    def ignore(stock: Any, *_: object) -> Any:
        return stock, []

    return replace(service, event_handlers={**service.event_handlers, ShipmentFailedEvent: ignore})


system = System(
    todoku["orders"],
    msgspec.structs.replace(todoku["inventory"], service=inventory_service),
    todoku["shipping"],
)
