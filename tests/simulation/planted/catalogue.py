"""Bugs: orders pay other prices than those of the catalogue, or the catalogue forgets what it was told."""

from typing import Any

import msgspec

from simulation import planting
from simulation.planting import mutant
from todoku.contracts import ProductChangedEvent
from todoku.inventory.domain import SetProduct
from todoku.lab.simulation.wiring import Wire
from todoku.orders.catalogue import ReplacedPrice
from todoku.orders.placing import Placement, PlaceOrder


@mutant
def lower_version_wins() -> Wire:
    """The copy of the catalogue takes each event, also one that arrives after a later one."""

    def decide(original: Any, entry: Any, event: Any, now: Any) -> Any:
        forgetful = msgspec.structs.replace(entry, version=0) if entry else None
        return original(forgetful, event, now)

    return planting.events("orders", ProductChangedEvent, decide)


@mutant
def replaced_price_counts_for_ever() -> Wire:
    """A price that was replaced counts for as long as it is remembered."""

    def decide(original: Any, placement: Any, command: Any, now: Any) -> Any:
        catalogue = {
            key: msgspec.structs.replace(
                entry,
                replaced=tuple(
                    ReplacedPrice(each.price, each.currency, now) for each in entry.replaced
                ),
            )
            for key, entry in placement.catalogue.items()
        }
        return original(Placement(placement.order, catalogue), command, now)

    return planting.commands("orders", PlaceOrder, decide)


@mutant
def price_of_the_request_taken() -> Wire:
    """An order pays what its request says, whatever the catalogue says."""

    def decide(original: Any, placement: Any, command: Any, now: Any) -> Any:
        return original(Placement(placement.order, {}), command, now)

    return planting.commands("orders", PlaceOrder, decide)


@mutant
def entity_tag_ignored() -> Wire:
    """A change of a product that was changed meanwhile is accepted."""

    def decide(original: Any, stock: Any, command: Any, now: Any) -> Any:
        return original(stock, msgspec.structs.replace(command, if_match=None), now)

    return planting.commands("inventory", SetProduct, decide)


@mutant
def price_change_never_published() -> Wire:
    """A product is published when it is created, and its changes are not."""

    def decide(original: Any, stock: Any, command: Any, now: Any) -> Any:
        after, events = original(stock, command, now)
        return after, events if command.stock_quantity is not None else []

    return planting.commands("inventory", SetProduct, decide)


@mutant
def lost_change_never_replayed() -> Wire:
    """A restored inventory gets its products back, but not their changes."""

    def decide(original: Any, stock: Any, event: Any, time: Any) -> Any:
        if event.product_id in stock.products:
            return stock, []
        return original(stock, event, time)

    return planting.replays("inventory", ProductChangedEvent, decide)


@mutant
def product_changed_before_the_replay() -> Wire:
    """A restored inventory changes products before it has replayed the changes that it lost: the new version
    may be one that was published already."""
    return planting.service(
        "inventory", waits_for_replay=lambda _: False, before_replay=lambda command: command
    )
