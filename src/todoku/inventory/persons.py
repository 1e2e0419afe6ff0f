"""What inventory contributes to the export and the erasure of a person: the addresses of reservations."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from todoku.database import Many, among
from todoku.engine import IsPerson, Persons, rows_about, scrubbed
from todoku.inventory.store import reservations, stock_ledger

_blank = Many(
    update(reservations)
    .where(
        reservations.c.order_id == bindparam("of_order"),
        reservations.c.product_id == bindparam("of_product"),
        reservations.c.location == bindparam("at_location"),
    )
    .values({name: bindparam(name) for name in ("shipping_address", "changes", "holds", "context")})
)


def erase(connection: Connection, order_ids: Sequence[str], is_person: IsPerson) -> None:
    """Erase where the reserved pieces were to go, and who changed or held the orders."""
    columns = reservations.c
    found = select(
        columns.order_id, columns.product_id, columns.location, columns.changes, columns.holds
    ).where(among(columns.order_id, "ids"))
    rows = [
        {
            "of_order": row.order_id,
            "of_product": row.product_id,
            "at_location": row.location,
            "shipping_address": "",
            "changes": scrubbed(row.changes, is_person),
            "holds": scrubbed(row.holds, is_person),
            "context": None,
        }
        for row in connection.execute(found, {"ids": list(order_ids)}).all()
    ]
    _blank(connection, rows)


def export(connection: Connection, order_ids: Sequence[str]) -> Mapping[str, Any]:
    """Return everything that is stored about these orders."""
    return {
        "reservations": rows_about(connection, reservations, reservations.c.order_id, order_ids),
        "stock_ledger": rows_about(connection, stock_ledger, stock_ledger.c.order_id, order_ids),
    }


INVENTORY_PERSONS: Final = Persons(erase=erase, export=export)
