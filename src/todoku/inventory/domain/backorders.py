"""Serve the orders that wait for stock, in the sequence of the queues: pure functions.

Whatever frees pieces of a product makes the walk of its queue due (`Product.moved`): a restock, a
correction, a release. So does an order that leaves the queue. A walk serves an order if all of its lines
fit, and nobody before it waits for one of its products. It stops at the first order that the stock of the
walked product cannot serve: no other order takes pieces before that one, so that it does not starve. An order
that only lacks another product is passed over, and keeps its place.
"""

from datetime import datetime

import msgspec
from msgspec import UNSET

from todoku.contracts import Event, InContext, StockAwaitedEvent, fact_id, holds_of
from todoku.inventory.domain.low_stock import fallen_low
from todoku.inventory.domain.queue import Place
from todoku.inventory.domain.queue_places import left_line, place_of, wait_in_line, with_queue
from todoku.inventory.domain.reservations import moved, reserved_event, without
from todoku.inventory.domain.stock import (
    Line,
    Product,
    Reservation,
    ReservationState,
    Stock,
    StockLost,
)


def serve_queue(stock: Stock, now: datetime) -> tuple[Stock, list[object]]:
    """Walk on in the queue of a product, and reserve what can be reserved."""
    walk = stock.walk
    if walk is None:  # Another decision has made the walk due: it is taken in the next batch.
        return stock, []
    products = dict(stock.products)
    served: list[Reservation] = []
    outputs: list[object] = []
    stop: Place | None = None
    for held in walk.waiting:
        if _wanted(held, walk.product_id) > products[walk.product_id].available:
            stop = place_of(held)
            break
        if _fits(products, held, walk.product_id):
            before = dict(products)
            products |= left_line(products, held.lines, now, wake=False)
            products |= moved(products, held.lines, now, reserved=+1)
            served.append(_reserved(held, now))
            outputs += _served_events(before, products, served[-1])
    product = products[walk.product_id]
    if product.queue is not None:
        goes_on = stop is None and walk.end is not None and product.queue.pieces > 0
        queue = product.queue.walked(walk.end) if goes_on else product.queue.ended(stop, now)
        products[product.id] = with_queue(product, queue)
    return Stock(products=products, served=tuple(served)), outputs


def replay_waiting(
    stock: Stock, event: StockAwaitedEvent, time: datetime
) -> tuple[Stock, list[Event]]:
    """Restore from its event that an order waits for stock."""
    expected = stock.reservation
    if expected is not None and expected.state is not ReservationState.EXPECTED:
        return stock, []
    lost = sorted({item.product_id for item in event.items} - stock.products.keys())
    if lost:
        raise StockLost(
            f"Order {event.order_id} waits for products that are missing from the database: "
            f"{', '.join(lost[:3])}. Create them again, then retry."
        )
    changes = expected.changes if expected else ()
    held = Reservation(
        order_id=event.order_id,
        lines=without((Line(item.product_id, item.quantity) for item in event.items), changes),
        state=ReservationState.WAITING,
        created_at=time,
        updated_at=time,
        shipping_address=event.shipping_address,
        total_amount=None if event.total_amount is UNSET else event.total_amount,
        currency=None if event.currency is UNSET else event.currency,
        changes=changes,
        holds=holds_of(event),
        queued_at=event.queued_at,
    )
    return wait_in_line(stock, held, time), []


def _wanted(held: Reservation, product_id: str) -> int:
    return sum(line.pieces for line in held.lines if line.product_id == product_id)


def _fits(products: dict[str, Product], held: Reservation, walked: str) -> bool:
    """Return whether all lines fit, and nobody before the order waits for one of its other products."""
    place = place_of(held)
    for line in held.lines:
        product = products[line.product_id]
        if line.pieces > product.available:
            return False
        others = product.queue if line.pieces and line.product_id != walked else None
        if others is not None and not others.admits(place):
            return False
    return True


def _reserved(held: Reservation, now: datetime) -> Reservation:
    at = max(now, held.updated_at)
    return msgspec.structs.replace(held, state=ReservationState.RESERVED, updated_at=at)


def _served_events(
    before: dict[str, Product], after: dict[str, Product], held: Reservation
) -> list[object]:
    """Return the events of an order that is served, each in the context of that order."""
    cause = fact_id(held.order_id, StockAwaitedEvent.__name__)
    context = held.context.caused_by(cause)
    touched = {line.product_id: after[line.product_id] for line in held.lines}
    low = fallen_low(before, touched, held.order_id)
    return [
        InContext(each, context)
        for each in (reserved_event(held, held.shipping_address or ""), *low)
    ]
