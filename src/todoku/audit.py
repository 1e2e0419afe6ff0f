"""Holds the three databases against the promise (docs/reliability.md) and says what breaks it.

It reads only. Services move one after the other, so what compares two of them is meant for a system
that has settled: no outbox row waits. On a live system a finding counts if it is still there later.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Select, func, select, union

from todoku.inventory.domain import ReservationState
from todoku.inventory.store import products, reservations, stock_ledger
from todoku.orders.domain import OrderStatus
from todoku.orders.store import metadata as orders_metadata
from todoku.orders.store import order_events, order_items, orders
from todoku.shipping.domain import ShipmentStatus
from todoku.shipping.store import shipments

SERVICES = ("orders", "inventory", "shipping")


class Finding(msgspec.Struct, frozen=True, order=True):
    """A broken invariant: which, of what (an order, a product, a service), how, and what to do."""

    invariant: str
    subject: str
    problem: str
    advice: str


class Report(msgspec.Struct, frozen=True):
    """What an audit saw. `backlog` counts, for each service and reader, the events that wait for a
    receipt; `parked` counts each service's dead letters."""

    findings: tuple[Finding, ...]
    orders: dict[str, int]
    backlog: dict[str, int]
    parked: dict[str, int]

    @property
    def settled(self) -> bool:
        """Whether no event waits for a receipt and every order has ended."""
        return not self.backlog and all(OrderStatus(status).terminal for status in self.orders)

    @property
    def clean(self) -> bool:
        """Whether nothing breaks the promise."""
        return not self.findings


class _OrderSeen(msgspec.Struct):
    """What the three services know of one order."""

    order_id: str
    status: OrderStatus | None = None
    created_at: datetime | None = None
    said_created: bool = False
    ordered: tuple[tuple[str, int], ...] = ()
    reservation: ReservationState | None = None
    reserved: tuple[tuple[str, int], ...] = ()
    deducted: tuple[tuple[str, int], ...] = ()
    torn: bool = False
    shipment: ShipmentStatus | None = None
    shipments: int = 0


def audit(connections: dict[str, Connection], now: datetime, *, overdue_after: timedelta) -> Report:
    """Audit the databases of "orders", "inventory" and "shipping" as they stand."""
    ours, stock, parcels = (connections[name] for name in SERVICES)
    parked_orders = {
        order_id
        for name in SERVICES
        for order_id in connections[name].scalars(_parked(name, "order_id"))
    }
    findings = [
        *_ledger_findings(stock),
        *(
            finding
            for seen in _orders_seen(ours, stock, parcels)
            for finding in _order_findings(seen, now - overdue_after, parked_orders)
        ),
    ]
    return Report(
        findings=tuple(sorted(findings)),
        orders=dict(
            ours.execute(
                select(orders.c.status, func.count()).group_by(orders.c.status).order_by("status")
            ).all()
        ),
        backlog=_backlog(connections),
        parked={
            name: count
            for name in SERVICES
            if (
                count := connections[name].scalar(
                    select(func.count()).select_from(_parked(name, "id").subquery())
                )
            )
        },
    )


def _books(service: str, table: str) -> Any:
    """One of the engine's tables, which are alike in every service."""
    return orders_metadata.tables[table]


def _parked(service: str, column: str) -> Select[Any]:
    """A column of the dead letters that nobody has seen to yet."""
    letters = _books(service, "dead_letters")
    return select(letters.c[column]).where(letters.c.state == "PARKED")


def _backlog(connections: dict[str, Connection]) -> dict[str, int]:
    backlog: dict[str, int] = {}
    for name in SERVICES:
        outbox = _books(name, "outbox")
        for reader, count in connections[name].execute(
            select(outbox.c.reader, func.count()).group_by(outbox.c.reader).order_by("reader")
        ):
            backlog[f"{name} → {reader}"] = count
    return backlog


def _ledger_findings(stock: Connection) -> Iterator[Finding]:
    """I2: the ledger adds up to what is on hand, and live reservations to what is reserved."""
    entered = (
        select(stock_ledger.c.product_id, func.sum(stock_ledger.c.quantity).label("pieces"))
        .group_by(stock_ledger.c.product_id)
        .subquery()
    )
    held = (
        select(reservations.c.product_id, func.sum(reservations.c.quantity).label("pieces"))
        .where(reservations.c.state == ReservationState.RESERVED.value)
        .group_by(reservations.c.product_id)
        .subquery()
    )
    named = union(
        select(products.c.id), select(entered.c.product_id), select(held.c.product_id)
    ).subquery()
    found = stock.execute(
        select(
            named.c.id,
            func.coalesce(products.c.stock_quantity, 0),
            func.coalesce(products.c.reserved_quantity, 0),
            func.coalesce(entered.c.pieces, 0),
            func.coalesce(held.c.pieces, 0),
        )
        .outerjoin(products, products.c.id == named.c.id)
        .outerjoin(entered, entered.c.product_id == named.c.id)
        .outerjoin(held, held.c.product_id == named.c.id)
        .order_by(named.c.id)
    )
    for product_id, on_hand, reserved, ledger, live in found:
        if on_hand != ledger:
            yield Finding(
                "I2",
                product_id,
                f"{on_hand} on hand, but the ledger adds up to {ledger}",
                "Count the shelf; the ledger's entries for this product say when they parted.",
            )
        if reserved != live:
            yield Finding(
                "I2",
                product_id,
                f"{reserved} reserved, but live reservations add up to {live}",
                "Look at this product's reservations and the orders they belong to.",
            )
        if not 0 <= reserved <= on_hand:
            yield Finding(
                "I2",
                product_id,
                f"{on_hand} on hand and {reserved} reserved: more is promised than is there",
                "Restock it before its parcels are due.",
            )


