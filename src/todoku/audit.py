"""Holds the three databases against the promise (docs/reliability.md) and says what breaks it.

It reads only. Services move one after the other, so what compares two of them is meant for a system
that has settled: no outbox row waits. On a live system a finding counts if it is still there later.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta

import msgspec
from sqlalchemy import Connection, func, select, union

from todoku.engine.dead_letters import DeadLetterState
from todoku.inventory.domain import ReservationState
from todoku.inventory.store import products, reservations, stock_ledger
from todoku.orders.domain import OrderStatus
from todoku.orders.store import metadata as orders_metadata
from todoku.orders.store import order_events, order_items, orders
from todoku.shipping.domain import ShipmentStatus
from todoku.shipping.store import shipments

SERVICES = ("orders", "inventory", "shipping")

_outbox = orders_metadata.tables["outbox"]
_letters = orders_metadata.tables["dead_letters"]
"""Alike in every service."""


class Finding(msgspec.Struct, frozen=True, order=True):
    """A broken invariant: which, of what (an order or a product), how, and what to do. `asks` is the
    service, if there is one, that can say again without harm what somebody has not heard about it."""

    invariant: str
    subject: str
    problem: str
    advice: str
    asks: str | None = None

    @property
    def about(self) -> tuple[str, str]:
        """Which invariant is broken of what, whatever the numbers."""
        return self.invariant, self.subject


class Awaited(msgspec.Struct, frozen=True):
    """Events of a service that wait for a reader's receipt: how many, the oldest since when (UTC)."""

    service: str
    reader: str
    events: int
    since: datetime


class ParkedLetters(msgspec.Struct, frozen=True):
    """A service's dead letters that nobody has seen to yet, and the orders that they are about."""

    service: str
    letters: int
    orders: tuple[str, ...]


class Report(msgspec.Struct, frozen=True):
    """What an audit saw."""

    findings: tuple[Finding, ...]
    orders: dict[str, int]
    awaited: tuple[Awaited, ...]
    dead_letters: tuple[ParkedLetters, ...]

    @property
    def backlog(self) -> dict[str, int]:
        """How many events wait for a receipt, by who owes and who is awaited."""
        return {f"{way.service} → {way.reader}": way.events for way in self.awaited}

    @property
    def parked(self) -> dict[str, int]:
        """How many dead letters each service has."""
        return {parked.service: parked.letters for parked in self.dead_letters}

    @property
    def settled(self) -> bool:
        """Whether no event waits for a receipt and every order has ended."""
        return not self.awaited and all(OrderStatus(status).terminal for status in self.orders)

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
    dead_letters = tuple(_dead_letters(connections))
    parked_orders = {order_id for parked in dead_letters for order_id in parked.orders}
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
        awaited=tuple(_awaited(connections)),
        dead_letters=dead_letters,
    )


def _dead_letters(connections: dict[str, Connection]) -> Iterator[ParkedLetters]:
    parked = select(_letters.c.order_id).where(_letters.c.state == DeadLetterState.PARKED.value)
    for name in SERVICES:
        if about := connections[name].scalars(parked).all():
            yield ParkedLetters(name, len(about), tuple(sorted(set(about) - {None})))


def _awaited(connections: dict[str, Connection]) -> Iterator[Awaited]:
    by_reader = (
        select(_outbox.c.reader, func.count(), func.min(_outbox.c.said_at))
        .group_by(_outbox.c.reader)
        .order_by(_outbox.c.reader)
    )
    for name in SERVICES:
        for reader, events, since in connections[name].execute(by_reader):
            yield Awaited(name, reader, events, since)


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
                _reserved_for(stock, product_id),
            )
        if not 0 <= reserved <= on_hand:
            yield Finding(
                "I2",
                product_id,
                f"{on_hand} on hand and {reserved} reserved: more is promised than is there",
                "Restock it before its parcels are due.",
            )


ORDERS_NAMED_MAX = 5


def _reserved_for(stock: Connection, product_id: str) -> str:
    """Which orders a product is reserved for, to be looked at by a person."""
    found = stock.scalars(
        select(reservations.c.order_id)
        .where(
            reservations.c.product_id == product_id,
            reservations.c.state == ReservationState.RESERVED.value,
        )
        .order_by(reservations.c.order_id)
    ).all()
    return (
        f"It is reserved for {orders_named(found)}: look at each with `todoku order show`, and look "
        "who else writes to the database."
    )


def orders_named(order_ids: Sequence[str]) -> str:
    """Orders in a line: the first few by their ids."""
    named = ", ".join(order_ids[:ORDERS_NAMED_MAX])
    more = len(order_ids) - ORDERS_NAMED_MAX
    return (f"{named} and {more:,} more" if more > 0 else named) or "no order"


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
        yield Finding("I1", seen.order_id, _known_elsewhere(seen), RESTORED)
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
    if seen.status.terminal:
        yield from _ending_findings(seen)
    else:
        yield from _missing_findings(seen)
        if seen.order_id not in parked_orders and (seen.created_at or overdue) < overdue:
            yield _overdue_finding(seen)


