"""Change the amounts of products by differences, so that a batch locks no product while it decides.

All reservations meet in the rows of products. A batch that only moves stock reads them without locks,
decides, and at the end of its transaction adds the differences to what is there then. That is right as long
as the decisions would have been the same: nobody waits for the product, and so many pieces are available
that no order of the batch is refused and no threshold of low stock is reached. If that is not so when the
batch is decided, all its products are locked. If it is no longer so at the end, the row is given an amount
that its CHECK refuses, and the writer decides anew, with locks.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Table,
    and_,
    bindparam,
    case,
    func,
    literal_column,
    select,
    update,
)

from todoku.contracts import (
    CancellationConfirmedEvent,
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
)
from todoku.database import ConstraintViolated, Integer64, Many, Query, among, to_microseconds
from todoku.inventory.domain import STOCK_REQUESTS, Product

_REQUESTS: Final[frozenset[type[Any]]] = frozenset(STOCK_REQUESTS.values())
_MOVES: Final = _REQUESTS | {
    ShipmentCompletedEvent,
    ShipmentFailedEvent,
    CancellationConfirmedEvent,
}
"""What only moves stock of products that nobody waits for. Only requests take of what is available."""

NO_THRESHOLD: Final = -1
"""Stands for no threshold of low stock, which is never negative."""

Floors = Mapping[str, int]
"""How many pieces of each product have to be available for the decisions to stay as they are."""


class Amounts:
    """Writes how the stock of products has moved."""

    def __init__(self, products: Table) -> None:
        columns = products.c
        as_read = and_(
            columns.queue.is_(None),
            func.coalesce(columns.low_stock_threshold, literal_column(str(NO_THRESHOLD)))
            == bindparam("threshold", type_=Integer64),
            columns.stock_quantity - columns.reserved_quantity
            >= bindparam("floor", type_=Integer64),
        )
        moved = columns.reserved_quantity + bindparam("reserved", type_=Integer64)
        self._lock = Query(
            select(columns.id)
            .where(among(columns.id, "ids"))
            .order_by(columns.id)
            .with_for_update()
        )
        self._move = Many(
            update(products)
            .where(columns.id == bindparam("key"))
            .values(
                stock_quantity=columns.stock_quantity + bindparam("on_hand", type_=Integer64),
                reserved_quantity=case((as_read, moved), else_=literal_column("-1")),
                updated_at=bindparam("moved_at", type_=Integer64),
            )
        )

    def only_move(self, subjects: Iterable[Any]) -> bool:
        """Return whether a batch about these subjects does nothing else with products than to move stock, if
        nobody waits for them."""
        return all(type(subject) in _MOVES for subject in subjects)

    def floors(self, subjects: Iterable[Any], found: Mapping[str, Product]) -> Floors | None:
        """Return the floors of the products that were found; None if one has less than that, or is waited
        for: then what the batch decides depends on its exact amounts."""
        wanted = _wanted(subjects)
        floors: dict[str, int] = {}
        for key, product in found.items():
            floor = wanted.get(key, 0)
            if floor and product.low_stock_threshold is not None:
                floor += product.low_stock_threshold + 1
            if product.queue is not None or product.available < floor:
                return None
            floors[key] = floor
        return floors

    def save(
        self,
        connection: Connection,
        floors: Floors,
        before: Mapping[str, Product],
        after: Mapping[str, Product],
    ) -> None:
        """Add the differences. Call it last: from here to the commit the products are locked, in the
        sequence in which all lock them. Raises `ConstraintViolated`, if need be at the commit, unless
        the products are above their floors."""
        rows = [
            _row(before[key], product, floors[key])
            for key, product in sorted(after.items())
            if product is not before.get(key)
        ]
        if rows:
            self._lock.send(connection, ids=[row["key"] for row in rows])
            self._move(connection, rows)


def require_only_moved(before: Mapping[str, Product], after: Mapping[str, Product]) -> None:
    """Raise `ConstraintViolated` if anything but amounts has changed: that needs locks."""
    for key, product in after.items():
        old = before.get(key)
        if product is old:
            continue
        if old is None or _without_amounts(product) != _without_amounts(old):
            raise ConstraintViolated(f"the product {key} changes, and is not locked")


def _without_amounts(product: Product) -> Sequence[Any]:
    return (product.version, product.threshold_version, product.queue, product.archived)


def _wanted(subjects: Iterable[Any]) -> dict[str, int]:
    """Return how many pieces of each product the orders of a batch want at most."""
    wanted: dict[str, int] = {}
    for subject in subjects:
        if type(subject) in _REQUESTS:
            for item in subject.items:
                wanted[item.product_id] = wanted.get(item.product_id, 0) + item.quantity
    return wanted


def _row(before: Product, after: Product, floor: int) -> dict[str, Any]:
    threshold = before.low_stock_threshold
    return {
        "key": after.id,
        "on_hand": after.on_hand - before.on_hand,
        "reserved": after.reserved - before.reserved,
        "moved_at": to_microseconds(after.updated_at),
        "threshold": NO_THRESHOLD if threshold is None else threshold,
        "floor": floor,
    }
