"""Contribute shipments to the audit."""

from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter

from sqlalchemy import Connection, select

from todoku.audit import AuditPart, Known, Pieces, Problem, Wait, not_received, pieces_by_owner
from todoku.shipping.domain import SHIPMENT, ShipmentStatus
from todoku.shipping.store import decode_holds, shipment_items, shipments


def known_shipments(connection: Connection) -> Iterator[Known]:
    """Yield the first shipment of every order, with its items."""
    pieces = pieces_by_owner(
        (row.shipment_id, row.product_id, row.quantity)
        for row in connection.execute(
            select(
                shipment_items.c.shipment_id,
                shipment_items.c.product_id,
                shipment_items.c.quantity,
            ).order_by(shipment_items.c.shipment_id, shipment_items.c.product_id)
        )
    )
    parcels = connection.execute(
        select(
            shipments.c.id, shipments.c.order_id, shipments.c.status, shipments.c.shipping_address
        ).order_by(shipments.c.order_id, shipments.c.number)
    )
    for order_id, group in groupby(parcels, key=attrgetter("order_id")):
        rows = list(group)
        first = rows[0]
        yield known_shipment(
            order_id,
            ShipmentStatus(first.status),
            pieces.get(first.id, ()),
            first.shipping_address,
            problems=() if len(rows) == 1 else (_several(len(rows)),),
        )


def known_shipment(
    order_id: str,
    status: ShipmentStatus,
    items: Pieces,
    address: str,
    problems: tuple[Problem, ...] = (),
) -> Known:
    """Return what shipping knows about an order that has a shipment.

    One that never was open has neither items nor an address; one that was restored from its ending alone
    has no address. Any other that lacks them is wrong.
    """
    perhaps_never_open = status in (ShipmentStatus.EXPECTED, ShipmentStatus.CANCELLED)
    return Known(
        order_id=order_id,
        status=status.value,
        items=None if perhaps_never_open and not items else items,
        address=None if (perhaps_never_open or status.terminal) and not address else address,
        problems=problems,
    )


def _several(count: int) -> Problem:
    return Problem(
        "I4",
        f"it has {count} shipments",
        "Ask the carrier which of them it has, and stop the others.",
    )


def wait(connection: Connection, known: Known, order_status: str) -> Wait | None:
    """Return why an order that has a shipment has not ended."""
    if known.status == ShipmentStatus.EXPECTED:
        return None
    if known.status == ShipmentStatus.CANCELLED:
        advice = not_received("inventory or the orders", "that it is cancelled")
        return Wait(advice, ("shipping", "inventory"))
    if known.status == ShipmentStatus.INITIATED and order_status == "CANCELLING":
        return Wait(not_received("shipping", "its cancellation"), "orders")
    if known.status not in (ShipmentStatus.INITIATED, ShipmentStatus.BOOKING):
        return Wait(not_received("orders", "how its shipment ended"), "shipping")
    row = connection.execute(
        select(shipments.c.attempts, shipments.c.reason, shipments.c.due_at, shipments.c.holds)
        .where(shipments.c.order_id == known.order_id)
        .order_by(shipments.c.number)
        .limit(1)
    ).one()
    if row.due_at is None:
        holders = ", ".join(h.holder for h in decode_holds(row.holds) if h.is_open)
        advice = f"It is held by {holders}. Release its holds with `todoku order release`"
        return Wait(f"{advice}, see `todoku order show {known.order_id}`.", "orders")
    see = f"See `todoku shipment list --order {known.order_id}`"
    if not row.attempts:
        return Wait(
            f"Its carrier was not called yet; the call is due at {row.due_at:%Y-%m-%d %H:%M:%S} UTC. "
            f"{see}, and check with `todoku doctor` that shipping runs.",
            "shipping",
        )
    calls = "1 call" if row.attempts == 1 else f"{row.attempts:,} calls"
    answer = f" (last answer: {row.reason})" if row.reason else ""
    return Wait(
        f"Its carrier has not accepted or rejected the parcel after {calls}{answer}. {see} and the log of "
        "the shipping service.",
        "shipping",
    )


shipping_audit = AuditPart(entity="shipment", lifecycle=SHIPMENT, known=known_shipments, wait=wait)
