"""Decide on events about orders: reserve, ship and release stock."""

from collections.abc import Iterable, Mapping
from datetime import datetime

import msgspec
from msgspec import UNSET

from todoku.contracts import (
    Event,
    FailedItem,
    OrderEvent,
    ReservedItem,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    StockAwaitedEvent,
    StockReservationFailedEvent,
    StockReservedEvent,
    holds_of,
    waits_for_stock,
)
from todoku.inventory.domain.low_stock import fallen_low
from todoku.inventory.domain.queue_places import left_line, wait_in_line
from todoku.inventory.domain.releases import republish_releases
from todoku.inventory.domain.request import StockRequest
from todoku.inventory.domain.stock import (
    RESERVATION,
    LedgerEntry,
    LedgerReason,
    Line,
    Product,
    Reservation,
    ReservationChange,
    ReservationState,
    Stock,
    StockError,
    StockLost,
)


class UnknownReservation(StockError):
    """The order has no reservation."""


class ContradictoryEvent(StockError):
    """An event contradicts the state of the reservation."""


def reserve_stock(stock: Stock, event: StockRequest, now: datetime) -> tuple[Stock, list[Event]]:
    """Reserve every item of the order that is not cancelled, or refuse all of it."""
    expected = stock.reservation
    if expected is not None and expected.state is not ReservationState.EXPECTED:
        # Cancelled; or a duplicate that arrived after the inbox was pruned: the decision was published.
        return stock, []
    changes = expected.changes if expected else ()
    lines = without(_merge_lines(event), changes)
    shortages = _shortages(stock.products, lines, new=True)
    state = ReservationState.RESERVED
    if shortages:
        waits = waits_for_stock(event) and _all_known(stock.products, lines)
        state = ReservationState.WAITING if waits else ReservationState.REFUSED
    reservation = Reservation(
        order_id=event.order_id,
        lines=lines,
        state=state,
        created_at=now,
        updated_at=now,
        shipping_address=event.shipping_address,
        total_amount=event.total_amount,
        currency=event.currency,
        changes=changes,
        holds=holds_of(event),
    )
    if state is ReservationState.WAITING:
        queued_at = now if event.created_at is UNSET else event.created_at
        waiting = msgspec.structs.replace(reservation, queued_at=queued_at)
        return wait_in_line(stock, waiting, now), [_awaited_event(waiting, shortages)]
    if shortages:
        refused = msgspec.structs.replace(stock, reservation=reservation)
        return refused, [
            StockReservationFailedEvent(
                order_id=event.order_id, reason=_explain(shortages), failed_items=shortages
            )
        ]
    reserved = Stock(
        products=moved(stock.products, lines, now, reserved=+1), reservation=reservation
    )
    low = fallen_low(stock.products, reserved.products, event.order_id)
    return reserved, [reserved_event(reservation, event.shipping_address), *low]


def replay_reservation(
    stock: Stock, event: StockReservedEvent, time: datetime
) -> tuple[Stock, list[Event]]:
    """Restore a reservation that the database has lost from its StockReservedEvent."""
    expected = stock.reservation
    waited = expected is not None and expected.state is ReservationState.WAITING
    if expected is not None and not waited and expected.state is not ReservationState.EXPECTED:
        return stock, []
    lines = expected.lines if expected and waited else _lines_before(event, expected)
    if shortages := _shortages(stock.products, lines):
        raise StockLost(
            f"Order {event.order_id} has reserved stock that is missing from the database: "
            f"{_explain(shortages)}. Create the products again that are missing and restock what arrived "
            "after the backup, then retry."
        )
    products: Mapping[str, Product] = stock.products
    if waited:
        products = {**products, **left_line(products, lines, time, wake=True)}
    return Stock(
        products=moved(products, lines, time, reserved=+1),
        reservation=Reservation(
            order_id=event.order_id,
            lines=lines,
            state=ReservationState.RESERVED,
            created_at=time,
            updated_at=time,
            shipping_address=event.shipping_address,
            total_amount=None if event.total_amount is UNSET else event.total_amount,
            currency=None if event.currency is UNSET else event.currency,
            changes=expected.changes if expected else (),
            holds=holds_of(event),
        ),
    ), []


def _lines_before(event: StockReservedEvent, expected: Reservation | None) -> tuple[Line, ...]:
    """Return the lines as they were ordered, without what is cancelled: some of it was subtracted from the
    event, the rest was cancelled later."""
    changes = expected.changes if expected else ()
    subtracted = () if event.changes is UNSET else event.changes
    quantities = {item.product_id: item.quantity for item in event.items}
    for change in changes:
        for line in change.items if change.id in subtracted else ():
            quantities[line.product_id] = quantities.get(line.product_id, 0) + line.quantity
    return without((Line(key, quantity) for key, quantity in quantities.items()), changes)


