"""Checks the holds of orders in every state of the built-in services."""

from collections.abc import Iterator, Mapping
from typing import Final

from prove.scenario import Seen
from todoku.contracts import HoldConfirmedEvent, HoldRefusedEvent
from todoku.orders.domain import Order
from todoku.orders.holding import HoldOrder
from todoku.orders.holds import BY_ENDING, Hold, HoldState
from todoku.shipping.domain import PAST_PIVOT, Shipment

FINAL: Final = (HoldState.RELEASED, HoldState.EXPIRED, HoldState.REFUSED)


def check_step(before: Seen, after: Seen) -> Iterator[str]:
    """Yield what went backwards: a hold that is lost, or whose end is another one now."""
    was, now = _holds(before), _holds(after)
    for hold_id, hold in was.items():
        if hold_id not in now:
            yield "I4: a hold is lost"
            continue
        state = now[hold_id].state
        corrected = hold.released_by == BY_ENDING and state is HoldState.REFUSED
        if hold.state in FINAL and state is not hold.state and not corrected:
            yield f"I4: a hold was {hold.state} and is {state} now"


def check(seen: Seen) -> Iterator[str]:
    """Yield what is broken about the holds of an order, whatever is still to come."""
    order: Order | None = seen.states["orders"]
    shipment: Shipment | None = seen.states["shipping"]
    found = _holds(seen)
    for command in seen.asked:
        if isinstance(command, HoldOrder) and command.hold_id not in found:
            yield "I1: a hold was accepted and is missing"
    confirmed, refused = (
        {event.hold_id for event in seen.published if isinstance(event, kind)}
        for kind in (HoldConfirmedEvent, HoldRefusedEvent)
    )
    if confirmed & refused:
        yield "I4: the same hold was confirmed and refused"
    if any(hold.with_order for hold in found.values() if hold.id in refused):
        yield "I4: a hold that came with its order was too late"
    holding = any(hold.state is HoldState.CONFIRMED for hold in found.values())
    if holding and shipment is not None and shipment.status in PAST_PIVOT:
        yield f"I4: the order is held, and its shipment is {shipment.status}"
    if order is not None and order.status.terminal and order.held:
        yield f"I4: the order is {order.status}, and it is held"


def undecided(order: Order) -> Iterator[str]:
    """Yield which holds shipping has not answered, once nothing happens by itself."""
    for hold in order.holds:
        if hold.decided_at is None:
            yield f"I3: a hold was never answered, and is {hold.state}"


def given(order: Order) -> tuple[object, ...]:
    """Return what became of the holds of an order: how it ended follows from that, too."""
    return tuple(sorted((hold.id, str(hold.state), hold.refusal is None) for hold in order.holds))


def _holds(seen: Seen) -> Mapping[str, Hold]:
    order: Order | None = seen.states["orders"]
    return {hold.id: hold for hold in order.holds} if order else {}
