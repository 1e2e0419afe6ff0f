"""Contribute reservations and the ledger to the audit."""

from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter

import msgspec
from sqlalchemy import Connection, func, select, union

from todoku.audit import (
    SEE_OTHERS,
    AuditPart,
    Finding,
    Known,
    Pieces,
    Problem,
    Wait,
    not_received,
    orders_named,
    pieces_by_owner,
)
from todoku.inventory.domain import NOT_ARRIVED, RESERVATION, ReservationState
from todoku.inventory.store import products, reservations, stock_ledger


class _Seen(msgspec.Struct):
    """The rows about one order."""

    states: frozenset[str] = frozenset()
    lines: Pieces = ()
    address: str | None = None
    deducted: Pieces = ()


def known_reservations(connection: Connection) -> Iterator[Known]:
    """Yield every reservation, and every order for which the ledger deducts pieces."""
    deducted = _deductions(connection)
    lines = connection.execute(
        select(
            reservations.c.order_id,
            reservations.c.product_id,
            reservations.c.quantity,
            reservations.c.cancelled,
            reservations.c.state,
            reservations.c.shipping_address,
        ).order_by(reservations.c.order_id, reservations.c.product_id)
    )
    names: dict[str, str] = {}
    for order_id, group in groupby(lines, key=attrgetter("order_id")):
        rows = list(group)
        seen = _Seen(
            states=frozenset(row.state for row in rows),
            lines=tuple(
                (names.setdefault(row.product_id, row.product_id), row.quantity - row.cancelled)
                for row in rows
                if row.quantity > row.cancelled
            ),
            address=rows[0].shipping_address,
            deducted=deducted.pop(order_id, ()),
        )
        yield _known(order_id, seen)
    for order_id, pieces in deducted.items():
        yield _known(order_id, _Seen(deducted=pieces))


def _deductions(connection: Connection) -> dict[str, Pieces]:
    return pieces_by_owner(
        (row.order_id, row.product_id, -row.quantity)
        for row in connection.execute(
            select(stock_ledger.c.order_id, stock_ledger.c.product_id, stock_ledger.c.quantity)
            .where(stock_ledger.c.order_id.is_not(None))
            .order_by(stock_ledger.c.order_id, stock_ledger.c.product_id)
        )
    )


def _known(order_id: str, seen: _Seen) -> Known:
    status = max(seen.states, default=None)
    return Known(
        order_id=order_id,
        status=status,
        trace="the ledger deducts pieces for it",
        # Of an order that did not arrive, only what was cancelled is known.
        items=None if status in NOT_ARRIVED else seen.lines,
        # A refusal that was restored from the stream has only the products that were short.
        items_partial=status == ReservationState.REFUSED,
        address=seen.address,
        problems=tuple(_problems(status, seen)),
    )


def _problems(status: str | None, seen: _Seen) -> Iterator[Problem]:
    if len(seen.states) > 1:
        yield Problem(
            "I4",
            "its reservation is in several states at once",
            "A reservation is all or nothing: compare its lines with the ledger.",
        )
    expected = seen.lines if status == ReservationState.SHIPPED else ()
    if seen.deducted != expected and len(seen.states) < 2:
        reserved = f"{dict(seen.lines)} {status}" if status else "nothing reserved"
        deducted = f"deducts {dict(seen.deducted)}" if seen.deducted else "deducts nothing"
        yield Problem(
            "I4",
            f"{reserved}, but the ledger {deducted}",
            "Count the stock, and compare it with the ledger entries of these products.",
        )


def ledger_findings(connection: Connection) -> Iterator[Finding]:
    """Check I2: the ledger adds up to the stock on hand, and live reservations to what is reserved."""
    entered = (
        select(stock_ledger.c.product_id, func.sum(stock_ledger.c.quantity).label("pieces"))
        .group_by(stock_ledger.c.product_id)
        .subquery()
    )
    held = (
        select(
            reservations.c.product_id,
            func.sum(reservations.c.quantity - reservations.c.cancelled).label("pieces"),
        )
        .where(reservations.c.state == ReservationState.RESERVED.value)
        .group_by(reservations.c.product_id)
        .subquery()
    )
    named = union(
        select(products.c.id), select(entered.c.product_id), select(held.c.product_id)
    ).subquery()
    found = connection.execute(
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
                "Count the stock; the ledger entries of this product say when the two began to differ.",
            )
        if reserved != live:
            yield Finding(
                "I2",
                product_id,
                f"{reserved} reserved, but live reservations add up to {live}",
                _reserved_for(connection, product_id),
            )
        if not 0 <= reserved <= on_hand:
            yield Finding(
                "I2",
                product_id,
                f"{on_hand} on hand and {reserved} reserved: more is reserved than is there",
                "Restock the product before its parcels are due.",
            )


def _reserved_for(connection: Connection, product_id: str) -> str:
    found = connection.scalars(
        select(reservations.c.order_id)
        .where(
            reservations.c.product_id == product_id,
            reservations.c.state == ReservationState.RESERVED.value,
        )
        .order_by(reservations.c.order_id)
    ).all()
    return (
        f"It is reserved for {orders_named(found)}: check each with `todoku order show`, and find out "
        "what else writes to the database."
    )


def wait(connection: Connection, known: Known, order_status: str) -> Wait | None:
    """Return why an order that has a reservation and no shipment has not ended."""
    cancelling = order_status == "CANCELLING"
    if known.status == ReservationState.RESERVED and cancelling:
        return Wait(not_received("shipping", "its cancellation"), "orders")
    if known.status == ReservationState.RESERVED:
        return Wait(not_received("shipping", "that its stock is reserved"), "inventory")
    if known.status == ReservationState.REFUSED and order_status in ("PENDING", "CANCELLING"):
        return Wait(not_received("orders", "that there is not enough stock"), "inventory")
    if known.status == ReservationState.WAITING:
        return Wait("It waits for stock: restock its products, or cancel it.")
    if known.status == ReservationState.EXPECTED:
        return None
    if known.status in (ReservationState.RELEASED, ReservationState.CANCELLED) and cancelling:
        return Wait(not_received("orders", "that nothing is reserved for it"), "inventory")
    return SEE_OTHERS


inventory_audit = AuditPart(
    entity="reservation",
    lifecycle=RESERVATION,
    known=known_reservations,
    findings=ledger_findings,
    holds={ReservationState.RESERVED: "stock is still reserved for it"},
    patient=(ReservationState.WAITING,),
    wait=wait,
)