def replay_refusal(
    stock: Stock, event: StockReservationFailedEvent, time: datetime
) -> tuple[Stock, list[Event]]:
    """Restore a refusal that the database has lost from its StockReservationFailedEvent."""
    if stock.reservation is not None:
        return stock, []
    refused = Reservation(
        order_id=event.order_id,
        lines=tuple(Line(item.product_id, item.requested_quantity) for item in event.failed_items),
        state=ReservationState.REFUSED,
        created_at=time,
        updated_at=time,
    )
    return Stock(products={}, reservation=refused), []


def republish_reservation(stock: Stock) -> list[tuple[Event, datetime]]:
    """Return the event of the decision while it holds, with the time it was decided.

    Nothing is republished for a reservation that is shipped, or released after a shipment: a shipping
    service that has lost it would ship it again. Nor for one whose address is unknown. Of one that was
    cancelled, its release is.
    """
    reservation = stock.reservation
    if reservation is None:
        return []
    releases = republish_releases(reservation)
    match reservation.state, reservation.shipping_address:
        case ReservationState.REFUSED, _:
            return [(_refused_event(stock.products, reservation), reservation.created_at)]
        case ReservationState.WAITING, _:
            short = _shortages(stock.products, reservation.lines)
            return [(_awaited_event(reservation, short), reservation.created_at), *releases]
        case ReservationState.RESERVED, str(address):
            return [(reserved_event(reservation, address), reservation.created_at), *releases]
        case _:
            return releases


def deduct_stock(
    stock: Stock, event: ShipmentCompletedEvent, now: datetime
) -> tuple[Stock, list[Event]]:
    """Deduct the shipped pieces from the stock on hand: the carrier accepted the parcel.

    What was reserved and is not in the parcel was cancelled, and is available again.
    """
    reservation = _known(stock, event)
    state = _next_state(reservation, event)
    if state is reservation.state:
        return stock, []  # A duplicate that arrived after the inbox was pruned.
    lines = _as_shipped(reservation.lines, event)
    products = moved(stock.products, lines, now, on_hand=-1, reserved=-1)
    if lines is not reservation.lines:
        available = moved(stock.products, reservation.lines, now, reserved=-1)
        products = available | moved(available, lines, now, on_hand=-1)
    return Stock(
        products=products,
        reservation=_ended(reservation, state, now, lines),
        entries=tuple(
            LedgerEntry(
                product_id=line.product_id,
                quantity=-pieces,
                reason=LedgerReason.SHIPMENT,
                at=now,
                order_id=reservation.order_id,
            )
            for line in lines
            if (pieces := line.pieces)
        ),
    ), []


def release_stock(
    stock: Stock, event: ShipmentFailedEvent, now: datetime
) -> tuple[Stock, list[Event]]:
    """Release the reservation: the carrier rejected the parcel."""
    reservation = _known(stock, event)
    state = _next_state(reservation, event)
    if state is reservation.state:
        return stock, []  # A duplicate that arrived after the inbox was pruned.
    lines = _as_shipped(reservation.lines, event)
    return Stock(
        products=moved(stock.products, reservation.lines, now, reserved=-1),
        reservation=_ended(reservation, state, now, lines),
    ), []


def _as_shipped(
    lines: tuple[Line, ...], event: ShipmentCompletedEvent | ShipmentFailedEvent
) -> tuple[Line, ...]:
    """Return the lines without what was taken out of the parcel: a confirmation may arrive after the
    shipment has ended."""
    return only(lines, {item.product_id: item.quantity for item in event.items})


def only(lines: tuple[Line, ...], pieces: Mapping[str, int]) -> tuple[Line, ...]:
    """Return the lines with all cancelled but these pieces of each product. They stay if these are anything
    else than a part of them."""
    wanted = {line.product_id: line.pieces for line in lines}
    if pieces == wanted:
        return lines
    is_part = all(0 < n <= wanted.get(product_id, 0) for product_id, n in pieces.items())
    if not pieces or not is_part or pieces == {key: n for key, n in wanted.items() if n}:
        return lines
    return tuple(
        Line(line.product_id, line.quantity, line.quantity - pieces.get(line.product_id, 0))
        for line in lines
    )


def _merge_lines(event: StockRequest) -> tuple[Line, ...]:
    quantities: dict[str, int] = {}
    for item in event.items:
        assert item.quantity >= 1, event
        quantities[item.product_id] = quantities.get(item.product_id, 0) + item.quantity
    assert quantities, event
    return tuple(Line(product_id, quantity) for product_id, quantity in quantities.items())


def reserved_event(reservation: Reservation, shipping_address: str) -> StockReservedEvent:
    """Return the event that tells that the stock of an order is reserved."""
    return StockReservedEvent(
        order_id=reservation.order_id,
        items=tuple(
            ReservedItem(product_id=line.product_id, quantity=pieces)
            for line in reservation.lines
            if (pieces := line.pieces)
        ),
        changes=tuple(change.id for change in reservation.changes) or UNSET,
        shipping_address=shipping_address,
        total_amount=UNSET if reservation.total_amount is None else reservation.total_amount,
        currency=UNSET if reservation.currency is None else reservation.currency,
        holds=reservation.holds or UNSET,
    )