RESTORED = (
    "Was a database restored from a backup? What the backup lacks and the stream no longer held is "
    "missing: restore a newer one, or enter it from your own records."
)


def _known_elsewhere(seen: _OrderSeen) -> str:
    known = [
        f"its stock is {seen.reservation}" if seen.reservation else "",
        "the ledger deducts pieces for it" if seen.deducted and not seen.reservation else "",
        f"its shipment is {seen.shipment}" if seen.shipment else "",
    ]
    return f"the orders service does not know it, but {' and '.join(filter(None, known))}"


def _missing_findings(seen: _OrderSeen) -> Iterable[Finding]:
    """What others have built upon must be there, also while the order is on its way."""
    promised = seen.shipment is not None or seen.status is OrderStatus.AWAITING_SHIPMENT
    if seen.reservation is None and promised:
        shipment = f"its shipment is {seen.shipment}" if seen.shipment else f"it is {seen.status}"
        yield Finding("I4", seen.order_id, f"{shipment}, but nothing is reserved for it", RESTORED)
    if seen.reservation is ReservationState.REFUSED and promised:
        yield Finding(
            "I4",
            seen.order_id,
            f"it is {seen.status}, but its stock was refused",
            "Compare `todoku order show` with the inventory's log, and stop its parcel.",
        )
    left = seen.reservation in (ReservationState.SHIPPED, ReservationState.RELEASED)
    if seen.shipment is None and left:
        yield Finding(
            "I4",
            seen.order_id,
            f"its reservation is {seen.reservation}, but it has no shipment",
            RESTORED,
        )


def _overdue_finding(seen: _OrderSeen) -> Finding:
    """The service that is furthest on may say again what it knows. An earlier one must not: where a
    later decision was lost, it would be made anew, on other grounds."""
    asks, advice = None, "See what else is found about it, and repair that first."
    if seen.shipment in (ShipmentStatus.INITIATED, ShipmentStatus.BOOKING):
        asks = "shipping"
        advice = (
            "Its carrier has not given a clear answer: see "
            f"`todoku shipment list --order {seen.order_id}` and shipping's log."
        )
    elif seen.shipment is not None:
        asks, advice = "shipping", _unheard("orders", "how its shipment ended")
    elif seen.reservation is ReservationState.REFUSED and seen.status is OrderStatus.PENDING:
        asks, advice = "inventory", _unheard("orders", "that there was too little stock")
    elif seen.reservation is ReservationState.RESERVED:
        asks, advice = "inventory", _unheard("shipping", "that its stock is reserved")
    elif seen.reservation is None and seen.status is OrderStatus.PENDING:
        asks, advice = "orders", _unheard("inventory", "of it")
    return Finding("I3", seen.order_id, f"still {seen.status} after its time", advice, asks)


def _unheard(reader: str, what: str) -> str:
    return (
        f"The {reader} service has not heard {what}. See with `todoku doctor` that it runs; if it "
        "does, have it said again: `todoku verify --repair`."
    )


def _ending_findings(seen: _OrderSeen) -> Iterable[Finding]:
    assert seen.status is not None
    implied = seen.status.stage.implies
    if seen.reservation is ReservationState.RESERVED:
        told = seen.shipment is not None and seen.shipment in implied["shipment"]
        yield Finding(
            "I5",
            seen.order_id,
            f"the order is {seen.status}, but stock is still reserved for it",
            _unheard("inventory", "how its shipment ended") if told else RESTORED,
            "shipping" if told else None,
        )
    elif seen.reservation not in implied["reservation"]:
        what = (
            f"its reservation is {seen.reservation}"
            if seen.reservation
            else "it has no reservation"
        )
        yield Finding(
            "I4",
            seen.order_id,
            f"the order is {seen.status}, but {what}",
            "Compare `todoku order show` with the inventory's log."
            if seen.reservation
            else RESTORED,
        )
    if seen.shipment not in implied["shipment"]:
        what = f"its shipment is {seen.shipment}" if seen.shipment else "it has no shipment"
        yield Finding(
            "I4",
            seen.order_id,
            f"the order is {seen.status}, but {what}",
            "Compare `todoku order show` with shipping's log." if seen.shipment else RESTORED,
        )
    expected = seen.reserved if seen.reservation is ReservationState.SHIPPED else ()
    if seen.deducted != expected:
        yield Finding(
            "I4",
            seen.order_id,
            _wrong_deduction(seen),
            "Count the shelf, and compare with the ledger's entries for these products.",
        )


def _wrong_deduction(seen: _OrderSeen) -> str:
    reserved = (
        f"{dict(seen.reserved)} {seen.reservation}" if seen.reservation else "nothing reserved"
    )
    deducted = f"deducts {dict(seen.deducted)}" if seen.deducted else "deducts nothing"
    return f"{reserved}, but the ledger {deducted}"