def _orders_seen(ours: Connection, stock: Connection, parcels: Connection) -> Iterator[_OrderSeen]:
    """What is known of each order, put together from streams in the order of the order ids."""
    seen: dict[str, _OrderSeen] = {}

    def of(order_id: str) -> _OrderSeen:
        return seen.setdefault(order_id, _OrderSeen(order_id))

    for row in ours.execute(select(orders.c.id, orders.c.status, orders.c.created_at)):
        order = of(row.id)
        order.status, order.created_at = OrderStatus(row.status), row.created_at
    for order_id in ours.scalars(
        select(order_events.c.order_id).where(order_events.c.type == "OrderCreatedEvent")
    ):
        of(order_id).said_created = True
    for line in ours.execute(
        select(order_items.c.order_id, order_items.c.product_id, order_items.c.quantity).order_by(
            order_items.c.order_id, order_items.c.product_id
        )
    ):
        of(line.order_id).ordered += ((line.product_id, line.quantity),)
    for held in stock.execute(
        select(
            reservations.c.order_id,
            reservations.c.product_id,
            reservations.c.quantity,
            reservations.c.state,
        ).order_by(reservations.c.order_id, reservations.c.product_id)
    ):
        order = of(held.order_id)
        state = ReservationState(held.state)
        order.torn = order.torn or order.reservation not in (None, state)
        order.reservation = state
        order.reserved += ((held.product_id, held.quantity),)
    for entry in stock.execute(
        select(stock_ledger.c.order_id, stock_ledger.c.product_id, stock_ledger.c.quantity)
        .where(stock_ledger.c.order_id.is_not(None))
        .order_by(stock_ledger.c.order_id, stock_ledger.c.product_id)
    ):
        of(entry.order_id).deducted += ((entry.product_id, -entry.quantity),)
    for parcel in parcels.execute(
        select(shipments.c.order_id, shipments.c.status).order_by(shipments.c.number.desc())
    ):
        order = of(parcel.order_id)
        order.shipment = ShipmentStatus(parcel.status)
        order.shipments += 1
    yield from (seen[order_id] for order_id in sorted(seen))


_ENDINGS = {
    OrderStatus.COMPLETED: (ReservationState.SHIPPED, ShipmentStatus.COMPLETED),
    OrderStatus.SHIPMENT_FAILED: (ReservationState.RELEASED, ShipmentStatus.FAILED),
    OrderStatus.CANCELLED_NO_STOCK: (ReservationState.REFUSED, None),
}
"""What the other services know of an order that has ended, once all is settled."""


def _as_ordered(seen: _OrderSeen) -> bool:
    """Whether the reservation is for what was ordered; a refusal that was rebuilt from the stream
    knows only what there was too little of."""
    if seen.reservation is ReservationState.REFUSED:
        return set(seen.reserved) <= set(seen.ordered)
    return set(seen.reserved) == set(seen.ordered)  # Two databases may sort texts in two ways.


def _order_findings(
    seen: _OrderSeen, overdue: datetime, parked_orders: set[str]
) -> Iterable[Finding]:
    if seen.status is None:
        yield Finding(
            "I1",
            seen.order_id,
            f"the orders service does not know it, but its stock is {seen.reservation} "
            f"and its shipment {seen.shipment}",
            "The orders database is older than the others: was a backup restored?",
        )
        return
    if not seen.said_created:
        yield Finding(
            "I1",
            seen.order_id,
            "its history does not begin with its OrderCreatedEvent",
            "The order was not written by this program: look who else writes to the database.",
        )
    if seen.reservation is not None and not _as_ordered(seen):
        yield Finding(
            "I4",
            seen.order_id,
            f"{dict(seen.ordered)} ordered, but the reservation is for {dict(seen.reserved)}",
            "Compare the order's items with its reservation before the parcel goes.",
        )
    if seen.torn:
        yield Finding(
            "I4",
            seen.order_id,
            "its reservation is in several states at once",
            "A reservation is all or nothing: compare its lines with the ledger.",
        )
    if seen.shipments > 1:
        yield Finding(
            "I4",
            seen.order_id,
            f"it has {seen.shipments} shipments",
            "Ask the carrier which of them it has, and stop the others.",
        )
    if not seen.status.terminal:
        if seen.order_id not in parked_orders and (seen.created_at or overdue) < overdue:
            yield Finding(
                "I3",
                seen.order_id,
                f"still {seen.status} after its time",
                "See which event it waits for: GET /orders/{id}/events; is that service running?",
            )
        return
    yield from _ending_findings(seen)


def _ending_findings(seen: _OrderSeen) -> Iterable[Finding]:
    assert seen.status is not None
    reservation, shipment = _ENDINGS[seen.status]
    if seen.reservation is ReservationState.RESERVED:
        yield Finding(
            "I5",
            seen.order_id,
            f"the order is {seen.status}, but stock is still reserved for it",
            "The event that ends it has not reached the inventory: is that service running?",
        )
    elif seen.reservation is not reservation:
        yield Finding(
            "I4",
            seen.order_id,
            f"the order is {seen.status}, but its reservation is {seen.reservation}",
            "Compare the order's history with the inventory's log.",
        )
    if seen.shipment is not shipment:
        yield Finding(
            "I4",
            seen.order_id,
            f"the order is {seen.status}, but its shipment is {seen.shipment}",
            "Compare the order's history with the shipping service's log.",
        )
    expected = seen.reserved if seen.reservation is ReservationState.SHIPPED else ()
    if seen.deducted != expected:
        yield Finding(
            "I4",
            seen.order_id,
            f"reserved {dict(seen.reserved)} and {seen.reservation}, "
            f"but the ledger deducts {dict(seen.deducted)}",
            "Count the shelf, and correct it through the ledger.",
        )
