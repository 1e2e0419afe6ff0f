"""Contribute the orders to the audit: which were accepted, and where each is."""

from collections.abc import Iterator

from sqlalchemy import Connection, select

from todoku.audit import (
    SEE_OTHERS,
    AuditPart,
    Known,
    KnownOrder,
    Pieces,
    Problem,
    Wait,
    not_received,
    pieces_by_owner,
)
from todoku.contracts import OrderCreatedEvent
from todoku.engine import ERASED
from todoku.orders.changes import cancelled_lines, without
from todoku.orders.domain import ORDER, OrderStatus
from todoku.orders.store import decode_changes, order_events, order_items, orders

NO_BEGINNING = Problem(
    "I1",
    "its history does not begin with its OrderCreatedEvent",
    "This program did not write the order: find out what else writes to the database.",
)


def known_orders(connection: Connection) -> Iterator[KnownOrder]:
    """Yield every order with its items."""
    pieces = pieces_by_owner(
        (row.order_id, row.product_id, row.quantity)
        for row in connection.execute(
            select(
                order_items.c.order_id, order_items.c.product_id, order_items.c.quantity
            ).order_by(order_items.c.order_id, order_items.c.product_id)
        )
    )
    created = set(
        connection.scalars(
            select(order_events.c.order_id).where(order_events.c.type == OrderCreatedEvent.__name__)
        )
    )
    for row in connection.execute(
        select(
            orders.c.id,
            orders.c.status,
            orders.c.user_id,
            orders.c.shipping_address,
            orders.c.created_at,
            orders.c.updated_at,
            orders.c.saga_version,
            orders.c.changes,
            orders.c.deadline,
            orders.c.held_since,
        )
    ):
        items = pieces.get(row.id, ())
        yield KnownOrder(
            order_id=row.id,
            status=row.status,
            items=items if row.changes is None else _not_cancelled(items, row.changes),
            # One that was restored from its ending alone has no address, nor has one of an erased person.
            address=row.shipping_address if row.id in created and row.user_id != ERASED else None,
            problems=() if row.id in created else (NO_BEGINNING,),
            accepted_at=row.created_at,
            changed_at=row.updated_at,
            saga_version=row.saga_version,
            deadline=row.deadline,
            held=row.held_since is not None,
        )


def _not_cancelled(items: Pieces, changes: str) -> Pieces:
    """Return the pieces of an order without the lines that were cancelled."""
    left = without(dict(items), cancelled_lines(decode_changes(changes)))
    return tuple((product_id, quantity) for product_id, quantity in left.items() if quantity)


def wait(connection: Connection, known: Known, order_status: str) -> Wait | None:
    """Return why an order that no other service knows has not ended."""
    if order_status == OrderStatus.PENDING:
        return Wait(not_received("inventory", "the order"), "orders")
    if order_status == OrderStatus.CANCELLING:
        return Wait(not_received("shipping", "its cancellation"), "orders")
    return SEE_OTHERS


orders_audit = AuditPart(entity="order", lifecycle=ORDER, known=known_orders, wait=wait)
