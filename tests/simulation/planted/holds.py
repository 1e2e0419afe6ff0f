"""Bugs: a hold is lost, is never answered, holds nothing, or holds for ever."""

from typing import Any

import msgspec
from msgspec import UNSET

from simulation import planting
from simulation.planting import mutant
from todoku.contracts import (
    HoldConfirmedEvent,
    HoldRefusedEvent,
    HoldReleasedEvent,
    HoldRequestedEvent,
    OrderCreatedEvent,
)
from todoku.lab.simulation.wiring import Wire
from todoku.orders.holding import HoldOrder
from todoku.orders.placing import PlaceOrder
from todoku.shipping.holding import with_hold
from todoku.shipping.holds import find_hold


@mutant
def hold_never_published() -> Wire:
    """A hold is accepted, and nobody is told."""

    def decide(original: Any, order: Any, command: Any, now: Any) -> Any:
        return original(order, command, now)[0], []

    return planting.commands("orders", HoldOrder, decide)


@mutant
def hold_confirmed_and_forgotten() -> Wire:
    """Shipping confirms a hold that it does not keep."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        after, events = original(shipment, event, now)
        return (after if shipment is None else shipment), events

    return planting.events("shipping", HoldRequestedEvent, decide)


@mutant
def held_behind_the_pivot() -> Wire:
    """A hold is confirmed although the carrier was called."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        after, events = original(shipment, event, now)
        answers = [
            HoldConfirmedEvent(
                order_id=e.order_id, hold_id=e.hold_id, holder=e.holder, reason=e.reason
            )
            for e in events
        ]
        return after, answers

    return planting.events("shipping", HoldRequestedEvent, decide)


@mutant
def hold_refusal_never_published() -> Wire:
    """That it is too late to hold an order is decided, and nobody is told."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        after, events = original(shipment, event, now)
        return after, [e for e in events if not isinstance(e, HoldRefusedEvent)]

    return planting.events("shipping", HoldRequestedEvent, decide)


@mutant
def release_that_overtakes_is_forgotten() -> Wire:
    """A release that arrives before its hold is not kept: the hold is open for ever."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        after, events = original(shipment, event, now)
        holds = shipment.holds if shipment else ()
        if find_hold(holds, event.hold_id) is None:
            return msgspec.structs.replace(after, holds=holds), []
        return after, events

    return planting.together(
        planting.late("shipping", HoldRequestedEvent, seconds=8),
        planting.events("shipping", HoldReleasedEvent, decide),
    )


@mutant
def one_release_closes_all_holds() -> Wire:
    """The carrier is called when the first of several holds is released."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        for hold in shipment.holds if shipment else ():
            closed = hold.released_at or now
            shipment = with_hold(shipment, msgspec.structs.replace(hold, released_at=closed))
        if shipment is not None and (hold := find_hold(shipment.holds, event.hold_id)):
            shipment = with_hold(shipment, msgspec.structs.replace(hold, released_at=None))
        return original(shipment, event, now)

    return planting.events("shipping", HoldReleasedEvent, decide)


@mutant
def released_shipment_stays_held() -> Wire:
    """The last hold of a shipment is released, and it never falls due."""

    def decide(original: Any, shipment: Any, event: Any, now: Any) -> Any:
        after, events = original(shipment, event, now)
        return msgspec.structs.replace(after, due_at=shipment and shipment.due_at), events

    return planting.events("shipping", HoldReleasedEvent, decide)


@mutant
def holds_of_a_new_order_dropped() -> Wire:
    """Inventory drops the holds of a new order, and no other event tells shipping of them."""

    def decide(original: Any, stock: Any, event: Any, now: Any) -> Any:
        return original(stock, msgspec.structs.replace(event, holds=UNSET), now)

    def place(original: Any, order: Any, command: Any, now: Any) -> Any:
        after, events = original(order, command, now)
        return after, [e for e in events if not isinstance(e, HoldRequestedEvent)]

    dropped = planting.events("inventory", OrderCreatedEvent, decide)
    unpublished = planting.commands("orders", PlaceOrder, place)
    return lambda parts: dropped(unpublished(parts))


@mutant
def hold_never_expires() -> Wire:
    """A hold whose time has come holds on."""

    def nothing(original: Any, *arguments: Any) -> Any:
        return []

    def no_range(original: Any, connection: Any) -> Any:
        return None

    return planting.agenda(
        "orders",
        due="orders.hold_expires_at",
        find=nothing,
        find_corrected=nothing,
        due_range=no_range,
    )
