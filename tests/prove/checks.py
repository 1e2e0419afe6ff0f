"""Checks the invariants of docs/reliability.md in every state of the built-in services."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

from prove import holds
from prove.decisions import NOW
from prove.scenario import Seen
from todoku.audit import AuditPart, Known, KnownOrder
from todoku.audit.invariants import OrderSeen, findings_about
from todoku.contracts import (
    CancellationConfirmedEvent,
    CancellationRefusedEvent,
    Event,
    OrderCancelledEvent,
    OrderCompletedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
)
from todoku.descriptor import resolve
from todoku.inventory.domain import ReservationState
from todoku.orders.cancellation import CancelOrder
from todoku.orders.changes import ChangeState
from todoku.orders.domain import BEHIND_PIVOT, Order
from todoku.shipping.audit import known_shipment
from todoku.shipping.domain import PAST_PIVOT, Accepted
from todoku.system import system

PARTS: Final[Mapping[str, AuditPart]] = {
    service.name: resolve(service.audit) for service in system if service.audit is not None
}
"""What each service contributes to the audit: its entity and its lifecycle."""

STOCK_DECISIONS: Final = (StockReservedEvent, StockReservationFailedEvent)
ENDINGS: Final = (OrderCompletedEvent, OrderCancelledEvent)


def entity(name: str, state: Any) -> Any:
    """Return what a service keeps for an order, None if it has nothing."""
    return state.reservation if name == "inventory" else state


def status(name: str, state: Any) -> Any:
    """Return the status of what a service keeps for an order."""
    found = entity(name, state)
    return found and (found.state if name == "inventory" else found.status)


# A step.


def check_step(before: Seen, after: Seen) -> Iterator[str]:
    """Yield what went backwards: a status that only moves forward, a decided change, a ledger."""
    for name, part in PARTS.items():
        was, now = status(name, before.states[name]), status(name, after.states[name])
        if was is not None and now is not was and now not in part.lifecycle.reachable(was):
            yield f"I4: the {part.entity} was {was} and is {now} now"
    was, now = _changes(before), _changes(after)
    for change_id, state in was.items():
        if now.get(change_id) is not state and state is not ChangeState.REQUESTED:
            yield f"I4: a change was {state} and is {now.get(change_id)} now"
        elif change_id not in now:
            yield "I4: a change is lost"
    yield from holds.check_step(before, after)
    if after.written[: len(before.written)] != before.written:
        yield "I2: entries of the ledger were changed or lost"


def _changes(seen: Seen) -> Mapping[str, ChangeState]:
    order: Order | None = seen.states["orders"]
    return {change.id: change.state for change in order.changes} if order else {}


# Every state.


def check(seen: Seen) -> Iterator[str]:
    """Yield what is broken about an order, whatever is still to come; more if nothing is."""
    yield from _facts(seen)
    yield from _requests(seen)
    yield from _bookings(seen)
    yield from holds.check(seen)
    yield from _ledger(seen)
    if seen.silent:
        yield from _ending(seen)


def _facts(seen: Seen) -> Iterator[str]:
    """A fact is published once: with one content, and no two that exclude each other."""
    facts = Counter(event.fact for event in seen.published - seen.reworded)
    yield from (f"I4: {fact} was published with two contents" for fact in facts if facts[fact] > 1)
    endings = {type(event) for event in seen.published if isinstance(event, ENDINGS)}
    if len(endings) > 1:
        yield "I4: two endings were published"
    confirmed, refused = (
        {event.change_id for event in seen.published if isinstance(event, kind)}
        for kind in (CancellationConfirmedEvent, CancellationRefusedEvent)
    )
    if confirmed & refused:
        yield "I4: the same cancellation was confirmed and refused"


def _requests(seen: Seen) -> Iterator[str]:
    """An accepted request is on the order, and there is one for the whole order."""
    order: Order | None = seen.states["orders"]
    requests = {change.id for change in order.changes} if order else {}
    for command in seen.asked:
        if isinstance(command, CancelOrder):
            whole = order is not None and order.cancellation is not None and not command.items
            if command.change_id not in requests and not whole:
                yield "I1: a cancellation was accepted and is missing"
    if order is not None and min(order.left.values(), default=0) < 0:
        yield "I4: more pieces are cancelled than were ordered"
    if order is not None and sum(change.whole for change in order.changes) > 1:
        yield "I1: the order has two cancellations"


def _bookings(seen: Seen) -> Iterator[str]:
    """Nothing is booked whose cancellation was confirmed, and a parcel is booked once."""
    accepted = [effect for effect, answer in seen.outside.items() if isinstance(answer, Accepted)]
    booked = {call.shipment_id for call in (*accepted, *seen.calls)}
    if len(booked) > 1:
        yield "I4: the carrier was called with two keys"
    if booked and any(_confirms(event) for event in seen.published):
        yield "I4: the carrier was called for an order whose cancellation was confirmed"


def _confirms(event: Event) -> bool:
    return isinstance(event, CancellationConfirmedEvent) and event.whole


def _ledger(seen: Seen) -> Iterator[str]:
    """The ledger deducts what was shipped, once."""
    reservation = seen.states["inventory"].reservation
    shipped = reservation is not None and reservation.state is ReservationState.SHIPPED
    expected = [(line.product_id, -line.pieces) for line in reservation.lines] if shipped else []
    if [(entry.product_id, entry.quantity) for entry in seen.written] != expected:
        yield "I4: the ledger does not deduct what was shipped"


# A state in which nothing happens any more by itself.


def _ending(seen: Seen) -> Iterator[str]:
    order: Order | None = seen.states["orders"]
    if order is None:
        if any(entity(name, state) for name, state in seen.states.items()):
            yield "I1: other services know an order that orders does not have"
        return
    yield from holds.undecided(order)
    if not order.status.terminal and order.held:
        return  # Until a client releases its holds.
    if not order.status.terminal:
        yield f"I3: the order is {order.status}, and nothing will end it"
        return
    if not any(isinstance(event, ENDINGS) for event in seen.published):
        yield "I3: the ending was never published"
    yield from _audit(seen)
    yield from (_answer(order, change) for change in order.changes if _answer(order, change))
    accepted = any(isinstance(answer, Accepted) for answer in seen.outside.values())
    if accepted is not (status("shipping", seen.states["shipping"]) == "COMPLETED"):
        yield "I4: what the carrier has accepted and the completed shipment do not agree"


def _answer(order: Order, change: Any) -> str:
    if change.state is ChangeState.REQUESTED:
        return "I3: a cancellation was never answered"
    behind, confirmed = order.status in BEHIND_PIVOT, change.state is ChangeState.CONFIRMED
    if change.whole and behind is confirmed:
        return f"I4: the cancellation is {change.state}, and the order is {order.status}"
    return ""


def _audit(seen: Seen) -> Iterator[str]:
    """Check the order as `todoku verify` does."""
    known = {
        name: found
        for name, state in seen.states.items()
        if (found := _known(name, seen.key, entity(name, state))) is not None
    }
    about = OrderSeen(seen.key, PARTS, known)
    for finding in findings_about(about, {}, NOW, timedelta(seconds=1), excused=True):
        yield f"{finding.invariant}: {finding.problem}"


def _known(name: str, order_id: str, found: Any) -> Known | None:
    """Return what the audit would read about an order from the database of a service."""
    if found is None:
        return None
    now = str(status_of(name, found))
    if name == "orders":
        return KnownOrder(
            order_id=order_id,
            status=now,
            items=_pieces(found.wanted),
            address=found.shipping_address,
            accepted_at=found.created_at,
            changed_at=found.updated_at,
        )
    if name == "inventory":
        arrived = found.state not in (ReservationState.EXPECTED, ReservationState.CANCELLED)
        pieces = _pieces({line.product_id: line.pieces for line in found.lines})
        items = pieces if arrived else None
        return Known(
            order_id=order_id, status=now, items=items, address=found.shipping_address or None
        )
    items = _pieces({item.product_id: item.quantity for item in found.items})
    return known_shipment(order_id, found.status, items, found.shipping_address)


def _pieces(pieces: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((product_id, count) for product_id, count in pieces.items() if count))


def status_of(name: str, found: Any) -> Any:
    return found.state if name == "inventory" else found.status


def outcome(seen: Seen) -> tuple[object, object]:
    """Return how much was ordered, who got the stock, whether the pivot was passed, what the carrier said and
    whether anybody asked for a cancellation; and how everything ended, which follows from that."""
    order: Order | None = seen.states["orders"]
    if order is None:
        return None, None
    stock = {type(event).__name__ for event in seen.published if isinstance(event, STOCK_DECISIONS)}
    statuses = {name: status(name, state) for name, state in seen.states.items()}
    cancellation = order.cancellation
    lines = sorted((change.id, str(change.state)) for change in order.changes if not change.whole)
    given = (
        sum(item.quantity for item in order.items),
        f"{', '.join(sorted(stock)) or 'no decision about the stock'}",
        f"the pivot {'passed' if statuses['shipping'] in PAST_PIVOT else 'not passed'}",
        tuple(map(str, seen.outside.values())),
        f"{'a' if cancellation else 'no'} cancellation",
        tuple(lines),
        holds.given(order),
    )
    ended = (*map(str, statuses.values()), cancellation and str(cancellation.state))
    return given, (*ended, _pieces(order.wanted), measure(seen))


# What the orders share.


def measure(seen: Seen) -> tuple[int, ...]:
    """Return how many pieces are reserved for an order, and how many the ledger deducts for it."""
    reservation = seen.states["inventory"].reservation
    live = reservation is not None and reservation.state is ReservationState.RESERVED
    return (
        sum(line.pieces for line in reservation.lines) if live else 0,
        sum(entry.quantity for entry in seen.written),
    )


def check_total(measures: Sequence[tuple[int, ...]], shared: Mapping[str, Any]) -> Iterator[str]:
    """Check I2: the ledger adds up to the stock on hand, and live reservations to what is reserved."""
    (product,) = shared["inventory"].values()
    entered = sum(entry.quantity for entry in shared["written"])
    live = sum(pieces for pieces, _ in measures)
    ledger = entered + sum(deducted for _, deducted in measures)
    if product.on_hand != ledger:
        yield f"I2: {product.on_hand} on hand, but the ledger adds up to {ledger}"
    if product.reserved != live:
        yield f"I2: {product.reserved} reserved, but live reservations add up to {live}"
    if not 0 <= product.reserved <= product.on_hand:
        yield f"I2: {product.reserved} reserved of {product.on_hand}"
