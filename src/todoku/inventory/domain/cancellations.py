"""Decide what a confirmed cancellation means for the stock of its order: pure functions."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from todoku.contracts import (
    CancellationConfirmedEvent,
    CancelledItem,
    Event,
    ReleaseOutcome,
    StockReleasedEvent,
)
from todoku.inventory.domain.queue_places import left_line, wait_in_line
from todoku.inventory.domain.releases import released_event
from todoku.inventory.domain.reservations import contradiction, moved, only, without
from todoku.inventory.domain.stock import (
    Line,
    Reservation,
    ReservationChange,
    ReservationState,
    Stock,
    StockError,
)


class InvalidCancellation(StockError):
    """A cancellation names no pieces."""


def release_cancelled(
    stock: Stock, event: CancellationConfirmedEvent, now: datetime
) -> tuple[Stock, list[Event]]:
    """Release what is reserved for cancelled pieces; if nothing is yet, ensure that nothing will be.

    A refusal stays, and is the answer: orders has it, or will have it.
    """
    _require_items(event)
    if _known(stock, event):
        return stock, []  # A duplicate that arrived after the inbox was pruned.
    after = _released(stock, event, now)
    assert after.reservation is not None
    if after.reservation.state is ReservationState.REFUSED:
        return after, []
    return after, [released_event(after.reservation, after.reservation.changes[-1])]


def replay_release(
    stock: Stock, event: StockReleasedEvent, time: datetime
) -> tuple[Stock, list[Event]]:
    """Restore a release that the database has lost from its StockReleasedEvent."""
    _require_items(event)
    if _known(stock, event):
        return stock, []  # The backup had it.
    after = _released(stock, event, time)
    lost = after.reservation
    if stock.reservation is None and event.outcome != ReleaseOutcome.NEVER_RESERVED:
        assert lost is not None
        # The reservation is lost, too. Of the whole order, its release is all that remains of it.
        return Stock(products={}, reservation=_released_before(lost, event)), []
    return after, []


def _released_before(lost: Reservation, event: StockReleasedEvent) -> Reservation:
    """Return what the release of a reservation that is lost tells of it."""
    if not event.whole:
        return msgspec.structs.replace(lost, state=ReservationState.EXPECTED)
    return msgspec.structs.replace(lost, state=ReservationState.RELEASED, lines=_lines(event.items))


Cancelled = CancellationConfirmedEvent | StockReleasedEvent


def _require_items(event: Cancelled) -> None:
    if not event.items:
        raise InvalidCancellation(f"{type(event).__name__} of order {event.order_id} has no items")


def _known(stock: Stock, event: Cancelled) -> bool:
    held = stock.reservation
    return held is not None and any(change.id == event.change_id for change in held.changes)


def _released(stock: Stock, event: Cancelled, now: datetime) -> Stock:
    """Return the stock with a new change."""
    held = stock.reservation
    change = ReservationChange(
        id=event.change_id, items=_lines(event.items), whole=event.whole, at=now
    )
    if held is None:
        return Stock(products={}, reservation=_expected(event, change))
    match held.state:
        case ReservationState.RESERVED:
            return _taken_back(stock, held, change)
        case ReservationState.REFUSED if change.whole:
            return stock
        case ReservationState.REFUSED:
            return msgspec.structs.replace(stock, reservation=_noted(held, change))
        case ReservationState.WAITING:
            return _waits_for_less(stock, held, change)
        case ReservationState.EXPECTED:
            state = ReservationState.CANCELLED if change.whole else held.state
            lines = (*held.lines, *_nothing_of(change.items))
            noted = _noted(held, change, state=state, lines=_merged(lines))
            return msgspec.structs.replace(stock, reservation=noted)
        case ReservationState.RELEASED | ReservationState.CANCELLED if _is_cancelled(held):
            # The order was cancelled: its lines are what was left without these pieces, or with them.
            noted = _noted(held, change, lines=held.lines)
            return msgspec.structs.replace(stock, reservation=noted)
        case ReservationState.SHIPPED | ReservationState.RELEASED if not change.whole:
            # The end of the shipment arrived first: the pieces were not in the parcel.
            noted = _noted(held, change, lines=held.lines)
            return msgspec.structs.replace(stock, reservation=noted)
        case _:
            raise contradiction(held, event)


def _is_cancelled(held: Reservation) -> bool:
    return any(change.whole for change in held.changes)


def _expected(event: Cancelled, change: ReservationChange) -> Reservation:
    """Return what an order that is still to come finds."""
    return Reservation(
        order_id=event.order_id,
        lines=_nothing_of(change.items),
        state=ReservationState.CANCELLED if change.whole else ReservationState.EXPECTED,
        created_at=change.at,
        updated_at=change.at,
        changes=(change,),
    )


def _taken_back(stock: Stock, held: Reservation, change: ReservationChange) -> Stock:
    """Return the stock without the reservation of the cancelled pieces; of a whole order, without any."""
    noted = _noted(held, change)
    if change.whole:
        # A confirmation of single pieces may arrive after this one: what was left is in here.
        lines = only(held.lines, {line.product_id: line.quantity for line in change.items})
        noted = msgspec.structs.replace(noted, state=ReservationState.RELEASED, lines=lines)
        return Stock(
            products=moved(stock.products, held.lines, change.at, reserved=-1), reservation=noted
        )
    less = tuple(
        Line(before.product_id, before.pieces - after.pieces)
        for before, after in zip(held.lines, noted.lines, strict=True)
    )
    return Stock(products=moved(stock.products, less, change.at, reserved=-1), reservation=noted)


def _waits_for_less(stock: Stock, held: Reservation, change: ReservationChange) -> Stock:
    """Return the stock with an order that waits for less than before, or does not wait any more."""
    left = left_line(stock.products, held.lines, change.at, wake=True)
    gone = msgspec.structs.replace(stock, products={**stock.products, **left})
    if change.whole:
        state = ReservationState.CANCELLED
        return msgspec.structs.replace(gone, reservation=_noted(held, change, state=state))
    return wait_in_line(gone, _noted(held, change), change.at)


def _noted(held: Reservation, change: ReservationChange, **others: Any) -> Reservation:
    """Return the reservation with a new change, and its lines without the pieces of one line or some."""
    lines = held.lines if change.whole else without(held.lines, (change,))
    changed = {"lines": lines, "changes": (*held.changes, change), "updated_at": change.at}
    return msgspec.structs.replace(held, **{**changed, **others})


def _lines(items: Iterable[CancelledItem]) -> tuple[Line, ...]:
    return _merged(Line(item.product_id, item.quantity) for item in items)


def _nothing_of(lines: Iterable[Line]) -> tuple[Line, ...]:
    return tuple(Line(line.product_id, line.quantity, line.quantity) for line in lines)


def _merged(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Return one line for each product, in the sequence in which they first appear."""
    merged: dict[str, Line] = {}
    for line in lines:
        known = merged.get(line.product_id, Line(line.product_id, 0))
        merged[line.product_id] = Line(
            line.product_id, known.quantity + line.quantity, known.cancelled + line.cancelled
        )
    return tuple(merged.values())
