"""What shipping contributes to the export and the erasure of a person: the addresses of shipments."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import Connection, bindparam, select, update

from todoku.database import Many, among
from todoku.engine import IsPerson, Persons, rows_about, scrubbed
from todoku.shipping.store import shipment_items, shipments

_blank = Many(
    update(shipments)
    .where(shipments.c.id == bindparam("key"))
    .values({name: bindparam(name) for name in ("shipping_address", "changes", "holds", "context")})
)


def erase(connection: Connection, order_ids: Sequence[str], is_person: IsPerson) -> None:
    """Erase where the parcels went, and who changed or held the orders."""
    columns = shipments.c
    found = select(columns.id, columns.changes, columns.holds).where(among(columns.order_id, "ids"))
    rows = [
        {
            "key": row.id,
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
    found = rows_about(connection, shipments, shipments.c.order_id, order_ids)
    ids = [row["id"] for row in found]
    return {
        "shipments": found,
        "shipment_items": rows_about(connection, shipment_items, shipment_items.c.shipment_id, ids),
    }


SHIPPING_PERSONS: Final = Persons(erase=erase, export=export)