def _awaited_event(reservation: Reservation, missing: tuple[FailedItem, ...]) -> StockAwaitedEvent:
    return StockAwaitedEvent(
        order_id=reservation.order_id,
        items=tuple(
            ReservedItem(product_id=line.product_id, quantity=line.quantity)
            for line in reservation.lines
        ),
        missing=missing,
        queued_at=reservation.queued_at or reservation.created_at,
        shipping_address=reservation.shipping_address or "",
        total_amount=UNSET if reservation.total_amount is None else reservation.total_amount,
        currency=UNSET if reservation.currency is None else reservation.currency,
        holds=reservation.holds or UNSET,
    )


def _refused_event(
    products: Mapping[str, Product], reservation: Reservation
) -> StockReservationFailedEvent:
    """Return the event of a refusal as far as it is known later.

    Which products were short is not stored, so all are named, with what is available now if that is
    less than the requested quantity.
    """
    items = tuple(
        FailedItem(
            product_id=line.product_id,
            requested_quantity=line.pieces,
            available_quantity=min(_available(products, line.product_id), line.pieces - 1),
        )
        for line in reservation.lines
        if line.pieces
    )
    return StockReservationFailedEvent(
        order_id=reservation.order_id, reason="insufficient stock", failed_items=items
    )


def _available(products: Mapping[str, Product], product_id: str) -> int:
    """Return the number of pieces that can be reserved; 0 for an unknown product."""
    product = products.get(product_id)
    return 0 if product is None else product.available


def _free(products: Mapping[str, Product], product_id: str) -> int:
    """Return the number of pieces that a new order may take; 0 for an unknown product."""
    product = products.get(product_id)
    return 0 if product is None else product.free


def _all_known(products: Mapping[str, Product], lines: Iterable[Line]) -> bool:
    """Return whether there are such products: only for these can be waited."""
    return all(line.product_id in products for line in lines)


def _shortages(
    products: Mapping[str, Product], lines: Iterable[Line], *, new: bool = False
) -> tuple[FailedItem, ...]:
    """Return of what there is too little; a `new` order comes behind those that wait."""
    count = _free if new else _available
    return tuple(
        FailedItem(
            product_id=line.product_id,
            requested_quantity=pieces,
            available_quantity=available,
        )
        for line in lines
        if (pieces := line.pieces) > (available := count(products, line.product_id))
    )


def _explain(shortages: tuple[FailedItem, ...]) -> str:
    """Describe the first three shortages; the event lists all of them."""
    named = "; ".join(
        f"{item.product_id}: {item.requested_quantity} requested, {item.available_quantity} available"
        for item in shortages[:3]
    )
    more = f"; and {len(shortages) - 3} more" if len(shortages) > 3 else ""
    return f"insufficient stock ({named}{more})"


def moved(
    products: Mapping[str, Product],
    lines: Iterable[Line],
    now: datetime,
    *,
    on_hand: int = 0,
    reserved: int = 0,
) -> dict[str, Product]:
    """Return the products of the lines, moved by their pieces in these directions (-1, 0, +1)."""
    return {
        line.product_id: products[line.product_id].moved(
            now, on_hand=on_hand * pieces, reserved=reserved * pieces
        )
        for line in lines
        if (pieces := line.pieces)
    }


def without(lines: Iterable[Line], changes: Iterable[ReservationChange]) -> tuple[Line, ...]:
    """Return the lines with what these changes cancel; of no line is more cancelled than it has."""
    cancelled: dict[str, int] = {}
    for change in changes:
        for each in change.items:
            cancelled[each.product_id] = cancelled.get(each.product_id, 0) + each.quantity
    if not cancelled:
        return tuple(lines)
    return tuple(
        msgspec.structs.replace(
            line, cancelled=min(line.cancelled + cancelled.get(line.product_id, 0), line.quantity)
        )
        for line in lines
    )


def _ended(
    reservation: Reservation, state: ReservationState, now: datetime, lines: tuple[Line, ...]
) -> Reservation:
    return msgspec.structs.replace(reservation, state=state, updated_at=now, lines=lines)


def _known(stock: Stock, event: OrderEvent) -> Reservation:
    if stock.reservation is None or stock.reservation.state is ReservationState.EXPECTED:
        raise UnknownReservation(
            f"{type(event).__name__} for order {event.order_id}: the inventory database has no "
            "reservation for it. If it was restored from a backup, retry this message after the "
            "recovery."
        )
    return stock.reservation


def _next_state(reservation: Reservation, event: Event) -> ReservationState:
    state = RESERVATION.next_status(reservation.state, type(event))
    if state is None:
        raise contradiction(reservation, event)
    return state


def contradiction(reservation: Reservation, event: Event) -> ContradictoryEvent:
    """Return the error that an event contradicts the state of a reservation."""
    return ContradictoryEvent(
        f"{type(event).__name__} for order {reservation.order_id} contradicts its reservation, "
        f"which is {reservation.state}"
    )
